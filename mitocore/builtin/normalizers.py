"""Intensities to about -1…1 around 0, by statistics of the whole volume.

Every voxel that is not finite becomes 0, to which all normalisers but `Clahe` map the centre of their range. Statistics
come from counts per grey level, so neither the order nor the shape of boxes matters: exact for integers of up to 16
bits; for all other numbers in 65 536 equal steps from the smallest to the largest value, found in a first pass.

The smallest or the largest grey level is left out if it alone holds one voxel in a hundred or more, and something
varies without it: padding or saturation, in either case no measurement.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage

from mitocore.errors import DataError
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces import Normalizer, Stats
from mitocore.specs import VolumeSpec

BINS = 65_536
PADDING_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Levels:
    """How often each grey level of one channel occurs, ascending, none of them 0 times."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    def percentile(self, percent: float) -> float:
        """The smallest level that `percent` of the voxels do not exceed."""
        upto = np.cumsum(self.counts)
        return float(self.values[np.searchsorted(upto, percent / 100 * upto[-1])])

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        mean = float(np.average(self.values, weights=self.counts))
        return mean, float(np.sqrt(np.average(np.square(self.values - mean), weights=self.counts)))

    def without_padding(self) -> "Levels":
        keep = np.ones(len(self.counts), bool)
        keep[[0, -1]] = self.counts[[0, -1]] < PADDING_SHARE * self.counts.sum()
        return Levels(self.values[keep], self.counts[keep]) if keep.sum() > 1 else self


def levels(boxes: Iterable[NDArray[Any]], spec: VolumeSpec) -> list[Levels]:
    """Grey levels of every channel, padding left out.

    Raises
    ------
    DataError
        If a channel holds no finite voxel, or only one value.
    """
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        low, high = np.array([[np.iinfo(dtype).min], [np.iinfo(dtype).max]], float).repeat(len(spec.channels), 1)
        exact = True
    else:
        low, high = _extent(boxes, spec)
        _check(low, high, spec)
        exact = False
    step = np.ones_like(low) if exact else (high - low) / BINS
    counts = np.zeros((len(low), BINS), np.int64)
    for box in boxes:
        for channel, values in enumerate(box):
            finite = values[np.isfinite(values)].astype(float)
            index = ((finite - low[channel]) / step[channel]).astype(np.int64)
            counts[channel] += np.bincount(np.minimum(index, BINS - 1), minlength=BINS)
    result = []
    for channel in range(len(low)):
        (occupied,) = np.nonzero(counts[channel])
        grey = low[channel] + step[channel] * (occupied if exact else occupied + 0.5)
        if not exact:
            grey[0], grey[-1] = low[channel], high[channel]  # known exactly
        _check(grey[:1], grey[-1:], spec)
        result.append(Levels(grey, counts[channel][occupied]).without_padding())
    return result


