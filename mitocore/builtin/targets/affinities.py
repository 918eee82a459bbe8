"""Whether two voxels belong to one object."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from mitocore.builtin.targets.morphology import OfObjects, partner
from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import Labels
from mitocore.specs import ArraySpec, Kind, channel_of


def _some_way(offset: Shape) -> Shape:
    if offset == (0, 0, 0):
        raise ValueError("offset [0, 0, 0] leads nowhere; write steps along z, y and x, such as [-1, 0, 0]")
    return offset


class Affinity(OfObjects):
    """For each offset, 1 where two voxels that lie this far apart belong to one object.

    Channels are named after the offsets that `gives` states, such as "z-1" or "y-5". There, whatever `edge` says, a
    value stored at v is that of v and v + offset, so the sign of an offset is the side: `edge = "destination"` turns
    signs. Only `edge = "middle"` cannot be said so; it gives a probability without offsets ("z±1").

    Where v or its partner is to be ignored, the value is 0; the weight map `known` leaves such pairs out of the loss.

    >>> Affinity(offsets=((1, 0, 0), (0, -5, 2)), edge="destination").gives().channels
    ('z-1', 'y+5x-2')
    """

    offsets: Annotated[tuple[Annotated[Shape, AfterValidator(_some_way)], ...], Field(min_length=1)] = (
        (-1, 0, 0),
        (0, -1, 0),
        (0, 0, -1),
    )
    """Steps (z, y, x) in voxels, one channel each; nearest neighbours, or farther for long-range affinities."""
    edge: Literal["source", "destination", "middle"] = "source"
    """Where the value of a pair is stored: "source", at v for v and v + offset; "destination", at v + offset for the
    same two; "middle", at v for v - offset and v + offset (the symmetric form, 2-z-y-x-v2 of PyTorch Connectomics)."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        return self.beyond(as_shape(max(map(abs, steps)) for steps in zip(*self.offsets, strict=True)))

    def gives(self) -> ArraySpec:
        if self.edge == "middle":
            return ArraySpec(Kind.PROBABILITY, tuple(map(_both_ways, self.offsets)))
        offsets = self._as_stored()
        return ArraySpec(Kind.AFFINITY, tuple(map(channel_of, offsets)), offsets)

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        del voxel_size
        ids, _ = self.objects(labels)
        found = np.empty((len(self.offsets), *ids.shape), np.float32)
        for channel, offset in zip(found, self._as_stored(), strict=True):
            there = partner(ids, offset)
            here = partner(ids, _opposite(offset)) if self.edge == "middle" else ids
            np.copyto(channel, (here == there) & (here > 0))
        return found

    def _as_stored(self) -> tuple[Shape, ...]:
        return tuple(map(_opposite, self.offsets)) if self.edge == "destination" else self.offsets


def _opposite(offset: Shape) -> Shape:
    return as_shape(-step for step in offset)


def _both_ways(offset: Shape) -> str:
    return "".join(f"{axis}±{abs(step)}" for axis, step in zip("zyx", offset, strict=True) if step)
