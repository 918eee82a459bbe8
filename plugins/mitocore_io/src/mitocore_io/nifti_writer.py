"""Writer of NIfTI volumes, one file per array."""

import gzip
import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Extension, Nifti1Header
from nibabel.nifti2 import Nifti2Header

from mitocore import VolumeSpec
from mitocore.interfaces import Progress
from mitocore_io import attributes
from mitocore_io.flat_file import FlatWriter
from mitocore_io.ngff import LABELS
from mitocore_io.nifti_reader import COMMENT, NiftiReader, NiftiVolume

_LONGEST = 2**15 - 1  # voxels along an axis that the 16-bit numbers of version 1 hold
_PIECE = 1 << 24  # bytes


class NiftiWriter(FlatWriter):
    """One NIfTI file per array: version 1, or 2 where an axis is longer than 32 767 voxels; channels are vectors.

    The file has its full length from the start and is called `<name>.part` until it is finished; one whose name ends in
    .gz is compressed then, for which disk for both is needed. Lengths in micrometres; an unknown voxel size has no
    unit. `{name}` in `path` is the name of the array; several arrays need it.
    """

    order: ClassVar[Literal["any", "planes"]] = "planes"
    holds: ClassVar[Literal["one", "many"]] = "one"
    sharing: ClassVar[Literal["processes", "threads", "one"]] = "one"
    dtypes: ClassVar[tuple[str, ...]] = (
        *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float32", "float64"),
    )

    @property
    def format(self) -> str:
        return "NIfTI"

    def opened(self, path: Path) -> NiftiVolume:
        return NiftiReader(path=str(path)).open()

    def lay_out(self, path: Path, spec: VolumeSpec) -> None:
        header = _header(spec)
        with path.open("wb") as file:
            header.write_to(file)
            size = int(np.prod(header.get_data_shape())) * np.dtype(spec.dtype).itemsize
            file.truncate(int(header["vox_offset"]) + size)

    def pack(self, plain: Path, target: Path, progress: Progress) -> bool:
        if not self.path.endswith(".gz"):
            return False
        total = plain.stat().st_size
        with plain.open("rb") as source, gzip.open(target, "wb", compresslevel=5) as packed:
            while piece := source.read(_PIECE):
                packed.write(piece)
                progress(source.tell(), total)
        return True


def _header(spec: VolumeSpec) -> Any:
    depth, height, width = spec.shape
    channels = len(spec.channels)
    version: Any = Nifti2Header if max(*spec.shape, channels) > _LONGEST else Nifti1Header
    header = version()
    header.set_data_dtype(np.dtype(spec.dtype))
    header.set_data_shape((width, height, depth, 1, channels) if channels > 1 else (width, height, depth))
    if spec.voxel_size:
        z, y, x = (edge / 1000 for edge in spec.voxel_size.edges)
        header["pixdim"][1:4] = x, y, z
        header.set_xyzt_units(xyz="micron")
        header["sform_code"] = 1
        for row, (edge, place) in enumerate(zip((x, y, z), reversed(spec.origin), strict=True)):
            header[f"srow_{'xyz'[row]}"] = [edge if column == row else 0 for column in range(3)] + [place / 1000]
    if spec.kind in LABELS:
        header.set_intent("label")
    elif channels > 1:
        header.set_intent("vector")
    note = COMMENT + json.dumps(attributes.attributes(spec))
    header.extensions.append(Nifti1Extension("comment", note.encode()))
    return header
