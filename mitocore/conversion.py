"""Copies of volumes in other formats."""

import glob
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mitocore.blockwise import passes
from mitocore.blockwise.arrays import Opened
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.config.pipeline import kind_of
from mitocore.errors import DataError, ResourceError, RunError
from mitocore.geometry import as_shape, stated_region
from mitocore.interfaces import Writer
from mitocore.specs import Kind, VolumeSpec
from mitocore.volumes import installed, reader_of, writer_of

_LABELS = (Kind.MASK, Kind.SEMANTIC, Kind.INSTANCE)
_UNSIGNED = ("bool", "uint8", "uint16", "uint32", "uint64")
_WIDER = (_UNSIGNED, ("int8", "int16", "int32", "int64"), ("float16", "float32", "float64"))


def convert(
    source: str | Path,
    target: str | Path,
    *,
    voxel_size: Any = None,
    kind: Kind | str | None = None,
    roi: str | None = None,
    reader: str | None = None,
    writer: str | None = None,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> VolumeSpec:
    """Copy a volume into another format, block by block; voxel size, origin and kind go along.

    No value changes. Where the format lacks the dtype, the next wider one is taken; labels may become narrower, if they
    fit. Of a copy that fails or is interrupted nothing is left.

    Parameters
    ----------
    kind
        What the volume holds, where its file does not say; labels are refused by lossy formats.
    roi
        Three ranges of voxels (z, y, x): only this part.
    reader, writer
        Names, where another one than that of the suffix is wanted: "jpeg-slices".

    Raises
    ------
    DataError
        If the target exists, or cannot hold the values, the voxel size or the name that are asked for.
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
    with reader_of(source, registry, reader, **stated).open() as volume:
        spec = volume.spec
        region = stated_region(roi, spec.shape)
        held = kind_of(kind) or spec.kind
        dtype = _dtype(spec.dtype, held, into, str(source), str(target))
        edges = spec.voxel_size.edges if spec.voxel_size else (0.0, 0.0, 0.0)
        z, y, x = (o + s * e for o, s, e in zip(spec.origin, region.start, edges, strict=True))
        wanted = replace(spec, shape=region.shape, dtype=dtype, origin=(z, y, x), kind=held, chunks=None)
        with _whole_or_gone(into, name, str(target)), TemporaryDirectory(prefix="mitocore-") as temporary:
            folder = Path(temporary)
            with RunLock(folder) as lock, into.create(name, wanted) as copy:
                if stated and copy.spec.voxel_size is None:
                    problem = f"{Path(place).name!r} cannot hold a voxel size"
                    hint = "leave the voxel size out, and say it where the file is read; or write to zarr"
                    raise DataError(problem, where=str(target), hint=hint)
                workspace = Workspace(folder, InProcess(), lock, progress)
                order, begin = into.order, as_shape(region.start)
                passes.export(Opened(volume), None, copy, order, workspace, "convert", origin=begin)
                copy.finish(lambda done, total: progress("finish", done, total))
                return copy.spec


def _dtype(dtype: str, kind: Kind, writer: Writer, source: str, target: str) -> str:
    """The dtype of the copy: the same, or the next wider one; of labels also the widest there is, if they fit."""
    if writer.lossy and kind in _LABELS:
        raise DataError(f"{target!r} would change the ids of labels", hint="write to zarr, TIFF or PNG")
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
