"""How many voxels each predicted object shares with each true one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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

    @classmethod
    def of(cls, predicted: NDArray[Any], truth: NDArray[Any]) -> "ContingencyTable":
        """The table of two arrays of ids of equal shape."""
        p, t = predicted.reshape(-1).astype("u8", copy=False), truth.reshape(-1).astype("u8", copy=False)
        # Ids come in long runs along x: counting runs sorts far fewer rows than counting voxels.
        fresh = np.ones(len(p), bool)
        fresh[1:] = (p[1:] != p[:-1]) | (t[1:] != t[:-1])
        starts = np.flatnonzero(fresh)
        return cls(*_merged(p[starts], t[starts], np.diff(starts, append=len(p))))

    def __add__(self, other: "ContingencyTable") -> "ContingencyTable":
        predicted = np.concatenate([self.predicted, other.predicted])
        truth, voxels = np.concatenate([self.truth, other.truth]), np.concatenate([self.voxels, other.voxels])
        return ContingencyTable(*_merged(predicted, truth, voxels))


def _merged(
    predicted: NDArray[np.uint64], truth: NDArray[np.uint64], voxels: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    """Rows sorted by pair, equal pairs added up."""
    if not len(voxels):
        return predicted, truth, voxels
    order = np.lexsort((truth, predicted))
    p, t = predicted[order], truth[order]
    fresh = np.ones(len(p), bool)
    fresh[1:] = (p[1:] != p[:-1]) | (t[1:] != t[:-1])
    starts = np.flatnonzero(fresh)
    return p[starts], t[starts], np.add.reduceat(voxels[order], starts)
