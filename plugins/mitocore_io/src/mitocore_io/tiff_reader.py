"""Reader of TIFF: volumes and page stacks, page by page."""

import logging
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from mitocore import DataError, Reader, Roi, Volume, VolumeSpec
from mitocore_io import attributes, tiff_chain
from mitocore_io.axes import Axes
from mitocore_io.flat_file import overwrite
from mitocore_io.targets import local, missing
from mitocore_io.tiff_metadata import TAG, axes_of, record_of

logger = logging.getLogger(__name__)
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,
    ZeroDivisionError,
    struct.error,
)
_JPEG = {6, 7, 33007, 34892}  # compressions whose tables stand in tags of their own


class TiffReader(Reader):
    """A TIFF volume or page stack; of every page only the strips or tiles that are asked for.

    Voxel size from ImageJ (spacing, unit, resolution) or OME-XML (PhysicalSize). The resolution of a plain TIFF has no
    z and is often made up, so that it is not used.
    """

    axes: str | None = None
    """Names of the axes, such as "zyx", where the file says something else or nothing."""
    series: NonNegativeInt | None = None
    """Which image of a file that holds several of different shape."""

    def open(self) -> "TiffVolume":
        path = local(self.path)
        if not path.exists():
            raise missing(path)
        with quiet():
            try:
                tif = tifffile.TiffFile(path)
            except _DAMAGED as error:
                raise DataError(f"{path.name!r} is not a TIFF file, or is cut short", where=self.path) from error
            try:
                return self._volume(tif)
            except DataError:
                tif.close()
                raise
            except _DAMAGED as error:
                tif.close()
                problem = f"the pages of {path.name!r} cannot be listed: it is damaged or cut short"
                raise DataError(problem, where=self.path, hint="copy the file again") from error

    def _volume(self, tif: Any) -> "TiffVolume":
        found = tif.series
        number = self.series or 0
        if number >= len(found) or (self.series is None and len(found) > 1):
            shapes = ", ".join(f"{i}: {tuple(each.shape)}" for i, each in enumerate(found[:6]))
            problem = f"{Path(self.path).name!r} holds {len(found)} images of different shape ({shapes})"
            raise DataError(problem, where=self.path, hint="series = 0")
        series = found[number]
        _check_whole(tif, series, self.path)
        names = self.axes or axes_of(series, self.path)
        axes = Axes.of(series.shape, names, self.path)
        if not axes.names.endswith("yx") or series.keyframe.ndim > 2:
            raise DataError(f"axes {names!r} are not of pages (y, x)", where=self.path, hint='axes = "zyx"')
        rows, columns = series.keyframe.chunks[:2]
        chunks = (*(1 for _ in axes.shape[:-2]), rows, columns)
        noted = record_of(tif, number)
        spec = attributes.volume_spec(axes, np.dtype(series.dtype), chunks, noted, self.voxel_size, self.path)
        return TiffVolume(tif, series, axes, spec, self.path)


