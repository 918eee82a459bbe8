"""Coarser levels of a volume, made box by box."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore import Kind, Roi, Shape, VolumeSpec
from mitocore_io.axes import Axes
from mitocore_io.ngff import LABELS

_PROBABLY_IDS = ("bool", "uint32", "uint64", "int32", "int64")  # or a mask, where nothing says what they are
_SMALLEST_PLANE = 256  # voxels: a viewer shows such a plane at once


def factors(spec: VolumeSpec, levels: int | None) -> list[Shape]:
    """How much coarser than level 0 each level is, level 0 included.

    Each level halves the axes whose voxels are not yet twice as long as the shortest, so that voxels become more
    isotropic. Without a number of levels: until a plane is at most 256 voxels wide.

    >>> from mitocore import VoxelSize
    >>> factors(VolumeSpec((40, 1000, 1000), "uint8", voxel_size=VoxelSize(40, 8, 8)), None)
    [(1, 1, 1), (1, 2, 2), (1, 4, 4)]
    """
    edges = spec.voxel_size.edges if spec.voxel_size else (1.0, 1.0, 1.0)
    found: list[Shape] = [(1, 1, 1)]
    while levels is None or len(found) < levels:
        z, y, x = coarser(spec.shape, found[-1])
        if (levels is None and max(y, x) <= _SMALLEST_PLANE) or max(z, y, x) == 1:
            break
        now = [e * f for e, f in zip(edges, found[-1], strict=True)]
        shortest = min(edge for edge, n in zip(now, (z, y, x), strict=True) if n > 1)
        halve = [2 if edge < 2 * shortest and n > 1 else 1 for edge, n in zip(now, (z, y, x), strict=True)]
        a, b, c = (f * h for f, h in zip(found[-1], halve, strict=True))
        found.append((a, b, c))
    return found


def coarser(shape: Shape, factor: Shape) -> Shape:
    """Shape of a volume of which `factor` voxels become one; the last may cover less."""
    z, y, x = (-(-n // f) for n, f in zip(shape, factor, strict=True))
    return z, y, x


def written_at_once(array: Any) -> tuple[int, ...]:
    """Lengths of what is one file of a zarr array, and so has one writer at a time: a shard, or a chunk."""
    lengths: tuple[int, ...] = array.shards or array.chunks
    return lengths


def boxes(coarse: Any, axes_names: str) -> int:
    """In how many shards or chunks a coarse array is filled."""
    target = Axes.of(coarse.shape, axes_names, "")
    return sum(1 for _ in _boxes(Roi.whole(target.volume), target.of_volume(written_at_once(coarse))))


def filled(fine: Any, coarse: Any, axes_names: str, spec: VolumeSpec) -> Iterator[Roi]:
    """Fill the coarse array from the fine one; gives each shard or chunk of it when it is filled.

    Labels keep their values (the first voxel of each cell is taken); images and probabilities are averaged.
    """
    source, target = Axes.of(fine.shape, axes_names, ""), Axes.of(coarse.shape, axes_names, "")
    z, y, x = (max(1, round(a / b)) for a, b in zip(source.volume, target.volume, strict=True))
    nearest = spec.kind in LABELS or (spec.kind is Kind.IMAGE and spec.dtype in _PROBABLY_IDS)
    for roi in _boxes(Roi.whole(target.volume), target.of_volume(written_at_once(coarse))):
        cells = np.empty((target.channels, *roi.shape), coarse.dtype)
        for part in _boxes(roi, target.of_volume(coarse.chunks)):  # a shard of the fine array need not fit into memory
            start, stop = ((a * z, b * y, c * x) for a, b, c in (part.start, part.stop))
            inside = Roi(start, stop).clip(Roi.whole(source.volume))
            values = source.arrange(fine[source.index(inside)])
            within = tuple(slice(a - o, b - o) for a, b, o in zip(part.start, part.stop, roi.start, strict=True))
            cells[(slice(None), *within)] = values[:, ::z, ::y, ::x] if nearest else _mean(values, (z, y, x))
        coarse[target.index(roi)] = target.lay_out(cells)
        yield roi


def _boxes(within: Roi, step: Shape) -> Iterator[Roi]:
    for z, y, x in product(*(range(a, b, s) for a, b, s in zip(within.start, within.stop, step, strict=True))):
        yield Roi((z, y, x), (z + step[0], y + step[1], x + step[2])).clip(within)


def _mean(values: NDArray[Any], factor: Shape) -> NDArray[Any]:
    channels, *shape = values.shape
    z, y, x = (-(-n // f) for n, f in zip(shape, factor, strict=True))
    short = [(0, n * f - m) for n, f, m in zip((z, y, x), factor, shape, strict=True)]
    values = np.pad(values, [(0, 0), *short], mode="edge")  # a cell cut in half by the face averages what it has
    cells = values.reshape(channels, z, factor[0], y, factor[1], x, factor[2])
    exact = np.float64 if values.dtype.itemsize > 2 else np.float32
    mean: NDArray[Any] = cells.mean(axis=(2, 4, 6), dtype=exact)
    return np.rint(mean) if values.dtype.kind in "iu" else mean
