"""Objects in a label array, as targets that look at shapes see them."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.targets.lengths import Scale, scale_of
from mitocore.builtin.targets.morphology import OfObjects
from mitocore.geometry import Shape, VoxelSize
from mitocore.specs import Kind, Need

Ids = NDArray[np.unsignedinteger]
"""Objects 1, 2, … of one array; 0 where there is none, or where the label says "ignore"."""


class ShapeTarget(OfObjects):
    """A target that looks at the shape of objects, slice by slice or in three dimensions."""

    per_slice: bool = False
    """Each plane along z on its own, as if there were no other."""
    anisotropy: Annotated[float, Field(gt=0)] | None = None
    """How many times longer a voxel is along z than in the plane. Left out: as the voxel size of the volume says."""

    def needs(self) -> dict[str, Need]:
        return {self.label: Need((Kind.INSTANCE, Kind.SEMANTIC, Kind.MASK))}

    def scale(self, voxel_size: VoxelSize | None) -> Scale:
        """What one voxel measures."""
        return scale_of(voxel_size, self.anisotropy, self.per_slice)

    def within(self, length: float | str, voxel_size: VoxelSize | None, more: int = 0) -> Shape:
        """The halo of what looks at shapes as far as a length and so many voxels `more`."""
        z, y, x = self.scale(voxel_size).reach(length)
        return self.beyond((0 if self.per_slice else z + more, y + more, x + more))


def components(ids: Ids) -> Ids:
    """Objects that are connected, at least by a corner: an id that lies in several places becomes as many objects."""
    import cc3d

    found: Ids = cc3d.connected_components(ids, connectivity=3**ids.ndim - 1)
    return found


def slicewise(function: Callable[..., NDArray[Any]], ids: Ids, *options: Any, per_slice: bool) -> NDArray[Any]:
    """`function(ids, *options)` of the volume, or of each plane along z; channels, if any, come first."""
    if not per_slice:
        return function(ids, *options)
    return np.stack([function(plane, *options) for plane in ids], axis=-3)


def filled(ids: Ids, smaller_than: int) -> Ids:
    """Objects without holes of fewer voxels. Array of two or three axes.

    A hole is background that one object alone encloses, with no way out along faces of voxels; what touches the border
    of the array may go on behind it, and is none.
    """
    import cc3d

    if smaller_than <= 1:
        return ids
    holes = cc3d.connected_components(ids == 0, connectivity=2 * ids.ndim)
    small = np.bincount(holes.ravel()) < smaller_than
    small[0] = False
    for axis in range(ids.ndim):
        small[holes.take([0, -1], axis)] = False
    places = np.nonzero(small[holes])
    hole = holes[places]
    least = np.full(len(small), np.iinfo(ids.dtype).max, ids.dtype)
    most = np.zeros(len(small), ids.dtype)
    for axis in range(ids.ndim):
        for step in (-1, 1):
            beside = ids[tuple(place + step * (axis == other) for other, place in enumerate(places))]
            np.minimum.at(least, hole, np.where(beside == 0, least.dtype.type(np.iinfo(ids.dtype).max), beside))
            np.maximum.at(most, hole, beside)
    result = ids.copy()
    result[places] = np.where(least == most, most, 0)[hole]
    return result


def eroded(ids: Ids, voxels: int) -> Ids:
    """Objects without the voxels nearest to their surface: as often as stated, those beside another object or none."""
    for _ in range(voxels):
        kept = np.ones(ids.shape, bool)
        for axis in range(ids.ndim):
            same = np.diff(ids, axis=axis) == 0
            rest = [(0, 0)] * axis, [(0, 0)] * (ids.ndim - axis - 1)
            kept &= np.pad(same, [*rest[0], (0, 1), *rest[1]], constant_values=True)
            kept &= np.pad(same, [*rest[0], (1, 0), *rest[1]], constant_values=True)
        ids = np.where(kept, ids, ids.dtype.type(0))
    return ids
