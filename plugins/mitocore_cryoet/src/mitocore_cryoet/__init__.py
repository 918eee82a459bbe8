"""Networks for membranes in electron tomograms."""
