"""Where the windows of a network lie: a function of the volume and the window, of nothing else."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.grid import starts
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.specs import Blending, Window


@dataclass(frozen=True)
class TileLattice:
    """The tiles of a volume: a grid anchored at voxel (0, 0, 0), the last tile of an axis shifted inside.

    Of a region only those tiles take part whose outputs meet it. They lie where they lie in the whole volume, so every
    voxel of the region is covered by the same tiles.

    >>> window = Window((4, 4, 4), overlap=(1, 0, 0))
    >>> lattice = TileLattice((11, 4, 4), window)
    >>> lattice.starts[0], lattice.stride
    ((0, 3, 6, 7), (3, 4, 4))
    >>> TileLattice((11, 4, 4), window, Roi((5, 0, 0), (7, 4, 4))).starts[0]
    (3, 6)
    """

    volume: Shape
    window: Window
    region: Roi | None = None
    """None: the whole volume."""

    @cached_property
    def bounds(self) -> Roi:
        """The voxels that are wanted: the region, or the whole volume."""
        return self.region or Roi.whole(self.volume)

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
        axes = zip(self.volume, self.output, self.window.overlap, self.bounds.start, self.bounds.stop, strict=True)
        z, y, x = (tuple(s for s in starts(n, o, v) if s < stop and s + o > start) for n, o, v, start, stop in axes)
        return z, y, x

    def __len__(self) -> int:
        z, y, x = map(len, self.starts)
        return z * y * x

    def weight(self, blending: Blending) -> NDArray[np.float32]:
        """How much every voxel (z, y, x) of a tile's output counts."""
        z, y, x = (self._profile(axis, blending) for axis in range(3))
        return z[:, None, None] * y[:, None] * x + _least(blending)

    def totals(self, blending: Blending) -> "Totals":
        """The weights of all tiles, summed over the tiles that cover each voxel of the region."""
        profiles = [self._summed(axis, self._profile(axis, blending)) for axis in range(3)]
        tiles = [self._summed(axis, np.ones(self.output[axis], "f4")) for axis in range(3)]
        return Totals(tuple(profiles), tuple(tiles), _least(blending))

    def _profile(self, axis: int, blending: Blending) -> NDArray[np.float32]:
        return profile(self.output[axis], self.window.overlap[axis], blending)

    def _summed(self, axis: int, along: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the tiles have along an axis, added up for each voxel of the region."""
        low, high = self.bounds.start[axis], self.bounds.stop[axis]
        first = self.starts[axis][0]
        total = np.zeros(self.starts[axis][-1] + self.output[axis] - first, "f4")
        for start in self.starts[axis]:
            total[start - first : start - first + self.output[axis]] += along
        return total[low - first : high - first]

    def read(self, source: Callable[[Roi], NDArray[np.float32]], start: Shape, shape: Shape) -> NDArray[np.float32]:
        """Input voxels (c, z, y, x) of a box that may leave the volume: beyond a face they are mirrored, or zero.

        `source` is asked for one box inside the volume.
        """
        places = self._places(start, shape)
        box = _holding(places)
        values = source(box)
        for axis, (place, low) in enumerate(zip(places, box.start, strict=True)):
            if len(place) != box.shape[axis] or (np.diff(place) != 1).any():
                values = np.take(values, place - low, axis=axis + 1)
        if self.window.padding == "zero":
            values = values.copy()
            for axis, (a, n, length) in enumerate(zip(start, shape, self.volume, strict=True)):
                place = np.arange(a, a + n)
                np.moveaxis(values, axis + 1, 0)[(place < 0) | (place >= length)] = 0
        return values

    @cached_property
    def reads(self) -> Roi:
        """The box of all voxels that the tiles see: with their context, and with what is mirrored at a face."""
        start = as_shape(s[0] - c for s, c in zip(self.starts, self.window.crop, strict=True))
        shape = as_shape(s[-1] - s[0] + n for s, n in zip(self.starts, self.tile, strict=True))
        return _holding(self._places(start, shape))

    def _places(self, start: Shape, shape: Shape) -> list[NDArray[np.int_]]:
        """The voxels of the volume, along each axis, that are seen in a box."""
        mirrored = self.window.padding == "mirror"
        return [
            _mirror(np.arange(a, a + n), length) if mirrored else np.arange(a, a + n).clip(0, length - 1)
            for a, n, length in zip(start, shape, self.volume, strict=True)
        ]

    def strips(self, rows: int) -> Iterator[tuple[range, int, int]]:
        """Cut the region into strips of `rows` strides of y: (rows of tiles, first y, last y + 1 of what they finish).

        A row of tiles belongs to the strip in which it starts, or to the first. What begins below the last row stays
        with the strip of that row, so that every strip has tiles of its own.
        """
        low, height = self.bounds.start[1], rows * self.stride[1]
        strips = [max(y - low, 0) // height for y in self.starts[1]]
        for number in range(strips[-1] + 1):
            members = range(bisect_left(strips, number), bisect_left(strips, number + 1))
            start = low + number * height
            yield members, start, start + height if number < strips[-1] else self.bounds.stop[1]


@dataclass(frozen=True, slots=True)
class Totals:
    """Summed weights of a lattice, axis by axis: tiles stand in a grid, so a sum of products is a product of sums."""

    profiles: tuple[NDArray[np.float32], ...]
    tiles: tuple[NDArray[np.float32], ...]
    """How many tiles cover each place of an axis."""
    least: float

    def over(self, z: slice, y: slice) -> NDArray[np.float32]:
        """(z, y, x) over parts of the region, from its own first voxel on."""
        total = self.profiles[0][z, None, None] * (self.profiles[1][y, None] * self.profiles[2])
        if self.least:
            total += np.float32(self.least) * self.tiles[0][z, None, None] * (self.tiles[1][y, None] * self.tiles[2])
        return total


def profile(length: int, overlap: int, blending: Blending) -> NDArray[np.float32]:
    """How much the places along one axis of a tile count; weights are the product of three axes, and `_least` more.

    "gaussian" and "bump" are those of PyTorch Connectomics 1.0 (Lin et al., arXiv:2112.05754): a Gaussian whose sigma
    is a tenth of the tile, and a bump function, exp(-1 / (x (1 - x))^1.5); neither depends on the overlap.

    >>> profile(6, 2, "ramp").tolist()
    [0.25, 0.75, 1.0, 1.0, 0.75, 0.25]
    >>> profile(4, 1, "gaussian").astype(float).round(4).tolist()
    [0.0, 0.2494, 0.2494, 0.0]
    """
    if blending == "gaussian":
        across = np.linspace(-1, 1, length) if length > 1 else np.zeros(1)
        return np.asarray(np.exp(-(across**2) / 0.08), np.float32)
    if blending == "bump":
        across = np.linspace(0, 1, length + 2)[1:-1]
        height = -((across * (1 - across)) ** -1.5)
        return np.asarray(np.exp(height - height.max()), np.float32)
    place = np.arange(length) + 0.5
    edge = np.minimum(place, length - place)
    return np.minimum(1.0, edge / max(overlap, 1)).astype("f4") if overlap else np.ones(length, "f4")


def _least(blending: Blending) -> float:
    """What a voxel counts at least: profiles that vanish towards the corners would divide nothing by nothing."""
    return 0.0 if blending == "ramp" else 1e-4


def _holding(places: list[NDArray[np.int_]]) -> Roi:
    """The smallest box with these voxels of each axis."""
    return Roi(as_shape(p.min() for p in places), as_shape(p.max() + 1 for p in places))


def _mirror(places: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    """Indices reflected at both faces, the face voxel not repeated."""
    if length == 1:
        return np.zeros_like(places)
    turn = 2 * (length - 1)
    places = np.abs(places) % turn
    return np.where(places < length, places, turn - places)
