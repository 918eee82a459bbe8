"""Scores of voxels and of objects, from counts that add up over blocks.

A voxel whose truth is the maximum of its integer dtype, or NaN, is left out. A ratio of nothing to nothing is 1: where
there was nothing to find and nothing was found, nothing is wrong. The first score of `total` is the headline.
"""

from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitocore.builtin.contingency import ContingencyTable
from mitocore.errors import WiringError
from mitocore.interfaces import Block, Metric
from mitocore.specs import Kind

Thresholds = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)]


def _compared(block: Block) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Prediction, truth (c, z, y, x) and which voxels count, over `block.write`."""
    predicted, truth = block.crop(block["predicted"]), block.crop(block["truth"])
    if predicted.shape != truth.shape:
        raise WiringError(
            f"a prediction of {len(predicted)} channels cannot be compared with a truth of {len(truth)}",
            hint="choose one channel, such as net.foreground:mito",
        )
    if truth.dtype.kind == "f":
        return predicted, truth, ~np.isnan(truth)
    if truth.dtype.kind == "b":
        return predicted, truth, np.ones(truth.shape, bool)
    return predicted, truth, truth != np.iinfo(truth.dtype).max


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.ones_like(part), where=whole != 0)
    return ratio


def _suffix(threshold: float) -> str:
    return f"_{100 * threshold:g}"


class Voxel(Metric):
    """IoU, Dice, precision and recall of the voxels above a threshold against the voxels of the truth above 0.

    Masks and class ids count as foreground where they are not 0. Of several channels, the mean is given. During a
    training it scores affinities too.
    """

    compares: ClassVar[Kind] = Kind.PROBABILITY
    also: ClassVar[tuple[Kind, ...]] = (Kind.AFFINITY,)
    scores: ClassVar[tuple[str, ...]] = ("iou", "dice", "precision", "recall")

    thresholds: Thresholds = (0.5,)
    """Predicted is what is above; with several, the names of the scores end in the threshold, as in iou_30."""

    def partial(self, block: Block) -> NDArray[np.int64]:
        """Voxels (thresholds, 3, channels): predicted and true, predicted, true."""
        predicted, truth, counted = _compared(block)
        true = (truth > 0) & counted
        rows = []
        for threshold in self.thresholds:
            found = (predicted > threshold) & counted
            rows.append([np.count_nonzero(array, axis=(1, 2, 3)) for array in (found & true, found, true)])
        return np.array(rows, np.int64)

    def total(self, partial: NDArray[np.int64]) -> dict[str, float]:
        result = {}
        for threshold, (both, found, true) in zip(self.thresholds, partial, strict=True):
            scores = {
                "iou": _ratio(both, found + true - both),
                "dice": _ratio(2 * both, found + true),
                "precision": _ratio(both, found),
                "recall": _ratio(both, true),
            }
            suffix = _suffix(threshold) if len(self.thresholds) > 1 else ""
            result.update({name + suffix: float(scores[name].mean()) for name in self.scores})
        return result


class Dice(Voxel):
    """Twice the voxels in common over the voxels of both: 1 is perfect."""

    scores: ClassVar[tuple[str, ...]] = ("dice",)


class IoU(Voxel):
    """Voxels in common over voxels of either (Jaccard index): 1 is perfect."""

    scores: ClassVar[tuple[str, ...]] = ("iou",)


class MeanAbsolute(Metric):
    """Mean absolute error of distances, during a training also of vectors and descriptors: 0 is perfect."""

    compares: ClassVar[Kind] = Kind.DISTANCE
    also: ClassVar[tuple[Kind, ...]] = (Kind.OFFSET, Kind.DESCRIPTOR, Kind.PROBABILITY, Kind.AFFINITY)
    lower_is_better: ClassVar[bool] = True
    score: ClassVar[str] = "mae"

    def partial(self, block: Block) -> NDArray[np.float64]:
        """Sum of the errors, and how many values were compared."""
        predicted, truth, counted = _compared(block)
        difference = predicted[counted].astype(np.float64) - truth[counted]
        return np.array([self._sum(difference), difference.size])

    def total(self, partial: NDArray[np.float64]) -> dict[str, float]:
        return {self.score: float(partial[0] / max(partial[1], 1))}

    def _sum(self, difference: NDArray[np.float64]) -> float:
        return float(np.abs(difference).sum())


class MeanSquared(MeanAbsolute):
    """Mean squared error of distances, during a training also of vectors and descriptors: 0 is perfect."""

    score: ClassVar[str] = "mse"

    def _sum(self, difference: NDArray[np.float64]) -> float:
        return float(np.square(difference).sum())


class _Objects(Metric):
    """Scores that are functions of the contingency table of two instance segmentations."""

    compares: ClassVar[Kind] = Kind.INSTANCE

    def partial(self, block: Block) -> ContingencyTable:
        predicted, truth, counted = _compared(block)
        return ContingencyTable.of(predicted[counted], truth[counted])


class Instance(_Objects):
    """Precision, recall, F1, accuracy, panoptic quality and average precision of whole objects.

    A predicted and a true object match if their IoU reaches the threshold; each matches at most one, chosen so that
    the matches are as many, and then as good, as possible. With TP matches, FP and FN unmatched objects:

    * f1 = 2 TP / (2 TP + FP + FN), accuracy = TP / (TP + FP + FN) (the score of the MitoEM challenge),
    * pq = sum of the IoU of matches / (TP + FP/2 + FN/2) (panoptic quality, Kirillov et al. 2019),
    * ap: average precision as mAP_3Dvolume defines it (Wei et al. 2020, MitoEM): predictions from the largest to the
      smallest, each tried with the true object it overlaps best and which nothing larger has taken, precision made
      monotone and read at 101 recalls.

    Names end in the threshold in per cent, as in f1_75.
    """

    thresholds: Thresholds = (0.5, 0.75)
    """Smallest IoU of a match."""

    def total(self, partial: ContingencyTable) -> dict[str, float]:
        overlaps = Overlaps(partial)
        n_predicted, n_true = len(overlaps.sizes), overlaps.n_true
        result: dict[str, float] = {}
        for threshold in self.thresholds:
            matched = overlaps.matched(threshold)
            tp, both = len(matched), n_predicted + n_true
            scores: dict[str, Any] = {
                "f1": _ratio(2 * tp, both),
                "precision": _ratio(tp, n_predicted),
                "recall": _ratio(tp, n_true),
                "accuracy": _ratio(tp, both - tp),
                "pq": _ratio(2 * matched.sum(), both),
                "ap": overlaps.average_precision(threshold),
            }
            result.update({name + _suffix(threshold): float(score) for name, score in scores.items()})
        return {**result, "predicted": float(n_predicted), "true": float(n_true)}


class Overlaps:
    """The pairs of objects that overlap, with their IoU. Objects are numbered from 0, in the order of their ids."""

    def __init__(self, table: ContingencyTable) -> None:
        objects, predicted = np.unique(table.predicted, return_inverse=True)
        truths, truth = np.unique(table.truth, return_inverse=True)
        sizes = _sums(predicted, table.voxels, len(objects))
        true_sizes = _sums(truth, table.voxels, len(truths))
        pair = (table.predicted > 0) & (table.truth > 0)
        union = sizes[predicted] + true_sizes[truth] - table.voxels
        self.iou: NDArray[np.float64] = np.asarray(table.voxels / union)[pair]
        self.sizes: NDArray[np.float64] = sizes[objects > 0]
        self.n_true = int(np.count_nonzero(truths))
        self.predicted = predicted[pair] - np.count_nonzero(objects == 0)
        self.truth = truth[pair] - np.count_nonzero(truths == 0)

    def matched(self, threshold: float) -> NDArray[np.float64]:
        """IoU of each match: as many pairs of at least `threshold` as possible, then the best."""
        good = self.iou >= threshold
        p, t, iou = self.predicted[good], self.truth[good], self.iou[good]
        n = len(self.sizes)
        graph = coo_array((np.ones(len(p), bool), (p, n + t)), shape=(n + self.n_true,) * 2)
        group = connected_components(graph, directed=False)[1][p]  # above one half, every pair stands alone
        contested = np.bincount(group, minlength=1)[group] > 1
        found = [iou[~contested]]
        for one in np.unique(group[contested]):
            rows, row = np.unique(p[group == one], return_inverse=True)
            columns, column = np.unique(t[group == one], return_inverse=True)
            gain = np.zeros((len(rows), len(columns)))
            # Another match must always outweigh better ones: all IoUs together count less than one match.
            gain[row, column] = 1 + iou[group == one] / (2 * max(gain.shape))
            best = gain[linear_sum_assignment(gain, maximize=True)]
            found.append((best[best > 0] - 1) * 2 * max(gain.shape))
        return np.concatenate(found)

    def average_precision(self, threshold: float) -> float:
        """Area under the interpolated curve of precision over recall; predictions ranked by size."""
        if not self.n_true:
            return float(not len(self.sizes))
        order = np.lexsort((self.truth, -self.iou, self.predicted))
        _, first = np.unique(self.predicted[order], return_index=True)
        best = order[first]
        wanted = np.full(len(self.sizes), -1)
        hit = self.iou[best] >= threshold
        wanted[self.predicted[best][hit]] = self.truth[best][hit]
        wanted = wanted[np.argsort(-self.sizes, kind="stable")]
        taken = np.zeros(len(wanted), bool)
        taken[np.unique(wanted, return_index=True)[1]] = True  # a true object goes to the first that wants it
        tp = np.cumsum(taken & (wanted >= 0))
        precision = np.maximum.accumulate((tp / np.arange(1, len(tp) + 1))[::-1])[::-1]
        at = np.searchsorted(tp / self.n_true, np.linspace(0, 1, 101), side="left")
        return float(np.append(precision, 0.0)[at].mean())


class AdaptedRand(_Objects):
    """Adapted Rand error of the SNEMI3D challenge (Arganda-Carreras et al. 2015): 0 is perfect.

    Only voxels inside true objects count. Voxels of them that were left as background count as objects of one voxel
    each.
    """

    lower_is_better: ClassVar[bool] = True

    def total(self, partial: ContingencyTable) -> dict[str, float]:
        inside = partial.truth > 0
        truth, predicted, voxels = partial.truth[inside], partial.predicted[inside], partial.voxels[inside]
        found = predicted > 0
        missed = float(_ratio(voxels[~found].sum(), partial.voxels.sum()))
        both = float(np.square(voxels[found].astype(float)).sum()) + missed
        precision = float(_ratio(both, _squares(predicted[found], voxels[found]) + missed))
        recall = float(_ratio(both, _squares(truth, voxels)))
        error = 1 - 2 * precision * recall / (precision + recall)
        return {"are": error, "precision": precision, "recall": recall}


def _squares(ids: NDArray[np.uint64], voxels: NDArray[np.int64]) -> float:
    return float(np.square(_sizes(ids, voxels)).sum())


def _sizes(ids: NDArray[np.uint64], voxels: NDArray[np.int64]) -> NDArray[np.float64]:
    return _sums(np.unique(ids, return_inverse=True)[1], voxels)


def _sums(groups: NDArray[np.intp], voxels: NDArray[np.int64], number: int = 0) -> NDArray[np.float64]:
    return np.bincount(groups, voxels, number).astype(float)


class VariationOfInformation(_Objects):
    """Variation of information in bits (Meilă 2007), in its two parts: 0 is perfect.

    `split` is what the prediction divides, `merge` what it joins. Only voxels inside true objects count; those left as
    background are one predicted object.
    """

    lower_is_better: ClassVar[bool] = True

    def total(self, partial: ContingencyTable) -> dict[str, float]:
        inside = partial.truth > 0
        truth, predicted, voxels = partial.truth[inside], partial.predicted[inside], partial.voxels[inside]
        joint = _entropy(voxels)
        split = joint - _entropy(_sizes(truth, voxels))
        merge = joint - _entropy(_sizes(predicted, voxels))
        return {"voi": split + merge, "split": split, "merge": merge}


def _entropy(voxels: NDArray[Any]) -> float:
    share = voxels / max(voxels.sum(), 1)
    return float(-(share * np.log2(share)).sum())
