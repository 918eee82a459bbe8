"""Where blocks and tiles lie."""

import math
from dataclasses import dataclass
from itertools import product

from mitocore.geometry import Roi, Shape, as_shape


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """Blocks of a region, numbered in raster order; the last of an axis may be smaller.

    >>> grid = BlockGrid(Roi((0, 0, 0), (4, 8, 6)), (4, 4, 4))
    >>> grid.counts, len(grid), grid.box(3)
    ((1, 2, 2), 4, Roi(start=(0, 4, 4), stop=(4, 8, 6)))
    >>> grid.meeting(Roi((0, 3, 0), (1, 5, 4)))
    [0, 2]
    >>> tiles = BlockGrid(Roi((0, 0, 3), (1, 1, 9)), (4, 4, 4), anchor=(0, 0, 0))
    >>> [(box.start[2], box.stop[2]) for box in map(tiles.box, range(len(tiles)))]
    [(3, 4), (4, 8), (8, 9)]
    """

    region: Roi
    block: Shape
    anchor: Shape | None = None
    """A corner that blocks of every region share, so that the first of an axis may be smaller too: for tiles that a
    result is defined on. None: blocks begin at the region."""

    @property
    def origin(self) -> Shape:
        """Where the first block begins, or would begin if the region did not cut it."""
        begin = self.region.start
        anchor = begin if self.anchor is None else self.anchor
        return as_shape(a - (a - o) % b for a, o, b in zip(begin, anchor, self.block, strict=True))

    @property
    def counts(self) -> Shape:
        """Blocks along each axis."""
        ends = zip(self.origin, self.region.stop, self.block, strict=True)
        return as_shape(-((first - last) // b) for first, last, b in ends)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def box(self, number: int) -> Roi:
        """The voxels of a block."""
        _, y, x = self.counts
        place = number // (y * x), number // x % y, number % x
        start = as_shape(o + i * b for o, i, b in zip(self.origin, place, self.block, strict=True))
        return Roi(start, as_shape(s + b for s, b in zip(start, self.block, strict=True))).clip(self.region)

    def meeting(self, roi: Roi) -> list[int]:
        """Numbers of the blocks that `roi`, inside the region, meets, ascending."""
        offset = roi.within(Roi(self.origin, self.region.stop))
        axes = [range(s.start // b, -(-s.stop // b)) for s, b in zip(offset, self.block, strict=True)]
        _, rows, row = self.counts
        return [(z * rows + y) * row + x for z, y, x in product(*axes)]


def starts(length: int, output: int, overlap: int) -> list[int]:
    """Where tiles begin on an axis: a function of the volume and the window, of nothing else.

    The last tile is shifted inside; an axis shorter than a tile has one, padded at the volume's own face.

    >>> starts(10, 4, 1), starts(3, 4, 1)
    ([0, 3, 6], [0])
    >>> starts(11, 4, 1)
    [0, 3, 6, 7]
    """
    last = max(length - output, 0)
    regular = list(range(0, last + 1, output - overlap))
    return regular if regular[-1] == last else [*regular, last]
