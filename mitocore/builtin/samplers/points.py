"""Files of points, such as the false positives that `mitocore evaluate` lists."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import DataError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import LabelledVolume
from mitocore.resampling import Resampling

_WHERE = "[sampler] points"
_VOXELS, _NANOMETRES = ("z", "y", "x"), ("z_nm", "y_nm", "x_nm")
_HINT = "columns z, y, x (voxels) or z_nm, y_nm, x_nm, as `mitocore evaluate --false-positives FILE` writes them"


@dataclass(frozen=True)
class Point:
    """One place in a volume as its file holds it, counted from the centre of the first voxel."""

    volume: str
    """Path of the volume; empty: the file does not say."""
    voxels: tuple[float, ...] | None
    nanometres: tuple[float, ...] | None


def read_points(path: Path) -> list[Point]:
    """The points of a .csv file with a header line, or of a .json file: a list of tables, or of [z, y, x] in voxels.

    Raises
    ------
    DataError
        If it is missing, or not such a file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _tables(json.load(file)) if path.suffix == ".json" else list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error, TypeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{str(path)!r} cannot be read: {said}", where=_WHERE, hint=_HINT) from error
    points = [_point(row, number, path) for number, row in enumerate(rows, 1)]
    if not points:
        raise DataError(f"{str(path)!r} holds no point", where=_WHERE, hint="leave points out")
    return points


def _tables(content: Any) -> list[Mapping[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(row, list | dict) for row in content):
        raise TypeError("it is no list of points")
    return [row if isinstance(row, dict) else dict(zip(_VOXELS, row, strict=False)) for row in content]


def _point(row: Mapping[str, Any], number: int, path: Path) -> Point:
    voxels, nanometres = (_numbers(row, names, number, path) for names in (_VOXELS, _NANOMETRES))
    if voxels is None and nanometres is None:
        raise DataError(f"point {number} of {str(path)!r} has no place", where=_WHERE, hint=_HINT)
    return Point(str(row.get("volume") or ""), voxels, nanometres)


def _numbers(row: Mapping[str, Any], names: Sequence[str], number: int, path: Path) -> tuple[float, ...] | None:
    stated = [row.get(name) for name in names]
    if None in stated or "" in stated:
        return None
    try:
        values = tuple(float(value) for value in stated if value is not None)
    except (TypeError, ValueError) as error:
        problem = f"point {number} of {str(path)!r} lies at {stated}; a place is three numbers"
        raise DataError(problem, where=_WHERE, hint=_HINT) from error
    if not np.isfinite(values).all():
        problem = f"point {number} of {str(path)!r} lies at {stated}; a place is three finite numbers"
        raise DataError(problem, where=_WHERE, hint=_HINT)
    return values


def within(points: Sequence[Point], volumes: Sequence[LabelledVolume], path: Path) -> list[NDArray[np.int64]]:
    """Raster indices, in the region of each volume, of the points that lie in it; those of other regions are left out.

    Nanometres go before voxels where the voxel size is known: they hold whatever the voxels of the prediction were.

    Raises
    ------
    DataError
        If the points do not say which of several volumes they are in, or none lies in a region.
    """
    if len({volume.name or id(volume.image) for volume in volumes}) > 1 and not all(p.volume for p in points):
        hint = "add a column `volume` with the path that [[volume]] states"
        raise DataError(f"{str(path)!r} does not say which volume a point is in", where=_WHERE, hint=hint)
    found = [_inside([p for p in points if _is_of(p, volume)], volume) for volume in volumes]
    if not any(map(len, found)):
        hint = "list points of the training volumes, or leave points out"
        raise DataError(f"no point of {str(path)!r} lies in a training region", where=_WHERE, hint=hint)
    return found


def _is_of(point: Point, volume: LabelledVolume) -> bool:
    return not point.volume or point.volume == volume.name or volume.name.endswith(f"/{point.volume}")


def _inside(points: Sequence[Point], volume: LabelledVolume) -> NDArray[np.int64]:
    region = volume.region
    rasters = set()
    for point in points:
        z, y, x = _voxel(point, volume)
        if region.contains(Roi((z, y, x), (z + 1, y + 1, x + 1))):
            rasters.add(int(np.ravel_multi_index((z, y, x) - np.array(region.start), region.shape)))
    return np.array(sorted(rasters), np.int64)


def _voxel(point: Point, volume: LabelledVolume) -> Shape:
    """The voxel of a volume, resampled or not, in which a point of its file lies."""
    image, file = volume.image.spec, volume.original or volume.image.spec
    if point.nanometres and file.voxel_size:
        place = np.divide(point.nanometres, file.voxel_size.edges)
    elif point.voxels:
        place = np.array(point.voxels)
    else:
        problem = f"the points are in nm, and the voxel size of {volume.name or 'a volume'} is not known"
        raise DataError(problem, where=_WHERE, hint="state voxel_size in [[volume]], or give columns z, y, x")
    ratio: tuple[float, ...] = (1, 1, 1)
    if file.voxel_size and image.voxel_size:
        ratio = Resampling.between(file.shape, file.voxel_size, image.voxel_size).ratio
    return as_shape(int(n) for n in np.floor((place + 0.5) / ratio))  # counted from a corner of the volume
