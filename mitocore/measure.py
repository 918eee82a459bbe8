"""One row per instance, from blocks: size, box, centroid, contact with the volume's faces."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import Opened
from mitocore.blockwise.grid import BlockGrid
from mitocore.builtin.extents import Extents
from mitocore.errors import DataError
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces import Volume
from mitocore.specs import Kind

BLOCK = (64, 512, 512)
FACES = ("z-", "y-", "x-", "z+", "y+", "x+")
"""Names of the volume's faces: those at index 0 of an axis, then those at its end."""

_PLACES = [("start", "i8", 3), ("stop", "i8", 3), ("centroid", "f8", 3), ("faces", "?", 6)]
_ROW = np.dtype([("id", "u8"), ("voxels", "i8"), *_PLACES])
_IGNORE = np.iinfo("u8").max


@dataclass(frozen=True)
class InstanceTable:
    """What was measured of every instance, in the order of their ids."""

    rows: NDArray[Any]
    """Structured: `id`; `voxels`; `start` and `stop` (z, y, x), the half-open bounding box; `centroid` (z, y, x) in
    voxels, where the centre of the first voxel is 0; `faces`, whether it touches each of `FACES`."""
    voxel_size: VoxelSize | None = None
    """None: not known; then nothing is given in physical units."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Place of the centre of the first voxel, in nm."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cubic_microns(self) -> NDArray[np.float64] | None:
        """Volume of each instance in µm³; None if the voxel size is not known."""
        size = self.voxel_size
        return None if size is None else np.asarray(self.rows["voxels"] * (size.volume / 1e9), np.float64)

    @property
    def nanometres(self) -> NDArray[np.float64] | None:
        """Centroids (z, y, x) in nm, in the frame of the volume's origin; None if the voxel size is not known."""
        size = self.voxel_size
        return None if size is None else self.rows["centroid"] * np.array(size.edges) + np.array(self.origin)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which instances touch no face of the volume."""
        return np.asarray(~self.rows["faces"].any(axis=1))

    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `records` and of the CSV."""
        box = tuple(f"{axis}_{end}" for end in ("start", "stop") for axis in "zyx")
        physical = ("volume_um3", "z_nm", "y_nm", "x_nm") if self.voxel_size else ()
        return ("id", "voxels", *box, "z", "y", "x", "faces", *physical)

    def records(self) -> list[tuple[int | float | str, ...]]:
        """The rows in plain Python values, as `columns` names them."""
        volumes, places = self.cubic_microns, self.nanometres
        found: list[tuple[int | float | str, ...]] = []
        for number, row in enumerate(self.rows):
            centroid = (round(float(c), 3) for c in row["centroid"])
            faces = " ".join(name for name, there in zip(FACES, row["faces"], strict=True) if there)
            record = [int(row["id"]), int(row["voxels"]), *map(int, row["start"]), *map(int, row["stop"])]
            physical: list[float] = []
            if volumes is not None and places is not None:
                physical = [float(f"{volumes[number]:.6g}"), *(round(float(nm), 2) for nm in places[number])]
            found.append((*record, *centroid, faces, *physical))
        return found

    def write_csv(self, path: Path) -> None:
        """Write a table with one header line.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        try:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(self.columns())
                writer.writerows(self.records())
        except OSError as error:
            problem = f"{str(path)!r} cannot be written: {error.strerror}"
            raise DataError(problem, hint="name a .csv file in a folder that exists") from error

    def summary(self) -> str:
        """Number and sizes of the instances in one line."""
        if not len(self):
            return "no instances"
        volumes = self.cubic_microns
        sizes, unit, form = (self.rows["voxels"], "voxels", ",.0f") if volumes is None else (volumes, "µm³", ".3g")
        low, middle, high = (format(float(size), form) for size in np.percentile(sizes, (0, 50, 100)))
        return (
            f"{len(self):,} instances, {np.count_nonzero(self.complete):,} of them complete; "
            f"{low} to {high} {unit}, median {middle} {unit}"
        )


def instance_table(
    volume: Volume,
    *,
    block: Shape = BLOCK,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> InstanceTable:
    """Measure every instance of a label volume; memory grows with instances and the block, not with the volume.

    Every number is a sum, a minimum or a maximum of integers, so the result does not depend on the block. Voxels to
    "ignore" are not measured: the largest number of the file's unsigned type of 16 bits or more, or -1.

    Raises
    ------
    DataError
        If the volume has several channels or holds no integers.
    """
    spec = volume.spec
    if len(spec.channels) != 1 or spec.dtype.startswith(("float", "complex")):
        problem = f"a volume of {len(spec.channels)} channels of {spec.dtype} holds no instances"
        raise DataError(problem, hint="give a label volume: one channel of integers")
    source, whole = Opened(volume, Kind.INSTANCE), Roi.whole(spec.shape)
    grid = BlockGrid(whole, as_shape(min(b, n) for b, n in zip(block, spec.shape, strict=True)))
    found = Extents.of(np.zeros((1, 1, 1), np.uint64), whole.start)
    progress("measure", 0, len(grid))
    for number in range(len(grid)):
        box = grid.box(number)
        ids = source.read(box)[0]
        found += Extents.of(np.where(ids == _IGNORE, np.uint64(0), ids), box.start)
        progress("measure", number + 1, len(grid))
    return InstanceTable(_rows(found, spec.shape), spec.voxel_size, spec.origin)


def _rows(found: Extents, shape: Shape) -> NDArray[Any]:
    rows = np.zeros(len(found.ids), _ROW)
    rows["id"], rows["voxels"], rows["start"], rows["stop"] = found.ids, found.voxels, found.low, found.high
    rows["centroid"] = found.sums[:, 1:] / found.voxels[:, None]
    rows["faces"] = np.concatenate([found.low == 0, found.high == np.array(shape)], axis=1)
    return rows
