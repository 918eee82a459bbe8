"""Predicted objects that are not there: found while a prediction is scored, listed where they lie."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.contingency import ContingencyTable
from mitocore.errors import DataError, WiringError
from mitocore.evaluation import Compared
from mitocore.geometry import VoxelSize
from mitocore.interfaces import Block, Metric
from mitocore.specs import Kind

SMALLEST_IOU = 0.5
"""Of a match: an object that reaches it with none of the true ones is a false positive."""


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """Voxels of predicted objects, the sums of their places, and what they share with true objects; additive."""

    table: ContingencyTable
    ids: NDArray[np.uint64]
    sums: NDArray[np.int64]
    """Per object: voxels, and the sums of their z, y and x."""

    def __add__(self, other: "Extents") -> "Extents":
        ids, sums = np.concatenate([self.ids, other.ids]), np.concatenate([self.sums, other.sums])
        return Extents(self.table + other.table, *_summed(ids, sums))


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

    def partial(self, block: Block) -> Extents:
        predicted, truth = block.crop(block["predicted"])[0], block.crop(block["truth"])[0]
        known = truth != np.iinfo(truth.dtype).max
        ids = np.where(known, predicted, 0).astype(np.uint64)
        return Extents(ContingencyTable.of(ids[known], truth[known]), *_places(ids, block.write.start))

    def total(self, partial: Extents) -> dict[str, float]:
        return {"false_positives": float(len(list(found(partial))))}


def found(extents: Extents) -> Iterator[FalsePositive]:
    """The false positives, by id."""
    table, ids = extents.table, extents.ids
    truths, truth = np.unique(table.truth, return_inverse=True)
    of_truth = np.bincount(truth, table.voxels, len(truths))
    pairs = (table.predicted > 0) & (table.truth > 0)
    at, shared = np.searchsorted(ids, table.predicted[pairs]), table.voxels[pairs]
    voxels = extents.sums[:, 0]
    best, covered = np.zeros(len(ids)), np.zeros(len(ids), np.int64)
    np.maximum.at(best, at, shared / (voxels[at] + of_truth[truth[pairs]] - shared))
    np.add.at(covered, at, shared)
    for row in np.flatnonzero(best < SMALLEST_IOU):
        z, y, x = (extents.sums[row, 1:] / voxels[row]).tolist()
        overlap = float(covered[row] / voxels[row])
        yield FalsePositive(int(ids[row]), int(voxels[row]), (z, y, x), float(best[row]), overlap)


def write(path: Path, extents: Extents, voxel_size: VoxelSize | None) -> None:
    """Write the false positives as .csv: id, voxels, centre in voxels and, where the voxel size is known, in nm.

    The samplers read such a file as `points`.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    physical = ("z_nm", "y_nm", "x_nm") if voxel_size else ()
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("id", "voxels", "z", "y", "x", *physical, "iou", "overlap"))
            for row in found(extents):
                nanometres = np.multiply(row.centre, voxel_size.edges).tolist() if voxel_size else ()
                centre, size = ([round(value, 3) for value in values] for values in (row.centre, nanometres))
                writer.writerow((row.id, row.voxels, *centre, *size, round(row.iou, 4), round(row.overlap, 4)))
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error


def check(path: Path, pair: Compared) -> None:
    """Refuse, before anything is scored, a list that cannot be made.

    Raises
    ------
    WiringError
        If the prediction holds no objects.
    DataError
        If it cannot be written where it is wanted.
    """
    if pair.kind is not Kind.INSTANCE:
        problem = f"false positives are objects, the prediction holds {pair.kind}"
        hint = "evaluate the instances of a run, or state --kind instance"
        raise WiringError(problem, where="--false-positives", hint=hint)
    if path.suffix != ".csv":
        raise unwritable(path, "the list is a .csv file")
    if not path.absolute().parent.is_dir():
        raise unwritable(path, f"there is no folder {str(path.parent)!r}")


def unwritable(path: Path, reason: str) -> DataError:
    """What to say of a file that cannot be written."""
    hint = "--false-positives errors.csv, in a folder that exists"
    return DataError(f"{str(path)!r} cannot be written: {reason}", where="--false-positives", hint=hint)


def _places(ids: NDArray[np.uint64], start: tuple[int, int, int]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Ids of a block (z, y, x), and the sums of their voxels: from runs along x, which are far fewer than voxels."""
    fresh = np.ones(ids.shape, bool)
    fresh[..., 1:] = ids[..., 1:] != ids[..., :-1]
    begins = np.flatnonzero(fresh)
    length = np.diff(begins, append=ids.size)
    z, y, x = np.unravel_index(begins, ids.shape)
    along = length * (2 * (x + start[2]) + length - 1) // 2
    sums = np.stack([length, length * (z + start[0]), length * (y + start[1]), along], axis=1)
    objects = ids.reshape(-1)[begins]
    there = objects > 0
    return _summed(objects[there], sums[there])


def _summed(ids: NDArray[np.uint64], sums: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Rows sorted by id, equal ids added up."""
    if not len(ids):
        return ids, sums
    order = np.argsort(ids, kind="stable")
    ids, sums = ids[order], sums[order]
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    return ids[starts], np.add.reduceat(sums, starts, axis=0)
