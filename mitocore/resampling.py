"""A volume at another voxel size: voxels of one lattice, each a function of its place in the volume alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces.volume import Volume
from mitocore.specs import VolumeSpec

TOLERANCE = 0.01
"""Voxels whose edges differ by this share or less are taken as equal."""
ROUNDING = 1e-9
"""Ratios are quotients of lengths: 0.3 / 0.1 is not quite 3."""
_AT_ONCE = 1 << 23
"""Old voxels that are read at a time: large voxels are made of many, and a box of them need not fit into memory."""
Read = Callable[[Roi], NDArray[Any]]
"""Voxels (c, z, y, x) of a box."""
Factors = tuple[float, float, float]
"""New voxels per old voxel along (z, y, x): 0.5 halves the resolution."""


@dataclass(frozen=True, slots=True)
class _Halves:
    axis: int
    boxes: tuple[Roi, Roi]


@dataclass(frozen=True, slots=True)
class Resampling:
    """Voxels of another size, the first of which begins where the first voxel of the volume does.

    A voxel of the image is the mean of what it covers where voxels become larger (no aliasing), and interpolated
    linearly where they become smaller; a label is that of the voxel in which its centre lies. Each voxel follows from
    its place alone, so a box read by itself is bit for bit the cut of the whole.

    >>> halved = Resampling.between((8, 64, 64), VoxelSize(8, 8, 8), VoxelSize(16, 16, 16))
    >>> halved.shape, halved.image(lambda roi: np.ones((1, *roi.shape), np.float32), Roi.whole((1, 1, 2)))
    ((4, 32, 32), array([[[[1., 1.]]]], dtype=float32))
    """

    source: Shape
    """Voxels of the volume as it is."""
    ratio: tuple[float, float, float]
    """Edge of a new voxel in old voxels; 1 along an axis that stays."""
    cut: bool = False
    """Whether a last voxel that the volume does not fill is left out; else it is there if at least half of it is."""

    @classmethod
    def by(cls, shape: Shape, factors: Factors) -> "Resampling":
        """To `factors` times as many voxels along (z, y, x), no part of a voxel more.

        >>> Resampling.by((5, 64, 64), (1, 0.5, 2)).shape
        (5, 32, 128)
        """
        z, y, x = (1 / factor for factor in factors)
        return cls(shape, (z, y, x), cut=True)

    @classmethod
    def between(cls, shape: Shape, size: VoxelSize, wanted: VoxelSize) -> "Resampling":
        """From a volume of `shape` voxels of `size` to voxels of the size `wanted`."""
        z, y, x = (new / old for new, old in zip(wanted.edges, size.edges, strict=True))
        return cls(shape, (_settled(z), _settled(y), _settled(x)))

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.ratio != (1, 1, 1)

    @property
    def shape(self) -> Shape:
        """New voxels along each axis: as many as fill the volume, to the nearest whole number unless it is cut."""
        part = ROUNDING if self.cut else 0.5
        return as_shape(max(1, math.floor(n / r + part)) for n, r in zip(self.source, self.ratio, strict=True))

    @property
    def guard(self) -> Shape:
        """New voxels that must lie between two boxes, so that they are made of no common old voxel."""
        return as_shape(_guard(r) for r in self.ratio)

    def box(self, box: Roi) -> Roi:
        """New voxels whose centres lie in a box of old ones; boxes that are disjoint stay so."""

        def ends(corner: Shape) -> Shape:
            axes = zip(corner, self.ratio, self.shape, self.source, strict=True)
            return as_shape(n if at == whole else min(n, _first_centre(at, r)) for at, r, n, whole in axes)

        return Roi(ends(box.start), ends(box.stop))

    def footprint(self, box: Roi) -> Roi:
        """Old voxels that the image of a box of new ones is made of; its labels are among them."""
        taps = [self._taps(axis, box) for axis in range(3)]
        return Roi(as_shape(at.min() for at, _ in taps), as_shape(at.max() + 1 for at, _ in taps))

    def image(self, read: Read, box: Roi) -> NDArray[np.float32]:
        """Intensities (c, z, y, x) of a box of new voxels; `read` gives the old ones it asks for."""
        if halves := self._halved(box):
            return np.concatenate([self.image(read, half) for half in halves.boxes], halves.axis + 1)
        old = self.footprint(box)
        values = read(old).astype(np.float32, copy=False)
        for axis, ratio in enumerate(self.ratio):
            if ratio == 1:
                continue
            at, share = self._taps(axis, box)
            spread = [1, 1, 1, 1]
            spread[axis + 1] = -1
            total: NDArray[np.float32] | None = None
            for column in range(at.shape[1]):  # in one order wherever the box lies: sums of floats are not associative
                part = values.take(at[:, column] - old.start[axis], axis + 1) * share[:, column].reshape(spread)
                total = part if total is None else total + part
            if total is not None:
                values = total
        return values

    def labels(self, read: Read, box: Roi) -> NDArray[Any]:
        """Ids (c, z, y, x) of a box of new voxels, never mixed."""
        if halves := self._halved(box):
            return np.concatenate([self.labels(read, half) for half in halves.boxes], halves.axis + 1)
        nearest = [self._nearest(axis, box) for axis in range(3)]
        old = Roi(as_shape(at[0] for at in nearest), as_shape(at[-1] + 1 for at in nearest))
        z, y, x = (at - first for at, first in zip(nearest, old.start, strict=True))
        return read(old)[:, z[:, None, None], y[:, None], x]

    def _halved(self, box: Roi) -> "_Halves | None":
        """The two halves of a box that is made of more old voxels than are read at a time; None: it is not."""
        old = self.footprint(box)
        lengths = [n if new > 1 else 0 for n, new in zip(old.shape, box.shape, strict=True)]
        if old.voxels <= _AT_ONCE or not any(lengths):
            return None
        axis = lengths.index(max(lengths))
        middle = (box.start[axis] + box.stop[axis]) // 2
        stop, start = ([middle if a == axis else n for a, n in enumerate(ends)] for ends in (box.stop, box.start))
        return _Halves(axis, (Roi(box.start, as_shape(stop)), Roi(as_shape(start), box.stop)))

    def _nearest(self, axis: int, box: Roi) -> NDArray[np.int64]:
        """Old voxel in which the centre of each new one lies, along an axis."""
        centres = (np.arange(box.start[axis], box.stop[axis]) + 0.5) * self.ratio[axis]
        nearest: NDArray[np.int64] = np.floor(centres + ROUNDING).astype(np.int64)
        return np.minimum(nearest, self.source[axis] - 1)

    def _taps(self, axis: int, box: Roi) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Old voxels (n, k) that each of n new ones is made of along an axis, and their shares; each row ends with its
        last voxel repeated at a share of 0."""
        new, ratio, length = np.arange(box.start[axis], box.stop[axis]), self.ratio[axis], self.source[axis]
        if ratio == 1:
            return new[:, None], np.ones((len(new), 1), np.float32)
        if ratio < 1:
            centre = (new + 0.5) * ratio - 0.5
            lower = np.floor(centre + ROUNDING).astype(np.int64)
            above = np.maximum(centre - lower, 0)
            at, share = np.stack([lower, lower + 1], 1).clip(0, length - 1), np.stack([1 - above, above], 1)
        else:
            begin, end = new * ratio, np.minimum((new + 1) * ratio, length)
            first = np.floor(begin + ROUNDING).astype(np.int64)
            last = np.ceil(end - ROUNDING).astype(np.int64) - 1
            at = first[:, None] + np.arange(math.ceil(ratio) + 1)
            share = (np.minimum(end[:, None], at + 1) - np.maximum(begin[:, None], at)).clip(0)
            at = np.minimum(at, last[:, None])
            share /= share.sum(1, keepdims=True)
        return at, share.astype(np.float32)


