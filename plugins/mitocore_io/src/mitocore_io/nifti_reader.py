"""Reader of NIfTI, versions 1 and 2 (https://nifti.nimh.nih.gov), plain or compressed."""

import gzip
import json
import shutil
import tempfile
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from mitocore import DataError, Reader, Roi, Volume, VolumeSpec, VoxelSize
from mitocore_io import attributes, units
from mitocore_io.attributes import Record
from mitocore_io.axes import Axes
from mitocore_io.flat_file import overwrite
from mitocore_io.targets import local, missing

COMMENT = "mitocore "
"""With what our record begins among the comments of a header; the rest is JSON."""
_NAMES = {2: "yx", 3: "zyx", 4: "tzyx", 5: "ctzyx"}
_IMPOSSIBLE = 1e6  # nm: programs that know no voxel size write 1 mm, and no microscope has such voxels
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, HeaderDataError, WrapStructError, ImageFileError)


class NiftiReader(Reader):
    """A NIfTI file, .nii or .nii.gz, with its voxels as they are stored: x, y, z become (z, y, x).

    The orientation in the scanner is not followed. Voxel size from `pixdim` with its unit; without unit, and from 1 mm
    on, it is unknown. Values are scaled by `scl_slope` and `scl_inter`. Of a plain file only the voxels that are asked
    for are read; a compressed one is unpacked into a temporary file, once, when its first voxel is read.
    """

    axes: str | None = None
    """Names of the axes, slowest first, such as "czyx" for a fourth dimension that is not time."""

    def open(self) -> "NiftiVolume":
        path = local(self.path)
        if not path.exists():
            raise missing(path)
        try:
            header = _header_of(path)
            stored = np.dtype(header.get_data_dtype())
            slope, inter = header.get_slope_inter()
        except _DAMAGED as error:
            problem = f"{path.name!r} is not a NIfTI file, or is cut short"
            raise DataError(problem, where=self.path, hint="copy the file again") from error
        shape = tuple(int(n) for n in header["dim"][int(header["dim"][0]) : 0 : -1])
        if not shape or min(shape) < 0:
            raise DataError(f"{path.name!r} states the shape {shape}", where=self.path, hint="copy the file again")
        while len(shape) > max(_NAMES) and shape[0] == 1:
            shape = shape[1:]
        axes = Axes.of(shape, self.axes or _NAMES.get(len(shape)), self.path)
        scale = None if slope is None or (slope, inter) == (1, 0) else (slope, inter)
        dtype = np.result_type(stored, np.float32) if scale and stored.kind in "iuf" else stored
        spec = attributes.volume_spec(axes, dtype, None, _record_of(header), self.voxel_size, self.path)
        return NiftiVolume(path, axes, spec, header, scale)


class NiftiVolume(Volume):
    """An open NIfTI file: its voxels are mapped, those of a compressed one from a temporary copy."""

    def __init__(
        self, path: Path, axes: Axes, spec: VolumeSpec, header: Any, scale: tuple[float, float] | None
    ) -> None:
        self._path, self._axes, self._spec, self._scale = path, axes, spec, scale
        self._stored, self._offset = header.get_data_dtype(), max(header.get_data_offset(), header.single_vox_offset)
        self.packed, self.own = _is_gzip(path), _own(header) is not None
        self._unpacking = threading.Lock()
        self._copy: Any = None
        if not self.packed:
            self._check_whole(path)

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        voxels = np.memmap(self._plain(), self._stored, "r", self._offset, self._axes.shape)
        values = self._axes.arrange(np.array(voxels[self._axes.index(roi)]))
        values = values.astype(self._spec.dtype, copy=False)
        if self._scale:
            slope, inter = self._scale
            values *= slope
            values += inter
        return values

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        """Overwrite voxels of a file that is not packed."""
        overwrite(self._path, self._stored, self._offset, self._axes, roi, values)

    def close(self) -> None:
        if self._copy is not None:
            self._copy.close()

    def _plain(self) -> Path:
        """The file in which the voxels can be mapped."""
        if not self.packed:
            return self._path
        with self._unpacking:
            if self._copy is None or self._copy.closed:
                self._copy = self._unpacked()
        return Path(self._copy.name)

    def _unpacked(self) -> Any:
        copy = tempfile.NamedTemporaryFile(prefix="mitocore-", suffix=".nii")  # noqa: SIM115 - open until `close`
        try:
            with gzip.open(self._path) as file:
                shutil.copyfileobj(file, copy, 1 << 22)
            copy.flush()
            self._check_whole(Path(copy.name))
        except (OSError, EOFError, zlib.error) as error:
            copy.close()
            problem = f"{self._path.name!r} cannot be unpacked: {str(error).splitlines()[0]}"
            hint = "copy the file again, if it is cut short; TMPDIR names a folder with room to unpack it"
            raise DataError(problem, where=str(self._path), hint=hint) from error
        except DataError:
            copy.close()
            raise
        return copy

    def _check_whole(self, path: Path) -> None:
        short = self._offset + int(np.prod(self._axes.shape)) * self._stored.itemsize - path.stat().st_size
        if short > 0:
            problem = f"{self._path.name!r} is cut short: {short} bytes are missing"
            raise DataError(problem, where=str(self._path), hint="copy the file again")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _header_of(path: Path) -> Any:
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
        start = file.read(348)
        file.seek(0)
        version: Any = Nifti1Header if start[344:347] == b"n+1" else Nifti2Header
        if version is Nifti2Header and start[4:7] != b"n+2":
            raise ValueError("the mark of files that hold header and voxels is missing")
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Extension size is not a multiple", UserWarning
            )  # it is read all the same
            return version.from_fileobj(file, check=False)  # else an edge of 0 would become 1


def _record_of(header: Any) -> Record:
    """What the header says: all of it in our own comment, else the voxel size."""
    own = _own(header)
    if own is not None:
        return attributes.record(own)
    unit, _ = header.get_xyzt_units()
    edges = [str(abs(edge)) for edge in header["pixdim"][3:0:-1]]  # as text: 0.0046 is not 0.00460000010207
    size = units.voxel_size(edges, [unit] * 3)
    return Record(voxel_size=size if _is_possible(size) else None)


def _is_possible(size: VoxelSize | None) -> bool:
    return size is not None and max(size.edges) < _IMPOSSIBLE


def _own(header: Any) -> dict[str, Any] | None:
    for extension in header.extensions:
        content = extension.get_content() if extension.get_code() == 6 else b""  # 6: a comment
        text = content.decode(errors="replace") if isinstance(content, bytes) else str(content)
        if text.startswith(COMMENT):
            try:
                found = json.loads(text[len(COMMENT) :].strip("\0 \n"))
            except ValueError:  # somebody else's comment
                continue
            return found if isinstance(found, dict) else None
    return None
