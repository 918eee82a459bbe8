"""What the microscope does to tomograms, done in Fourier space."""

import math
from abc import abstractmethod
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from scipy import fft

from mitocore.builtin.augments.intensity import ImageAugment
from mitocore.builtin.augments.ranges import Probability, ordered
from mitocore.geometry import VoxelSize

Angle = Annotated[float, Field(gt=0, lt=90)]
"""Degrees."""
_MARGIN = 8
"""Voxels in which the image fades to its mean, so that opposite faces of the crop do not meet."""
_KNOTS = 7

Frequencies = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Along z, y and x, in periods per edge of a voxel along x, that together broadcast to a spectrum (z, y, x)."""


class _Filter(ImageAugment):
    """Multiplies the spectrum of every channel by the same factors; the mean stays."""

    @abstractmethod
    def _factors(self, frequencies: Frequencies, rng: np.random.Generator) -> NDArray[np.float32]:
        """(z, y, x) of the spectrum."""

    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        mean = image.mean((1, 2, 3), keepdims=True)
        margins = [(0, 0)]
        for size in image.shape[1:]:
            more = fft.next_fast_len(size + 2 * _MARGIN, real=True) - size if size > 1 else 0
            margins.append((more // 2, more - more // 2))
        faded = np.pad(image - mean, margins, mode="linear_ramp", end_values=0)
        shape = faded.shape[1:]
        edges = [edge / voxel_size.x for edge in voxel_size.edges] if voxel_size else [1.0, 1.0, 1.0]
        halves = fft.fftfreq, fft.fftfreq, fft.rfftfreq
        z, y, x = (half(n, edge) for half, n, edge in zip(halves, shape, edges, strict=True))
        frequencies = np.ix_(*(axis.astype(np.float32) for axis in (z, y, x)))
        spectrum = fft.rfftn(faded, axes=(1, 2, 3), overwrite_x=True)
        spectrum *= self._factors((frequencies[0], frequencies[1], frequencies[2]), rng)
        back = fft.irfftn(spectrum, shape, axes=(1, 2, 3), overwrite_x=True)
        inner = tuple(slice(before, n - after) for n, (before, after) in zip(faded.shape, margins, strict=True))
        return np.asarray(back[inner] + mean, np.float32)


class MissingWedge(_Filter):
    """The wedge of frequencies around z that a tilt series does not reach, taken from a crop once more.

    Whatever varies along z and little across the tilt axis, such as membranes that lie flat, fades. Crops of a single
    section have no such frequencies and stay as they are. Tomograms have a wedge of their own, about y as a rule:
    `rotation` tells how far off the new one may be.
    """

    probability: Probability = 0.3
    """Share of the crops that are changed."""
    tilt: Annotated[tuple[Angle, Angle], AfterValidator(ordered)] = (45.0, 60.0)
    """Smallest and largest angle, in degrees, up to which the specimen is tilted either way: at 60, the wedge without
    data reaches 30 degrees to both sides of z."""
    rotation: Annotated[float, Field(ge=0, le=90)] = 15.0
    """Largest angle between the tilt axis and y, in degrees, either way; the tilt axis lies in the plane."""

    def _changed(
        self, image: NDArray[np.float32], voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        return super()._changed(image, voxel_size, rng) if image.shape[1] > 1 else image

    def _factors(self, frequencies: Frequencies, rng: np.random.Generator) -> NDArray[np.float32]:
        z, y, x = frequencies
        reached = math.tan(math.radians(rng.uniform(*self.tilt)))
        axis = math.radians(rng.uniform(-self.rotation, self.rotation))
        across = abs(x * np.float32(math.cos(axis)) + y * np.float32(math.sin(axis)))
        half_a_step = float(abs(z).max()) / len(z)
        return np.asarray(abs(z) <= across * np.float32(reached) + np.float32(half_a_step), np.float32)


class Spectrum(_Filter):
    """Amplitudes multiplied by a smooth random curve of the frequency, the same in all directions.

    Microscopes, defocus, filters and ways to reconstruct differ in how strongly they show fine and coarse structure;
    `contrast` changes all of it alike.
    """

    probability: Probability = 0.3
    """Share of the crops that are changed."""
    change: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Largest share by which the amplitude of a frequency rises or falls."""

    def _factors(self, frequencies: Frequencies, rng: np.random.Generator) -> NDArray[np.float32]:
        z, y, x = frequencies
        radius = np.sqrt(z * z + y * y + x * x)
        knots = np.linspace(0, float(radius.max()) or 1.0, _KNOTS)
        curve = 1 + rng.uniform(-self.change, self.change, _KNOTS)
        return np.asarray(np.interp(radius, knots, curve), np.float32)
