"""The synthetic tissue of `cells`, as a reader: a pipeline that needs no file."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

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
def _cells(shape: Shape, seed: int, voxel_size: VoxelSize, strings: float, tangles: float) -> Cells:
    return cells(shape, seed, voxel_size=voxel_size, strings=strings, tangles=tangles)


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
    strings: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the places with a mitochondrion on a string: swellings joined by thin bridges, one object."""
    tangles: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the places with a tangle of mitochondria pressed against each other; with `strings`, at most 1."""
    array: Array = "image"
    """The image, or a truth: instances, semantic (1 in mitochondria) or boundary."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.strings + self.tangles > 1:
            raise ValueError(
                f"strings = {self.strings:g} and tangles = {self.tangles:g} are more than one whole; at most 1 together"
            )
        return self

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
            asked = self._reader
            tissue = _cells(asked.shape, asked.seed, asked.voxel_size, asked.strings, asked.tangles)
        array: NDArray[Any] = getattr(tissue, self._field)
        return np.array(array[roi.slices][None])
