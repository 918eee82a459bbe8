"""Copies of volumes in other formats."""

from collections.abc import Callable
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
from mitocore.errors import DataError
from mitocore.geometry import Roi, as_shape
from mitocore.specs import Kind, VolumeSpec
from mitocore.volumes import installed, reader_of, writer_of


def convert(
    source: str | Path,
    target: str | Path,
    *,
    voxel_size: Any = None,
    kind: Kind | str | None = None,
    roi: str | None = None,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> VolumeSpec:
    """Copy a volume into another format, block by block; voxel size, origin and kind go along.

    Parameters
    ----------
    kind
        What the volume holds, where its file does not say; labels are refused by lossy formats.
    roi
        Three ranges of voxels (z, y, x): only this part.

    Raises
    ------
    DataError
        If the target exists, or cannot hold the values.
    """
    registry = installed()
    writer = writer_of(str(target).partition("::")[0], registry)
    name = str(target).partition("::")[2] or "volume"
    with reader_of(source, registry, **({"voxel_size": voxel_size} if voxel_size else {})).open() as volume:
        spec = volume.spec
        try:
            region = Roi.parse(roi, spec.shape) if roi else Roi.whole(spec.shape)
        except ValueError as error:
            raise DataError(str(error), where="--roi", hint="--roi 10:20,:,0:512") from error
        held = kind_of(kind) or spec.kind
        if spec.dtype not in writer.dtypes:
            raise DataError(
                f"{str(source)!r} is {spec.dtype}; this format holds {', '.join(writer.dtypes)}",
                where=str(target),
                hint="write to zarr, HDF5 or .npy",
            )
        if writer.lossy and held in (Kind.MASK, Kind.SEMANTIC, Kind.INSTANCE):
            raise DataError(f"{str(target)!r} would change the ids of labels", hint="write to zarr, TIFF or PNG")
        edges = spec.voxel_size.edges if spec.voxel_size else (0.0, 0.0, 0.0)
        z, y, x = (o + s * e for o, s, e in zip(spec.origin, region.start, edges, strict=True))
        wanted = replace(spec, shape=region.shape, origin=(z, y, x), kind=held, chunks=None)
        with TemporaryDirectory(prefix="mitocore-") as temporary:
            folder = Path(temporary)
            with RunLock(folder) as lock, writer.create(name, wanted) as copy:
                workspace = Workspace(folder, InProcess(), lock, progress)
                order, begin = writer.order, as_shape(region.start)
                passes.export(Opened(volume), None, copy, order, workspace, "convert", origin=begin)
                copy.finish(lambda done, total: progress("finish", done, total))
                return copy.spec
