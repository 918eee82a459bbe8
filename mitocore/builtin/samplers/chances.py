"""How likely each volume is to be drawn from, and random numbers that need no state."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mitocore.errors import DataError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import Crop, LabelledVolume, Sampler, SamplerIndex


class OfSources(Sampler):
    """Draws of several sources: volumes that `[[volume]] source` joins, each volume alone where it says nothing."""

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far sources are evened out: what a source holds counts by (1 / what it holds) ^ gamma. 0: the larger a
    source, the more crops come from it; 1: as many from each; between: empanada's weight_gamma."""

    def weights(self, volumes: Sequence[LabelledVolume], held: ArrayLike) -> NDArray[np.float64]:
        """Weight of one piece (voxel, patch) of each volume, given how many pieces it holds."""
        pieces = np.asarray(held, float)
        names = [volume.source or volume.name or str(number) for number, volume in enumerate(volumes)]
        sources = np.unique(names, return_inverse=True)[1]
        of_source = np.maximum(np.bincount(sources, pieces), 1)[sources]
        found: NDArray[np.float64] = np.array([volume.weight for volume in volumes]) * of_source**-self.gamma
        return found

    def anywhere(self, volumes: Sequence[LabelledVolume], shape: Shape) -> NDArray[np.float64]:
        """Cumulative chance of each volume, by its voxels."""
        check_fits(volumes, shape)
        voxels = [volume.region.voxels if fits(volume.region, shape) else 0 for volume in volumes]
        return cumulative(self.weights(volumes, voxels) * voxels)


def fits(region: Roi, shape: Shape) -> bool:
    """Whether a crop fits into a region."""
    return all(n <= length for n, length in zip(shape, region.shape, strict=True))


def check_fits(volumes: Sequence[LabelledVolume], shape: Shape) -> None:
    """Refuse a crop that fits into no region.

    Raises
    ------
    DataError
        With the regions there are.
    """
    if not any(fits(volume.region, shape) and volume.weight for volume in volumes):
        regions = ", ".join(str(v.region.shape) for v in volumes) or "none"
        problem = f"a crop of {shape} voxels (z, y, x) fits into no training region: {regions}"
        raise DataError(problem, where="[train] crop", hint="choose a smaller crop or larger regions")


def cumulative(weights: ArrayLike) -> NDArray[np.float64]:
    """Cumulative chance of each row.

    >>> cumulative([1, 0, 3]).tolist()
    [0.25, 0.25, 1.0]
    """
    sums = np.cumsum(np.asarray(weights, float))
    chance: NDArray[np.float64] = sums / sums[-1]
    return chance


def chosen(chance: NDArray[np.float64], rng: np.random.Generator) -> int:
    """A row, by its cumulative chance."""
    return int(np.searchsorted(chance, rng.random() * chance[-1], side="right"))


def uniform(index: SamplerIndex, shape: Shape, rng: np.random.Generator) -> Crop:
    """A crop anywhere in the region of a volume, which is drawn by the array "anywhere"."""
    volume = chosen(index.arrays["anywhere"], rng)
    region = index.regions[volume]
    axes = zip(region.start, region.stop, shape, strict=True)
    return crop_at(volume, [int(rng.integers(a, b - n + 1)) for a, b, n in axes], shape)


def crop_at(volume: int, start: Sequence[int], shape: Shape) -> Crop:
    """A crop by its first voxel."""
    return Crop(volume, Roi(as_shape(start), as_shape(a + n for a, n in zip(start, shape, strict=True))))


def mixed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mix the bits of each number (splitmix64, Steele et al. 2014); distinct numbers stay distinct."""
    z = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def shuffled(position: int, length: int, keys: NDArray[np.int64]) -> int:
    """What stands at `position` of a random order of 0 … `length` - 1, found without making the order.

    A Feistel network over the next power of four, walked until it gives a number that is in range (Black and Rogaway
    2002, ciphers with arbitrary finite domains). `keys`, one per round, choose the order.

    >>> sorted(shuffled(n, 10, np.array([3, 1, 4, 1])) for n in range(10)) == list(range(10))
    True
    """
    bits = max(1, ((length - 1).bit_length() + 1) // 2)
    mask = (1 << bits) - 1
    while True:
        left, right = position >> bits, position & mask
        for key in keys:
            left, right = right, left ^ (int(mixed(np.array([key + right]))[0]) & mask)
        position = left << bits | right
        if position < length:
            return position
