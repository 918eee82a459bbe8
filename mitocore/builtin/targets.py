"""What a head should predict, from labels."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mitocore.geometry import VoxelSize
from mitocore.interfaces import Labels, Target
from mitocore.specs import ArraySpec, Kind, Need


class Foreground(Target):
    """1 inside objects, 0 outside and where the label says "ignore" (voxels that the trainer gives the weight 0)."""

    label: Literal["instances", "semantic"] = "instances"
    """Which label array is read."""
    values: tuple[int, ...] = ()
    """Ids that count as foreground, such as one class of several; empty: all but 0."""

    def needs(self) -> Mapping[str, Need]:
        kinds = {"instances": (Kind.INSTANCE,), "semantic": (Kind.SEMANTIC, Kind.MASK)}
        return {self.label: Need(kinds[self.label])}

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.PROBABILITY, ("foreground",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        del voxel_size
        ids = labels[self.label]
        inside = np.isin(ids, self.values) if self.values else ids > 0
        if ids.dtype.kind != "b":
            inside &= ids != np.iinfo(ids.dtype).max
        return inside[None].astype(np.float32)
