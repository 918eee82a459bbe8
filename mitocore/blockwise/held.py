"""What the outputs of a step are stored as, and what blocks hold while they are at work."""

from collections.abc import Mapping

import numpy as np

from mitocore.blockwise.arrays import voxel_bytes
from mitocore.specs import ArraySpec, Kind

WORKING = 8
"""Bytes per voxel that a component works with, beside what it is given and gives: two float32, or one id."""
IDS = 12
"""Bytes per voxel of local and of provisional ids."""


def stored_as(gives: Mapping[str, ArraySpec], count: int) -> dict[str, str]:
    """The dtype that each output is stored as, if there are `count` objects."""
    ids_as = "uint32" if count < np.iinfo(np.uint32).max else "uint64"  # the maximum itself means "ignore"
    return {array: ids_as if spec.kind is Kind.INSTANCE else spec.stored for array, spec in gives.items()}


def given_bytes(gives: Mapping[str, ArraySpec]) -> int:
    """Bytes per voxel of all outputs, as components give them."""
    return sum(map(voxel_bytes, gives.values()))
