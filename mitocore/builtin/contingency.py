"""How many voxels each predicted object shares with each true one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SLAB = 1 << 20
"""Voxels counted at a time: few enough to stay in the caches, and to hold few ids."""
_DENSE = 1 << 21
"""Up to which ids, and pairs of them, are counted in a table of all there could be."""


@dataclass(frozen=True, slots=True, eq=False)
class ContingencyTable:
    """Voxels per pair of predicted and true id, sparse and additive; 0 is the background of either side.

    >>> left, right = np.array([1, 1, 2]), np.array([2, 2])
    >>> table = ContingencyTable.of(left, np.array([7, 7, 7])) + ContingencyTable.of(right, np.array([7, 0]))
    >>> [row.tolist() for row in (table.predicted, table.truth, table.voxels)]
    [[1, 2, 2], [7, 0, 7], [2, 1, 2]]
    """

    predicted: NDArray[np.uint64]
    truth: NDArray[np.uint64]
    voxels: NDArray[np.int64]
    scores: NDArray[np.float64] | None = None
    """Sum of the scores of these voxels, where there are scores."""

    @classmethod
    def of(cls, predicted: NDArray[Any], truth: NDArray[Any], scores: NDArray[Any] | None = None) -> "ContingencyTable":
        """The table of two arrays of ids of equal shape, and of real numbers that say how sure each voxel is."""
        flat = [array.reshape(-1) for array in (predicted, truth, *(() if scores is None else (scores,)))]
        slabs = [slice(start, start + _SLAB) for start in range(0, max(flat[0].size, 1), _SLAB)]
        tables = [cls._of(*(array[slab] for array in flat)) for slab in slabs]
        return cls._merged(tables)

    @classmethod
    def _of(
        cls, predicted: NDArray[Any], truth: NDArray[Any], scores: NDArray[Any] | None = None
    ) -> "ContingencyTable":
        """Of a slab."""
        # Ids come in long runs along x: what is counted are runs, far fewer than voxels.
        starts, length = runs(predicted, truth)
        ids, row = _numbered(predicted[starts])
        true_ids, column = _numbered(truth[starts])
        pair, size = row * len(true_ids) + column, len(ids) * len(true_ids)
        pairs = None
        if size > _DENSE:  # else counting all pairs there could be is faster than sorting those there are
            pairs, pair = np.unique(pair, return_inverse=True)
            size = len(pairs)
        voxels = np.bincount(pair, length, size)
        there = np.flatnonzero(voxels)
        sums = None
        if scores is not None:
            of_runs = np.add.reduceat(scores, starts, dtype=np.float64) if len(starts) else np.zeros(0)
            sums = np.bincount(pair, of_runs, size)[there].astype(np.float64, copy=False)
        row, column = np.divmod(there if pairs is None else pairs, max(len(true_ids), 1))
        return cls(ids[row], true_ids[column], voxels[there].astype(np.int64), sums)

    def without(self, truth: int) -> "ContingencyTable":
        """The table without the voxels of a true id, such as that of voxels to ignore."""
        kept = self.truth != np.uint64(truth)
        scores = self.scores[kept] if self.scores is not None else None
        return ContingencyTable(self.predicted[kept], self.truth[kept], self.voxels[kept], scores)

    def __add__(self, other: "ContingencyTable") -> "ContingencyTable":
        return self._merged([self, other])

    @classmethod
    def _merged(cls, tables: "Sequence[ContingencyTable]") -> "ContingencyTable":
        """Their sum: rows sorted by pair, equal pairs added up."""
        predicted, truth, voxels = (
            np.concatenate([getattr(table, name) for table in tables]) for name in ("predicted", "truth", "voxels")
        )
        sums = [table.scores for table in tables if table.scores is not None]
        scores = np.concatenate(sums) if len(sums) == len(tables) else None
        if not len(voxels):
            return cls(predicted, truth, voxels, scores)
        order = np.lexsort((truth, predicted))
        starts, _ = runs(predicted[order], truth[order])
        return cls(
            predicted[order[starts]],
            truth[order[starts]],
            np.add.reduceat(voxels[order], starts),
            np.add.reduceat(scores[order], starts) if scores is not None else None,
        )


def runs(*arrays: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """First voxel and length of the runs, in raster order, in which none of some arrays of equal shape changes.

    >>> runs(np.array([1, 1, 2, 2, 2]), np.array([5, 5, 5, 5, 0]))
    (array([0, 2, 4]), array([2, 2, 1]))
    """
    first, *others = (array.reshape(-1) for array in arrays)
    fresh = np.ones(len(first), bool)
    np.not_equal(first[1:], first[:-1], out=fresh[1:])
    for other in others:
        fresh[1:] |= other[1:] != other[:-1]
    starts = np.flatnonzero(fresh)
    return starts, np.diff(starts, append=len(first))


def _numbered(ids: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The ids that occur, ascending, and which of them each is."""
    if ids.max(initial=0) >= _DENSE:
        known, place = np.unique(ids, return_inverse=True)
        return known.astype(np.uint64), place
    small = ids.astype(np.intp)
    occurs = np.zeros(int(small.max(initial=0)) + 1, bool)
    occurs[small] = True
    return np.flatnonzero(occurs).astype(np.uint64), np.take(np.cumsum(occurs) - 1, small)