class TiffVolume(Volume):
    """An open TIFF series. Uncompressed data that lie in one piece are mapped; else single strips or tiles decoded."""

    def __init__(self, tif: Any, series: Any, axes: Axes, spec: VolumeSpec, path: str) -> None:
        self._tif, self._series, self._axes, self._spec, self._path = tif, series, axes, spec, path
        self._reading = threading.Lock()  # one position in the file for all threads; decoding runs beside it

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        try:
            values = self._decoded(roi) if self.packed else self._mapped(roi)
        except _DAMAGED as error:
            problem = f"planes {roi.start[0]} to {roi.stop[0]} cannot be decoded: {str(error)[:160]}"
            raise DataError(
                problem, where=self._path, hint="copy the file again; it is damaged or cut short"
            ) from error
        return values.astype(self._spec.dtype, copy=False)

    @property
    def packed(self) -> bool:
        """Whether the voxels do not lie in one piece, uncompressed, so that they cannot be overwritten."""
        return self._series.dataoffset is None

    @property
    def own(self) -> bool:
        """Whether `TiffWriter` wrote the file."""
        return TAG in self._series.keyframe.tags

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        """Overwrite voxels of a file that is not packed."""
        overwrite(Path(self._path), self._stored, self._series.dataoffset, self._axes, roi, values)

    def close(self) -> None:
        self._tif.close()

    @property
    def _stored(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._series.dtype)
        return dtype.newbyteorder(">" if self._tif.byteorder == ">" else "<")

    def _mapped(self, roi: Roi) -> NDArray[Any]:
        mapped = np.memmap(self._path, self._stored, "r", self._series.dataoffset, tuple(self._series.shape))
        return self._axes.arrange(np.array(mapped[self._axes.index(roi)]))

    def _decoded(self, roi: Roi) -> NDArray[Any]:
        numbers = self._axes.planes(roi)
        planes = np.zeros((*numbers.shape, *roi.shape[1:]), np.dtype(self._spec.dtype))
        for place, number in np.ndenumerate(numbers):
            self._fill(planes[place], int(number), roi)
        return self._axes.arrange(planes)

    def _fill(self, plane: NDArray[Any], number: int, roi: Roi) -> None:
        with self._reading:
            page = self._series.pages[number]
        (_, top, left), (_, bottom, right) = roi.start, roi.stop
        form = page.keyframe
        tables = {"jpegtables": page.jpegtables, "jpegheader": form.jpegheader} if form.compression in _JPEG else {}
        for segment in _segments(form, top, bottom, left, right):
            with self._reading:
                encoded = self._encoded(page, segment)
            values, (_, _, row, column, _), (_, height, width, _) = form.decode(encoded, segment, **tables)
            if values is None:
                continue
            y, x = slice(max(row, top), min(row + height, bottom)), slice(max(column, left), min(column + width, right))
            inside = values[0, y.start - row : y.stop - row, x.start - column : x.stop - column, 0]
            plane[y.start - top : y.stop - top, x.start - left : x.stop - left] = inside

    def _encoded(self, page: Any, segment: int) -> bytes | None:
        count = page.databytecounts[segment]
        if not count:
            return None
        self._tif.filehandle.seek(page.dataoffsets[segment])
        encoded: bytes = self._tif.filehandle.read(count)
        if len(encoded) < count:
            raise OSError(f"{count - len(encoded)} bytes are missing")
        return encoded


def _segments(form: Any, top: int, bottom: int, left: int, right: int) -> Iterator[int]:
    """Numbers of the strips or tiles that meet these rows and columns."""
    rows, columns = form.chunks[:2]
    across = -(-form.imagewidth // columns)
    for row in range(top // rows, -(-bottom // rows)):
        for column in range(left // columns, -(-right // columns)):
            yield row * across + column


def _check_whole(tif: Any, series: Any, where: str) -> None:
    """Refuse a file that was cut short, as far as that can be told without reading voxels."""
    size = tif.filehandle.size
    hint = "copy the file again"
    pages = math.prod(series.shape[:-2]) if series.keyframe.ndim == 2 else len(series.pages)
    if len(series.pages) < pages or tiff_chain.is_broken(tif):
        raise DataError(f"{Path(where).name!r} is cut short: pages are missing", where=where, hint=hint)
    if series.dataoffset is not None:
        ends = [series.dataoffset + series.nbytes]
    else:
        last = series.pages[len(series.pages) - 1]
        ends = [offset + count for offset, count in zip(last.dataoffsets, last.databytecounts, strict=True)]
    if max(ends, default=0) > size:
        problem = f"{Path(where).name!r} is cut short: {max(ends) - size} bytes are missing"
        raise DataError(problem, where=where, hint=hint)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep tifffile's own messages about odd files to our debug log; what matters is raised."""

    def keep(record: logging.LogRecord) -> bool:
        logger.debug("tifffile: %s", record.getMessage())
        return False

    theirs = logging.getLogger("tifffile")
    theirs.addFilter(keep)
    try:
        yield
    finally:
        theirs.removeFilter(keep)
