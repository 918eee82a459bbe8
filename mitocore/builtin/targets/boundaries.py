"""Where one object ends and another, or the background, begins."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from mitocore.builtin.targets.morphology import OfObjects, Rows, WidthOption, extent, highest, partner, several, window
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces import Labels
from mitocore.specs import ArraySpec, Kind


class Boundary(OfObjects):
    """1 at the boundaries of objects, 0 elsewhere.

    The one channel is "boundary". A voxel to ignore is no boundary and makes none: nobody knows what it is.

    "contour" is what PyTorch Connectomics calls 4-t-1, and with a width of 1 the contour of empanada; "contacts" is
    its 4-t-0.
    """

    side: Literal["both", "inner", "outer", "contacts", "contour"] = "both"
    """Of voxels that have another id within `width`: "both", all; "inner", those of objects; "outer", those that have
    another object there, so background beside an object, and objects where they touch. "contacts": any voxel with two
    objects within `width`. "contour": voxels whose neighbours to both sides differ along y or x (or z, unless
    `per_slice`), grown by `width`."""
    width: WidthOption = 1
    """Voxels (counted along the axes, so that windows are square), or a length such as "30 nm" (windows are round)."""
    per_slice: bool = True
    """Whether every slice is looked at on its own; else in three dimensions."""

    @model_validator(mode="after")
    def _some_width(self) -> "Boundary":
        if self.width == 0 and self.side != "contour":
            raise ValueError(
                f'a boundary 0 voxels wide is empty where side is "{self.side}"; width = 1 is the thinnest'
            )
        return self

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        z, y, x = extent(self._window(voxel_size))
        step = int(self.side == "contour")
        return self.beyond((z + (step and not self.per_slice), y + step, x + step))

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.PROBABILITY, ("boundary",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        rows = self._window(voxel_size)
        ids, counted = self.objects(labels)
        if self.side == "contacts":
            found = several(ids, rows)
        elif self.side == "outer":
            found = several(ids, rows) | ((ids == 0) & (highest(ids, rows) > 0))
        else:
            named = np.where(counted, ids + ids.dtype.type(1), ids.dtype.type(0))  # background is an id like others
            if self.side == "contour":
                found = highest(self._steps(named), rows)
            else:
                found = several(named, rows)
                if self.side == "inner":
                    found &= ids > 0
        return (found & counted)[None].astype(np.float32)

    def _window(self, voxel_size: VoxelSize | None) -> Rows:
        return window(self.width, voxel_size, per_slice=self.per_slice)

    def _steps(self, named: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
        """Where the voxels before and after differ, both known."""
        found = np.zeros(named.shape, bool)
        for offset in ((0, 1, 0), (0, 0, 1)) if self.per_slice else ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            after = partner(named, offset)
            before = partner(named, (-offset[0], -offset[1], -offset[2]))
            found |= (after != before) & (after > 0) & (before > 0)
        return found
