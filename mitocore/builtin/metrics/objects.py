"""Scores that are functions of the contingency table of two instance segmentations."""

from collections.abc import Hashable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.contingency import ContingencyTable
from mitocore.builtin.metrics.compared import Thresholds, ratio, suffix
from mitocore.builtin.metrics.matching import Criterion, Overlaps
from mitocore.interfaces import Block, Metric
from mitocore.specs import Kind


class Objects(Metric):
    """Counts the voxels that each predicted object shares with each true one."""

    compares: ClassVar[Kind] = Kind.INSTANCE
    narrow_ids: ClassVar[bool] = True

    def shared(self) -> Hashable:
        """With all metrics of objects."""
        return "contingency"

    def partial(self, block: Block) -> ContingencyTable:
        predicted, truth = block.crop(block["predicted"]), block.crop(block["truth"])
        scores = block.crop(block["scores"]) if "scores" in block.arrays else None
        return ContingencyTable.of(predicted, truth, scores).without(np.iinfo(truth.dtype).max)


class Instance(Objects):
    """Precision, recall, F1, accuracy, panoptic quality and mean overlap of whole objects.

    A predicted and a true object match if their score reaches the threshold; each matches at most one, chosen so that
    the matches are as many, and then as good, as possible. With TP matches, FP and FN unmatched objects:

    * f1 = 2 TP / (2 TP + FP + FN), accuracy = TP / (TP + FP + FN) (the score of the MitoEM challenge),
    * pq = sum of the scores of matches / (TP + FP/2 + FN/2) (panoptic quality, Kirillov et al. 2019),
    * mean_matched = sum of the scores of matches / TP, mean_true = the same sum / true objects (Weigert et al. 2020,
      StarDist).

    Names end in the threshold in per cent, as in f1_75.
    """

    thresholds: Thresholds = (0.5, 0.75)
    """Smallest score of a match."""
    criterion: Criterion = "iou"
    """The score of a pair: the voxels it shares over those of either object (iou), of the true one (iot) or of the
    predicted one (iop)."""

    def total(self, partial: ContingencyTable) -> dict[str, float]:
        overlaps = Overlaps(partial, self.criterion)
        n_predicted, n_true = len(overlaps.ids), len(overlaps.true_ids)
        both = n_predicted + n_true
        result: dict[str, float] = {}
        for threshold in self.thresholds:
            matched = overlaps.score[overlaps.matched(threshold)]
            tp, quality = len(matched), matched.sum()
            scores: dict[str, Any] = {
                "f1": ratio(2 * tp, both),
                "precision": ratio(tp, n_predicted),
                "recall": ratio(tp, n_true),
                "accuracy": ratio(tp, both - tp),
                "pq": ratio(2 * quality, both),
                "mean_true": ratio(quality, n_true),
                "mean_matched": ratio(quality, tp) if tp or not both else 0.0,
            }
            result.update({name + suffix(threshold): float(score) for name, score in scores.items()})
        return {**result, "predicted": float(n_predicted), "true": float(n_true)}


class AdaptedRand(Objects):
    """Adapted Rand error (Arganda-Carreras et al. 2015): 0 is perfect.

    Only voxels inside true objects count. With p_ij of them shared by true object i and predicted object j, and c of
    them left as background, the error is 1 - 2 precision recall / (precision + recall), where

    * precision = (sum of p_ij² + m) / (sum over j of (sum over i of p_ij)² + m),
    * recall = (sum of p_ij² + m) / (sum over i of the squared size of i).
    """

    lower_is_better: ClassVar[bool] = True

    form: Literal["snemi", "cremi"] = "snemi"
    """What the voxels of true objects that were left as background weigh, m above. snemi: c over all voxels of the
    volume, as the script of the SNEMI3D challenge and those derived from it; cremi: c, each is an object of its own, as
    in the paper and in the evaluation of the CREMI challenge."""

    def total(self, partial: ContingencyTable) -> dict[str, float]:
        inside = partial.truth > 0
        truth, predicted, voxels = partial.truth[inside], partial.predicted[inside], partial.voxels[inside]
        found = predicted > 0
        missed = float(voxels[~found].sum())
        if self.form == "snemi":
            missed = float(ratio(missed, partial.voxels.sum()))
        both = float(np.square(voxels[found].astype(float)).sum()) + missed
        precision = float(ratio(both, _squares(predicted[found], voxels[found]) + missed))
        recall = float(ratio(both, _squares(truth, voxels)))
        error = 1 - 2 * precision * recall / (precision + recall)
        return {"are": error, "precision": precision, "recall": recall}


def _squares(ids: NDArray[np.uint64], voxels: NDArray[np.int64]) -> float:
    return float(np.square(_sizes(ids, voxels)).sum())


def _sizes(ids: NDArray[np.uint64], voxels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.bincount(np.unique(ids, return_inverse=True)[1], voxels).astype(float)


class VariationOfInformation(Objects):
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
