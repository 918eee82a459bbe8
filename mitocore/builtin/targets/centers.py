"""Where the centre of an object is: heat map and vectors."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.targets.lengths import PositiveLength
from mitocore.builtin.targets.objects import Ids, ShapeTarget, components, slicewise
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces import Labels
from mitocore.specs import ArraySpec, Kind

_TRUNCATE = 4  # standard deviations; beyond it the heat map is 0


class _CenterTarget(ShapeTarget):
    context: PositiveLength = 32.0
    """Labels read around a crop, so that an object that the crop cuts has the centre of more than its part in the crop:
    voxels, or a length such as "300 nm"."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        return self.within(self.context, voxel_size)

    def local(self) -> bool:
        return False


class Center(_CenterTarget):
    """Heat map of the centres of objects: a Gaussian around each, 1 at the centre.

    The centre is the mean of the voxels of a connected object. It may lie beside a bent object. Objects that lie within
    the crop and `context` around it are exact; of a larger one it is the centre of the part seen. (Panoptic-DeepLab,
    Cheng et al. 2020; MitoNet, Conrad and Narayan 2023.)
    """

    sigma: PositiveLength = 6.0
    """Standard deviation of the Gaussian: voxels, or a length such as "50 nm". Beyond four of them the map is 0."""
    peak: Literal["max", "sum"] = "max"
    """Where Gaussians overlap: the larger value; or, as empanada has it, their sum, each around the voxel that its
    centre falls in, divided by the largest value seen (in a slice, where slices are encoded on their own)."""

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.PROBABILITY, ("center",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        sigma = self.scale(voxel_size).voxels(self.sigma)
        heat = {"max": _largest_gaussian, "sum": _summed_gaussians}[self.peak]
        values = slicewise(heat, self.objects(labels)[0], sigma, per_slice=self.per_slice)
        return values[None].astype(np.float32)


class Offset(_CenterTarget):
    """Vector from each voxel of an object to its centre, in voxels along y and x, or z, y and x; 0 outside objects.

    The centre is the mean of the voxels of a connected object. Objects that lie within the crop and `context` around it
    are exact; of a larger one it is the centre of the part seen.
    """

    center: Literal["mean", "voxel"] = "mean"
    """The mean of the object's voxels; or the voxel of the object nearest to it, which a bent object needs if its
    centre shall lie inside."""

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.OFFSET, ("y", "x") if self.per_slice else ("z", "y", "x"))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        edges = self.scale(voxel_size).edges
        options = (edges, self.center)
        return slicewise(_offsets, self.objects(labels)[0], *options, per_slice=self.per_slice).astype(np.float32)


def _sums(ids: Ids) -> tuple[tuple[NDArray[Any], ...], NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Places (one array for each axis) and object of the voxels; per object the number of voxels and the sum of places.

    Sums are whole numbers: vectors from them do not depend on where in an array an object lies, to the last bit.
    """
    places = np.nonzero(ids)
    of = ids[places]
    count = np.bincount(of, minlength=1)
    sums = [np.bincount(of, place, minlength=1).astype(np.int64) for place in places]
    return places, of, count, np.stack(sums)


def _offsets(ids: Ids, edges: tuple[float, float, float], center: str) -> NDArray[np.float64]:
    """(axes, *shape): vectors to the centre of each voxel's object."""
    ids = components(ids)
    places, of, count, sums = _sums(ids)
    vectors = np.stack([(sums[axis][of] - count[of] * place) / count[of] for axis, place in enumerate(places)])
    if center == "voxel":
        lengths = np.square(vectors * np.reshape(edges[-ids.ndim :], (-1, 1))).sum(axis=0)
        order = np.lexsort((lengths, of))
        first = order[np.unique(of[order], return_index=True)[1]]
        vectors = np.stack([place[first][of - 1] - place for place in places]).astype(np.float64)
    result = np.zeros((ids.ndim, *ids.shape))
    result[:, ids > 0] = vectors
    return result


def _largest_gaussian(ids: Ids, sigma: tuple[float, float, float]) -> NDArray[np.float64]:
    result = np.zeros(ids.shape)
    _, _, count, sums = _sums(components(ids))
    for number in range(1, len(count)):
        parts: list[slice] = []
        curves: list[NDArray[np.float64]] = []
        for total, width, size in zip(sums[:, number], sigma[-ids.ndim :], ids.shape, strict=True):
            reach = int(np.ceil(_TRUNCATE * width))
            middle = int(total // count[number])
            along = np.arange(max(0, middle - reach), min(size, middle + reach + 2))
            away = (along * count[number] - total) / count[number]
            parts.append(slice(int(along[0]), int(along[-1]) + 1))
            curves.append(np.where(np.abs(away) <= _TRUNCATE * width, np.exp(-0.5 * (away / width) ** 2), 0))
        box = tuple(parts)
        gaussian = curves[0]
        for curve in curves[1:]:
            gaussian = gaussian[..., None] * curve
        np.maximum(result[box], gaussian, out=result[box])
    return result


def _summed_gaussians(ids: Ids, sigma: tuple[float, float, float]) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    _, _, count, sums = _sums(components(ids))
    points = np.zeros(ids.shape)
    points[tuple(sums[:, 1:] // count[1:])] = 1
    heat: NDArray[np.float64] = gaussian_filter(points, sigma[-ids.ndim :], mode="constant", truncate=_TRUNCATE)
    return heat / max(float(heat.max(initial=0)), np.finfo(np.float64).tiny)
