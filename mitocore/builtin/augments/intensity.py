"""Changes of grey levels."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.augments.ranges import Factors, Limits, Probability
from mitocore.geometry import VoxelSize
from mitocore.interfaces import Augment, Labels


class ImageAugment(Augment):
    """Changes the image alone: labels, and the places of all things, stay as they are."""

    probability: Probability = 0.5
    """Share of the crops that are changed."""

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        if rng.random() >= self.probability:
            return image, labels
        return np.asarray(self._changed(image, voxel_size, rng), np.float32), labels

    @abstractmethod
    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """A new image of the same shape (c, z, y, x)."""


class Contrast(ImageAugment):
    """Random gamma, contrast and brightness of the normalised image, equal for all channels.

    Gamma bends the grey levels between the smallest and the largest of the crop, or of the section; then every value
    is multiplied by the contrast and the brightness is added. Catena uses probability = 0.75, contrast = [0.5, 1.5],
    brightness = [-0.5, 0.5] and gamma = [1, 1]; PyTorch Connectomics probability = 0.75, contrast = [0.85, 1.15],
    brightness = [-0.3, 0.3], gamma = [0.5, 2] and, by its documentation, by_section = 0.5.
    """

    probability: Probability = 0.75
    """Share of the crops that are changed."""
    contrast: Factors = (0.75, 1.25)
    """Smallest and largest factor."""
    brightness: Limits = (-0.25, 0.25)
    """Smallest and largest value added; the image spans about -1 to 1."""
    gamma: Factors = (0.75, 1.33)
    """Smallest and largest exponent; 1 changes nothing."""
    by_section: Probability = 0.0
    """Share of these in which every section is changed by numbers of its own, as sections differ in thickness and
    stain."""
    inversion: Probability = 0.0
    """Share of these in which dark and bright are exchanged too; 0.05 is enough for tomograms whose polarity is not
    known."""

    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        del voxel_size
        single, inverted = rng.random(2)
        alone = single < self.by_section
        limits = np.array([self.contrast, self.brightness, np.log(self.gamma)])  # halving is as likely as doubling
        shares = rng.random((3, image.shape[1] if alone else 1))
        drawn = limits[:, :1] + np.ptp(limits, axis=1, keepdims=True) * shares
        contrast, brightness, gamma = drawn.astype(np.float32)[..., None, None]
        if inverted < self.inversion:
            contrast, brightness = -contrast, -brightness
        axes = (0, 2, 3) if alone else None
        low, high = image.min(axes, keepdims=True), image.max(axes, keepdims=True)
        span = np.where(high > low, high - low, np.float32(1))
        bent = ((image - low) / span).clip(0, 1) ** np.exp(gamma)
        bent *= span * contrast
        bent += low * contrast + brightness
        return np.asarray(bent)
