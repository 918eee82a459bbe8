"""Crops turned, scaled and bent: one smooth change of place, in the plane or in space."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.augments.places import Places, mapped
from mitocore.builtin.augments.ranges import Factors, Probability
from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import Augment, Labels

_ISOTROPIC = 1.01
"""Longest edge of a voxel over the shortest; files round."""


class _Warp(Augment):
    """Takes every voxel from somewhere else: image values are interpolated linearly, labels are the nearest."""

    probability: Probability = 0.5
    """Share of the crops that are changed."""

    @abstractmethod
    def _places(self, shape: Shape, voxel_size: VoxelSize | None, rng: np.random.Generator) -> Places:
        """Where the voxels of a crop of `shape` come from."""

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        if rng.random() >= self.probability:
            return image, labels
        return self._places(as_shape(image.shape[1:]), voxel_size, rng).moved(image, labels)


class Rotate(_Warp):
    """Random rotation about the middle of the crop, in the (y, x) plane or also out of it.

    So much is read around the crop that no corner stays empty: for any angle, a square needs 21 % of its edge on each
    side. PyTorch Connectomics (without ROT90) turns every crop by any angle, as empanada does; the nnU-Net family uses
    30 degrees.
    """

    probability: Probability = 1.0
    """Share of the crops that are changed."""
    angle: Annotated[float, Field(ge=0, le=180)] = 180.0
    """Largest angle in the plane, in degrees, either way."""
    tilt: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle out of the plane, in degrees, about any axis in it. It needs voxels that are known to be isotropic:
    others are turned in the plane only."""

    def halo(self, shape: Shape, voxel_size: VoxelSize | None) -> Shape:
        tilt = self.tilt if self._tilted(voxel_size) else 0.0
        edges = np.array(voxel_size.edges if voxel_size else (1.0, 1.0, 1.0))  # only their ratios matter
        radii = (np.array(shape) - 1) / 2 * edges
        seen = radii * (tilt > 0, 1, 1)
        others = np.sqrt(np.square(seen).sum() - np.square(seen))
        # A face at distance r, and what lies beside it at s, reach r cos t + s sin t when turned by t. Turns in the
        # plane leave z alone; what is turned twice is turned by no more than both angles together.
        largest = np.radians(np.minimum([tilt, self.angle + tilt, self.angle + tilt], 180))
        worst = np.minimum(largest, np.arctan2(others, radii))
        reach = radii * np.cos(worst) + others * np.sin(worst) - radii
        return as_shape(np.ceil(reach / edges - 1e-6))

    def _places(self, shape: Shape, voxel_size: VoxelSize | None, rng: np.random.Generator) -> Places:
        from scipy.spatial.transform import Rotation

        angle, tilt, azimuth = rng.uniform(-1, 1, 3) * np.radians([self.angle, self.tilt, 180])
        turn = Rotation.from_rotvec([angle, 0, 0])
        if self._tilted(voxel_size):
            matrix = (turn * Rotation.from_rotvec(tilt * np.array([0, np.cos(azimuth), np.sin(azimuth)]))).as_matrix()
            return mapped(matrix, shape)
        return mapped(in_voxels(turn.as_matrix()[1:, 1:], voxel_size), shape[1:])

    def _tilted(self, voxel_size: VoxelSize | None) -> bool:
        return self.tilt > 0 and voxel_size is not None and voxel_size.anisotropy <= _ISOTROPIC


class Rescale(_Warp):
    """Random magnification about the middle of the crop; the voxel size is taken to stay what it was.

    Halving is as likely as doubling. PyTorch Connectomics uses the same range and share, along y and x independently.
    """

    factors: Factors = (0.8, 1.25)
    """Smallest and largest magnification."""
    axes: Annotated[tuple[Literal["z", "y", "x"], ...], Field(min_length=1)] = ("y", "x")
    """Axes along which crops are scaled."""
    fixed_aspect: bool = False
    """Whether all of these are scaled alike."""

    def halo(self, shape: Shape, voxel_size: VoxelSize | None) -> Shape:
        grown = max(1 / self.factors[0] - 1, 0)
        reach = ((n - 1) / 2 * grown if name in self.axes else 0 for name, n in zip("zyx", shape, strict=True))
        return as_shape(math.ceil(r - 1e-6) for r in reach)

    def _places(self, shape: Shape, voxel_size: VoxelSize | None, rng: np.random.Generator) -> Places:
        low, high = np.log(self.factors)
        drawn = np.exp(rng.uniform(low, high, 3))
        if self.fixed_aspect:
            drawn[:] = drawn[0]
        scaled = np.array([name in self.axes for name in "zyx"])
        first = 0 if scaled[0] else 1
        return mapped(np.diag(np.where(scaled, 1 / drawn, 1.0)[first:]), shape[first:])


