"""How much a voxel counts: weight maps made of labels. Each gives one channel, "weight"."""

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import distance_transform_edt, find_objects

from mitocore.builtin.targets.lengths import PositiveLength, Scale, scale_of
from mitocore.builtin.targets.morphology import OfObjects, WidthOption, extent, highest, known, window
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces import Labels, Target
from mitocore.specs import ArraySpec, Kind, Need

_ANY = (Kind.INSTANCE, Kind.SEMANTIC, Kind.MASK)


class BorderDistance(OfObjects):
    """More weight for background between two objects that lie close together.

    border · exp(-(d1 + d2)² / 2 sigma²), where d1 and d2 are the distances to the nearest and the second nearest
    object, and 1 where that is less; `inside` in objects (Ronneberger et al. 2015, U-Net; 2-w0-w1 of PyTorch
    Connectomics, where w0 is `border`, w1 `inside` and sigma 5 voxels).
    """

    border: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 10.0
    """Weight in a gap as narrow as can be."""
    inside: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight in objects."""
    sigma: PositiveLength = 5
    """How fast the weight falls with the width of a gap: voxels of the plane, or a length such as "40 nm"."""
    per_slice: bool = True
    """Whether distances are measured in every slice on its own; else in three dimensions."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        scale = self._scale(voxel_size)
        return self.beyond(self._around(scale, self._reach(scale)))

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.WEIGHT, ("weight",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        scale = self._scale(voxel_size)
        ids, reach = self.objects(labels)[0], self._reach(scale)
        edges = (1e3 * reach, *scale.edges[1:]) if self.per_slice else scale.edges  # other slices are out of reach
        grown = self._around(scale, reach)
        nearest, following = np.full(ids.shape, reach), np.full(ids.shape, reach)
        for number, box in enumerate(find_objects(ids.astype(np.int32)), 1):
            if box is not None:
                around = tuple(slice(max(0, s.start - g), s.stop + g) for s, g in zip(box, grown, strict=True))
                first, second = nearest[around], following[around]
                distance = distance_transform_edt(ids[around] != number, sampling=edges)
                np.minimum(second, np.maximum(first, distance), out=second)
                np.minimum(first, distance, out=first)
        weight = self.border * np.exp(-((nearest + following) ** 2) / (2 * scale.length(self.sigma) ** 2))
        return np.where(ids > 0, self.inside, np.maximum(1, weight))[None].astype(np.float32)

    def _scale(self, voxel_size: VoxelSize | None) -> Scale:
        return scale_of(voxel_size, None, self.per_slice)

    def _reach(self, scale: Scale) -> float:
        """The sum of distances from which on the weight is 1."""
        return scale.length(self.sigma) * math.sqrt(2 * math.log(self.border))

    def _around(self, scale: Scale, reach: float) -> Shape:
        z, y, x = (int(reach / edge) + 1 for edge in scale.edges)
        return 0 if self.per_slice else z, y, x


class ClassWeights(Target):
    """A constant weight for each class; 0 where the label says "ignore"."""

    label: str = "semantic"
    """Name of the label array that is read."""
    factors: Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], Field(min_length=1)]
    """Weights of ids 0, 1, 2 …; the last is for all larger ids too, so that of an array of objects [1, 5] gives 5
    to each of them."""

    def needs(self) -> dict[str, Need]:
        return {self.label: Need((Kind.SEMANTIC, Kind.MASK))}

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.WEIGHT, ("weight",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        del voxel_size
        ids = labels[self.label]
        last = len(self.factors) - 1
        numbers = ids.astype(np.uint8) if ids.dtype.kind == "b" else ids
        weight = np.array(self.factors, np.float32)[np.minimum(numbers, numbers.dtype.type(last)).astype(np.intp)]
        return np.where(known(ids), weight, np.float32(0))[None]


class Known(Target):
    """0 within some distance of voxels to ignore, else 1.

    A boundary, distance or affinity is not known there, for it depends on what nobody has labelled.
    """

    label: str = "instances"
    """Name of the label array that is read."""
    margin: WidthOption = 1
    """The distance: voxels (counted along the axes), or a length such as "30 nm"."""
    per_slice: bool = False
    """Whether every slice is looked at on its own; else in three dimensions."""

    def needs(self) -> dict[str, Need]:
        return {self.label: Need(_ANY)}

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        return extent(window(self.margin, voxel_size, per_slice=self.per_slice))

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.WEIGHT, ("weight",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        unknown: NDArray[Any] = ~known(labels[self.label])
        near = highest(unknown, window(self.margin, voxel_size, per_slice=self.per_slice))
        return (~near)[None].astype(np.float32)