def resampled(spec: VolumeSpec, wanted: VoxelSize) -> tuple[VolumeSpec, Resampling | None]:
    """What a volume of known voxel size is at another, and how it becomes that; None: its voxels stay as they are."""
    resampling = Resampling.between(spec.shape, spec.voxel_size or wanted, wanted)
    if not resampling.changes:
        return replace(spec, voxel_size=wanted), None
    return replace(spec, shape=resampling.shape, voxel_size=wanted, chunks=None), resampling


class Resampled(Volume):
    """An open volume at another voxel size: an image, float32; or labels or a mask, whose values stay as they are."""

    def __init__(self, volume: Volume, resampling: Resampling, voxel_size: VoxelSize, *, labels: bool) -> None:
        self._volume, self._read = volume, resampling.labels if labels else resampling.image
        dtype = volume.spec.dtype if labels else "float32"
        self._spec = replace(volume.spec, shape=resampling.shape, voxel_size=voxel_size, dtype=dtype, chunks=None)

    @property
    def spec(self) -> VolumeSpec:
        """As of the file, but for shape and voxel size, and the dtype of an image."""
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        """Values (c, z, y, x) of new voxels."""
        return self._read(self._volume.read, roi)

    def close(self) -> None:
        """Close the file."""
        self._volume.close()


def _settled(ratio: float) -> float:
    return 1 if abs(ratio - 1) <= TOLERANCE + ROUNDING else ratio


def _guard(ratio: float) -> int:
    if ratio < 1:
        return math.ceil(2 / ratio - ROUNDING) - 1
    return 0 if abs(ratio - round(ratio)) < ROUNDING else 1


def _first_centre(at: int, ratio: float) -> int:
    """The first new voxel whose centre lies at or beyond the face before old voxel `at`."""
    return max(0, math.ceil(at / ratio - 0.5 - ROUNDING))
