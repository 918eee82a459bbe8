"""What all patches of a grid hold, however much they overlap, from labels that are read once.

The faces of the patches cut a region into cells, so that every patch is a whole number of them. What is counted is
counted per cell while labels stream by; a patch is the sum, or the union, of its cells.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.contingency import ContingencyTable
from mitocore.geometry import Shape, as_shape

NO_ID = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Axis:
    """Patches along one axis of a region."""

    length: int
    patch: int
    stride: int

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First voxel of each patch; the last patch is tucked in, so that it ends where the region does."""
        return patch_starts(self.length, self.patch, self.stride)

    @cached_property
    def cuts(self) -> NDArray[np.int64]:
        """Faces of the cells."""
        return np.unique([0, *self.starts, *(self.starts + self.patch), self.length])

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """First cell of each patch."""
        return np.searchsorted(self.cuts, self.starts)

    @cached_property
    def last(self) -> NDArray[np.int64]:
        """Cell after the last of each patch."""
        return np.searchsorted(self.cuts, self.starts + self.patch)

    def cells(self, start: int, stop: int) -> slice:
        """The cells that voxels `start` to `stop` lie in."""
        first = np.searchsorted(self.cuts, start, side="right") - 1
        return slice(int(first), int(np.searchsorted(self.cuts, stop, side="left")))


def patch_starts(length: int, patch: int, stride: int) -> NDArray[np.int64]:
    """First voxels of patches along an axis, the last one tucked in; none if the axis is too short.

    >>> patch_starts(10, 4, 3).tolist(), patch_starts(11, 4, 3).tolist(), patch_starts(3, 4, 3).tolist()
    ([0, 3, 6], [0, 3, 6, 7], [])
    """
    if length < patch:
        return np.zeros(0, np.int64)
    number = -(-(length - patch) // stride) + 1
    return np.minimum(np.arange(number) * stride, length - patch)


@dataclass(frozen=True)
class Lattice:
    """The cells of a region."""

    axes: tuple[Axis, Axis, Axis]

    @property
    def shape(self) -> Shape:
        """Cells along each axis."""
        return as_shape(len(axis.cuts) - 1 for axis in self.axes)

    def place(self, offset: Shape, shape: Shape) -> tuple[slice, slice, slice]:
        """The cells that a box lies in."""
        z, y, x = (axis.cells(a, a + n) for axis, a, n in zip(self.axes, offset, shape, strict=True))
        return z, y, x

    def add(self, counts: NDArray[np.int64], values: NDArray[np.bool_], offset: Shape) -> None:
        """Count the voxels that are set, per cell, of a box that begins at `offset`."""
        place = self.place(offset, as_shape(values.shape))
        sums: NDArray[np.int64] = values.view(np.uint8)
        for number, (axis, cells, start) in reversed(list(enumerate(zip(self.axes, place, offset, strict=True)))):
            begins = np.maximum(axis.cuts[cells], start) - start
            sums = np.add.reduceat(sums, begins, axis=number, dtype=np.int64)
        counts[place] += sums

    def totals(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum of the cells of every patch."""
        for number, axis in enumerate(self.axes):
            sums = np.insert(np.cumsum(counts, axis=number), 0, 0, axis=number)
            counts = np.take(sums, axis.last, number) - np.take(sums, axis.first, number)
        return counts

    def note(self, smallest: NDArray[np.uint64], ids: NDArray[np.uint64], offset: Shape) -> None:
        """Take the ids of a box into account; NO_ID is none. `smallest` (cells …, k) holds k distinct ids per cell."""
        place = self.place(offset, as_shape(ids.shape))
        shape = smallest[place].shape
        steps = (shape[1] * shape[2], shape[2], 1)
        cell = np.zeros(ids.shape, np.int64)
        for number, (axis, cells, start) in enumerate(zip(self.axes, place, offset, strict=True)):
            voxels = np.arange(start, start + ids.shape[number])
            along = (np.searchsorted(axis.cuts, voxels, side="right") - 1 - cells.start) * steps[number]
            cell += along.reshape([-1 if axis_of == number else 1 for axis_of in range(3)])
        table = ContingencyTable.of(ids, cell)
        there = table.predicted != NO_ID
        found, at = table.predicted[there], table.truth[there].astype(np.int64)
        order = np.argsort(at, kind="stable")  # ids ascend within a cell
        found, at = found[order], at[order]
        rank = np.arange(len(at)) - np.searchsorted(at, at)
        few = rank < shape[3]
        fresh = np.full((shape[0] * shape[1] * shape[2], shape[3]), NO_ID)
        fresh[at[few], rank[few]] = found[few]
        smallest[place] = _merged(smallest[place], fresh.reshape(shape))

    def distinct(self, smallest: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Number of distinct ids in every patch, k where there are more."""
        for number, axis in enumerate(self.axes):
            moved = np.moveaxis(smallest, number, 0)
            smallest = np.moveaxis(_united(moved, axis.first, axis.last), 0, number)
        return np.asarray((smallest != NO_ID).sum(axis=-1, dtype=np.int64))


def lattice(region: Shape, patch: Shape, stride: Shape) -> Lattice:
    """The cells that the patches of a grid cut a region into."""
    z, y, x = (Axis(*lengths) for lengths in zip(region, patch, stride, strict=True))
    return Lattice((z, y, x))


def _merged(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The k smallest distinct ids of two sets of k each: those of a union need no more of its parts."""
    both = np.sort(np.concatenate([one, other], axis=-1), axis=-1)
    both[..., 1:][both[..., 1:] == both[..., :-1]] = NO_ID
    both.sort(axis=-1)
    return both[..., : one.shape[-1]]


def _united(cells: NDArray[np.uint64], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The union of cells `first` to `last` of the first axis, per patch: two unions of a power of two that overlap."""
    lengths = last - first
    united = np.empty((len(first), *cells.shape[1:]), np.uint64)
    reach = 1
    while True:  # cells[i] is the union of `reach` cells from i on
        rows = np.flatnonzero((lengths >= reach) & (lengths < 2 * reach))
        united[rows] = _merged(cells[first[rows]], cells[last[rows] - reach])
        if 2 * reach > lengths.max():
            return united
        cells = _merged(cells[:-reach], cells[reach:])
        reach *= 2
