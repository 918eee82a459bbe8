"""Volumes by name or from memory: the door of the library to files."""

import hashlib
import reprlib
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.config.components import opened_by
from mitocore.errors import ConfigError, DataError, PluginError
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.interfaces import Progress, Reader, Volume, WritableVolume, Writer
from mitocore.registry import Registry, discover
from mitocore.specs import Kind, VolumeSpec


@cache
def installed() -> Registry:
    """What the installed plugins provide; asked once per process."""
    return discover()


def reader_of(place: str | Path, registry: Registry | None = None, named: str | None = None, **options: Any) -> Reader:
    """The reader of ``PATH[::KEY]``, by its suffix unless it is `named`, with these options.

    Raises
    ------
    DataError
        If nothing is there.
    PluginError
        If no installed plugin reads such a file, or none is called so.
    """
    reader, _ = opened_by("reader", _text(place), registry or installed(), options=options, named=named)
    if not isinstance(reader, Reader):
        raise PluginError(f"{type(reader).__name__} is not a reader")
    return reader


def writer_of(place: str | Path, registry: Registry | None = None, named: str | None = None, **options: Any) -> Writer:
    """The writer of a path, by its suffix unless it is `named`, with these options."""
    writer, _ = opened_by("writer", _text(place), registry or installed(), options=options, named=named)
    if not isinstance(writer, Writer):
        raise PluginError(f"{type(writer).__name__} is not a writer")
    return writer


def _text(place: object) -> str:
    """A place as text; what a program passes may be anything."""
    if isinstance(place, str | Path):
        return str(place)
    raise DataError(f"{_said(place)} is no path of a volume", hint='write it as text, such as "em.zarr::raw"')


def _said(thing: object) -> str:
    """A value in a message, of any length."""
    return f"{type(thing).__name__} {reprlib.repr(thing)}"


def in_memory(source: object, voxel_size: Any = None) -> Volume:
    """What is given instead of a path, as a volume: an array, or what is one already.

    Raises
    ------
    DataError
        If it is neither, or an array that is no volume.
    """
    if isinstance(source, np.ndarray):
        return ArrayVolume(source, voxel_size)
    if isinstance(source, Volume):
        return source
    hint = 'give a numpy array (z, y, x), an open volume, or a path such as "em.zarr::raw"'
    raise DataError(f"{_said(source)} is no volume", hint=hint)


def open_volume(place: str | Path, **options: Any) -> Volume:
    """Open ``PATH[::KEY]`` through the reader of its suffix; only its header is read.

    `options` are those of the reader, as ``voxel_size="8 nm"``.

    Raises
    ------
    DataError
        If it is missing, not of its format, or lacks the key.
    """
    return Reopened(reader_of(place, **options))


class Reopened(Volume):
    """The volume of a reader, opened now; sent to another process, it is opened there, once, by the same reader."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self._volume, self._token = reader, reader.open(), uuid.uuid4().hex

    @property
    def spec(self) -> VolumeSpec:
        """What the header says."""
        return self._volume.spec

    def read(self, roi: Roi) -> NDArray[Any]:
        """Voxels of `roi` as (c, z, y, x)."""
        return self._volume.read(roi)

    def close(self) -> None:
        """Close it in this process."""
        self._volume.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_once, (self._token, Reopened, self.reader)


class Rewritable(WritableVolume):
    """An array of a writer, which `volume` is here; sent to another process, it is opened there by the writer, once."""

    def __init__(self, writer: Writer, name: str, volume: WritableVolume | None = None) -> None:
        self.writer, self.name, self._token = writer, name, uuid.uuid4().hex
        self._volume = volume or writer.open(name)

    @property
    def spec(self) -> VolumeSpec:
        """What the header says."""
        return self._volume.spec

    def read(self, roi: Roi) -> NDArray[Any]:
        """Voxels of `roi` as (c, z, y, x)."""
        return self._volume.read(roi)

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        """Store `values` (c, z, y, x) at `roi`."""
        self._volume.write(roi, values)

    def finish(self, progress: Progress = lambda _done, _total: None) -> None:
        """Make the array final."""
        self._volume.finish(progress)

    def close(self) -> None:
        """Close it in this process."""
        self._volume.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_once, (self._token, Rewritable, self.writer, self.name)


_opened: dict[str, Volume] = {}


def _opened_once(token: str, kind: Callable[..., Volume], *how: Any) -> Volume:
    """The one volume of this process that stands for the one of another process that `token` is of."""
    if token not in _opened:
        _opened[token] = kind(*how)
    return _opened[token]


class ArrayVolume(WritableVolume):
    """A volume over a numpy array, which it shares; another process gets a copy.

    >>> import numpy as np
    >>> volume = ArrayVolume(np.zeros((4, 8, 8), "u1"), voxel_size="8 nm")
    >>> volume.spec.shape, volume.read(Roi((0, 0, 0), (1, 2, 3))).shape
    ((4, 8, 8), (1, 1, 2, 3))

    Raises
    ------
    DataError
        If it has no voxels, other axes than these, or holds something else than bool, integers and real numbers.
    """

    def __init__(
        self,
        array: NDArray[Any],
        voxel_size: VoxelSize | float | str | list[float] | None = None,
        kind: Kind = Kind.IMAGE,
    ) -> None:
        if array.ndim not in (2, 3, 4):
            raise DataError(f"an array of {array.ndim} axes is no volume", hint="give (z, y, x) or (c, z, y, x)")
        if not array.size:
            raise DataError(f"an array of shape {array.shape} has no voxels", hint="check how it was cut or read")
        if array.dtype.name not in Writer.dtypes:
            known = f"{', '.join(Writer.dtypes)} are known"
            raise DataError(f"the array holds {array.dtype}; {known}", hint='array.astype("float32"), for an image')
        self._array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        channels, *shape = self._array.shape
        names = ("",) if channels == 1 else tuple(map(str, range(channels)))
        try:
            size = None if voxel_size is None else VoxelSize.parse(voxel_size)
        except ValueError as error:
            raise ConfigError(
                str(error), where="voxel_size", hint='voxel_size="8 nm", or [40, 8, 8] (z, y, x)'
            ) from error
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
        return self._array[(slice(None), *roi.slices)].astype(self._spec.dtype)  # of the byte order of this machine

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        """Store `values` (c, z, y, x) at `roi`."""
        self._array[(slice(None), *roi.slices)] = values
