"""Writer of zarr: an OME-NGFF multiscale per array, or plain arrays as Catena reads them."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from mitocore import DataError, Roi, Shape, VolumeSpec, VoxelSize, WritableVolume, Writer, as_shape
from mitocore.interfaces import Progress
from mitocore_io import attributes, ngff, pyramid, targets
from mitocore_io.axes import Axes
from mitocore_io.ngff import Version
from mitocore_io.stored_array import StoredArray
from mitocore_io.zarr_nodes import BAD_METADATA, attributes_of, format_of, is_array, multiscale_at, open_array
from mitocore_io.zarr_reader import noted_at

_EFFORT = {"zstd": 1, "gzip": 5}  # label volumes compress well at the lowest effort already


class ZarrWriter(Writer):
    """Arrays in one zarr store, each written in place, block by block, by any number of processes.

    While an array is written its attribute `mitocore.state` is "writing", which the reader refuses, and its group has
    no multiscales metadata yet; `finish` adds the coarser levels, then these metadata, then takes the mark away.
    """

    order: ClassVar[Literal["any", "planes"]] = "any"
    sharing: ClassVar[Literal["processes", "threads", "one"]] = "processes"

    key: str = "{name}"
    """Where in the store the array goes; `{name}` is the name of the array that is saved."""
    layout: Literal["ome", "catena"] = "ome"
    """One OME-NGFF multiscale per array, or one zarr v2 array with `resolution` and `offset`, as Catena reads it."""
    version: Version = "0.5"
    """Of OME-NGFF: 0.5 is zarr v3 on disk, 0.4 is zarr v2."""
    compression: Literal["zstd", "gzip", "none"] = "zstd"
    """Codec of the chunks."""
    chunks: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 128)
    """Voxels of one chunk along (z, y, x)."""
    shards: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """Voxels of one shard along (z, y, x), a multiple of `chunks`: a file that holds many chunks, so that large volumes
    are fewer files. Zarr v3 only. Shards are what is written at a time: as large as a block, or a part of it."""
    levels: Annotated[int, Field(ge=1)] | None = None
    """Number of levels of a multiscale, the finest included; by default until a plane is at most 256 voxels wide."""

    @model_validator(mode="after")
    def _shards_fit(self) -> Self:
        if self.shards and self._format == 2:
            raise ValueError('shards are of zarr v3: layout = "ome" and version = "0.5"')
        if self.shards and any(shard % chunk for shard, chunk in zip(self.shards, self.chunks, strict=True)):
            raise ValueError(f"shards {list(self.shards)} are not whole chunks of {list(self.chunks)}")
        return self

    def create(self, name: str, spec: VolumeSpec, *, resume: bool = False) -> WritableVolume:
        node = self._node(name)
        targets.check_dtype(spec, self.dtypes, "zarr", str(node))
        if format_of(node) and not resume:
            hint = "write to another path, or delete it" + ("" if "{name}" in self.key else '; or put "{name}" in key')
            raise DataError(f"{Path(self.path).name!r} has {node.name!r} already", where=str(node), hint=hint)
        if not is_array(self._array(node)):
            self._create(node, spec)
        volume = self._open(node, name)
        targets.check_same(volume, spec, str(node))
        volume.unfinish()
        return volume

    def check(self, name: str) -> None:
        root = targets.local(self.path)
        there = format_of(root)
        if there not in (None, self._format):
            remedy = {2: 'version = "0.4"', 3: 'layout = "ome", version = "0.5"'}[there or 3]
            raise DataError(f"{root.name!r} is zarr v{there}, not v{self._format}", where=str(root), hint=remedy)
        if there is None and root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(f"{root.name!r} exists and is no zarr store", where=str(root), hint="write to another path")

    def open(self, name: str) -> WritableVolume:
        node = self._node(name)
        if not is_array(self._array(node)):
            raise DataError(f"{Path(self.path).name!r} has no array {node.name!r}", where=str(node))
        return self._open(node, name)

    def stamp(self, name: str) -> str:
        return attributes.record(attributes_of(self._array(self._node(name)))).stamp

    def _node(self, name: str) -> Path:
        return targets.local(self.path).joinpath(
            *[part for part in self.key.replace("{name}", name).split("/") if part]
        )

    def _array(self, node: Path) -> Path:
        """The array at full resolution: a plain array itself, else the finest level of a multiscale."""
        found = multiscale_at(node)
        if found:
            return node / found.levels[0].path
        return node if is_array(node) or self.layout == "catena" else node / "0"

    @property
    def _format(self) -> Literal[2, 3]:
        return 3 if (self.layout, self.version) == ("ome", "0.5") else 2

    def _codec(self) -> dict[str, Any] | None:
        effort = _EFFORT.get(self.compression)
        if effort is None:
            return None
        if self._format == 2:
            return {"id": self.compression, "level": effort}
        return {"name": self.compression, "configuration": {"level": effort}}

    def _create(self, node: Path, spec: VolumeSpec) -> None:
        root = Path(self.path)
        self.check(node.name)
        try:
            group = zarr.open_group(str(root), mode="a", zarr_format=self._format)
            if self.layout == "ome":
                group = group.require_group(node.relative_to(root).as_posix())
            path = "0" if self.layout == "ome" else node.relative_to(root).as_posix()
            self.add_array(group, path, spec, attributes.attributes(spec, writing=True))
        except BAD_METADATA as error:
            raise targets.unwritable(error, "the array cannot be created", str(node)) from error

    def _open(self, node: Path, name: str) -> "WritableZarr":
        return WritableZarr(self, node, self._array(node), name)

    def add_array(self, group: Any, path: str, spec: VolumeSpec, noted: dict[str, Any]) -> Any:
        """Create an array of zeros, whatever stood there."""
        names = ngff.axes_of(spec)
        chunk = as_shape(min(c, n) for c, n in zip(self.chunks, spec.shape, strict=True))
        leading = (len(spec.channels),) if "c" in names else ()
        each = tuple(1 for _ in leading)
        v3 = self._format == 3
        return group.create_array(
            path,
            shape=(*leading, *spec.shape),
            chunks=(*each, *chunk),
            shards=(*each, *self._shard(chunk, spec.shape)) if self.shards else None,
            dtype=spec.dtype,
            compressors=self._codec(),
            fill_value=False if spec.dtype == "bool" else 0,
            attributes=noted,
            chunk_key_encoding={"name": "default" if v3 else "v2", "separator": "/" if self.layout == "ome" else "."},
            dimension_names=list(names) if v3 else None,
            overwrite=True,
        )

    def _shard(self, chunk: Shape, shape: Shape) -> Shape:
        """Whole chunks: as many as `shards` says, and no more than cover the array."""
        return as_shape(
            c * min(-(-n // c), s // full)
            for c, n, s, full in zip(chunk, shape, self.shards or chunk, self.chunks, strict=True)
        )


class WritableZarr(StoredArray, WritableVolume):
    """An array of a zarr store, with the levels above it."""

    def __init__(self, writer: ZarrWriter, node: Path, array: Path, name: str) -> None:
        self._writer, self._node, self._name = writer, node, name
        found = multiscale_at(node)
        level = found.levels[0] if found else None
        opened = open_array(array, "r+")
        axes = Axes.of(opened.shape, found.axes if found else None, str(node))
        noted = replace(noted_at(array, level), writing=False)
        at_once = pyramid.written_at_once(opened)
        spec = attributes.volume_spec(axes, np.dtype(opened.dtype), at_once, noted, None, str(node))
        super().__init__(opened, axes, spec, str(node))

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        with targets.writing(str(self._node)):
            self._array[self._axes.index(roi)] = self._axes.lay_out(values)

    def unfinish(self) -> None:
        """Note that the array is being written, and drop the coarser levels, which will not show what is written."""
        self._note(writing=True)
        found = multiscale_at(self._node)
        if found:
            group = zarr.open_group(str(self._node), mode="r+", zarr_format=format_of(self._node))
            for name in ngff.attributes(self._spec, self._name, [], self._writer.version):
                del group.attrs[name]
            for level in found.levels[1:]:
                del group[level.path]

    def finish(self, progress: Progress = lambda _done, _total: None) -> None:
        with targets.writing(str(self._node)):
            if not is_array(self._node):
                self._build_levels(progress)
            self._note(writing=False)

    def _note(self, *, writing: bool) -> None:
        noted = attributes.attributes(self._spec, writing=writing, stamp="" if writing else uuid.uuid4().hex)
        self._array.update_attributes({"mitocore": noted["mitocore"]})

    def _build_levels(self, progress: Progress) -> None:
        """Make the coarser levels, or bring those there are up to date, and say in the group what they are."""
        found = multiscale_at(self._node)
        group = zarr.open_group(str(self._node), mode="r+", zarr_format=format_of(self._node))
        if found:
            coarse = [open_array(self._node / level.path, "r+") for level in found.levels[1:]]
        else:
            factors = pyramid.factors(self._spec, self._writer.levels)
            coarse = [self._add_level(group, level, factor) for level, factor in enumerate(factors) if level]
        fine, done, total = self._array, 0, sum(pyramid.boxes(array, self._axes.names) for array in coarse)
        for array in coarse:
            for _ in pyramid.filled(fine, array, self._axes.names, self._spec):
                done += 1
                progress(done, total)
            fine = array
        if not found:
            group.update_attributes(ngff.attributes(self._spec, self._name, factors, self._writer.version))

    def _add_level(self, group: Any, level: int, factor: Shape) -> Any:
        size = self._spec.voxel_size
        edges = [e * f for e, f in zip(size.edges, factor, strict=True)] if size else None
        spec = replace(
            self._spec,
            shape=pyramid.coarser(self._spec.shape, factor),
            voxel_size=VoxelSize(edges[0], edges[1], edges[2]) if edges else None,
        )
        return self._writer.add_array(group, str(level), spec, {"mitocore": attributes.attributes(spec)["mitocore"]})
