"""What a TOML file may say."""
