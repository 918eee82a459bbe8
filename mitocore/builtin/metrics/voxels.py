"""Scores of voxels, and of values, from counts that add up over blocks."""

from collections.abc import Hashable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.metrics.compared import Thresholds, compared, ratio, suffix
from mitocore.interfaces import Block, Metric
from mitocore.specs import Kind


class Voxel(Metric):
    """IoU, Dice, precision and recall of the voxels above a threshold against the voxels of the truth above 0.

    `mean_iou` is the mean of the IoU of the foreground (`iou`) and of that of the background. Masks and ids count as
    foreground where they are not 0. Of several channels, the mean is given. During a training it scores affinities too.
    """

    compares: ClassVar[Kind] = Kind.PROBABILITY
    also: ClassVar[tuple[Kind, ...]] = (Kind.AFFINITY,)
    narrow_ids: ClassVar[bool] = True
    scores: ClassVar[tuple[str, ...]] = ("iou", "mean_iou", "dice", "precision", "recall")

    thresholds: Thresholds = (0.5,)
    """Predicted is what is above; with several, the names of the scores end in the threshold, as in iou_30."""

    def shared(self) -> Hashable:
        """With the other metrics that count foreground at the same thresholds."""
        return "voxels", self.thresholds

    def partial(self, block: Block) -> NDArray[np.int64]:
        """Voxels (thresholds, 4, channels): predicted and true, predicted, true, all that count."""
        predicted, truth, counted = compared(block)
        true = (truth > 0) & counted
        rows = []
        for threshold in self.thresholds:
            found = (predicted > threshold) & counted
            rows.append([np.count_nonzero(array, axis=(1, 2, 3)) for array in (found & true, found, true, counted)])
        return np.array(rows, np.int64)

    def total(self, partial: NDArray[np.int64]) -> dict[str, float]:
        result = {}
        for threshold, (both, found, true, counted) in zip(self.thresholds, partial, strict=True):
            either = found + true - both
            iou = ratio(both, either)
            scores = {
                "iou": iou,
                "mean_iou": (iou + ratio(counted - either, counted - both)) / 2,
                "dice": ratio(2 * both, found + true),
                "precision": ratio(both, found),
                "recall": ratio(both, true),
            }
            ending = suffix(threshold) if len(self.thresholds) > 1 else ""
            result.update({name + ending: float(scores[name].mean()) for name in self.scores})
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
        predicted, truth, counted = compared(block)
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
