"""How far a voxel is from the border of an object."""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mitocore.builtin.targets.lengths import PositiveLength, Scale
from mitocore.builtin.targets.objects import Ids, ShapeTarget, eroded, filled, slicewise
from mitocore.errors import ConfigError
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces import Labels
from mitocore.specs import ArraySpec, Kind

BinsOption = Annotated[int, Field(ge=0, le=255)]
"""0, or a number of equal steps."""


class SignedDistance(ShapeTarget):
    """Distance to the border of objects: positive inside, negative outside, in nm or squashed to -1 … 1.

    Distances are Euclidean and reach from the centre of a voxel to that of the nearest voxel on the other side, so that
    beside a border they are one edge. Squashed, they are `tanh(inside / inner - outside / outer)` (option 6 of PyTorch
    Connectomics; Lin et al. 2021). Where objects fill all that is seen, the distance is `limit`.
    """

    unit: Literal["tanh", "nm"] = "tanh"
    """Squashed to -1 … 1 (a head with tanh), or in nm."""
    inner: PositiveLength = 8.0
    """Distance inside objects at which tanh reaches 0.76: voxels, or a length such as "80 nm"."""
    outer: PositiveLength = 50.0
    """The same outside objects."""
    limit: Literal["none"] | PositiveLength = 32.0
    """Larger distances count as this one, and so many labels are read around a crop. "none" (only for tanh):
    no limit, and distances are those to what the crop itself shows."""
    per_instance: bool = True
    """Inside, the distance to the nearest voxel of anything else, so that touching objects have a border between them;
    false: to the nearest voxel outside all objects."""

    @model_validator(mode="after")
    def _limited(self) -> "SignedDistance":
        if self.limit == "none" and self.unit == "nm":
            raise ValueError("a distance in nm needs a limit, such as '200 nm'")
        return self

    def scale(self, voxel_size: VoxelSize | None) -> Scale:
        scale = super().scale(voxel_size)
        if self.unit == "nm" and not scale.physical:
            problem = "a distance in nm needs the voxel size of the labels, which is not known"
            raise ConfigError(problem, hint="voxel_size = [40, 8, 8] in [[volume]] (nm, z y x), or unit = 'tanh'")
        return scale

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        return self.within(self.limit, voxel_size) if self.limit != "none" else self.beyond((0, 0, 0))

    def local(self) -> bool:
        return self.limit != "none"

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.DISTANCE, ("distance",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        scale = self.scale(voxel_size)
        ids = self.objects(labels)[0]
        limit = scale.length(self.limit) if self.limit != "none" else np.inf
        solid = ids if self.per_instance else (ids > 0).astype(np.uint8)
        inside = np.minimum(slicewise(border_distance, solid, scale.edges, per_slice=self.per_slice), limit)
        empty = (ids == 0).astype(np.uint8)
        outside = np.minimum(slicewise(border_distance, empty, scale.edges, per_slice=self.per_slice), limit)
        values: NDArray[np.float32] = inside - outside
        if self.unit == "tanh":
            values = np.tanh(inside / scale.length(self.inner) - outside / scale.length(self.outer))
        return values[None].astype(np.float32, copy=False)


class InstanceDistance(ShapeTarget):
    """Distance to the border of the own object as a share, 0 … 1, and -1 outside; or as classes, in equal steps.

    By itself the share is that of `limit`: a definition that a crop and the labels around it settle. With
    `normalize = "object"` it is that of the object's largest distance (option 5 of PyTorch Connectomics; Lin et al.
    2021): an object that reaches beyond crop and halo is then normalised by as much of it as these show.
    """

    limit: PositiveLength = 16.0
    """Voxels, or a length such as "120 nm": the distance that counts as 1. So many labels are read around a crop; with
    `normalize = "object"` that is all it means."""
    normalize: Literal["limit", "object"] = "limit"
    """What distances are divided by: the limit, or the object's own largest distance."""
    bins: BinsOption = 0
    """Number of equal steps, as one-hot classes: background first, then step k, above (k - 1) / bins and up to
    k / bins. 0: the share itself."""
    fill_holes: Annotated[int, Field(ge=0, le=64)] = 0
    """Holes of fewer voxels are filled first; so many more labels are read around a crop. 0: none."""
    peel: Annotated[int, Field(ge=0, le=16)] = 0
    """How often the outermost voxels of each object are taken off first."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        return self.within(self.limit, voxel_size, more=self.fill_holes + self.peel)

    def local(self) -> bool:
        return self.normalize == "limit"

    def gives(self) -> ArraySpec:
        return share_spec("distance", self.bins)

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        scale = self.scale(voxel_size)
        ids = slicewise(filled, self.objects(labels)[0], self.fill_holes, per_slice=self.per_slice)
        ids = slicewise(eroded, ids, self.peel, per_slice=self.per_slice)
        if self.normalize == "limit":
            limit = scale.length(self.limit)
            values = np.minimum(slicewise(border_distance, ids, scale.edges, per_slice=self.per_slice), limit) / limit
        else:
            values = slicewise(_relative_distance, ids, scale.edges, per_slice=self.per_slice)
        return encoded_share(values, ids > 0, self.bins)


def border_distance(ids: Ids, edges: tuple[float, float, float]) -> NDArray[np.float32]:
    """Distance of each voxel of an object to the nearest voxel outside it, and 0 outside objects.

    Of two or three axes; `edges` (z, y, x). The border of the array is none of an object's; where nothing else is in
    view, the distance is infinite.
    """
    import edt  # all objects in one pass; scipy takes one pass for each

    return np.asarray(edt.edt(np.ascontiguousarray(ids), anisotropy=edges[-ids.ndim :], parallel=1), np.float32)


def _relative_distance(ids: Ids, edges: tuple[float, float, float]) -> NDArray[np.float32]:
    """Distance to the border of each object over the largest in it."""
    distance = finite(border_distance(ids, edges), edges)
    largest = np.zeros(int(ids.max(initial=0)) + 1, np.float32)
    np.maximum.at(largest, ids.ravel(), distance.ravel())
    largest[0] = 1
    return distance / largest[ids]


def finite(distance: NDArray[np.float32], edges: tuple[float, float, float]) -> NDArray[np.float32]:
    """Distances, none longer than the way from one corner of the array to the other."""
    axes = zip(distance.shape, edges[-distance.ndim :], strict=True)
    return np.minimum(distance, np.float32(np.hypot.reduce([n * edge for n, edge in axes])))


def share_spec(name: str, bins: int) -> ArraySpec:
    """What `encoded_share` gives."""
    if not bins:
        return ArraySpec(Kind.DISTANCE, (name,))
    return ArraySpec(Kind.PROBABILITY, ("background", *(f"{name}_{step}" for step in range(1, bins + 1))))


def encoded_share(share: NDArray[Any], inside: NDArray[np.bool_], bins: int) -> NDArray[np.float32]:
    """(c, z, y, x) of a share (z, y, x): -1 outside objects; or one-hot classes, background first.

    >>> share = np.array([[[0.2, 0.5, 0.51, 1.0, 0.0]]])
    >>> encoded_share(share, share > 0, 2)[:, 0, 0]
    array([[0., 0., 0., 0., 1.],
           [1., 1., 0., 0., 0.],
           [0., 0., 1., 1., 0.]], dtype=float32)
    """
    if not bins:
        return np.where(inside, share, -1)[None].astype(np.float32)
    within = 1e-6  # shares that are equal to the end of a step but for rounding belong to it
    step = np.clip(np.ceil(share * bins - within), 1, bins)
    classes = np.where(inside, step, 0).astype(np.int16)
    chosen: NDArray[np.bool_] = classes == np.arange(bins + 1)[:, None, None, None]
    return chosen.astype(np.float32)
