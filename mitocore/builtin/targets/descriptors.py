"""Local shape descriptors: what the part of an object around a voxel looks like."""

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.targets.lengths import PositiveLength
from mitocore.builtin.targets.objects import Ids, ShapeTarget, slicewise
from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import Labels
from mitocore.specs import DESCRIPTORS, ArraySpec, Kind

_TRUNCATE = 3  # standard deviations
_FLAT = 1e-3  # of sigma squared; flatter than this, correlations would be ratios of rounding errors
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # of axes, in the order of the channels

Windows = list[list[NDArray[np.float64]]]
"""For z, y and x and the powers 0, 1 and 2 what `_window` gives; its corner serves a smaller array."""


class Descriptors(ShapeTarget):
    """Ten numbers on the part of an object within a Gaussian window around each voxel; 0 outside objects.

    The mean offset of that part from the voxel, its variances, the correlations between axes, and the share of the
    window that it fills: each mapped to 0 … 1 (Sheridan et al., Nature Methods 2023). Offsets from -sigma to sigma and
    correlations from -1 to 1 become 0 … 1, variances are in units of sigma squared; what lies beyond is cut off. The
    window ends at three sigma, so a crop and as many labels around it settle all.
    """

    sigma: PositiveLength = "80 nm"
    """Standard deviation of the window, about the radius of the objects: voxels, or a length such as "80 nm"."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        z, y, x = as_shape(_radius(along) for along in self.scale(voxel_size).voxels(self.sigma))
        return self.beyond((0 if self.per_slice else z, y, x))

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.DESCRIPTOR, DESCRIPTORS)

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        z, y, x = self.scale(voxel_size).voxels(self.sigma)
        ids = self.objects(labels)[0]
        sigmas = (0.0 if self.per_slice else z, y, x)
        windows = [[_window(n, sigma, power) for power in range(3)] for n, sigma in zip(ids.shape, sigmas, strict=True)]
        return slicewise(_described, ids, windows, per_slice=self.per_slice)


def _described(ids: Ids, windows: Windows) -> NDArray[np.float32]:
    """(10, *shape) of two or three axes."""
    from scipy.ndimage import find_objects

    volume = ids.reshape((-1, *ids.shape[-2:]))
    result = np.zeros((len(DESCRIPTORS), *volume.shape), np.float32)
    for number, box in enumerate(find_objects(volume.astype(np.int32)), 1):
        if box is not None:
            inside = volume[box] == number
            result[(slice(None), *box)][:, inside] = _of_object(inside, windows)
    return result.reshape((-1, *ids.shape))


def _of_object(inside: NDArray[np.bool_], windows: Windows) -> NDArray[np.float64]:
    """(10, n) for the n voxels of one object, which fills the box `inside` covers."""
    moments = {power: values[inside] for power, values in _moments(inside, windows).items()}
    share = moments[0, 0, 0]  # above 0: the window is highest at the voxel itself
    mean = {a: moments[_power(a)] / share for a in range(3)}
    shared = {(a, b): moments[_power(a, b)] / share - mean[a] * mean[b] for a, b in _PAIRS}
    variance = [shared[a, a] for a in range(3)]
    spread = [np.sqrt(np.maximum(along, _FLAT)) for along in variance]
    correlation = [shared[a, b] / (spread[a] * spread[b]) for a, b in _PAIRS if a != b]
    centred = [0.5 + 0.5 * values for values in (*mean.values(), *correlation)]
    described: NDArray[np.float64] = np.stack([*centred[:3], *variance, *centred[3:], share])
    return described.clip(0, 1)


def _moments(inside: NDArray[np.bool_], windows: Windows) -> dict[Shape, NDArray[np.float64]]:
    """Sums, over the object, of the window times powers of the steps from a voxel along (z, y, x), in units of sigma.

    Windows are products of three curves, and products with matrices are faster here than filters. What is summed does
    not depend on where in an array the object lies.
    """
    along_z, along_y, along_x = ([w[:n, :n] for w in along] for n, along in zip(inside.shape, windows, strict=True))
    values = inside.astype(np.float64)
    found = {}
    for a in range(3):
        of_z = np.tensordot(along_z[a], values, 1)
        for b in range(3 - a):
            of_y = along_y[b] @ of_z
            for c in range(3 - a - b):
                found[a, b, c] = of_y @ along_x[c].T
    return found


def _window(size: int, sigma: float, power: int) -> NDArray[np.float64]:
    """(size, size): for each place of an axis the weights of all, times the power of their distance over sigma.

    A `sigma` of 0 is a window of one voxel.
    """
    if not sigma:
        return np.eye(size) * (power == 0)
    steps = np.arange(-_radius(sigma), _radius(sigma) + 1)
    curve = np.exp(-0.5 * (steps / sigma) ** 2)
    apart = np.arange(size) - np.arange(size)[:, None]
    weights = np.exp(-0.5 * (apart / sigma) ** 2) / curve.sum() * (apart / sigma) ** power
    return np.where(np.abs(apart) <= _radius(sigma), weights, 0)


def _radius(sigma: float) -> int:
    return int(_TRUNCATE * sigma + 0.5)


def _power(*axes: int) -> Shape:
    return as_shape(axes.count(axis) for axis in range(3))
