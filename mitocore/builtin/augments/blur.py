"""Sections that are not sharp."""

import math
from abc import abstractmethod
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from mitocore.builtin.augments.intensity import ImageAugment
from mitocore.builtin.augments.ranges import Amounts, Probability
from mitocore.geometry import VoxelSize


class _BlurredSections(ImageAugment):
    """A few sections, each blurred in its plane; beyond what was read they are mirrored."""

    sections: Annotated[int, Field(ge=1)] = 2
    """How many sections are blurred; all, if the crop has no more."""

    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        ratio = voxel_size.x / voxel_size.y if voxel_size else 1.0
        depth = image.shape[1]
        result = image.copy()
        for z in rng.choice(depth, min(self.sections, depth), replace=False):
            result[:, z] = self._blurred(image[:, z], ratio, rng)
        return result

    @abstractmethod
    def _blurred(self, section: NDArray[np.float32], ratio: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """A section (c, y, x); `ratio` is that of a voxel's edge along x to that along y."""


class Blur(_BlurredSections):
    """Sections out of focus: a few of them blurred by Gaussians.

    So Lee et al. (2017, arXiv:1706.00120) train for serial sections. To blur whole crops of a volume from
    a block-face or of a tomogram, let `sections` be the depth of the crop or more.
    """

    probability: Probability = 0.25
    """Share of the crops that are changed."""
    sigma: Amounts = (0.5, 3.0)
    """Smallest and largest standard deviation, in voxels along x."""

    def _blurred(self, section: NDArray[np.float32], ratio: float, rng: np.random.Generator) -> NDArray[np.float32]:
        sigma = rng.uniform(*self.sigma)
        return np.asarray(ndimage.gaussian_filter(section, (0, sigma * ratio, sigma), mode="mirror", truncate=3))


class MotionBlur(_BlurredSections):
    """Sections smeared along a line, each in a direction of its own.

    The numbers are those of PyTorch Connectomics, which knows two directions.
    """

    kernel: Annotated[int, Field(ge=2)] = 11
    """Length of the line, in voxels along x."""

    def _blurred(self, section: NDArray[np.float32], ratio: float, rng: np.random.Generator) -> NDArray[np.float32]:
        return np.asarray(ndimage.correlate(section, self._line(rng.uniform(0, math.pi), ratio)[None], mode="mirror"))

    def _line(self, angle: float, ratio: float) -> NDArray[np.float64]:
        """Weights (y, x) of the voxels along a line, of sum 1; each point is shared between its four neighbours."""
        along = np.arange(self.kernel) - (self.kernel - 1) / 2
        y, x = along * math.sin(angle) * ratio, along * math.cos(angle)
        rows, columns = (np.arange(-n, n + 1) for n in (math.ceil(abs(y).max()), math.ceil(abs(x).max())))
        near_y = (1 - abs(rows[:, None] - y)).clip(0)
        near_x = (1 - abs(columns[:, None] - x)).clip(0)
        return np.asarray(near_y @ near_x.T / self.kernel)
