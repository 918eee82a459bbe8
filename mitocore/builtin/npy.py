"""NumPy's own format: one array in one file, mapped into memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mitocore.durable import ONE_HEADER
from mitocore.errors import DataError, ResourceError
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.interfaces import Progress, Reader, Volume, WritableVolume, Writer
from mitocore.specs import VolumeSpec

_AT_ONCE = 2**25
"""Bytes of whole planes that are mapped at once: the pages of a mapped file that were touched, and their neighbours,
count as memory of this process for as long as it is mapped."""


class NpyReader(Reader):
    """Reads .npy files of (z, y, x), (c, z, y, x) or one section (y, x); they do not know their voxel size."""

    def open(self) -> Volume:
        return _Mapped(_mapped(Path(self.path), "r"), self.voxel_size)


class NpyWriter(Writer):
    """Writes one array to a .npy file, (z, y, x) or, with several channels, (c, z, y, x).

    For several arrays, write `{name}` into the path. Until it is finished, the file is called `….npy.part`.
    """

    sharing: ClassVar[Literal["processes", "threads", "one"]] = "threads"
    holds: ClassVar[Literal["one", "many"]] = "one"

    def create(self, name: str, spec: VolumeSpec, *, resume: bool = False) -> WritableVolume:
        final, part = self._paths(name)
        shape = spec.shape if len(spec.channels) == 1 else (len(spec.channels), *spec.shape)
        if not resume and (there := next((p for p in (final, part) if p.exists()), None)):
            hint = f"delete it, or choose another path (for several arrays: path = '{final.stem}_{{name}}.npy')"
            raise DataError(f"'{there}' already exists", where=f"array {name!r}", hint=hint)
        if final.exists() and part.exists():
            raise DataError(f"both '{final}' and '{part}' exist", where=f"array {name!r}", hint="delete one of them")
        if not final.exists() and not part.exists():
            try:
                part.parent.mkdir(parents=True, exist_ok=True)
                _reserve(part, shape, np.dtype(spec.dtype))
            except OSError as error:
                if part.is_file():
                    part.unlink()
                problem = f"'{part}' cannot be written: {error.strerror}"
                raise ResourceError(problem, hint="choose a writable folder with enough space") from error
        volume = self.open(name)
        if (volume.spec.shape, len(volume.spec.channels), volume.spec.dtype) != (
            spec.shape,
            len(spec.channels),
            spec.dtype,
        ):
            problem = f"'{final}' was begun as {volume.spec.dtype} of {volume.spec.shape} voxels"
            raise DataError(problem, where=f"array {name!r}", hint="delete it to start over")
        if not final.exists():
            return volume
        volume.close()
        final.replace(part)  # else old and new voxels would pass as whole if this run is killed
        return self.open(name)

    def open(self, name: str) -> WritableVolume:
        final, part = self._paths(name)
        return _Mapped(_mapped(final if final.exists() else part, "r+"), None, final, part)

    def _paths(self, name: str) -> tuple[Path, Path]:
        final = Path(self.path.replace("{name}", name))
        return final, final.with_name(final.name + ".part")


def _reserve(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Create a file of zeros with its space on disk, so that a full disk is an error now and no crash later."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    array.flush()
    del array
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _mapped(path: Path, mode: Literal["r", "r+"]) -> NDArray[Any]:
    """The array (c, z, y, x), of which nothing but the header was read."""
    hint = "save it with numpy.save, as (z, y, x) or (c, z, y, x) numbers"
    try:
        with ONE_HEADER:
            array = np.lib.format.open_memmap(path, mode)
    except FileNotFoundError as error:
        raise DataError(f"'{path}' does not exist", hint="check the path") from error
    except OSError as error:
        raise DataError(f"'{path}' cannot be opened: {error.strerror}", hint="check the path") from error
    except ValueError as error:  # numpy says "mmap length is greater than file size" and the like
        raise DataError(f"'{path}' is truncated or not an array of numbers ({error})", hint=hint) from error
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3, 4) or not array.size:
        raise DataError(f"'{path}' holds {array.dtype} of shape {array.shape}", hint=hint)
    return array.reshape((1,) * (4 - array.ndim) + array.shape)


class _Mapped(WritableVolume):
    """A mapped array; with a final name, one that is being written."""

    def __init__(
        self, array: NDArray[Any], voxel_size: VoxelSize | None, final: Path | None = None, part: Path | None = None
    ) -> None:
        self._array: NDArray[Any] | None = array
        self._final, self._part = final, part
        channels = ("",) if len(array) == 1 else tuple(str(i) for i in range(len(array)))
        self._spec = VolumeSpec(as_shape(array.shape[1:]), array.dtype.name, channels, voxel_size)

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        values = np.empty((len(self._open()), *roi.shape), self._spec.dtype)  # native byte order, not mapped
        for part, mapped in self._parts(roi):
            values[part] = mapped
        return values

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        for part, mapped in self._parts(roi):
            mapped[...] = values[part]

    def _parts(self, roi: Roi) -> Iterator[tuple[tuple[int, slice], NDArray[Any]]]:
        """Some planes of one channel after the other: where they lie in `roi`, and mapped anew."""
        array, depth = self._open(), roi.shape[0]
        mode: Literal["r", "r+"] = "r+" if self._final else "r"
        planes = max(1, _AT_ONCE // array[0, 0].nbytes)
        z, y, x = roi.slices
        for channel in range(len(array)):
            for begin in range(0, depth, planes):
                end = min(begin + planes, depth)
                mapped = _mapped(Path(str(array.filename)), mode) if isinstance(array, np.memmap) else array
                yield (channel, slice(begin, end)), mapped[channel, z.start + begin : z.start + end, y, x]

    def finish(self, progress: Progress = lambda _done, _total: None) -> None:
        if self._final and self._part and self._part.exists():
            if isinstance(array := self._open(), np.memmap):
                array.flush()
            self._part.replace(self._final)

    def close(self) -> None:
        self._array = None

    def _open(self) -> NDArray[Any]:
        if self._array is None:
            raise DataError(f"'{self._final or 'this array'}' is closed", hint="open it again")
        return self._array
