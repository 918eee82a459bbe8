"""Average precision: how good the surest objects are."""

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.contingency import ContingencyTable
from mitocore.builtin.metrics.compared import suffix
from mitocore.builtin.metrics.matching import Overlaps
from mitocore.builtin.metrics.objects import Objects
from mitocore.errors import ConfigError
from mitocore.geometry import SizeOption, VoxelSize, size_in_voxels

MEAN_OVER = tuple(percent / 100 for percent in range(50, 100, 5))
"""IoUs of the mean AP."""
RANGES = "small", "medium", "large"


class AveragePrecision(Objects):
    """Average precision of objects as mAP_3Dvolume defines it (Wei et al. 2020, MitoEM).

    Predictions, from the surest to the least sure, are each tried with the true object that they overlap best; a true
    object goes to the first. Precision, made monotone, is read at 101 recalls, and its mean is the average precision.
    `ap` is its mean over the IoUs 0.50, 0.55 … 0.95, `ap_50` and `ap_75` are at one IoU.

    `ap_75_small` … are those of true objects of a range of sizes: predictions are tried with the best of these. One
    that hits a true object of another size, or matches none and is itself of another size, counts neither way. Where
    the truth has no object of a range, NaN.

    How sure a prediction is: its voxels; with `--scores`, the mean of the scores over its voxels.
    """

    takes_scores: ClassVar[bool] = True

    ranges: tuple[SizeOption, SizeOption] = (5000, 15000)
    """Largest small and largest medium object: voxels, or a volume such as "0.01 um3" (rounded up to voxels)."""

    def in_voxels(self, voxel_size: VoxelSize | None) -> Self:
        small, medium = (size_in_voxels(limit, voxel_size) for limit in self.ranges)
        if small > medium:
            first, second = self.ranges
            problem = (
                f"ranges = [{first!r}, {second!r}]: the largest small object is larger than the largest medium one"
            )
            raise ConfigError(problem, hint="state the smaller size first")
        return self.model_copy(update={"ranges": (small, medium)})

    def total(self, partial: ContingencyTable) -> dict[str, float]:
        overlaps = Overlaps(partial)
        order = np.argsort(-_sureness(partial, overlaps), kind="stable")
        pairs = np.lexsort((overlaps.truth, -overlaps.score, overlaps.predicted))
        everything = _Range(overlaps, order, pairs, 0, np.inf)
        aps = {threshold: everything.average_precision(threshold) for threshold in MEAN_OVER}
        result = {"ap": float(np.mean(list(aps.values()))), "ap_50": aps[0.5], "ap_75": aps[0.75]}
        edges = (0, *(size_in_voxels(limit, None) for limit in self.ranges), np.inf)
        for name, low, high in zip(RANGES, edges, edges[1:], strict=False):
            found = _Range(overlaps, order, pairs, low, high)
            result[f"ap{suffix(0.75)}_{name}"] = found.average_precision(0.75) if found.wanted.any() else np.nan
        return result


def _sureness(table: ContingencyTable, overlaps: Overlaps) -> NDArray[Any]:
    """Of each predicted object."""
    if table.scores is None:
        return overlaps.sizes
    there = table.predicted > 0
    sums = np.bincount(np.searchsorted(overlaps.ids, table.predicted[there]), table.scores[there], len(overlaps.ids))
    # In float32, as equal scores must rank equal although sums of many voxels round.
    return (sums / overlaps.sizes).astype(np.float32)


class _Range:
    """Predictions, ranked, beside the true objects of more than `low` and at most `high` voxels."""

    def __init__(
        self, overlaps: Overlaps, order: NDArray[np.intp], pairs: NDArray[np.intp], low: float, high: float
    ) -> None:
        self.wanted = (overlaps.true_sizes > low) & (overlaps.true_sizes <= high)
        self.inside = ((overlaps.sizes >= low) & (overlaps.sizes <= high))[order]
        self.best, self.iou = (values[order] for values in _best(overlaps, pairs, self.wanted))
        self.elsewhere = _best(overlaps, pairs, ~self.wanted)[1][order]

    def average_precision(self, threshold: float) -> float:
        if not self.wanted.any():
            return float(not len(self.best))
        hit = np.where(self.iou >= threshold, self.best, -1)
        first = np.zeros(len(hit), bool)
        first[np.unique(hit, return_index=True)[1]] = True
        right = first & (hit >= 0)  # a true object goes to the first that wants it
        counts = right | ~((self.elsewhere >= threshold) & (hit < 0) | ~self.inside)
        tp = np.cumsum(right[counts])
        precision = np.maximum.accumulate((tp / np.arange(1, len(tp) + 1))[::-1])[::-1]
        at = np.searchsorted(tp / np.count_nonzero(self.wanted), np.linspace(0, 1, 101), side="left")
        return float(np.append(precision, 0.0)[at].mean())


def _best(
    overlaps: Overlaps, pairs: NDArray[np.intp], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each predicted object, the true one among those wanted that it overlaps best, -1 none, and their IoU.

    `pairs` are those of each predicted object together, the best first.
    """
    pairs = pairs[wanted[overlaps.truth[pairs]]]
    objects, first = np.unique(overlaps.predicted[pairs], return_index=True)
    best, score = np.full(len(overlaps.ids), -1), np.zeros(len(overlaps.ids))
    best[objects], score[objects] = overlaps.truth[pairs[first]], overlaps.score[pairs[first]]
    return best, score
