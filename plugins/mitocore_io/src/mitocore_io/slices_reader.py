"""Reader of folders in which every file is one slice."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore import DataError, Reader, Roi, Volume, VolumeSpec
from mitocore_io import attributes, images
from mitocore_io.axes import Axes
from mitocore_io.chunk_names import holds_chunks
from mitocore_io.targets import local, missing
from mitocore_io.tiff_reader import TiffReader

logger = logging.getLogger(__name__)

SUFFIXES = (*images.SUFFIXES, ".tif", ".tiff")
_SAME = {".tiff": ".tif", ".jpeg": ".jpg"}
NOTE = "volume.json"
"""What the writer notes beside its slices, which cannot hold it: voxel size, kind."""


class SlicesReader(Reader):
    """A folder of PNG, TIFF or JPEG slices, one per z, in the order of the numbers in their names (img2 before img10).

    `path` is the folder, a pattern such as "raw/*.png", or one file, which is a volume of one slice. Slices know no
    voxel size. 1-bit slices among 8-bit ones are read as 0 and 255, as PNG defines them; colours are refused.
    """

    def open(self) -> Volume:
        files = _files(self.path)
        _warn_of(_gap(files))
        form = _common([_form(file) for file in files], self.path)
        axes = Axes.of((len(files), form.height, form.width), "zyx", self.path)
        note = files[0].parent / NOTE
        noted = attributes.record(_noted(note) if note.is_file() else {})
        chunks = (1, form.height, form.width)
        spec = attributes.volume_spec(axes, np.dtype(form.dtype), chunks, noted, self.voxel_size, self.path)
        return SlicesVolume(files, spec)

    def files(self) -> Sequence[Path]:
        return _files(self.path)


class SlicesVolume(Volume):
    """Slices, opened one at a time, and only those that are asked for."""

    def __init__(self, files: Sequence[Path], spec: VolumeSpec) -> None:
        self._files, self._spec = files, spec

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        (first, top, left), (last, bottom, right) = roi.start, roi.stop
        values = np.empty((1, *roi.shape), self._spec.dtype)
        for number in range(first, last):
            plane = slice_of(self._files[number], self._spec, Roi((0, top, left), (1, bottom, right)))
            values[0, number - first] = plane
        return values


def slice_of(file: Path, spec: VolumeSpec, roi: Roi) -> NDArray[Any]:
    """The rows and columns of `roi` in one file.

    Raises
    ------
    DataError
        If the file is gone, damaged, in colour, or has changed since the folder was opened.
    """
    if file.suffix.lower() not in images.SUFFIXES:
        with TiffReader(path=str(file)).open() as volume:
            plane: NDArray[Any] = volume.read(roi)[0, 0]
        one_bit_of_many = plane.dtype == np.bool_ and spec.dtype == "uint8"
        return plane.astype(np.uint8) * 255 if one_bit_of_many else plane
    plane = images.pixels(file)
    if plane.shape != spec.shape[1:]:
        problem = f"{file.name!r} has changed: it has {plane.shape} pixels (y, x), not {spec.shape[1:]}"
        raise DataError(problem, where=str(file))
    return plane[roi.slices[1:]]


@dataclass(frozen=True, slots=True)
class _Form:
    name: str
    height: int
    width: int
    dtype: str


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names by the numbers in them.

    >>> sorted(["img10.png", "img2.png", "img1.png"], key=natural)
    ['img1.png', 'img2.png', 'img10.png']
    """
    parts = re.split(r"([0-9]+)", name.lower())  # text and numbers in turn, text first: like is compared with like
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _files(path: str) -> list[Path]:
    folder, pattern = local(path), "*"
    if any(sign in folder.name for sign in "*?["):
        folder, pattern = folder.parent, folder.name
    if folder.is_file():
        return [folder]
    if not folder.exists():
        raise missing(folder)
    fits = [file for file in folder.glob(pattern) if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    kinds = sorted({_SAME.get(file.suffix.lower(), file.suffix.lower()) for file in fits})
    if not fits:
        what = f"no file that fits {pattern!r}" if pattern != "*" else "no slices"
        problem = f"{folder.name!r} holds {what}; slices are files that end in {', '.join(SUFFIXES)}"
        chunks = pattern == "*" and holds_chunks(folder)
        hint = f'"{folder.name}/*.h5" for its chunks as one volume' if chunks else _volumes_of(folder, "*")
        raise DataError(problem, where=str(folder), hint=hint)
    if len(kinds) > 1:
        problem = f"{folder.name!r} holds slices that end in {' and '.join(kinds)}"
        raise DataError(problem, where=str(folder), hint=f'path = "{folder.name}/*{kinds[0]}"')
    return sorted(fits, key=lambda file: natural(file.name))


def _gap(files: Sequence[Path]) -> str:
    """Where the numbers at the end of names leave one out; "": nowhere. Steps of 10, or of 50 nm, are no gap.

    >>> _gap([Path("raw/s1.png"), Path("raw/s2.png"), Path("raw/s4.png")])
    "no slice lies between 's2.png' and 's4.png' in 'raw'; they count as neighbours"
    """
    ends = [re.search(r"^(.*?)([0-9]+)$", file.stem) for file in files]
    if len({end[1] if end else None for end in ends}) != 1 or len(files) < 3:
        return ""  # no numbers, or several series
    numbers = [int(end[2]) for end in ends if end]
    steps = [after - before for before, after in pairwise(numbers)]
    wide = [number for number, step in enumerate(steps) if step > min(steps)]
    if not wide or min(steps) < 1:
        return ""
    before, after = files[wide[0]], files[wide[0] + 1]
    more = f" ({len(wide) - 1} more such gaps)" if len(wide) > 1 else ""
    between = f"between {before.name!r} and {after.name!r} in {before.parent.name!r}{more}"
    return f"no slice lies {between}; they count as neighbours"


@cache
def _warn_of(gap: str) -> None:
    """Say it once, however often the folder is opened."""
    if gap:
        logger.warning("%s", gap)


def _volumes_of(folder: Path, pattern: str) -> str:
    """The hint for those who mean files that are a volume each."""
    return f'one file alone; or "{folder.name}/{pattern}" for all, with "{{stem}}" in the path of the output'


def _form(file: Path) -> _Form:
    if file.suffix.lower() in images.SUFFIXES:
        found = images.header(file)
        return _Form(file.name, found.height, found.width, found.dtype)
    with TiffReader(path=str(file)).open() as volume:
        (z, y, x), channels = volume.spec.shape, len(volume.spec.channels)
        if z * channels > 1:
            problem = f"{file.name!r} holds {z * channels} planes; each file of a folder is one slice"
            raise DataError(problem, where=str(file), hint=_volumes_of(file.parent, f"*{file.suffix}"))
        return _Form(file.name, y, x, volume.spec.dtype)


def _common(forms: Sequence[_Form], path: str) -> _Form:
    """What all slices are; 1-bit ones are widened to 8 bits where there are both."""
    depths = {form.dtype for form in forms}
    widened = depths == {"bool", "uint8"}
    kinds = [(form.height, form.width, "uint8" if widened else form.dtype) for form in forms]
    usual = max(sorted(set(kinds)), key=kinds.count)
    for form, kind in zip(forms, kinds, strict=True):
        if kind != usual:
            problem = (
                f"{form.name!r} is {kind[0]} x {kind[1]} {kind[2]}, other slices are {usual[0]} x {usual[1]} {usual[2]}"
            )
            raise DataError(problem, where=path, hint="all slices of a folder have one size and depth")
    return _Form("", *usual)


def _noted(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_bytes())
    except (OSError, ValueError):  # a file of that name that is not ours
        return {}
    return found if isinstance(found, dict) else {}