class Elastic(_Warp):
    """Random smooth bending, the same in every section or also from section to section.

    White noise, uniform between -alpha and alpha, is smoothed with a Gaussian of width sigma (Simard et al. 2003,
    "Best practices for convolutional neural networks applied to visual document analysis"). The defaults are those of
    PyTorch Connectomics, and move voxels along each axis by 0.65 (root mean square; in space by 0.17): for more, raise
    alpha. No voxel moves further than four times that.
    """

    probability: Probability = 0.75
    """Share of the crops that are changed."""
    alpha: Annotated[float, Field(ge=0)] = 16.0
    """Strength of the noise before it is smoothed, in voxels along x."""
    sigma: Annotated[float, Field(gt=0)] = 4.0
    """Width of the Gaussian, in voxels along x."""
    dimensions: Literal[2, 3] = 2
    """2: all sections are bent alike, in the plane. 3: in space and by equal lengths in nm; where the voxel size is not
    known, in the plane."""

    def halo(self, shape: Shape, voxel_size: VoxelSize | None) -> Shape:
        ratios = self._ratios(voxel_size)
        reach = [0.0] * (3 - len(ratios)) + [_FURTHEST * self._spread(len(ratios)) * ratio for ratio in ratios]
        return as_shape(math.ceil(r - 1e-6) for r in reach)

    def _places(self, shape: Shape, voxel_size: VoxelSize | None, rng: np.random.Generator) -> Places:
        ratios = self._ratios(voxel_size)
        moving = shape[3 - len(ratios) :]
        spread = self._spread(len(ratios))
        places = []
        for ratio, voxels in zip(ratios, np.ix_(*(np.arange(n, dtype=np.float32) for n in moving)), strict=True):
            field = smooth_noise(moving, [self.sigma * r for r in ratios], rng).clip(-_FURTHEST, _FURTHEST)
            places.append(np.asarray(voxels + field * np.float32(spread * ratio), np.float32))
        return Places(places, moving)

    def _ratios(self, voxel_size: VoxelSize | None) -> list[float]:
        """Voxels along each axis that is bent, per voxel along x."""
        if voxel_size is None:
            return [1.0, 1.0]
        return [voxel_size.x / edge for edge in voxel_size.edges[3 - self.dimensions :]]

    def _spread(self, dimensions: int) -> float:
        """Root mean square of the displacement, in voxels along x.

        Smoothing reduces the deviation of white noise by the root of the squared Gaussian's integral.
        """
        return self.alpha / math.sqrt(3) * min(1.0, math.pow(2 * math.sqrt(math.pi) * self.sigma, -dimensions / 2))


_FURTHEST = 4.0
"""Largest displacement of `Elastic`, in root mean squares: about one voxel in ten thousand would move further."""


def smooth_noise(shape: Sequence[int], sigmas: Sequence[float], rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise of mean 0 and deviation 1, correlated as white noise is after a Gaussian.

    The white noise lies on a grid as coarse as the Gaussian allows, which looks the same and takes a tenth of the time.
    """
    *deep, rows, columns = (_spread_out(size, sigma) for size, sigma in zip(shape, sigmas, strict=True))
    field = rng.standard_normal([each.shape[1] for each in (*deep, rows, columns)], np.float32)
    field = rows @ (field @ columns.T)
    for each in deep:
        field = np.tensordot(each, field, 1)
    return field


def _spread_out(size: int, sigma: float) -> NDArray[np.float32]:
    """Weights (size, m), in each voxel of a row, of m points that reach beyond its ends."""
    apart = 1.5 * sigma  # the sum of their Gaussians is even to 2.5 %, and is made even
    points = np.arange(-2, math.ceil((size - 1) / apart) + 3) * apart
    weights = np.exp(-(((np.arange(size)[:, None] - points) / sigma) ** 2) / 2)
    return np.asarray(weights / np.sqrt(np.square(weights).sum(axis=1, keepdims=True)), np.float32)


def in_voxels(matrix: NDArray[np.float64], voxel_size: VoxelSize | None) -> NDArray[np.float64]:
    """A matrix for lengths along the last axes, as one for voxels; voxels of unknown size are square."""
    if voxel_size is None:
        return matrix
    edges = np.array(voxel_size.edges[3 - len(matrix) :])
    return np.asarray(matrix * edges / edges[:, None])
