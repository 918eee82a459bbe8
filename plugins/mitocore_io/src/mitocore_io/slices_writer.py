"""Writers of folders in which every file is one slice: PNG, TIFF or JPEG."""

import io
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import Field

from mitocore import DataError, Roi, VolumeSpec, WritableVolume, Writer
from mitocore.interfaces import Progress
from mitocore_io import attributes, jpeg, png, targets
from mitocore_io.axes import Axes
from mitocore_io.slices_reader import NOTE, slice_of
from mitocore_io.tiff_writer import TiffWriter


class SlicesWriter(Writer):
    """A folder of grey PNG slices, z00000.png and so on, of 1, 8 or 16 bits.

    The folder is called `<name>.part` until it is finished. What the slices cannot hold (voxel size, origin, kind) is
    noted in its file volume.json. `{name}` in `path` is the name of the array; more than one array needs it.
    """

    order: ClassVar[Literal["any", "planes"]] = "planes"
    holds: ClassVar[Literal["one", "many"]] = "one"
    sharing: ClassVar[Literal["processes", "threads", "one"]] = "one"
    dtypes: ClassVar[tuple[str, ...]] = ("bool", "uint8", "uint16")
    suffix: ClassVar[str] = ".png"
    """Of the files."""

    def encoded(self, plane: NDArray[Any]) -> bytes:
        """Content of the file of a (y, x) plane."""
        return png.encode(plane)

    def create(self, name: str, spec: VolumeSpec, *, resume: bool = False) -> WritableVolume:
        target = targets.named(self.path, name)
        targets.check_dtype(spec, self.dtypes, f"a {self.suffix} slice", str(target))
        if len(spec.channels) > 1:
            problem = f"a {self.suffix} slice holds one channel, not {len(spec.channels)}: {', '.join(spec.channels)}"
            raise DataError(problem, where=str(target), hint="write to zarr, HDF5 or TIFF, or one channel alone")
        part = targets.part_of(target)
        if not resume:
            targets.refuse_taken(target, self.path)
        if target.exists():
            with self.open(name) as finished:
                targets.check_same(finished, spec, str(target))
            targets.unfinish(target)
        elif not (part / NOTE).is_file():
            noted = {"suffix": self.suffix, "shape": spec.shape, "dtype": spec.dtype, **attributes.attributes(spec)}
            try:
                part.mkdir(parents=True, exist_ok=True)
                _replace(part / NOTE, json.dumps(noted, indent=1).encode())
            except OSError as error:
                raise targets.unwritable(error, "the folder cannot be created", str(part)) from error
        volume = self.open(name)
        targets.check_same(volume, spec, str(target))
        return volume

    def open(self, name: str) -> WritableVolume:
        target = targets.named(self.path, name)
        part = targets.part_of(target)
        folder = target if target.exists() or not part.exists() else part
        if not folder.exists():
            raise targets.missing(folder)
        return WritableSlices(folder, target, self)


class TiffSlicesWriter(SlicesWriter):
    """A folder of TIFF slices, z00000.tif and so on, of one page each, compressed: for ids that PNG cannot hold.

    Otherwise as the writer of PNG slices.
    """

    dtypes: ClassVar[tuple[str, ...]] = TiffWriter.dtypes
    suffix: ClassVar[str] = ".tif"

    def encoded(self, plane: NDArray[Any]) -> bytes:
        file = io.BytesIO()
        tifffile.imwrite(file, plane, photometric="minisblack", compression="zlib", metadata=None)
        return file.getvalue()


class JpegSlicesWriter(SlicesWriter):
    """A folder of grey JPEG slices, z00000.jpg and so on, for images that are looked at: values change on the way.

    Otherwise as the writer of PNG slices.
    """

    lossy: ClassVar[bool] = True
    dtypes: ClassVar[tuple[str, ...]] = ("uint8",)
    suffix: ClassVar[str] = ".jpg"

    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """From 1, smallest, to 100, nearest to the image."""

    def encoded(self, plane: NDArray[Any]) -> bytes:
        return jpeg.encode(plane, self.quality)


class WritableSlices(WritableVolume):
    """A folder of slices; those not written yet count as zeros."""

    def __init__(self, folder: Path, target: Path, writer: SlicesWriter) -> None:
        self._folder, self._target, self._writer = folder, target, writer
        try:
            noted = json.loads((folder / NOTE).read_bytes())
            axes, dtype = Axes.of(noted["shape"], "zyx", str(folder)), np.dtype(noted["dtype"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{folder.name!r} has no {NOTE} that says its shape and dtype: it cannot be written into"
            raise DataError(problem, where=str(folder), hint="write to another path") from error
        if noted.get("suffix") != writer.suffix:
            problem = f"{folder.name!r} holds {noted.get('suffix')} slices, not {writer.suffix}"
            raise DataError(problem, where=str(folder), hint="write to another path")
        chunks = (1, *axes.shape[1:])
        self._spec = attributes.volume_spec(axes, dtype, chunks, attributes.record(noted), None, str(folder))

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        (first, *start), (last, *stop) = roi.start, roi.stop
        values = np.zeros((1, *roi.shape), self._spec.dtype)
        for z in range(first, last):
            if self._file(z).exists():
                inside = Roi((0, start[0], start[1]), (1, stop[0], stop[1]))
                values[0, z - first] = slice_of(self._file(z), self._spec, inside)
        return values

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        height, width = self._spec.shape[1:]
        for z, plane in zip(range(roi.start[0], roi.stop[0]), values[0], strict=True):
            whole = plane
            if plane.shape != (height, width):
                whole = self.read(Roi((z, 0, 0), (z + 1, height, width)))[0, 0]
                whole[roi.slices[1:]] = plane
            _replace(self._file(z), self._writer.encoded(whole.astype(self._spec.dtype, copy=False)))

    def finish(self, progress: Progress = lambda _done, _total: None) -> None:
        empty = np.zeros(self._spec.shape[1:], self._spec.dtype)
        for z in range(self._spec.shape[0]):
            if not self._file(z).exists():
                _replace(self._file(z), self._writer.encoded(empty))
        if self._folder != self._target:
            for left in self._folder.glob("*.tmp"):
                left.unlink()
            self._folder.replace(self._target)
            self._folder = self._target

    def _file(self, z: int) -> Path:
        return self._folder / f"z{z:05d}{self._writer.suffix}"


def _replace(file: Path, content: bytes) -> None:
    """Write a file so that it is either whole or not there."""
    temporary = file.with_suffix(".tmp")
    with targets.writing(str(file)):
        temporary.write_bytes(content)
        temporary.replace(file)
