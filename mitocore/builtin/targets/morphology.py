"""Object ids of a crop made ready for targets: ignore apart, gaps widened, objects grown; and windows over them."""

import math
from typing import Annotated, Any

import fastremap
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from mitocore.errors import ConfigError
from mitocore.geometry import Shape, VoxelSize, nanometres
from mitocore.interfaces import Labels, Target
from mitocore.specs import Kind, Need

Rows = tuple[tuple[int, int, int], ...]
"""A window around a voxel as rows along x: (dz, dy, voxels to either side of the row's middle)."""


def _checked(width: int | str) -> int | str:
    if isinstance(width, str):
        nanometres(width)
    elif width < 0:
        raise ValueError(f"{width} voxels is less than none")
    return width


WidthOption = Annotated[int | str, AfterValidator(_checked)]
"""How far a `window` reaches: a number of voxels, or a length such as "30 nm"."""


class OfObjects(Target):
    """A target of objects, whose borders may be changed first."""

    label: str = "instances"
    """Name of the label array that is read."""
    erode: Annotated[int, Field(ge=0)] = 0
    """Voxels that have two objects or more within so many voxels of their slice (along y and x) become background."""
    dilate: Annotated[int, Field(ge=0)] = 0
    """Objects grow by so many voxels into the background of their slice, after `erode`."""

    def needs(self) -> dict[str, Need]:
        return {self.label: Need((Kind.INSTANCE,))}

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        del voxel_size
        return (0, self.erode + self.dilate, self.erode + self.dilate)

    def beyond(self, reach: Shape) -> Shape:
        """The halo of what looks `reach` voxels around itself at objects so changed."""
        z, y, x = OfObjects.halo(self, None)
        return (z + reach[0], y + reach[1], x + reach[2])

    def shaped(self, labels: Labels) -> NDArray[Any]:
        """Ids (z, y, x) after `erode` and `dilate`, of the dtype of the label array; "ignore" stays where it was."""
        return grown(parted(labels[self.label], self.erode), self.dilate)

    def objects(self, labels: Labels) -> tuple[NDArray[np.unsignedinteger], NDArray[np.bool_]]:
        """Objects 1, 2 … (z, y, x) in small integers, 0 elsewhere; and where the label is known."""
        return numbered(self.shaped(labels))


