"""Predicted objects that are not there: found while a prediction is scored, listed where they lie."""

import csv
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mitocore.builtin.extents import Located
from mitocore.errors import DataError, WiringError
from mitocore.evaluation import Compared
from mitocore.geometry import VoxelSize
from mitocore.interfaces import Block, Metric
from mitocore.specs import Kind

OPTION = "--false-positives"
SMALLEST_IOU = 0.5
"""Of a match: an object that reaches it with none of the true ones is a false positive."""


@dataclass(frozen=True, slots=True)
class FalsePositive:
    """A predicted object that matches no true one."""

    id: int
    voxels: int
    """Those whose truth is known."""
    centre: tuple[float, float, float]
    """(z, y, x) in voxels; the centre of the first voxel of the volume is 0."""
    iou: float
    """With the true object it matches best."""
    overlap: float
    """Share of its voxels that lie in true objects."""


class Unmatched(Metric):
    """Predicted objects of which no true object has an IoU of one half."""

    compares: ClassVar[Kind] = Kind.INSTANCE
    narrow_ids: ClassVar[bool] = True

    def shared(self) -> Hashable:
        """With the metrics that need boxes of objects."""
        return "located"

    def partial(self, block: Block) -> Located:
        return Located.of(block)

    def total(self, partial: Located) -> dict[str, float]:
        return {"false_positives": float(len(list(found(partial))))}


def found(located: Located) -> Iterator[FalsePositive]:
    """The false positives, by id."""
    table, predicted, truth = located.table, located.predicted, located.truth
    pairs = (table.predicted > 0) & (table.truth > 0)
    at, shared = np.searchsorted(predicted.ids, table.predicted[pairs]), table.voxels[pairs]
    true_voxels = truth.voxels[np.searchsorted(truth.ids, table.truth[pairs])]
    voxels = predicted.voxels
    best, covered = np.zeros(len(voxels)), np.zeros(len(voxels), np.int64)
    np.maximum.at(best, at, shared / (voxels[at] + true_voxels - shared))
    np.add.at(covered, at, shared)
    for row in np.flatnonzero(best < SMALLEST_IOU).tolist():
        overlap = float(covered[row] / voxels[row])
        number, size = int(predicted.ids[row]), int(voxels[row])
        yield FalsePositive(number, size, predicted.centre(row), float(best[row]), overlap)


def write(path: Path, located: Located, voxel_size: VoxelSize | None) -> None:
    """Write the false positives as .csv: id, voxels, centre in voxels and, where the voxel size is known, in nm.

    The samplers read such a file as `points`.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    rows = (
        (row.id, row.voxels, *places(row.centre, voxel_size), round(row.iou, 4), round(row.overlap, 4))
        for row in found(located)
    )
    write_rows(path, ("id", "voxels", *place_names(voxel_size), "iou", "overlap"), rows, OPTION)


def place_names(voxel_size: VoxelSize | None) -> tuple[str, ...]:
    """Columns of a place: in voxels and, where the voxel size is known, in nm."""
    return ("z", "y", "x", *(("z_nm", "y_nm", "x_nm") if voxel_size else ()))


def places(centre: Sequence[float], voxel_size: VoxelSize | None) -> tuple[float, ...]:
    """The values of these columns."""
    nanometres = np.multiply(centre, voxel_size.edges).tolist() if voxel_size else ()
    return tuple(round(value, 3) for value in (*centre, *nanometres))


def write_rows(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]], option: str) -> None:
    """Write a .csv file that an option names.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(rows)
    except OSError as error:
        raise unwritable(path, error.strerror or str(error), option) from error


def check(path: Path, pair: Compared, option: str = OPTION) -> None:
    """Refuse, before anything is scored, a list that cannot be made.

    Raises
    ------
    WiringError
        If the prediction holds no objects.
    DataError
        If it cannot be written where it is wanted.
    """
    if pair.kind is not Kind.INSTANCE:
        problem = f"this lists objects, the prediction holds {pair.kind}"
        hint = "evaluate the instances of a run, or state --kind instance"
        raise WiringError(problem, where=option, hint=hint)
    if path.suffix != ".csv":
        raise unwritable(path, "the list is a .csv file", option)
    if not path.absolute().parent.is_dir():
        raise unwritable(path, f"there is no folder {str(path.parent)!r}", option)


def unwritable(path: Path, reason: str, option: str) -> DataError:
    """What to say of a file that cannot be written."""
    hint = f"{option} list.csv, in a folder that exists"
    return DataError(f"{str(path)!r} cannot be written: {reason}", where=option, hint=hint)
