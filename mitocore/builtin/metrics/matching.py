"""Which predicted object is which true one."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitocore.builtin.contingency import ContingencyTable

Criterion = Literal["iou", "iot", "iop"]


class Overlaps:
    """The pairs of objects that overlap. Objects are numbered from 0, in the order of their ids.

    A pair scores the voxels that it shares over those of either (iou), of the true object (iot) or of the predicted one
    (iop).
    """

    def __init__(self, table: ContingencyTable, criterion: Criterion = "iou") -> None:
        objects, predicted = np.unique(table.predicted, return_inverse=True)
        truths, truth = np.unique(table.truth, return_inverse=True)
        sizes = np.bincount(predicted, table.voxels, len(objects)).astype(np.float64)
        true_sizes = np.bincount(truth, table.voxels, len(truths)).astype(np.float64)
        pair = (table.predicted > 0) & (table.truth > 0)
        shared, of, within = table.voxels[pair], sizes[predicted[pair]], true_sizes[truth[pair]]
        whole = {"iou": of + within - shared, "iot": within, "iop": of}[criterion]
        self.voxels: NDArray[np.int64] = shared
        """Of each pair: what it shares."""
        self.score: NDArray[np.float64] = np.asarray(shared / whole)
        self.ids: NDArray[np.uint64] = objects[objects > 0]
        self.true_ids: NDArray[np.uint64] = truths[truths > 0]
        self.sizes: NDArray[np.float64] = sizes[objects > 0]
        """Voxels of predicted objects."""
        self.true_sizes: NDArray[np.float64] = true_sizes[truths > 0]
        self.predicted = predicted[pair] - np.count_nonzero(objects == 0)
        """Of each pair: number of the predicted object."""
        self.truth = truth[pair] - np.count_nonzero(truths == 0)

    def matched(self, threshold: float) -> NDArray[np.intp]:
        """The pairs that match: as many of at least `threshold` as possible, then the best; each object in one."""
        good = np.flatnonzero(self.score >= threshold)
        p, t, score = self.predicted[good], self.truth[good], self.score[good]
        n = len(self.ids)
        graph = coo_array((np.ones(len(p), bool), (p, n + t)), shape=(n + len(self.true_ids),) * 2)
        group = connected_components(graph, directed=False)[1][p]  # above an IoU of one half, every pair stands alone
        contested = np.bincount(group, minlength=1)[group] > 1
        found = [good[~contested]]
        order = np.flatnonzero(contested)
        order = order[np.argsort(group[order], kind="stable")]
        for one in np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else ():
            rows, row = np.unique(p[one], return_inverse=True)
            columns, column = np.unique(t[one], return_inverse=True)
            gain = np.zeros((len(rows), len(columns)))
            # Another match must always outweigh better ones: all scores together count less than one match.
            gain[row, column] = 1 + score[one] / (2 * max(gain.shape))
            chosen = np.zeros(gain.shape, bool)
            chosen[linear_sum_assignment(gain, maximize=True)] = True
            found.append(good[one[chosen[row, column]]])
        return np.concatenate(found)
