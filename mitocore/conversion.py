"""Copies of volumes in other formats."""

import glob
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise import passes
from mitocore.blockwise.arrays import Opened, Source
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.config.pipeline import kind_of
from mitocore.config.toml import near
from mitocore.errors import ConfigError, DataError, ResourceError, RunError
from mitocore.geometry import Roi, stated_region
from mitocore.interfaces import Writer
from mitocore.resampling import Factors
from mitocore.scaling import Rescaled, averaged, scaled, stated_factors
from mitocore.specs import UNIT, Kind, VolumeSpec
from mitocore.volumes import installed, reader_of, writer_of

_LABELS = (Kind.MASK, Kind.SEMANTIC, Kind.INSTANCE)
_UNSIGNED = ("bool", "uint8", "uint16", "uint32", "uint64")
_LARGE = ("int32", "int64", "uint32", "uint64")
_WIDER = (_UNSIGNED, ("int8", "int16", "int32", "int64"), ("float16", "float32", "float64"))


def convert(
    source: str | Path,
    target: str | Path,
    *,
    voxel_size: Any = None,
    kind: Kind | str | None = None,
    roi: str | None = None,
    scale_factors: Any = None,
    dtype: str | None = None,
    reader: str | None = None,
    writer: str | None = None,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> VolumeSpec:
    """Copy a volume into another format, block by block; voxel size, origin and kind go along.

    No value changes, unless another resolution is asked for. Where the format lacks the dtype, the next wider one is
    taken; labels may become narrower, if they fit. Of a copy that fails or is interrupted nothing is left.

    Parameters
    ----------
    kind
        What the volume holds, where its file does not say; labels are refused by lossy formats.
    roi
        Three ranges of voxels (z, y, x): only this part.
    scale_factors
        Three numbers (z, y, x): voxels of the copy per voxel, such as ``(1, 0.5, 0.5)``. Masks, classes and ids take
        the nearest voxel; images and probabilities the mean of what a larger voxel covers, or what lies between
        neighbours for smaller ones. The lattice begins at voxel 0 of the volume, whatever the region.
    dtype
        What the copy stores, where it is not to be the dtype of the source: labels may become narrower, if they fit;
        other values may not.
    reader, writer
        Names, where another one than that of the suffix is wanted: "jpeg-slices".

    Raises
    ------
    DataError
        If the target exists, or cannot hold the values, the voxel size or the name that are asked for; or if the values
        have no meaning at another resolution.
    ConfigError
        If the factors or the dtype are none.
    ResourceError
        If the disk is full.
    """
    registry = installed()
    stated = {} if voxel_size is None else {"voxel_size": voxel_size}
    place, _, key = str(target).partition("::")
    into = writer_of(place, registry, writer)
    if key and "key" not in type(into).model_fields and "{name}" not in place:
        problem = f"{Path(place).name!r} holds one array, which has no name: there is no place for {key!r}"
        raise DataError(problem, where=str(target), hint=f"write to {place}, or to a zarr or HDF5 file")
    name = key or "volume"
    factors = stated_factors(scale_factors, "--scale", "--scale 1,0.5,0.5")
    with reader_of(source, registry, reader, **stated).open() as volume:
        spec = replace(volume.spec, kind=kind_of(kind) or volume.spec.kind)
        origin: Source = Opened(volume)
        if spec.kind in UNIT and spec.dtype == "uint8" and (dtype or "").startswith("float"):
            spec, origin = replace(spec, dtype="float32"), Opened(volume, spec.kind)  # bytes are value / 255
        region = stated_region(roi, spec.shape)
        stored = _dtype(_computed(spec, factors), dtype, spec.kind, into, str(source), str(target))
        if factors is None:
            edges = spec.voxel_size.edges if spec.voxel_size else (0.0, 0.0, 0.0)
            z, y, x = (o + s * e for o, s, e in zip(spec.origin, region.start, edges, strict=True))
            wanted, corner = replace(spec, shape=region.shape, origin=(z, y, x), chunks=None), region.start
        else:
            wanted, resampling = scaled(spec, factors, region)
            origin = Rescaled(origin, resampling, Roi.whole(spec.shape), *_values(spec))
            corner = resampling.box(region).start
        if np.dtype(stored).itemsize < np.dtype(spec.dtype).itemsize and spec.dtype[0] in "iu":
            origin = _Narrowed(origin, stored, str(source), str(target))
        wanted = replace(wanted, dtype=stored)
        with _whole_or_gone(into, name, str(target)), TemporaryDirectory(prefix="mitocore-") as temporary:
            folder = Path(temporary)
            with RunLock(folder) as lock, into.create(name, wanted) as copy:
                if stated and copy.spec.voxel_size is None:
                    problem = f"{Path(place).name!r} cannot hold a voxel size"
                    hint = "leave the voxel size out, and say it where the file is read; or write to zarr"
                    raise DataError(problem, where=str(target), hint=hint)
                workspace = Workspace(folder, InProcess(), lock, progress)
                passes.export(origin, None, copy, into.order, workspace, "convert", origin=corner)
                copy.finish(lambda done, total: progress("finish", done, total))
                return copy.spec


def _values(spec: VolumeSpec) -> tuple[bool, str]:
    """Whether values at another resolution are never mixed, and the integers that means are rounded to, if any."""
    mixed = averaged(spec.kind, spec.dtype)
    return not mixed, spec.dtype if mixed and spec.dtype[0] in "iu" else ""


def _computed(spec: VolumeSpec, factors: Factors | None) -> str:
    """The dtype of what is copied: that of the source; means of float64 are float32.

    Raises
    ------
    DataError
        If means would be taken of numbers that float32 does not tell apart: of ids, most likely.
    """
    if factors is None or not averaged(spec.kind, spec.dtype):
        return spec.dtype
    if spec.dtype in _LARGE:
        problem = f"means of {spec.dtype} are not taken: nothing says that these are no ids"
        raise DataError(problem, where="--scale", hint="--kind instance, if these are ids: they take the nearest voxel")
    return "float32" if spec.dtype == "float64" else spec.dtype


def _dtype(dtype: str, stated: str | None, kind: Kind, writer: Writer, source: str, target: str) -> str:
    """The dtype of the copy: the one stated, the same, or the next wider; of labels also a narrower, if they fit."""
    if writer.lossy and kind in _LABELS:
        raise DataError(f"{target!r} would change the ids of labels", hint="write to zarr, TIFF or PNG")
    if stated is not None:
        return _stated(dtype, stated, kind, writer, source)
    ladder = next((each for each in _WIDER if dtype in each), (dtype,))
    wider = [each for each in ladder[ladder.index(dtype) :] if each in writer.dtypes]
    if wider:
        return wider[0]
    narrower = [] if dtype.startswith("float") else [each for each in _UNSIGNED[1:] if each in writer.dtypes]
    if narrower and kind in _LABELS:
        return narrower[-1]
    problem = f"{source!r} is {dtype}; this format holds {', '.join(writer.dtypes)}"
    hint = "write to zarr, HDF5 or .npy"
    if narrower and kind is Kind.IMAGE and not writer.lossy:
        hint = f"--kind instance, if these are ids: they are stored if they fit; else {hint}"
    raise DataError(problem, where=target, hint=hint)


def _stated(dtype: str, stated: str, kind: Kind, writer: Writer, source: str) -> str:
    if stated not in writer.dtypes:
        problem = f"{stated!r} is no dtype of this format; it holds {', '.join(writer.dtypes)}"
        raise ConfigError(problem, where="--dtype", hint=near(stated, writer.dtypes))
    labels = kind in _LABELS and dtype[0] in "iu" and stated in _UNSIGNED[1:]
    if not labels and not np.can_cast(dtype, stated):
        hint = "leave --dtype out"
        if dtype[0] in "iu" and stated in _UNSIGNED[1:]:
            hint = f"--kind instance, if these are ids: they are stored if they fit; else {hint}"
        raise DataError(f"{source!r} is {dtype}, which {stated} does not hold", where="--dtype", hint=hint)
    return stated


@dataclass(frozen=True, slots=True)
class _Narrowed:
    """Labels that go to a narrower dtype; the largest number of a dtype of 16 bits or more means "ignore" there."""

    source: Source
    dtype: str
    name: str
    target: str

    @property
    def voxel_bytes(self) -> int:
        return self.source.voxel_bytes

    def read(self, roi: Roi) -> NDArray[Any]:
        values = self.source.read(roi)
        top = int(np.iinfo(self.dtype).max) - (self.dtype != "uint8")
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if low < 0 or high > top:
            problem = f"{self.name!r} holds id {low if low < 0 else high}; {self.dtype} holds ids from 0 to {top}"
            hint = f"a format that holds {values.dtype}: zarr, HDF5 or --writer tiff-slices, without --dtype"
            raise DataError(problem, where=self.target, hint=hint)
        return values.astype(self.dtype)


@contextmanager
def _whole_or_gone(writer: Writer, name: str, target: str) -> Iterator[None]:
    """Remove what was begun of a copy if it does not come to its end; what stood there before stays."""
    path = Path(writer.path.replace("{name}", name))
    inside = [path.joinpath(*name.split("/")[:depth]) for depth in range(1, name.count("/") + 2)]  # of a store

    def there() -> set[Path]:
        aside = path.parent.glob(f"{glob.escape(path.name)}.part*")  # as unfinished files are called
        return {place for place in (path, *inside, *aside) if place.exists()}

    before = there()
    try:
        yield
    except BaseException as error:
        if path in before and not path.exists():  # a file that holds more arrays, and was renamed to hold this one too
            path.with_name(f"{path.name}.part").replace(path)
        for place in sorted(there() - before):
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)
        if isinstance(error, ResourceError | RunError):
            error.where = error.where or target
            space = "free some disk space, or write to another disk; " if isinstance(error, ResourceError) else ""
            error.hint = f"{space}nothing was left of the copy, begin it again"
        raise
