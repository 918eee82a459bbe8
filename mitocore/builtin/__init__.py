"""Components of the core, registered like those of any plugin."""
