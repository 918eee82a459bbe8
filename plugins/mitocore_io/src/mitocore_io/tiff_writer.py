"""Writer of TIFF volumes, one file per array."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import tifffile
from numpy.typing import NDArray

from mitocore import DataError, Roi, VolumeSpec, WritableVolume, Writer
from mitocore.interfaces import Progress
from mitocore_io import targets
from mitocore_io.tiff_metadata import flavour
from mitocore_io.tiff_reader import TiffReader


class TiffWriter(Writer):
    """One uncompressed TIFF volume per array, pages by z and then channel; BigTIFF from 2 GiB on.

    ImageJ metadata for uint8, uint16 and float32 below 2 GiB, OME-XML for other sizes, float64 and other integers of up
    to 32 bits, a plain TIFF for integers of 64 bits and float16. The file has its full length from the start and is
    called `<name>.part` until it is finished. `{name}` in `path` is the name of the array; several arrays need it.
    """

    order: ClassVar[Literal["any", "planes"]] = "planes"
    holds: ClassVar[Literal["one", "many"]] = "one"
    sharing: ClassVar[Literal["processes", "threads", "one"]] = "one"
    dtypes: ClassVar[tuple[str, ...]] = tuple(dtype for dtype in Writer.dtypes if dtype != "bool")

    def create(self, name: str, spec: VolumeSpec, *, resume: bool = False) -> WritableVolume:
        target = targets.named(self.path, name)
        part = targets.part_of(target)
        targets.check_dtype(spec, self.dtypes, "TIFF", str(target))
        if not resume:
            targets.refuse_taken(target, self.path)
        if target.exists():
            with self.open(name) as finished:
                targets.check_same(finished, spec, str(target))
            targets.unfinish(target)
        elif not _is_laid_out(part):
            _lay_out(part, spec)
        volume = self.open(name)
        targets.check_same(volume, spec, str(target))
        return volume

    def open(self, name: str) -> WritableVolume:
        target = targets.named(self.path, name)
        part = targets.part_of(target)
        return WritableTiff(target if target.exists() or not part.exists() else part, target)


def _is_laid_out(part: Path) -> bool:
    """Whether a killed run got as far as writing voxels: the pages are listed before the first."""
    try:
        TiffReader(path=str(part)).open().close()
    except DataError:
        return False
    return True


def _lay_out(part: Path, spec: VolumeSpec) -> None:
    z, y, x = spec.shape
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        tifffile.memmap(part, shape=(z, len(spec.channels), y, x), dtype=spec.dtype, **flavour(spec))
    except (OSError, ValueError) as error:
        raise DataError(f"the file cannot be created: {error}", where=str(part)) from error


class WritableTiff(WritableVolume):
    """A TIFF file whose voxels lie in one piece, so that they can be overwritten in place."""

    def __init__(self, path: Path, target: Path) -> None:
        self._path, self._target = path, target
        self._volume = TiffReader(path=str(path)).open()

    @property
    def spec(self) -> VolumeSpec:
        return self._volume.spec

    def read(self, roi: Roi) -> NDArray[Any]:
        return self._volume.read(roi)

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        self._volume.write(roi, values)

    def finish(self, progress: Progress = lambda _done, _total: None) -> None:
        if self._path == self._target:
            return
        self._volume.close()  # Windows renames no open file
        self._path.replace(self._target)
        self._path = self._target
        self._volume = TiffReader(path=str(self._path)).open()

    def close(self) -> None:
        self._volume.close()
