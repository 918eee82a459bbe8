"""The synthetic tissue of `cells`, as a reader: a pipeline that needs no file."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.cells import Cells, cells
from mitocore.component import PathOption
from mitocore.geometry import Roi, Shape, VoxelSize, VoxelSizeOption
from mitocore.interfaces import Reader, Volume
from mitocore.specs import Kind, VolumeSpec

Array = Literal["image", "instances", "semantic", "boundary"]
Axis = Annotated[int, Field(ge=1, le=4096)]

_KINDS: dict[Array, tuple[str, str, Kind]] = {
    "image": ("raw", "uint8", Kind.IMAGE),
    "instances": ("instances", "uint64", Kind.INSTANCE),
    "semantic": ("semantic", "uint16", Kind.SEMANTIC),
    "boundary": ("boundary", "bool", Kind.MASK),
}
_computing = Lock()  # threads that open the image and its truth at once wait for one computation


@lru_cache(maxsize=2)
def _cells(shape: Shape, seed: int, voxel_size: VoxelSize) -> Cells:
    return cells(shape, seed, voxel_size=voxel_size)


class SampleReader(Reader):
    """Synthetic tissue with mitochondria, or its truth; equal options give equal volumes. It reads no file."""

    path: PathOption = ""
    """Not used."""
    voxel_size: VoxelSizeOption = VoxelSize(8.0, 8.0, 8.0)
    """Edges of a voxel: coarser ones show more of the tissue."""
    shape: tuple[Axis, Axis, Axis] = (64, 256, 256)
    """Voxels (z, y, x)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Which tissue."""
    array: Array = "image"
    """The image, or a truth: instances, semantic (1 in mitochondria) or boundary."""

    def open(self) -> Volume:
        return _Sample(self)

    def files(self) -> Sequence[Path]:
        return ()


class _Sample(Volume):
    """Computed at the first read, once per process for the image and all truths."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader
        self._field, dtype, kind = _KINDS[reader.array]
        self._spec = VolumeSpec(reader.shape, dtype, voxel_size=reader.voxel_size, kind=kind)

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        with _computing:
            tissue = _cells(self._reader.shape, self._reader.seed, self._reader.voxel_size)
        array: NDArray[Any] = getattr(tissue, self._field)
        return np.array(array[roi.slices][None])
