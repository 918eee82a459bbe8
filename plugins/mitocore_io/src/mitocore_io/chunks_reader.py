"""Reader of volumes that lie in many HDF5 files, each named after its voxels, as PyTorch Connectomics writes them."""

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from mitocore import DataError, Reader, Roi, Volume, VolumeSpec
from mitocore_io import attributes
from mitocore_io.axes import Axes
from mitocore_io.chunk_names import SUFFIXES, NamedChunk, chunk_of, missing_of, refuse_overlaps
from mitocore_io.hdf5_reader import axes_noted, dataset_of, open_file
from mitocore_io.stored_array import StoredArray
from mitocore_io.targets import local, missing

logger = logging.getLogger(__name__)

_OPEN = 16
"""Files that are kept open: a row of blocks meets the same ones again."""

_AGAIN = "delete it, and run the prediction of this chunk again"


class ChunksReader(Reader):
    """A volume in HDF5 files called `{name}_{z0}-{z1}-{y0}-{y1}-{x0}-{x1}.h5`, the chunks of PyTorch Connectomics.

    `path` is their folder, or a pattern such as "out/result_*_xy.h5"; what else stands in the names does not matter.
    Each file holds a dataset (c, z, y, x) or (z, y, x) of just the voxels that its name says. The volume begins where
    the first chunk begins. Every file is looked at when the volume is opened: of one that a stopped run left half
    written nothing is ever read.
    """

    key: str = ""
    """Path of the dataset inside the files: vol0, main; may be left out where there is only one."""
    axes: str | None = None
    """Names of the datasets' axes, such as "zyxc", where they are not (c, z, y, x) or (z, y, x)."""
    fill: Literal["refuse"] | int = "refuse"
    """Value of voxels that no file holds. "refuse": there must be none."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """Voxels of the whole volume, from 0, so that chunks that are missing at its faces are noticed. By default it goes
    from the first chunk to the last."""

    def open(self) -> Volume:
        chunks = _chunks(self.path)
        refuse_overlaps(chunks, self.path)
        whole = self._whole(chunks)
        if self.fill == "refuse" and (holes := missing_of(chunks, whole)):
            hint = "predict these; or run with fill = 0 in [input], which stands for what is missing"
            raise DataError(f"chunks are missing: {holes}", where=self.path, hint=hint)
        first = self._checked(chunks[0])
        for chunk in chunks[1:]:
            found = self._checked(chunk)
            if (found.dtype, found.channels) != (first.dtype, first.channels):
                problem = f"{chunk.name!r} holds {_said(found)}, {chunks[0].name!r} {_said(first)}"
                raise DataError(problem, where=self.path, hint="one volume is of one kind: remove the other files")
        if self.fill != "refuse" and not np.can_cast(np.min_scalar_type(self.fill), first.dtype):
            raise DataError(f"fill = {self.fill} does not fit {first.dtype}", where=self.path)
        if any(whole.start):
            _say_start(Path(self.path).name, whole.start)
        edges = first.voxel_size.edges if first.voxel_size else (0.0, 0.0, 0.0)
        z, y, x = (float(n * edge) for n, edge in zip(whole.start, edges, strict=True))
        spec = VolumeSpec(
            whole.shape, first.dtype, first.channels, first.voxel_size, (z, y, x), first.chunks, first.kind
        )
        return ChunksVolume(self, chunks, whole, spec)

    def files(self) -> Sequence[Path]:
        return [chunk.file for chunk in _chunks(self.path)]

    def _whole(self, chunks: Sequence[NamedChunk]) -> Roi:
        """The voxels of the volume, in the frame of the names."""
        whole = chunks[0].roi
        for chunk in chunks:
            whole = whole.around(chunk.roi)
        if self.shape is None:
            return whole
        stated = Roi.whole(self.shape)
        if not stated.contains(whole):
            beyond = next(chunk for chunk in chunks if not stated.contains(chunk.roi))
            problem = f"{beyond.name!r} leaves the volume of {self.shape} voxels (z, y, x)"
            raise DataError(problem, where=self.path, hint=f"shape = {list(whole.stop)}")
        return stated

    def _checked(self, chunk: NamedChunk) -> VolumeSpec:
        """The header of a chunk."""
        with self.opened(chunk) as volume:
            return volume.spec

    def opened(self, chunk: NamedChunk) -> "OpenChunk":
        """A chunk open for reading.

        Raises
        ------
        DataError
            If its file is cut short or half written, or holds other voxels than its name says.
        """
        try:
            file = open_file(chunk.file, "r")
        except DataError as error:
            if "in use" not in error.problem:
                error.hint = _AGAIN
            raise
        try:
            return self._found(file, chunk)
        except (OSError, RuntimeError, KeyError) as error:  # what HDF5 raises on a header that was not flushed
            file.close()
            raise _half(chunk) from error
        except DataError:
            file.close()
            raise

    def _found(self, file: Any, chunk: NamedChunk) -> "OpenChunk":
        """The dataset of an open file, if it holds all that it should."""
        if not list(file):
            raise _half(chunk)
        dataset = dataset_of(file, self.key, str(chunk.file))
        if not _complete(dataset):
            raise _half(chunk)
        where = f"{chunk.file}::{dataset.name[1:]}"
        axes = Axes.of(dataset.shape, self.axes or axes_noted(dataset), where)
        if axes.volume != chunk.roi.shape:
            problem = f"{chunk.name!r} holds {axes.volume} voxels (z, y, x), its name says {chunk.roi.shape}"
            raise DataError(problem, where=where, hint=_AGAIN)
        noted = attributes.record(dict(dataset.attrs))
        spec = attributes.volume_spec(axes, dataset.dtype, dataset.chunks, noted, self.voxel_size, where)
        return OpenChunk(file, dataset, axes, spec, where)


class OpenChunk(StoredArray):
    """One open file."""

    def __init__(self, file: Any, dataset: Any, axes: Axes, spec: VolumeSpec, where: str) -> None:
        super().__init__(dataset, axes, spec, where)
        self._file = file

    def close(self) -> None:
        self._file.close()


class ChunksVolume(Volume):
    """The files as one volume; those that were read last stay open."""

    def __init__(self, reader: ChunksReader, chunks: Sequence[NamedChunk], whole: Roi, spec: VolumeSpec) -> None:
        self._reader, self._chunks, self._whole, self._spec = reader, chunks, whole, spec
        self._starts, self._stops = (np.array([getattr(c.roi, end) for c in chunks]) for end in ("start", "stop"))
        self._open: OrderedDict[int, OpenChunk] = OrderedDict()
        self._reading = threading.Lock()  # no other thread closes the file that one reads; HDF5 lets in one anyway

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        box = roi.moved(self._whole.start)
        fill = 0 if self._reader.fill == "refuse" else self._reader.fill
        values = np.full((len(self._spec.channels), *roi.shape), fill, self._spec.dtype)
        meets = ((self._starts < box.stop) & (self._stops > box.start)).all(axis=1)
        for number in np.flatnonzero(meets).tolist():
            chunk = self._chunks[number]
            part = chunk.roi.clip(box)
            start = chunk.roi.start
            inside = part.moved((-start[0], -start[1], -start[2]))
            with self._reading:
                values[(slice(None), *part.within(box))] = self._file(number).read(inside)
        return values

    def close(self) -> None:
        with self._reading:
            while self._open:
                self._open.popitem()[1].close()

    def _file(self, number: int) -> OpenChunk:
        """The open file of a chunk; the one that was not read for longest is closed for it."""
        if number not in self._open:
            self._open[number] = self._reader.opened(self._chunks[number])
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]


def _chunks(path: str) -> list[NamedChunk]:
    folder, pattern = local(path), "*"
    if any(sign in folder.name for sign in "*?["):
        folder, pattern = folder.parent, folder.name
    if not folder.exists():
        raise missing(folder)
    if folder.is_file():
        hint = f'their folder, or a pattern: "{folder.parent.name}/*{folder.suffix}"'
        raise DataError(f"{folder.name!r} is one file, not a volume of chunks", where=path, hint=hint)
    held = [
        file
        for file in sorted(folder.glob(pattern))
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    if not held and pattern != "*":
        hint = f'a pattern that fits: "{folder.name}/*.h5" is all of them'
        raise DataError(f"no HDF5 file in {folder.name!r} is called {pattern!r}", where=path, hint=hint)
    found = [(file, chunk_of(file)) for file in held]
    chunks = [chunk for _, chunk in found if chunk]
    if not chunks or (pattern != "*" and len(chunks) < len(found)):
        other = next((file.name for file, chunk in found if not chunk), None)
        said = f"{other!r} does not name its voxels" if other else f"{folder.name!r} holds no chunks"
        hint = (
            'names hold them as 0-125-0-512-0-512 (z, y, x); files that are a volume each need "{stem}" in the output'
        )
        raise DataError(said, where=path, hint=hint)
    return sorted(chunks, key=lambda chunk: (chunk.roi.start, chunk.name))


def _complete(dataset: Any) -> bool:
    """Whether all blocks of a dataset were written: zeros would stand for what was not."""
    if dataset.chunks is None:
        layout, stored = dataset.id.get_create_plist().get_layout(), dataset.id.get_storage_size()
        return bool(stored or dataset.external or layout != h5py.h5d.CONTIGUOUS)
    blocks: int = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    written: int = dataset.id.get_num_chunks()
    return written == blocks


def _half(chunk: NamedChunk) -> DataError:
    return DataError(f"{chunk.name!r} is half written", where=str(chunk.file), hint=_AGAIN)


def _said(spec: VolumeSpec) -> str:
    return f"{len(spec.channels)} channel{'s' * (len(spec.channels) > 1)} of {spec.dtype}"


@cache
def _say_start(name: str, start: tuple[int, int, int]) -> None:
    """Say it once, however often the volume is opened."""
    logger.warning("the chunks of %r begin at voxel %s, and so does the volume", name, start)
