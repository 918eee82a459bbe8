"""Volumes by name or from memory: the door of the library to files."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.config.components import opened_by
from mitocore.errors import DataError, PluginError
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.interfaces import Reader, Volume, WritableVolume, Writer
from mitocore.registry import Registry, discover
from mitocore.specs import Kind, VolumeSpec


@cache
def installed() -> Registry:
    """What the installed plugins provide; asked once per process."""
    return discover()


def reader_of(place: str | Path, registry: Registry | None = None, **options: Any) -> Reader:
    """The reader of ``PATH[::KEY]``, by its suffix, with these options.

    Raises
    ------
    DataError
        If nothing is there.
    PluginError
        If no installed plugin reads such a file.
    """
    reader, _ = opened_by("reader", str(place), registry or installed(), options=options)
    if not isinstance(reader, Reader):
        raise PluginError(f"{type(reader).__name__} is not a reader")
    return reader


def writer_of(place: str | Path, registry: Registry | None = None, **options: Any) -> Writer:
    """The writer of a path, by its suffix, with these options."""
    writer, _ = opened_by("writer", str(place), registry or installed(), options=options)
    if not isinstance(writer, Writer):
        raise PluginError(f"{type(writer).__name__} is not a writer")
    return writer


def open_volume(place: str | Path, **options: Any) -> Volume:
    """Open ``PATH[::KEY]`` through the reader of its suffix; only its header is read.

    `options` are those of the reader, as ``voxel_size="8 nm"``.

    Raises
    ------
    DataError
        If it is missing, not of its format, or lacks the key.
    """
    return reader_of(place, **options).open()


class ArrayVolume(WritableVolume):
    """A volume over a numpy array, which it shares.

    >>> import numpy as np
    >>> volume = ArrayVolume(np.zeros((4, 8, 8), "u1"), voxel_size="8 nm")
    >>> volume.spec.shape, volume.read(Roi((0, 0, 0), (1, 2, 3))).shape
    ((4, 8, 8), (1, 1, 2, 3))
    """

    def __init__(
        self,
        array: NDArray[Any],
        voxel_size: VoxelSize | float | str | list[float] | None = None,
        kind: Kind = Kind.IMAGE,
    ) -> None:
        if array.ndim not in (2, 3, 4):
            raise DataError(f"an array of {array.ndim} axes is no volume", hint="give (z, y, x) or (c, z, y, x)")
        self._array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        channels, *shape = self._array.shape
        names = ("",) if channels == 1 else tuple(map(str, range(channels)))
        size = None if voxel_size is None else VoxelSize.parse(voxel_size)
        self._spec = VolumeSpec(as_shape(shape), self._array.dtype.name, names, size, kind=kind)

    @property
    def spec(self) -> VolumeSpec:
        """Shape, dtype, channels and voxel size of the array."""
        return self._spec

    def fingerprint(self) -> str:
        """What tells its values from those of another array."""
        return hashlib.sha256(np.ascontiguousarray(self._array).data).hexdigest()

    def read(self, roi: Roi) -> NDArray[Any]:
        """Voxels of `roi` as (c, z, y, x): a copy."""
        return self._array[(slice(None), *roi.slices)].copy()

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        """Store `values` (c, z, y, x) at `roi`."""
        self._array[(slice(None), *roi.slices)] = values
