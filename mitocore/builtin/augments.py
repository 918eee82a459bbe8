"""Changes of image and labels that keep a crop believable."""

import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from mitocore.geometry import VoxelSize
from mitocore.interfaces import Augment, Labels


class FlipRotate(Augment):
    """Random flips along the axes, and random quarter turns in the (y, x) plane.

    Where the crop or the voxel is not square in that plane, a turn would change shape or size of what is seen: then
    there are only half turns.
    """

    axes: tuple[Literal["z", "y", "x"], ...] = ("z", "y", "x")
    """Axes along which half of the crops are flipped."""
    rotate: bool = True
    """Whether crops are turned too."""

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        flips, turns = rng.random(3) < 0.5, int(rng.integers(4))
        named = zip("zyx", (-3, -2, -1), flips, strict=True)
        axes = tuple(axis for name, axis, flip in named if flip and name in self.axes)
        square = image.shape[-2] == image.shape[-1] and (voxel_size is None or voxel_size.y == voxel_size.x)
        turns = turns * self.rotate if square else turns // 2 * 2 * self.rotate

        def moved(array: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(np.rot90(np.flip(array, axes), turns, (-2, -1)))

        return moved(image), {name: moved(label) for name, label in labels.items()}


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"{list(limits)} is not [smallest, largest]")
    return limits


Limits = Annotated[tuple[float, float], AfterValidator(_ordered)]
Factors = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ordered)]


class Contrast(Augment):
    """Random gamma, contrast and brightness of the normalised image, equal for all channels.

    Gamma bends the grey levels between the smallest and the largest of the crop; then every value is multiplied by
    the contrast and the brightness is added. Catena uses probability = 0.75, contrast = [0.5, 1.5],
    brightness = [-0.5, 0.5] and gamma = [1, 1].
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Share of the crops that are changed."""
    contrast: Factors = (0.75, 1.25)
    """Smallest and largest factor."""
    brightness: Limits = (-0.25, 0.25)
    """Smallest and largest value added; the image spans about -1 to 1."""
    gamma: Factors = (0.75, 1.33)
    """Smallest and largest exponent; 1 changes nothing."""

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        del voxel_size
        chance, *factors = rng.random(4)
        if chance >= self.probability:
            return image, labels
        limits = np.array([self.contrast, self.brightness, np.log(self.gamma)])  # halving is as likely as doubling
        contrast, brightness, gamma = (limits[:, 0] + np.ptp(limits, axis=1) * factors).tolist()
        low, high = float(image.min()), float(image.max())
        span = high - low or 1.0
        bent = low + span * ((image - low) / span).clip(0, 1) ** math.exp(gamma)
        return np.asarray(bent * contrast + brightness, np.float32), labels
