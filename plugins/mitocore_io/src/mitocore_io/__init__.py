"""File formats for mitocore."""
