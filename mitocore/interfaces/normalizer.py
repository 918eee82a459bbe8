"""How raw intensities become what a network was trained on."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.component import Component
from mitocore.geometry import Shape, VoxelSize
from mitocore.specs import VolumeSpec

Stats = Mapping[str, float | tuple[float, ...]]


class Normalizer(Component):
    """Turns raw intensities into what a network was trained on.

    Written into the header of the weights. Statistics are those of one whole volume, never of a tile, block or crop.
    """

    kind: ClassVar[str] = "normalizer"
    voxelwise: ClassVar[bool] = True
    """Whether a voxel's result depends on that voxel and the statistics alone. If not, the engine runs `apply` as a
    pass of its own over blocks of `block_shape` with `halo`, and stores the result, in training and inference alike."""

    @abstractmethod
    def fit(self, boxes: Iterable[NDArray[Any]], spec: VolumeSpec) -> Stats:
        """Statistics, in bounded memory, JSON-able. `boxes` are (c, z, y, x), chosen by the engine, may be iterated
        again. Ignores non-finite voxels and constant padding. Raises DataError if nothing varies."""

    @abstractmethod
    def apply(self, values: NDArray[Any], stats: Stats) -> NDArray[np.float32]:
        """(c, z, y, x) raw → the same shape, normalised. Non-finite voxels become the centre of the range.

        `stats` are those of `fit`, read from JSON, and maybe others beside them: the engine adds "not_finite", the
        number of such voxels, if there are any.
        """

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        """Context `apply` needs if it is not voxel-wise."""
        return (0, 0, 0)

    def block_shape(self, volume: VolumeSpec, preferred: Shape) -> Shape:
        """Blocks this normaliser insists on if it is not voxel-wise, e.g. whole planes for CLAHE."""
        return preferred
