"""Noise of detectors."""

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.augments.intensity import ImageAugment
from mitocore.builtin.augments.ranges import Amounts, Probability
from mitocore.geometry import VoxelSize


class Noise(ImageAugment):
    """Gaussian noise, independent in every voxel and channel; equal everywhere, or stronger where it is bright.

    The nnU-Net family adds noise to one crop in ten.
    """

    probability: Probability = 0.25
    """Share of the crops that are changed."""
    sigma: Amounts = (0.0, 0.1)
    """Smallest and largest standard deviation; the image spans about -1 to 1."""
    shot: Amounts = (0.0, 0.0)
    """Smallest and largest standard deviation of the part that counting electrons adds: that of the brightest voxels of
    the crop. Its square falls to 0 at the darkest, as that of a Poisson process does."""

    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        del voxel_size
        sigma, shot = rng.uniform(*self.sigma), rng.uniform(*self.shot)
        noise = rng.standard_normal(image.shape, np.float32)
        if shot:
            dark, bright = float(image.min()), float(image.max())
            share = (image - dark) / (bright - dark or 1.0)
            noise *= np.sqrt(sigma**2 + shot**2 * share)
        else:
            noise *= np.float32(sigma)
        noise += image
        return noise
