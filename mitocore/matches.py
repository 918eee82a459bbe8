"""Which predicted object overlaps which true one, the worst first: a list to look at volumes by."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mitocore.builtin.extents import Located
from mitocore.builtin.metrics.matching import Overlaps
from mitocore.false_positives import SMALLEST_IOU, place_names, places, write_rows
from mitocore.geometry import Roi, VoxelSize

OPTION = "--matches"


@dataclass(frozen=True, slots=True)
class Pair:
    """A predicted and a true object that overlap, or one of them that overlaps none."""

    predicted: int | None
    truth: int | None
    iou: float
    matched: bool
    """Whether they are one object to the metric `instance`, at an IoU of one half."""
    best: float
    """The largest IoU that the worse-off of the two has with any object."""
    voxels: int
    """Shared."""
    predicted_voxels: int
    true_voxels: int
    centre: tuple[float, float, float]
    """Of the predicted object, or of the true one that has none; (z, y, x) in voxels."""
    box: Roi
    """Around both."""


def pairs(located: Located) -> Iterator[Pair]:
    """All pairs: by `best`, then by their IoU, then the largest first."""
    overlaps = Overlaps(located.table)
    matched = np.zeros(len(overlaps.score), bool)
    matched[overlaps.matched(SMALLEST_IOU)] = True
    best, true_best = np.zeros(len(overlaps.ids)), np.zeros(len(overlaps.true_ids))
    np.maximum.at(best, overlaps.predicted, overlaps.score)
    np.maximum.at(true_best, overlaps.truth, overlaps.score)
    alone, missed = np.flatnonzero(best == 0), np.flatnonzero(true_best == 0)
    # Objects are numbered as `located` has them: both are in the order of ids; -1 is none.
    p = np.concatenate([overlaps.predicted, alone, np.full(len(missed), -1)])
    t = np.concatenate([overlaps.truth, np.full(len(alone), -1), missed])
    iou = np.concatenate([overlaps.score, np.zeros(len(alone) + len(missed))])
    worse = np.minimum(best[overlaps.predicted], true_best[overlaps.truth])
    worse = np.concatenate([worse, np.zeros(len(alone) + len(missed))])
    sizes, true_sizes = np.append(overlaps.sizes, 0)[p], np.append(overlaps.true_sizes, 0)[t]
    shared = np.concatenate([overlaps.voxels, np.zeros(len(alone) + len(missed), np.int64)])
    for row in np.lexsort((t, p, -(sizes + true_sizes), iou, worse)).tolist():
        of, within = int(p[row]), int(t[row])
        boxes = [located.predicted.box(of)] if of >= 0 else []
        boxes += [located.truth.box(within)] if within >= 0 else []
        yield Pair(
            int(overlaps.ids[of]) if of >= 0 else None,
            int(overlaps.true_ids[within]) if within >= 0 else None,
            float(iou[row]),
            row < len(matched) and bool(matched[row]),
            float(worse[row]),
            int(shared[row]),
            int(sizes[row]),
            int(true_sizes[row]),
            located.predicted.centre(of) if of >= 0 else located.truth.centre(within),
            boxes[0].around(boxes[-1]),
        )


def write(path: Path, located: Located, voxel_size: VoxelSize | None) -> None:
    """Write the pairs as .csv; the columns are those of `Pair`, an id that is missing is empty.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    names = ("predicted", "truth", "iou", "matched", "best", "voxels", "predicted_voxels", "true_voxels")
    box = ("z_from", "y_from", "x_from", "z_to", "y_to", "x_to")
    rows = (
        (
            one.predicted,
            one.truth,
            round(one.iou, 4),
            int(one.matched),
            round(one.best, 4),
            one.voxels,
            one.predicted_voxels,
            one.true_voxels,
            *places(one.centre, voxel_size),
            *one.box.start,
            *one.box.stop,
        )
        for one in pairs(located)
    )
    write_rows(path, (*names, *place_names(voxel_size), *box), rows, OPTION)