def known(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the label does not say "ignore"."""
    if ids.dtype.kind == "b":
        return np.ones(ids.shape, bool)
    return np.asarray(ids != np.iinfo(ids.dtype).max)


def numbered(ids: NDArray[Any]) -> tuple[NDArray[np.unsignedinteger], NDArray[np.bool_]]:
    """Objects 1, 2 … in the order they are met, 0 for background and "ignore"; and where the label is known.

    >>> numbered(np.array([7, 0, 255, 7, 3], "uint8"))[0]
    array([1, 0, 0, 1, 2], dtype=uint16)
    """
    counted = known(ids)
    wide = np.where(counted, ids, 0).astype(np.uint64)
    small, table = fastremap.renumber(wide, in_place=True)
    return small.astype(np.uint16 if len(table) < 2**15 else np.uint32), counted  # doubled, it still fits: `several`


def parted(ids: NDArray[Any], voxels: int) -> NDArray[Any]:
    """Ids, 0 wherever a square of 2 `voxels` + 1 in the slice holds two objects or more."""
    if not voxels:
        return ids
    objects, counted = numbered(ids)
    return np.where(several(objects, square(voxels)) & counted, ids.dtype.type(0), ids)


def grown(ids: NDArray[Any], voxels: int) -> NDArray[Any]:
    """Ids, each object larger by `voxels` along y and x where its slice has background; the nearest object wins."""
    if not voxels:
        return ids
    source, result = np.where(known(ids), ids, ids.dtype.type(0)), ids.copy()
    steps = range(-voxels, voxels + 1)
    for dy, dx in sorted(((y, x) for y in steps for x in steps), key=lambda step: (math.hypot(*step), step)):
        to, of = _shifted(ids.shape, (0, dy, dx))
        np.copyto(result[to], source[of], where=result[to] == 0)
    return result


def square(voxels: int, *, per_slice: bool = True) -> Rows:
    """A window of 2 `voxels` + 1 along y and x, and along z unless `per_slice`."""
    steps = range(-voxels, voxels + 1)
    return tuple((dz, dy, voxels) for dz in ((0,) if per_slice else steps) for dy in steps)


def ball(length: float, voxel_size: VoxelSize, *, per_slice: bool = True) -> Rows:
    """All voxels whose centre is at most `length` (nm) away.

    >>> ball(10, VoxelSize(20, 5, 5))
    ((0, -2, 0), (0, -1, 1), (0, 0, 2), (0, 1, 1), (0, 2, 0))
    """
    z, y, x = (length / edge for edge in voxel_size.edges)
    rows = []
    for dz in range(-int(z + 1e-9), int(z + 1e-9) + 1) if not per_slice else (0,):
        for dy in range(-int(y + 1e-9), int(y + 1e-9) + 1):
            left = 1 - (dz / z) ** 2 - (dy / y) ** 2
            if left >= -1e-9:
                rows.append((dz, dy, int(x * math.sqrt(max(left, 0)) + 1e-9)))
    return tuple(rows)


def window(width: int | str, voxel_size: VoxelSize | None, *, per_slice: bool) -> Rows:
    """Voxels: a square (or cube) around each voxel; a length: what is nearer than it, in the slice or in space.

    Raises
    ------
    ConfigError
        If a length is stated and the voxel size is not known, or it is less than every edge of a voxel.
    """
    if isinstance(width, int):
        return square(width, per_slice=per_slice)
    if voxel_size is None:
        hint = "voxel_size = [40, 8, 8] in [[volume]] (nm, z y x), or a number of voxels"
        raise ConfigError(f"{width!r} needs the voxel size of the labels, which is not known", hint=hint)
    rows = ball(nanometres(width), voxel_size, per_slice=per_slice)
    if extent(rows) == (0, 0, 0):
        raise ConfigError(f"{width!r} is less than a voxel of {voxel_size}", hint="a number of voxels, such as 1")
    return rows


def extent(rows: Rows) -> Shape:
    """How far a window reaches along (z, y, x)."""
    return max(row[0] for row in rows), max(row[1] for row in rows), max(row[2] for row in rows)


def highest(values: NDArray[Any], rows: Rows) -> NDArray[Any]:
    """The maximum of a window around each voxel of (z, y, x), cut off at the array's faces; values are not negative."""
    result, along, reached = np.zeros_like(values), values.copy(), 0
    for reach in sorted({row[2] for row in rows}):
        for dx in range(reached + 1, reach + 1):
            for side in (dx, -dx):
                to, of = _shifted(values.shape, (0, 0, side))
                np.maximum(along[to], values[of], out=along[to])
        reached = reach
        for dz, dy, _ in (row for row in rows if row[2] == reach):
            to, of = _shifted(values.shape, (dz, dy, 0))
            np.maximum(result[to], along[of], out=result[to])
    return result


def several(ids: NDArray[np.unsignedinteger], rows: Rows) -> NDArray[np.bool_]:
    """Whether a window around each voxel holds two different ids or more, 0 not counted; ids as of `numbered`."""
    top = ids.dtype.type(int(ids.max(initial=0)) + 1)
    from_top = np.where(ids > 0, top - ids, ids.dtype.type(0))  # its maximum is the smallest id
    return np.asarray(highest(ids, rows) + highest(from_top, rows) > top)


def partner(ids: NDArray[Any], offset: Shape) -> NDArray[Any]:
    """At each voxel v the value at v + `offset`; the outermost planes go on beyond the array."""
    widths = [(max(0, -step), max(0, step)) for step in offset]
    wide = np.pad(ids, widths, mode="edge")
    begins = (max(0, step) for step in offset)
    z, y, x = (slice(begin, begin + n) for begin, n in zip(begins, ids.shape, strict=True))
    return wide[z, y, x]


def _shifted(shape: tuple[int, ...], step: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the voxels v that have a v + `step` inside `shape`, and of these v + `step`."""
    pairs = list(zip(step, shape, strict=True))
    to = tuple(slice(max(0, -s), max(0, n - max(0, s))) for s, n in pairs)
    return to, tuple(slice(max(0, s), max(0, n + min(0, s))) for s, n in pairs)
