"""The block-wise engine: torch-free, exact, resumable."""
