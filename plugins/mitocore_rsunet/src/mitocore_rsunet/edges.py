"""Affinities as edges between voxels, whichever side they are stored at; what all steps on affinities share."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore import ArraySpec, Block, Kind, Need, Shape, WiringError, as_shape
from mitocore_rsunet.masks import above
from mitocore_rsunet.small import MinSize

Share = Annotated[float, Field(ge=0, lt=1)]
"""A threshold of values between 0 and 1."""
BACK: tuple[Shape, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""To the voxel before along z, y and x."""


class FromAffinities(MinSize):
    """What steps on affinities have in common: their inputs, and where channels lead."""

    offsets: tuple[Shape, ...] | None = None
    """Where each channel leads, in voxels (z, y, x), if the array does not say so, such as a file of another program.
    A value at v is that of v and v + offset, so the sign is the side it is stored at: [-1, 0, 0] for "v and the voxel
    before it"; the same pairs stored at the voxel before (PyTorch Connectomics' other side) are [1, 0, 0]."""
    foreground_threshold: Share = 0.5
    """With a foreground wired: only voxels above this belong to objects. Not for a mask."""

    def needs(self) -> Mapping[str, Need]:
        foreground = Need((Kind.PROBABILITY, Kind.MASK), channels=("foreground",), optional=True)
        return {"affinities": Need((Kind.AFFINITY,)), "foreground": foreground}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        self.accept(self._offsets(given["affinities"]))
        return {"instances": ArraySpec(Kind.INSTANCE)}

    def accept(self, offsets: Sequence[Shape]) -> None:
        """Refuse affinities that lack what the step needs.

        Raises
        ------
        WiringError
            If no channel leads to a neighbour.
        """
        if not any(map(is_near, offsets)):
            raise WiringError(
                f"no channel of the affinities leads to a voxel beside; they lead to {_listed(offsets)}",
                hint="affinities with offsets [-1, 0, 0], [0, -1, 0] and [0, 0, -1] among them",
            )

    def reading(self, given: Mapping[str, ArraySpec]) -> Self:
        return self.model_copy(update={"offsets": self._offsets(given["affinities"])})

    def steps(self) -> tuple[Shape, ...]:
        """Where each channel leads; known once a run is planned."""
        return self.offsets or ()

    def foreground(self, block: Block) -> NDArray[np.bool_] | None:
        """(z, y, x) over `block.read`; None if no foreground is wired."""
        if "foreground" not in block.arrays:
            return None
        return above(block["foreground"][0], self.foreground_threshold)

    def near(self, block: Block) -> NDArray[np.float32]:
        """The edges between neighbours over `block.read`, as `nearest` gives them, 0 where one is no foreground."""
        edges, inside = nearest(block["affinities"], self.steps()), self.foreground(block)
        if inside is not None:
            for edge, back in zip(edges, BACK, strict=True):
                later, earlier = ends(inside.shape, back)
                edge[later][~(inside[later] & inside[earlier])] = 0
        return edges

    def _offsets(self, affinities: ArraySpec) -> tuple[Shape, ...]:
        stated, said, channels = self.offsets, affinities.offsets, len(affinities.channels)
        if stated and said and stated != said:
            raise WiringError(
                f"offsets = {_listed(stated)} contradicts the affinities, which lead to {_listed(said)}",
                hint="leave offsets out",
            )
        offsets = stated or said
        if len(offsets) != channels:
            problem = f"offsets = {_listed(offsets)} does not fit {channels} channels" if offsets else (
                f"nothing says where the {channels} channels of the affinities lead"
            )  # fmt: skip
            example = ([-1, 0, 0], [0, -1, 0], [0, 0, -1])[: min(channels, 3)]
            more = ", …" if channels > 3 else ""
            raise WiringError(problem, hint=f"offsets = [{', '.join(map(str, example))}{more}]: one for each channel")
        return offsets


def is_near(offset: Shape) -> bool:
    """Whether an offset leads to a voxel that shares a face."""
    return sum(map(abs, offset)) == 1


def turned(channel: NDArray[Any], offset: Shape) -> tuple[NDArray[np.float32], Shape]:
    """The pairs of a channel (z, y, x), stored at the later voxel in raster order; and the offset, which leads back.

    Pairs of which one voxel lies outside, and those whose value is NaN, are 0.

    >>> turned(np.array([[[0.1, 0.2, 0.3]]]), (0, 0, 1))
    (array([[[0. , 0.1, 0.2]]], dtype=float32), (0, 0, -1))
    """
    forward = offset > (0, 0, 0)
    back = as_shape(-step if forward else step for step in offset)
    later, earlier = ends(channel.shape, back)
    found = np.zeros(channel.shape, np.float32)
    found[later] = np.nan_to_num(channel[earlier if forward else later])
    return found, back


def ends(shape: tuple[int, ...], back: Shape) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where in an array the two voxels of all pairs lie that are `back` apart: those at which they are stored, others.

    >>> ends((4, 5, 6), (0, -2, 0))[0]
    (slice(0, 4, None), slice(2, 5, None), slice(0, 6, None))
    """
    later = tuple(slice(min(max(0, -s), n), max(n - max(0, s), 0)) for s, n in zip(back, shape, strict=True))
    earlier = tuple(slice(max(p.start + s, 0), max(p.stop + s, 0)) for p, s in zip(later, back, strict=True))
    return later, earlier


def nearest(affinities: NDArray[Any], offsets: Sequence[Shape]) -> NDArray[np.float32]:
    """The edges between neighbours: (3, z, y, x), of each voxel and the one before it along z, y and x.

    0 where there is none before, or no channel; the larger where two channels hold the same pair. Long-range channels
    do not count. This is how waterz wants them, too.

    >>> nearest(np.array([[[[0.1, 0.2, 0.3]]]]), [(0, 0, 1)])[2]
    array([[[0. , 0.1, 0.2]]], dtype=float32)
    """
    found = np.zeros((3, *affinities.shape[1:]), np.float32)
    for channel, offset in zip(affinities, offsets, strict=True):
        if is_near(offset):
            edges = found[axis_of(offset)]
            np.maximum(edges, turned(channel, offset)[0], out=edges)
    return found


def axis_of(offset: Shape) -> int:
    """The axis along which an offset leads to a voxel beside."""
    return next(axis for axis in range(3) if offset[axis])


def met(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels (z, y, x) at which at least one edge ends, of edges as `nearest` gives them.

    >>> met(np.array([[[[0, 0, 0]]], [[[0, 0, 0]]], [[[0, 1, 0]]]], bool))
    array([[[ True,  True, False]]])
    """
    found: NDArray[np.bool_] = np.logical_or.reduce(edges)
    for edge, back in zip(edges, BACK, strict=True):
        later, earlier = ends(found.shape, back)
        found[earlier] |= edge[later]
    return found


def _listed(offsets: Sequence[Shape]) -> str:
    return str([list(offset) for offset in offsets])
