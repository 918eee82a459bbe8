"""Voxels that crops are laid around."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.samplers.chances import chosen, crop_at, cumulative, mixed
from mitocore.geometry import Shape
from mitocore.interfaces import Crop, SamplerIndex

REMEMBERED = 1 << 22
"""Voxels that an index holds for all volumes together: 32 MiB."""
_NONE = np.zeros(0, np.int64)


@dataclass
class EvenSample:
    """Of the voxels that were added, as many as the limit allows, chosen evenly: those of smallest hash, whatever the
    order they came in. Voxels are raster indices in the region."""

    limit: int
    count: int = 0
    """Voxels that were added."""
    _held: NDArray[np.int64] = field(default_factory=_NONE.copy)
    _fresh: list[NDArray[np.int64]] = field(default_factory=list)
    _largest: np.uint64 = field(default=np.uint64(0xFFFFFFFFFFFFFFFF))

    def add(self, voxels: NDArray[np.int64]) -> None:
        """Take more voxels into account; each is added once."""
        self.count += len(voxels)
        self._fresh.append(voxels[mixed(voxels) <= self._largest])
        if sum(map(len, self._fresh)) > self.limit // 4:  # seldom: each time, all that is held is looked through
            self.trim(self.limit)

    def trim(self, limit: int) -> None:
        """Keep no more than so many, from now on."""
        self.limit = limit
        self._held = np.concatenate([self._held, *self._fresh])
        self._fresh.clear()
        if len(self._held) > limit:
            hashes = mixed(self._held)
            smallest = np.argpartition(hashes, limit - 1)[:limit]
            self._held, self._largest = self._held[smallest], hashes[smallest].max()

    @property
    def kept(self) -> NDArray[np.int64]:
        """The voxels that are remembered, in raster order."""
        self.trim(self.limit)
        return np.sort(self._held)


@dataclass(frozen=True)
class Row:
    """Voxels of one volume that are equally likely."""

    volume: int
    weight: float
    voxels: NDArray[np.int64]


def packed(name: str, rows: Sequence[Row]) -> Mapping[str, NDArray[np.float64] | NDArray[np.int64]]:
    """The rows as arrays of an index, whose names begin with `name`."""
    return {
        f"{name}_chance": cumulative([row.weight for row in rows]),
        f"{name}_volumes": np.array([row.volume for row in rows], np.int64),
        f"{name}_ends": np.cumsum([len(row.voxels) for row in rows], dtype=np.int64),
        f"{name}_voxels": np.concatenate([row.voxels for row in rows]),
    }


def anchored(name: str, index: SamplerIndex, shape: Shape, rng: np.random.Generator) -> Crop:
    """A crop that contains one of the voxels, anywhere in it as far as the region allows."""
    row = chosen(index.arrays[f"{name}_chance"], rng)
    ends, volume = index.arrays[f"{name}_ends"], int(index.arrays[f"{name}_volumes"][row])
    at = rng.integers(ends[row - 1] if row else 0, ends[row])
    region = index.regions[volume]
    voxel = np.unravel_index(int(index.arrays[f"{name}_voxels"][at]), region.shape)
    start = []
    for inside, length, low, high in zip(voxel, shape, region.start, region.stop, strict=True):
        place = low + int(inside)
        start.append(int(rng.integers(max(low, place - length + 1), min(place, high - length) + 1)))
    return crop_at(volume, start, shape)
