"""Writer of TIFF volumes, one file per array."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import tifffile
from numpy.typing import NDArray

from mitocore import VolumeSpec, Writer
from mitocore.interfaces import Progress
from mitocore_io.flat_file import FlatWriter, planes
from mitocore_io.tiff_metadata import flavour
from mitocore_io.tiff_reader import TiffReader, TiffVolume


class TiffWriter(FlatWriter):
    """One TIFF volume per array, pages by z and then channel; BigTIFF from 2 GiB on.

    ImageJ metadata for uint8, uint16 and float32 below 2 GiB, OME-XML for other sizes, float64 and other integers of up
    to 32 bits, a plain TIFF for integers of 64 bits and float16. The file has its full length from the start and is
    called `<name>.part` until it is finished. `{name}` in `path` is the name of the array; several arrays need it.
    """

    order: ClassVar[Literal["any", "planes"]] = "planes"
    holds: ClassVar[Literal["one", "many"]] = "one"
    sharing: ClassVar[Literal["processes", "threads", "one"]] = "one"
    dtypes: ClassVar[tuple[str, ...]] = tuple(dtype for dtype in Writer.dtypes if dtype != "bool")

    compression: Literal["none", "zlib"] = "none"
    """"zlib": compress the pages when the array is finished; until then disk for both is needed. Labels become much
    smaller; of uncompressed files any part is read at once."""

    @property
    def format(self) -> str:
        return "TIFF"

    def opened(self, path: Path) -> TiffVolume:
        return TiffReader(path=str(path)).open()

    def lay_out(self, path: Path, spec: VolumeSpec) -> None:
        depth, height, width = spec.shape
        shape = (depth, len(spec.channels), height, width)
        tifffile.memmap(path, shape=shape, dtype=spec.dtype, **flavour(spec))

    def pack(self, plain: Path, target: Path, progress: Progress) -> bool:
        if self.compression == "none":
            return False
        with self.opened(plain) as volume:
            spec = volume.spec
            shape = (spec.shape[0], len(spec.channels), *spec.shape[1:])
            pages, form = _pages(volume, progress), flavour(spec)
            tifffile.imwrite(target, pages, shape=shape, dtype=spec.dtype, compression=self.compression, **form)
        return True


def _pages(volume: TiffVolume, progress: Progress) -> Iterator[NDArray[Any]]:
    for z, plane in enumerate(planes(volume.spec)):
        pages = volume.read(plane)[:, 0].view(volume.spec.dtype)  # tifffile tells uint64 from unsigned long long
        progress(z + 1, volume.spec.shape[0])
        yield from pages
