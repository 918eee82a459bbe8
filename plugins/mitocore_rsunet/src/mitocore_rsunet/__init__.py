"""Networks and instance post-processing for mitochondria."""