def _extent(
    boxes: Iterable[NDArray[Any]], spec: VolumeSpec, *, until_varied: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest finite value of each channel; inf and -inf where there is none."""
    low = np.full(len(spec.channels), np.inf)
    high = -low
    for box in boxes:
        for channel, values in enumerate(box):
            finite = values[np.isfinite(values)]
            if finite.size:
                low[channel] = min(low[channel], float(finite.min()))
                high[channel] = max(high[channel], float(finite.max()))
        if until_varied and (low < high).all():
            break
    return low, high


def _check(low: NDArray[np.float64], high: NDArray[np.float64], spec: VolumeSpec) -> None:
    if not low.size or not np.isfinite(low).all():
        raise DataError("the image holds no finite voxel", hint="check the array and the region that is read")
    if (low == high).any():
        value = low[low == high][0]
        where = f"{spec.dtype} image of {spec.shape} voxels"
        raise DataError(f"every voxel of the image is {value:g}", where=where, hint="check the array that is read")


def _scaled(values: NDArray[Any], centre: Any, half: Any, *, clip: bool = False) -> NDArray[np.float32]:
    """(values - centre) / half, per channel; 0 where not finite."""
    centre, half = (np.asarray(a, float).reshape(-1, 1, 1, 1) for a in (centre, half))
    work = np.result_type(values.dtype, np.float32)  # float64 where float32 would not tell neighbours apart
    result = (values.astype(work) - centre.astype(work)) / half.astype(work)
    if clip:
        np.clip(result, -1, 1, out=result)
    if values.dtype.kind == "f":
        result[~np.isfinite(values)] = 0
    return np.asarray(result, np.float32)


class _Range(Normalizer):
    """By a low and a high intensity of each channel."""

    @abstractmethod
    def bounds(self, grey: Levels) -> tuple[float, float]:
        """The two intensities."""

    def fit(self, boxes: Iterable[NDArray[Any]], spec: VolumeSpec) -> Stats:
        low, high = zip(*(self.bounds(grey) for grey in levels(boxes, spec)), strict=True)
        return {"low": low, "high": high}


class _Linear(_Range):
    """From a low and a high intensity to -1 and 1."""

    clip: bool = True
    """Whether what lies outside becomes -1 or 1."""

    def apply(self, values: NDArray[Any], stats: Stats) -> NDArray[np.float32]:
        low, high = np.asarray(stats["low"], float), np.asarray(stats["high"], float)
        return _scaled(values, (low + high) / 2, (high - low) / 2, clip=self.clip)


class Percentile(_Linear):
    """The percentile `low` of each channel becomes -1, `high` becomes 1."""

    low: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Percentile of the intensities that becomes -1."""
    high: Annotated[float, Field(ge=0, le=100)] = 99.0
    """Percentile of the intensities that becomes 1."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        return self

    def bounds(self, grey: Levels) -> tuple[float, float]:
        low, high = grey.percentile(self.low), grey.percentile(self.high)
        if low == high:
            problem = f"percentiles {self.low:g} and {self.high:g} of the image are both {low:g}"
            raise DataError(problem, hint='normalizer = "minmax", or percentiles further apart')
        return low, high


class MinMax(_Linear):
    """The smallest intensity of each channel becomes -1, the largest becomes 1."""

    def bounds(self, grey: Levels) -> tuple[float, float]:
        return float(grey.values[0]), float(grey.values[-1])


class ZScore(Normalizer):
    """Mean 0 and standard deviation 1 in each channel."""

    def fit(self, boxes: Iterable[NDArray[Any]], spec: VolumeSpec) -> Stats:
        mean, std = zip(*(grey.moments() for grey in levels(boxes, spec)), strict=True)
        return {"mean": mean, "std": std}

    def apply(self, values: NDArray[Any], stats: Stats) -> NDArray[np.float32]:
        return _scaled(values, stats["mean"], stats["std"])


class Clahe(_Range):
    """Contrast-limited adaptive histogram equalisation of every section, so that grey levels are as frequent nearby.

    Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV (1994): the range of each channel
    is divided into 256 grey levels; each tile of a section has a table that sends a grey level to the share of the
    tile's voxels that are as dark or darker, where no level counts more than `clip` times the mean and the excess is
    spread over all levels; between the middles of tiles, the results of four tables are interpolated. Then 0 and 1
    become -1 and 1, and a Gaussian of 3 x 3 voxels smooths the section.

    Tiles are those of the whole volume: they begin at its first voxel, and its last ones are filled by mirroring.
    So a voxel's result depends on the tiles around it, and not on the crop or the block in which it is read. Catena's
    numbers: its 8 x 8 tiles of a patch of 128 voxels have 16.
    """

    voxelwise = False

    clip: Annotated[float, Field(ge=1)] = 3.5
    """Largest count of a grey level, in multiples of the mean; 1 leaves the contrast as it is."""
    tile: Annotated[int, Field(ge=4)] = 16
    """Edge of a tile, in voxels along y and x. What fills a tile loses its own brightness: for objects that differ in
    brightness rather than in texture and outline, tiles should be larger than they are."""
    sigma: Annotated[float, Field(ge=0)] = 0.5
    """Width of the Gaussian, in voxels; 0 for none."""

    def bounds(self, grey: Levels) -> tuple[float, float]:
        return float(grey.values[0]), float(grey.values[-1])

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        return (0, self.tile, self.tile)

    def block_shape(self, volume: VolumeSpec, preferred: Shape) -> Shape:
        """Whole tiles: so what is read of a block begins where a tile does."""
        z, y, x = preferred
        return (z, -(-y // self.tile) * self.tile, -(-x // self.tile) * self.tile)

    def apply(self, values: NDArray[Any], stats: Stats) -> NDArray[np.float32]:
        low, high = np.asarray(stats["low"], float), np.asarray(stats["high"], float)
        result = np.empty(values.shape, np.float32)
        for c, z in np.ndindex(values.shape[:2]):
            section = values[c : c + 1, z : z + 1]
            scaled = _scaled(section, (low[c] + high[c]) / 2, (high[c] - low[c]) / 2, clip=True)[0, 0]
            grey = np.rint((scaled + 1) * ((_GREYS - 1) / 2)).astype(np.intp)
            known = np.isfinite(section[0, 0])
            equal = np.where(known, self._equalised(grey, known), np.float32(0))
            for axis in (0, 1):
                equal = ndimage.correlate1d(equal, self._gaussian(), axis, mode="mirror")
            result[c, z] = np.where(known, equal, np.float32(0))
        return result

    def _equalised(self, grey: NDArray[np.intp], known: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Grey levels (y, x) to -1..1."""
        tables = self._tables(grey, known)
        rows, columns, _ = tables.shape
        up, down, y = _between(grey.shape[0], self.tile, rows)
        left, right, x = _between(grey.shape[1], self.tile, columns)

        def looked_up(row: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.float32]:
            return np.asarray(np.take(tables, (row[:, None] * columns + column) * _GREYS + grey))

        above = looked_up(up, left) * (1 - x) + looked_up(up, right) * x
        below = looked_up(down, left) * (1 - x) + looked_up(down, right) * x
        return np.asarray(above * (1 - y[:, None]) + below * y[:, None])

    def _tables(self, grey: NDArray[np.intp], known: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What each grey level becomes, (tiles along y, tiles along x, levels)."""
        missing = [(0, -size % self.tile) for size in grey.shape]
        grey, known = np.pad(grey, missing, mode="reflect"), np.pad(known, missing, mode="reflect")
        rows, columns = (size // self.tile for size in grey.shape)
        number = np.arange(rows).repeat(self.tile)[:, None] * columns + np.arange(columns).repeat(self.tile)
        counts = np.bincount((number * _GREYS + grey)[known], minlength=rows * columns * _GREYS)
        counts = counts.reshape(rows, columns, _GREYS).astype(float)
        counts[counts.sum(-1) == 0] = 1  # nothing is known here: any table will do
        total = counts.sum(-1, keepdims=True)
        limited = np.minimum(counts, self.clip * total / _GREYS)
        limited += (total - limited.sum(-1, keepdims=True)) / _GREYS
        return np.asarray(2 * limited.cumsum(-1) / total - 1, np.float32)

    def _gaussian(self) -> NDArray[np.float64]:
        beside = np.exp(-0.5 / self.sigma**2) if self.sigma else 0.0
        return np.array([beside, 1, beside]) / (1 + 2 * beside)


_GREYS = 256


def _between(size: int, tile: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The two of `count` tiles between whose middles each voxel of a row lies, and how far it is from the first."""
    voxels = np.arange(size)
    from_middle = (voxels % tile + 0.5) / tile - 0.5
    first = voxels // tile - (from_middle < 0)
    return first.clip(0), (first + 1).clip(max=count - 1), np.asarray(from_middle % 1, np.float32)


class DtypeRange(Normalizer):
    """Intensities as fractions of the largest value of their dtype (1.0 for floats), less `mean`, over `std`.

    Two volumes of one dtype are treated alike, whatever they hold. The defaults map 0…maximum to -1…1; MitoNet was
    trained with mean 0.57571 and std 0.12765.
    """

    mean: float = 0.5
    """Fraction of the maximum that becomes 0."""
    std: Annotated[float, Field(gt=0)] = 0.5
    """Fraction of the maximum that becomes a difference of 1."""

    def fit(self, boxes: Iterable[NDArray[Any]], spec: VolumeSpec) -> Stats:
        _check(*_extent(boxes, spec, until_varied=True), spec)
        dtype = np.dtype(spec.dtype)
        return {"maximum": float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0}

    def apply(self, values: NDArray[Any], stats: Stats) -> NDArray[np.float32]:
        maximum = np.asarray(stats["maximum"], float)
        return _scaled(values, self.mean * maximum, self.std * maximum)
