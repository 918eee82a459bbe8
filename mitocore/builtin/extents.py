"""Where objects lie: their voxels, centres and boxes, found block by block."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.contingency import ContingencyTable, runs
from mitocore.geometry import Roi, as_shape
from mitocore.interfaces import Block


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """Objects by id, ascending; additive.

    >>> ids = np.array([[[0, 4, 4], [9, 4, 0]]])
    >>> found = Extents.of(ids, (0, 0, 0)) + Extents.of(ids, (0, 2, 0))
    >>> found.ids.tolist(), found.voxels.tolist(), found.centre(0), found.box(1)
    ([4, 9], [6, 2], (0.0, 1.3333333333333333, 1.3333333333333333), Roi(start=(0, 1, 0), stop=(1, 4, 1)))
    """

    ids: NDArray[np.uint64]
    sums: NDArray[np.int64]
    """Per object: voxels, and the sums of their z, y and x."""
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    """Per object: first voxel and end of its box (z, y, x)."""

    @classmethod
    def of(cls, ids: NDArray[Any], start: tuple[int, int, int]) -> "Extents":
        """Of a block of ids (z, y, x), 0 background, whose first voxel lies at `start`."""
        rows = ids.reshape(-1, ids.shape[-1])
        # A run must end with its row, as rows of different y and z hang together in memory.
        row = np.broadcast_to(np.arange(len(rows), dtype=np.int32)[:, None], rows.shape)
        begins, length = runs(rows, row)
        objects = ids.reshape(-1)[begins]
        there = objects > 0
        begins, length = begins[there], length[there]
        z, y, x = (along + first for along, first in zip(np.unravel_index(begins, ids.shape), start, strict=True))
        sums = np.stack([length, length * z, length * y, length * (2 * x + length - 1) // 2], axis=1)
        low, high = np.stack([z, y, x], axis=1), np.stack([z + 1, y + 1, x + length], axis=1)
        return cls._summed(objects[there].astype(np.uint64), sums, low, high)

    def __add__(self, other: "Extents") -> "Extents":
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("ids", "sums", "low", "high"))
        return self._summed(*map(np.concatenate, pairs))

    @classmethod
    def _summed(cls, ids: NDArray[Any], sums: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> "Extents":
        """Rows sorted by id, equal ids in one."""
        if not len(ids):
            return cls(ids, sums, low, high)
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
        return cls(
            ids[starts],
            np.add.reduceat(sums[order], starts, axis=0),
            np.minimum.reduceat(low[order], starts, axis=0),
            np.maximum.reduceat(high[order], starts, axis=0),
        )

    @property
    def voxels(self) -> NDArray[np.int64]:
        """Of each object."""
        return self.sums[:, 0]

    def centre(self, row: int) -> tuple[float, float, float]:
        """Centre of mass (z, y, x) of an object in voxels; the centre of the first voxel of the volume is 0."""
        z, y, x = (self.sums[row, 1:] / self.sums[row, 0]).tolist()
        return z, y, x

    def box(self, row: int) -> Roi:
        """The smallest box that holds an object."""
        return Roi(as_shape(self.low[row]), as_shape(self.high[row]))

    def row(self, number: int) -> int:
        """Which row an id is in; it must be one of `ids`."""
        return int(np.searchsorted(self.ids, np.uint64(number)))


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """What predicted and true objects share, and where they lie; additive. Voxels of unknown truth are left out."""

    table: ContingencyTable
    predicted: Extents
    truth: Extents

    @classmethod
    def of(cls, block: Block) -> "Located":
        """Of `block.write`."""
        predicted, truth = block.crop(block["predicted"])[0], block.crop(block["truth"])[0]
        table = ContingencyTable.of(predicted, truth)
        unknown = truth == np.iinfo(truth.dtype).max
        if unknown.any():
            table = table.without(np.iinfo(truth.dtype).max)
            predicted, truth = (np.where(unknown, ids.dtype.type(0), ids) for ids in (predicted, truth))
        return cls(table, Extents.of(predicted, block.write.start), Extents.of(truth, block.write.start))

    def __add__(self, other: "Located") -> "Located":
        return Located(self.table + other.table, self.predicted + other.predicted, self.truth + other.truth)
