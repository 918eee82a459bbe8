"""Parts of the image hidden or spoilt, so that a network learns to look around; labels stay what they were."""

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from mitocore.builtin.augments.intensity import ImageAugment
from mitocore.builtin.augments.ranges import Probability, ordered
from mitocore.geometry import VoxelSize
from mitocore.interfaces import Augment, Labels

Share = Annotated[float, Field(gt=0, le=1)]
"""Edge of a box over that of the crop."""
Strides = Annotated[tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]], AfterValidator(ordered)]
"""Smallest and largest number of voxels that become one."""


def _box(image: NDArray[np.float32], shares: tuple[float, float, float], rng: np.random.Generator) -> tuple[slice, ...]:
    """Anywhere within all channels of the image; at least one voxel along every axis."""
    box = [slice(None)]
    for size, share in zip(image.shape[1:], shares, strict=True):
        edge = max(1, round(size * share))
        start = int(rng.integers(0, size - edge, endpoint=True))
        box.append(slice(start, start + edge))
    return tuple(box)


class MissingParts(Augment):
    """A band across a section becomes its mean grey, as where it is folded or torn.

    Between two such sections at least two are whole. The numbers are those of PyTorch Connectomics, whose bands may
    hide small sections altogether.
    """

    probability: Probability = 0.9
    """Share of the sections in which a band is hidden, of those that may have one."""
    reach: Annotated[int, Field(ge=1)] = 64
    """Voxels hidden on each side of a line from one edge of the section to the opposite one: in all at most half of its
    shorter edge."""

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        result = image.copy()
        z = 0
        while z < image.shape[1]:
            if rng.random() < self.probability:
                hidden = self._band(image.shape[2], image.shape[3], rng)
                result[:, z, hidden] = image[:, z].mean((1, 2))[:, None]
                z += 2
            z += 1
        return result, labels

    def _band(self, rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Voxels (y, x) near a random line across the section."""
        along_x, *ends = rng.random(3)
        length, width = (columns, rows) if along_x < 0.5 else (rows, columns)
        first, last = (end * (width - 1) for end in ends)
        slope = (last - first) / max(length - 1, 1)
        beside = np.arange(width)[:, None] - (first + slope * np.arange(length))
        hidden = abs(beside) / math.hypot(1, slope) <= min(self.reach, min(rows, columns) / 4)
        return np.asarray(hidden if along_x < 0.5 else hidden.T)


class CutOut(ImageAugment):
    """Boxes that become the mean grey of the crop.

    DeVries and Taylor (2017, arXiv:1708.04552); the numbers are those of the nnU-Net family.
    """

    probability: Probability = 0.4
    """Share of the crops that are changed."""
    boxes: Annotated[int, Field(ge=1)] = 5
    """Largest number of boxes; every number from 1 is equally likely."""
    ratio: Annotated[tuple[Share, Share], AfterValidator(ordered)] = (0.1, 0.33)
    """Smallest and largest edge of a box, as a share of that of the crop."""

    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        del voxel_size
        result, mean = image.copy(), image.mean((1, 2, 3), keepdims=True)
        for _ in range(rng.integers(1, self.boxes, endpoint=True)):
            z, y, x = rng.uniform(*self.ratio, 3).tolist()
            result[_box(image, (z, y, x), rng)] = mean
        return result


class CutNoise(ImageAugment):
    """Uniform noise in one box.

    The numbers are those of PyTorch Connectomics, where images span 0 to 1 and `scale` is 0.3.
    """

    probability: Probability = 0.75
    """Share of the crops that are changed."""
    ratio: Share = 0.4
    """Edge of the box, as a share of that of the crop."""
    scale: Annotated[float, Field(gt=0)] = 0.6
    """Largest value added or subtracted; the image spans about -1 to 1."""

    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        del voxel_size
        result = image.copy()
        part = result[_box(image, (self.ratio,) * 3, rng)]
        part += self.scale * (2 * rng.random(part.shape, np.float32) - 1)
        return result


class CutBlur(ImageAugment):
    """One box in which the image is as coarse as if it had been acquired with larger voxels.

    Yoo et al. (2020, arXiv:2004.00448); the numbers are those of PyTorch Connectomics.
    """

    ratio: Share = 0.4
    """Edge of the box, as a share of that of the crop."""
    factor: Strides = (2, 8)
    """Smallest and largest number of voxels, along an axis, that become one; it is interpolated linearly."""
    downsample_z: bool = False
    """Whether the voxels become larger along z too."""

    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        del voxel_size
        factor = int(rng.integers(*self.factor, endpoint=True))
        result = image.copy()
        part = result[_box(image, (self.ratio,) * 3, rng)]
        coarse = part
        for axis in (1, 2, 3) if self.downsample_z else (2, 3):
            coarse = np.moveaxis(np.tensordot(coarse, _coarser(part.shape[axis], factor), (axis, 1)), -1, axis)
        part[...] = coarse
        return result


def _coarser(size: int, factor: int) -> NDArray[np.float32]:
    """Weights (size, size) that average runs of `factor` voxels and interpolate between the middles of the runs."""
    places = np.arange(size)
    runs = np.arange(-(-size // factor))[:, None]
    down = (places // factor == runs).astype(float)
    down /= down.sum(axis=1, keepdims=True)
    middles = down @ places
    up = np.stack([np.interp(places, middles, one) for one in np.eye(len(runs))], axis=1)
    return np.asarray(up @ down, np.float32)
