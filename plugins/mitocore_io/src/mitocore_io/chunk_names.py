"""Files that are named after the voxels they hold: which these are, whether they overlap, which are missing."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from mitocore import DataError, Roi

SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
_NAME = re.compile(r"(?<![0-9])" + "-".join(["([0-9]+)"] * 6) + r"(?![0-9-])")
_LISTED = 3
"""Names in a message."""
_COUNTED = 10**6
"""Places that are looked at to name the missing ones."""


@dataclass(frozen=True, slots=True)
class NamedChunk:
    """A file and the box of voxels that its name states."""

    file: Path
    roi: Roi

    @property
    def name(self) -> str:
        """The file without its folder."""
        return self.file.name


def chunk_of(file: Path) -> NamedChunk | None:
    """What the name of a file states; None: it does not hold six numbers joined by dashes.

    >>> chunk_of(Path("out/result_0-125-512-1024-0-512_xy.h5")).roi
    Roi(start=(0, 512, 0), stop=(125, 1024, 512))
    >>> chunk_of(Path("out/2024-01-31.h5"))
    """
    found = list(_NAME.finditer(file.name))
    if not found:
        return None
    z0, z1, y0, y1, x0, x1 = (int(number) for number in found[-1].groups())  # a name may hold six more before
    return NamedChunk(file, Roi((z0, y0, x0), (z1, y1, x1)))


def holds_chunks(folder: Path) -> bool:
    """Whether a folder holds such files."""
    return any(file.suffix.lower() in SUFFIXES and chunk_of(file) for file in folder.iterdir())


def spelled(roi: Roi) -> str:
    """A box as the name of its file states it.

    >>> spelled(Roi((0, 512, 0), (125, 1024, 512)))
    '0-125-512-1024-0-512'
    """
    return "-".join(f"{a}-{b}" for a, b in zip(roi.start, roi.stop, strict=True))


def refuse_overlaps(chunks: Sequence[NamedChunk], where: str) -> None:
    """Refuse files that hold the same voxels, as those of two predictions in one folder do.

    Raises
    ------
    DataError
        If two chunks overlap, or one is empty.
    """
    for chunk in chunks:
        if min(chunk.roi.shape) < 1:
            problem = f"{chunk.name!r} names no voxels: the end of a range lies before its start"
            raise DataError(problem, where=where, hint="rename or remove the file")
    starts, stops = (np.array([getattr(chunk.roi, end) for chunk in chunks]) for end in ("start", "stop"))
    for number, chunk in enumerate(chunks):
        meets = ((starts[:number] < chunk.roi.stop) & (stops[:number] > chunk.roi.start)).all(axis=1)
        if meets.any():
            other = chunks[int(meets.argmax())]
            problem = f"{other.name!r} and {chunk.name!r} hold the same voxels"
            if other.roi != chunk.roi:
                problem = f"{other.name!r} and {chunk.name!r} overlap"
            raise DataError(problem, where=where, hint=_narrower(other, chunk))


def _narrower(one: NamedChunk, other: NamedChunk) -> str:
    """A pattern that takes only the files of one of two predictions."""
    patterns = [chunk.name.replace(spelled(chunk.roi), "*") for chunk in (one, other)]
    if patterns[0] == patterns[1]:
        return "one volume is cut without overlap; keep the files of one cut"
    return " or ".join(f'"{one.file.parent.name}/{pattern}"' for pattern in patterns) + ", if they are two predictions"


def missing_of(chunks: Sequence[NamedChunk], whole: Roi) -> str:
    """Which voxels of a box no file holds, in words; "": none. The chunks do not overlap.

    >>> halves = [NamedChunk(Path("a"), Roi((0, 0, 0), (4, 8, 8))), NamedChunk(Path("b"), Roi((4, 0, 8), (8, 8, 16)))]
    >>> missing_of(halves, Roi((0, 0, 0), (8, 8, 16)))
    '0-4-0-8-8-16, 4-8-0-8-0-8'
    """
    lacking = whole.voxels - sum(chunk.roi.clip(whole).voxels for chunk in chunks)
    if not lacking:
        return ""
    names = list(_empty_places(chunks, whole))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more if names else f"{lacking:,} voxels"


def _empty_places(chunks: Sequence[NamedChunk], whole: Roi) -> Iterator[str]:
    """Boxes between the faces of all chunks that none of them holds; of an even cut, the missing chunks."""
    faces = []
    for axis in range(3):
        ends = {end[axis] for chunk in chunks for end in (chunk.roi.start, chunk.roi.stop)}
        inside = {end for end in ends if whole.start[axis] < end < whole.stop[axis]}
        faces.append(sorted(inside | {whole.start[axis], whole.stop[axis]}))
    counts = [len(ends) - 1 for ends in faces]
    if np.prod(counts, dtype=float) > _COUNTED:
        return
    held = np.zeros(counts, bool)
    for chunk in chunks:
        roi = chunk.roi.clip(whole)
        bounds = zip(faces, roi.start, roi.stop, strict=True)
        held[tuple(slice(*np.searchsorted(ends, (a, b))) for ends, a, b in bounds)] = True
    for place, (z, y, x) in zip(np.ndindex(*counts), product(*map(pairwise, faces)), strict=True):
        if not held[place]:
            yield spelled(Roi((z[0], y[0], x[0]), (z[1], y[1], x[1])))
