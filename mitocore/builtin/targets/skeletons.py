"""How near a voxel is to the skeleton of its object."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.targets.distances import BinsOption, border_distance, encoded_share, finite, share_spec
from mitocore.builtin.targets.lengths import PositiveLength
from mitocore.builtin.targets.objects import Ids, ShapeTarget, components, filled, slicewise
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces import Labels
from mitocore.specs import ArraySpec

_SMALLEST = 32  # voxels; objects that smoothing makes this small keep the skeleton of their own shape


class SkeletonDistance(ShapeTarget):
    """Share of the way from the border of an object to its skeleton: 1 on it, near 0 at the border, -1 outside.

    With b the distance to the border and s that to the skeleton it is `(b / (s + b)) ** exponent` (skeleton-aware
    distance transform; Lin et al., MICCAI 2023; option a of PyTorch Connectomics). Unlike the distance to the border
    alone it is 1 in thin parts of an object too.

    A skeleton depends on the whole object. Connected objects that lie within the crop and `context` around it are
    exact; of a larger one the skeleton is that of the part seen. Thinning follows the order of voxels: the skeleton of
    a mirrored object may differ from the mirrored skeleton.
    """

    context: PositiveLength = 32.0
    """Labels read around a crop: voxels, or a length such as "300 nm"."""
    exponent: Annotated[float, Field(gt=0)] = 0.8
    """Below 1: steeper at the border than at the skeleton."""
    smoothing: Annotated[float, Field(ge=0)] = 2.0
    """Standard deviation, in voxels along every axis, of the Gaussian that takes spurs off an object before its
    skeleton is drawn; objects that would nearly vanish keep their shape. 0: none."""
    fill_holes: Annotated[int, Field(ge=0)] = 16
    """Holes of fewer voxels are filled first. 0: none."""
    bins: BinsOption = 0
    """Number of equal steps, as one-hot classes: background first, then step k, above (k - 1) / bins and up to
    k / bins. 0: the share itself."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        return self.within(self.context, voxel_size)

    def local(self) -> bool:
        return False

    def gives(self) -> ArraySpec:
        return share_spec("skeleton_distance", self.bins)

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        edges = self.scale(voxel_size).edges
        ids = slicewise(filled, self.objects(labels)[0], self.fill_holes, per_slice=self.per_slice)
        return encoded_share(slicewise(self._share, ids, edges, per_slice=self.per_slice), ids > 0, self.bins)

    def _share(self, ids: Ids, edges: tuple[float, float, float]) -> NDArray[np.float32]:
        """(b / (s + b)) ** exponent in objects, 0 elsewhere; of two or three axes."""
        from scipy.ndimage import find_objects

        ids = components(ids)
        to_border = finite(border_distance(ids, edges), edges)
        result = np.zeros(ids.shape, np.float32)
        for number, box in enumerate(find_objects(ids.astype(np.int32)), 1):
            inside = ids[box] == number
            border = np.where(inside, to_border[box], 0)
            skeleton = self._skeleton(ids, number, box)
            if not skeleton.any():  # thinning can take a round object away altogether
                skeleton = border == border.max()
            to_skeleton = border_distance((~skeleton).astype(np.uint8), edges)
            result[box][inside] = (border[inside] / (to_skeleton[inside] + border[inside])) ** self.exponent
        return result

    def _skeleton(self, ids: Ids, number: int, box: tuple[slice, ...]) -> NDArray[np.bool_]:
        """The skeleton of one object, within its box."""
        from scipy.ndimage import gaussian_filter
        from skimage.morphology import skeletonize

        # one voxel more, where there is one: zeros on it stand for all zeros beyond
        low = [int(along.start > 0) for along in box]
        wide = tuple(slice(along.start - a, along.stop + 1) for along, a in zip(box, low, strict=True))
        shape = smooth = ids[wide] == number
        if self.smoothing:
            for _ in range(2):
                smooth = gaussian_filter(smooth.astype(np.float64), self.smoothing, mode="nearest") > 0.5
            if np.count_nonzero(smooth) > _SMALLEST:
                shape = smooth
        skeleton = np.asarray(skeletonize(shape)) > 0
        inner = tuple(slice(a, a + along.stop - along.start) for along, a in zip(box, low, strict=True))
        found: NDArray[np.bool_] = skeleton[inner]
        return found
