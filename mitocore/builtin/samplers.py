"""Where training crops are cut."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.errors import DataError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import Crop, LabelledVolume, Sampler, SamplerIndex

REMEMBERED = 1 << 22
"""Foreground voxels that an index holds for all volumes together: 32 MiB."""
BOX: Shape = (32, 512, 512)


class Uniform(Sampler):
    """Crops anywhere in the regions; a volume is drawn in proportion to its weight and its voxels."""

    def index(self, volumes: Sequence[LabelledVolume], shape: Shape) -> SamplerIndex:
        return SamplerIndex(tuple(v.region for v in volumes), {"anywhere": _anywhere(volumes, shape)})

    def draw(self, index: SamplerIndex, shape: Shape, number: int, rng: np.random.Generator) -> Crop:
        del number
        return _uniform(index, shape, rng)


class Foreground(Sampler):
    """Crops that contain a foreground voxel, with some probability; the others lie anywhere.

    Every foreground voxel of a volume is equally likely to be chosen, and its place in the crop is random. Of more
    than four million foreground voxels, an even sample of so many is remembered.
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the crops that surely contain foreground."""
    label: str | None = None
    """Label array that says what is foreground: whatever is neither 0 nor "ignore". Default: any of them."""

    def index(self, volumes: Sequence[LabelledVolume], shape: Shape) -> SamplerIndex:
        anywhere = _anywhere(volumes, shape)
        found: list[NDArray[np.int64]] = []
        weights = []
        for volume in volumes:
            count, voxels = 0, np.zeros(0, np.int64)
            if _fits(volume.region, shape):
                count, voxels = self._foreground(volume, REMEMBERED // len(volumes))
            found.append(voxels)
            weights.append(volume.weight * count)
        if not any(weights):
            what = f"label {self.label!r}" if self.label else "the labels"
            hint = 'check the labels and the split, or sampler = "uniform"'
            raise DataError(f"{what} of the training regions hold no foreground", where="[sampler]", hint=hint)
        arrays = {
            "anywhere": anywhere,
            "foreground": np.cumsum(weights) / np.sum(weights),
            "ends": np.cumsum([len(voxels) for voxels in found]),
            "voxels": np.concatenate(found),
        }
        return SamplerIndex(tuple(v.region for v in volumes), arrays)

    def draw(self, index: SamplerIndex, shape: Shape, number: int, rng: np.random.Generator) -> Crop:
        del number
        if rng.random() >= self.probability:
            return _uniform(index, shape, rng)
        volume = _chosen(index.arrays["foreground"], rng)
        ends = index.arrays["ends"]
        row = rng.integers(ends[volume - 1] if volume else 0, ends[volume])
        region = index.regions[volume]
        voxel = np.unravel_index(int(index.arrays["voxels"][row]), region.shape)
        start = []
        for inside, length, low, high in zip(voxel, shape, region.start, region.stop, strict=True):
            at = low + int(inside)
            start.append(int(rng.integers(max(low, at - length + 1), min(at, high - length) + 1)))
        return _crop(volume, start, shape)

    def _foreground(self, volume: LabelledVolume, limit: int) -> tuple[int, NDArray[np.int64]]:
        """Number of foreground voxels in the region, and the raster indices within it of at most `limit` of them."""
        names = tuple(volume.labels) if self.label is None else (self.label,)
        if missing := set(names) - set(volume.labels):
            have = ", ".join(volume.labels) or "none"
            raise DataError(f"a volume has no label {missing.pop()!r}", where="[sampler]", hint=f"labels: {have}")
        count, kept = 0, np.zeros(0, np.int64)
        for box in _boxes(volume.region):
            inside = np.zeros(box.shape, bool)
            for name in names:
                inside |= _labelled(volume.labels[name].read(box)[0])
            if volume.valid is not None:
                inside &= volume.valid.read(box)[0] > 0
            offset = as_shape(a - b for a, b in zip(box.start, volume.region.start, strict=True))
            where = tuple(axis + o for axis, o in zip(np.nonzero(inside), offset, strict=True))
            fresh = np.ravel_multi_index(where, volume.region.shape).astype(np.int64)
            count += len(fresh)
            kept = np.concatenate([kept, fresh])
            if len(kept) > limit:  # the voxels of smallest hash: an even sample that no box order changes
                kept = kept[np.argpartition(_hash(kept), limit - 1)[:limit]]
        return count, np.sort(kept)


def _labelled(ids: NDArray[Any]) -> NDArray[np.bool_]:
    labelled: NDArray[np.bool_] = ids > 0
    return labelled if ids.dtype.kind == "b" else labelled & (ids != np.iinfo(ids.dtype).max)


def _hash(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mix the bits of each number (splitmix64, Steele et al. 2014); distinct numbers stay distinct."""
    z = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _boxes(region: Roi) -> Iterator[Roi]:
    """The region in boxes that fit into memory, cut at multiples of their size in the volume."""
    axes = zip(region.start, region.stop, BOX, strict=True)
    for start in product(*(range(a // n * n, b, n) for a, b, n in axes)):
        yield Roi(as_shape(start), as_shape(np.add(start, BOX))).clip(region)


def _fits(region: Roi, shape: Shape) -> bool:
    return all(n <= length for n, length in zip(shape, region.shape, strict=True))


def _anywhere(volumes: Sequence[LabelledVolume], shape: Shape) -> NDArray[np.float64]:
    """Cumulative probability of each volume."""
    weights = [v.weight * v.region.voxels if _fits(v.region, shape) else 0.0 for v in volumes]
    if not any(weights):
        regions = ", ".join(str(v.region.shape) for v in volumes) or "none"
        problem = f"a crop of {shape} voxels (z, y, x) fits into no training region: {regions}"
        raise DataError(problem, where="[train] crop", hint="choose a smaller crop or larger regions")
    return np.asarray(np.cumsum(weights) / np.sum(weights))


def _chosen(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def _uniform(index: SamplerIndex, shape: Shape, rng: np.random.Generator) -> Crop:
    volume = _chosen(index.arrays["anywhere"], rng)
    region = index.regions[volume]
    axes = zip(region.start, region.stop, shape, strict=True)
    return _crop(volume, [int(rng.integers(a, b - n + 1)) for a, b, n in axes], shape)


def _crop(volume: int, start: list[int], shape: Shape) -> Crop:
    return Crop(volume, Roi(as_shape(start), as_shape(a + n for a, n in zip(start, shape, strict=True))))
