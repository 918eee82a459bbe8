"""Where the windows of a network lie: a function of the volume and the window, of nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.grid import starts
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.specs import Window


@dataclass(frozen=True)
class TileLattice:
    """The tiles of a volume: a grid anchored at voxel (0, 0, 0), the last tile of an axis shifted inside.

    >>> lattice = TileLattice((11, 4, 4), Window((4, 4, 4), overlap=(1, 0, 0)))
    >>> lattice.starts[0], lattice.stride
    ((0, 3, 6, 7), (3, 4, 4))
    """

    volume: Shape
    window: Window

    @cached_property
    def tile(self) -> Shape:
        """What the network receives: (z, y, x) voxels, context and padding included."""
        return self.window.tile(self.volume)

    @cached_property
    def output(self) -> Shape:
        """What one tile contributes to the volume."""
        return self.window.output(self.volume)

    @cached_property
    def stride(self) -> Shape:
        """Voxels between the starts of neighbouring tiles."""
        return as_shape(o - v for o, v in zip(self.output, self.window.overlap, strict=True))

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """First voxel of the tiles' outputs, along each axis."""
        axes = zip(self.volume, self.output, self.window.overlap, strict=True)
        z, y, x = (tuple(starts(n, o, v)) for n, o, v in axes)
        return z, y, x

    def __len__(self) -> int:
        z, y, x = map(len, self.starts)
        return z * y * x

    def ramp(self, axis: int) -> NDArray[np.float32]:
        """Blending weight along one axis of a tile: one inside, falling linearly over the overlap."""
        length, overlap = self.output[axis], self.window.overlap[axis]
        place = np.arange(length) + 0.5
        edge = np.minimum(place, length - place)
        return np.minimum(1.0, edge / max(overlap, 1)).astype("f4") if overlap else np.ones(length, "f4")

    def total(self, axis: int) -> NDArray[np.float32]:
        """Sum of the ramps of all tiles that cover each voxel of an axis. Weights of a voxel are products over axes."""
        length = self.volume[axis]
        total = np.zeros(max(length, self.output[axis]), "f4")
        for start in self.starts[axis]:
            total[start : start + self.output[axis]] += self.ramp(axis)
        return total[:length]

    def read(self, source: Callable[[Roi], NDArray[np.float32]], start: Shape, shape: Shape) -> NDArray[np.float32]:
        """Input voxels (c, z, y, x) of a box that may leave the volume: beyond a face they are mirrored, or zero.

        `source` is asked for one box inside the volume.
        """
        mirrored = self.window.padding == "mirror"
        places = [
            _mirror(np.arange(a, a + n), length) if mirrored else np.arange(a, a + n).clip(0, length - 1)
            for a, n, length in zip(start, shape, self.volume, strict=True)
        ]
        box = Roi(as_shape(p.min() for p in places), as_shape(p.max() + 1 for p in places))
        values = source(box)
        for axis, (place, low) in enumerate(zip(places, box.start, strict=True)):
            if len(place) != box.shape[axis] or (np.diff(place) != 1).any():
                values = np.take(values, place - low, axis=axis + 1)
        if not mirrored:
            values = values.copy()
            for axis, (a, n, length) in enumerate(zip(start, shape, self.volume, strict=True)):
                place = np.arange(a, a + n)
                np.moveaxis(values, axis + 1, 0)[(place < 0) | (place >= length)] = 0
        return values

    def strips(self, rows: int) -> Iterator[tuple[range, int, int]]:
        """Cut the section into strips of `rows` rows of tiles: (rows, first y, last y + 1 of what they finish).

        A last row that was shifted inside stays with the strip before it, so that every strip starts at a multiple of
        the stride.
        """
        y, stride = self.starts[1], self.stride[1]
        first = [row for row in range(0, len(y), rows) if y[row] == row * stride]
        for start, stop in zip(first, [*first[1:], len(y)], strict=True):
            yield range(start, stop), y[start], y[stop] if stop < len(y) else self.volume[1]


def _mirror(places: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    """Indices reflected at both faces, the face voxel not repeated."""
    if length == 1:
        return np.zeros_like(places)
    turn = 2 * (length - 1)
    places = np.abs(places) % turn
    return np.where(places < length, places, turn - places)
