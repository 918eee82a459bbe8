"""Torch networks; imported by `Model.build` only."""
