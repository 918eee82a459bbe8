"""Scores of a prediction, and lists of its objects made on the same pass over the volumes."""

from collections.abc import Mapping
from pathlib import Path

from mitocore import evaluation, false_positives, matches
from mitocore.interfaces import Metric

_LISTED = "objects to list"


def evaluate(
    pair: evaluation.Compared,
    metrics: Mapping[str, Metric],
    *,
    wrong: Path | None = None,
    overlapping: Path | None = None,
    progress: evaluation.Progress = evaluation.quiet,
) -> dict[str, dict[str, float]]:
    """Scores by metric, as `evaluation.evaluate` gives them.

    Parameters
    ----------
    wrong, overlapping
        Where to write the false positives, and the pairs of objects that overlap.

    Raises
    ------
    DataError
        If a list cannot be written.
    WiringError
        If the prediction holds no objects to list, and as `evaluation.summed` does.
    """
    if wrong:
        false_positives.check(wrong, pair)
    if overlapping:
        false_positives.check(overlapping, pair, matches.OPTION)
    listing = {_LISTED: false_positives.Unmatched()} if wrong or overlapping else {}
    sums = evaluation.summed(pair, {**metrics, **listing}, progress=progress)
    if wrong:
        false_positives.write(wrong, sums[_LISTED], pair.voxel_size)
    if overlapping:
        matches.write(overlapping, sums[_LISTED], pair.voxel_size)
    return evaluation.totals(pair, metrics, sums, progress=progress)
