"""Writer of datasets in one HDF5 file."""

import json
import logging
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
from numpy.typing import NDArray
from pydantic import PositiveInt

from mitocore import DataError, Roi, VolumeSpec, WritableVolume, Writer
from mitocore.interfaces import Progress
from mitocore_io import attributes, targets
from mitocore_io.axes import Axes
from mitocore_io.hdf5_reader import axes_noted, keys_of, open_file
from mitocore_io.stored_array import StoredArray

logger = logging.getLogger(__name__)


class Hdf5Writer(Writer):
    """Datasets of one HDF5 file, chunked.

    While any of them is not finished, the file is called `<name>.part`; this holds as well for a file that is there
    already and to which a dataset is added. What carries the final name is whole.
    """

    order: ClassVar[Literal["any", "planes"]] = "any"
    sharing: ClassVar[Literal["processes", "threads", "one"]] = "one"

    key: str = "{name}"
    """Path of the dataset inside the file; `{name}` is the name of the array that is saved."""
    compression: Literal["gzip", "lzf", "none"] = "gzip"
    """Filter of the chunks; every program that reads HDF5 knows gzip."""
    chunks: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 128)
    """Voxels of one chunk along (z, y, x)."""

    def create(self, name: str, spec: VolumeSpec, *, resume: bool = False) -> WritableVolume:
        target, key = targets.named(self.path, name), self.key.replace("{name}", name).strip("/")
        part = targets.part_of(target)
        targets.check_dtype(spec, self.dtypes, "HDF5", str(target))
        if target.exists():
            _drop_abandoned(target)
        there = target if target.exists() else part
        held = there.exists() and _holds(there, key)
        if held and not resume:
            remedy = "" if "{name}" in self.key else '; or put "{name}" in key'
            hint = f"write to another file, resume the run that wrote it, or delete it{remedy}"
            raise DataError(f"{there.name!r} has {key!r} already", where=str(there), hint=hint)
        if held:
            with WritableHdf5(there, target, key) as found:
                targets.check_same(found, spec, f"{there}::{key}")
        if target.exists():
            targets.unfinish(target)
        if not held:
            self._create(part, key, spec)
        volume = WritableHdf5(part, target, key)
        volume.unfinish()
        return volume

    def check(self, name: str) -> None:
        target = targets.named(self.path, name)
        for there in (target, targets.part_of(target)):
            if there.exists() and not (there.is_file() and h5py.is_hdf5(there)):
                raise DataError(f"{there.name!r} exists and is no HDF5 file", where=str(there), hint="another path")

    def open(self, name: str) -> WritableVolume:
        target, key = targets.named(self.path, name), self.key.replace("{name}", name).strip("/")
        part = targets.part_of(target)
        there = part if part.exists() else target
        if not there.exists() or not _holds(there, key):
            raise DataError(f"{target.name!r} has no dataset {key!r}", where=str(there))
        return WritableHdf5(there, target, key)

    def stamp(self, name: str) -> str:
        target, key = targets.named(self.path, name), self.key.replace("{name}", name).strip("/")
        there = next((path for path in (targets.part_of(target), target) if path.exists()), None)
        if there is None:
            return ""
        with open_file(there, "r") as file:
            found = file.get(key)
            return attributes.record(dict(found.attrs)).stamp if isinstance(found, h5py.Dataset) else ""

    def _create(self, part: Path, key: str, spec: VolumeSpec) -> None:
        several = len(spec.channels) > 1
        chunk = tuple(min(c, n) for c, n in zip(self.chunks, spec.shape, strict=True))
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(part, "a") as file:
                dataset = file.create_dataset(
                    key,
                    shape=(len(spec.channels), *spec.shape) if several else spec.shape,
                    chunks=(1, *chunk) if several else chunk,
                    dtype=spec.dtype,
                    compression=None if self.compression == "none" else self.compression,
                    shuffle=self.compression != "none",
                )
                noted = attributes.attributes(spec, writing=True)
                dataset.attrs.update({**noted, "mitocore": json.dumps(noted["mitocore"])})
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise targets.unwritable(error, f"dataset {key!r} cannot be created", str(part)) from error


class WritableHdf5(StoredArray, WritableVolume):
    """A dataset open for writing."""

    def __init__(self, path: Path, target: Path, key: str) -> None:
        self._path, self._target, self._key = path, target, key
        self._file = open_file(path, "r+")
        where = f"{path}::{key}"
        dataset = self._file[key]
        axes = Axes.of(dataset.shape, axes_noted(dataset), where)
        noted = replace(attributes.record(dict(dataset.attrs)), writing=False)
        super().__init__(
            dataset, axes, attributes.volume_spec(axes, dataset.dtype, dataset.chunks, noted, None, where), where
        )

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        with targets.writing(str(self._path)):
            self._array[self._axes.index(roi)] = self._axes.lay_out(values)
            self._file.flush()

    def unfinish(self) -> None:
        """Note that the dataset is being written."""
        self._note(writing=True)

    def finish(self, progress: Progress = lambda _done, _total: None) -> None:
        self._note(writing=False)
        if not targets.part_of(self._target).exists():
            return
        waiting = [key for key in keys_of(self._file) if attributes.record(dict(self._file[key].attrs)).writing]
        if waiting:
            logger.info("%s keeps its name until %s is finished", self._path.name, ", ".join(waiting))
            return
        self.close()  # Windows renames no open file
        self._path.replace(self._target)
        self._path = self._target
        self._file = open_file(self._path, "r+")
        self._array = self._file[self._key]

    def close(self) -> None:
        with targets.writing(str(self._path)):
            self._file.close()

    def _note(self, *, writing: bool) -> None:
        noted = attributes.attributes(self._spec, writing=writing, stamp="" if writing else uuid.uuid4().hex)
        with targets.writing(str(self._path)):
            self._array.attrs["mitocore"] = json.dumps(noted["mitocore"])
            self._file.flush()


def _drop_abandoned(target: Path) -> None:
    """Remove what is unfinished in a file that has its final name: a copy into it that did not come to its end."""
    with open_file(target, "r+") as file:
        for key in keys_of(file):
            if attributes.record(dict(file[key].attrs)).writing:
                del file[key]


def _holds(path: Path, key: str) -> bool:
    with open_file(path, "r") as file:
        return isinstance(file.get(key), h5py.Dataset)
