"""Volumes in memory, for tests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces import WritableVolume
from mitocore.specs import Kind, VolumeSpec


class MemoryVolume(WritableVolume):
    """A NumPy array (z, y, x) or (c, z, y, x) as an open volume; `write` changes the array itself.

    >>> volume = MemoryVolume(np.arange(8, dtype="u1").reshape(2, 2, 2), VoxelSize(8, 8, 8))
    >>> volume.read(Roi((1, 0, 0), (2, 1, 2))).tolist(), volume.spec.dtype
    ([[[[4, 5]]]], 'uint8')
    """

    def __init__(
        self,
        array: NDArray[Any],
        voxel_size: VoxelSize | None = None,
        *,
        channels: tuple[str, ...] | None = None,
        kind: Kind = Kind.IMAGE,
        chunks: Shape | None = None,
    ) -> None:
        self.array = array[None] if array.ndim == 3 else array
        default = ("",) if len(self.array) == 1 else tuple(str(number) for number in range(len(self.array)))
        shape = as_shape(self.array.shape[1:])
        self._spec = VolumeSpec(shape, array.dtype.name, channels or default, voxel_size, chunks=chunks, kind=kind)

    @property
    def spec(self) -> VolumeSpec:
        """What a header would say."""
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        """A copy of the voxels of `roi`, (c, z, y, x)."""
        return np.array(self.array[(slice(None), *roi.slices)])

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        """Set the voxels of `roi`."""
        self.array[(slice(None), *roi.slices)] = values
