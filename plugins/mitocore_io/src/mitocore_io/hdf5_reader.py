"""Reader of datasets in HDF5 files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mitocore import DataError, Reader, Volume
from mitocore_io import attributes
from mitocore_io.axes import Axes
from mitocore_io.stored_array import StoredArray
from mitocore_io.targets import hint_of_keys, local, missing


class Hdf5Reader(Reader):
    """A dataset of an HDF5 file, chunk by chunk.

    Voxel size from the attributes `resolution` (nm), `voxel_size` and `units`, or `element_size_um` (ilastik, Fiji),
    all (z, y, x); origin from `offset` (nm).
    """

    key: str = ""
    """Path of the dataset inside the file; may be left out where there is only one."""
    axes: str | None = None
    """Names of the dataset's axes, such as "zyxc", where they are not the usual ones and the file does not say."""

    def open(self) -> Volume:
        file = open_file(local(self.path), "r")
        try:
            dataset = dataset_of(file, self.key, self.path)
            axes = Axes.of(dataset.shape, self.axes or axes_noted(dataset), f"{self.path}::{dataset.name[1:]}")
            noted = attributes.record(dict(dataset.attrs))
            return Hdf5Volume(file, dataset, axes, noted, self)
        except DataError:
            file.close()
            raise

    def files(self) -> Sequence[Path]:
        with open_file(local(self.path), "r") as file:
            return [Path(self.path), *_linked(dataset_of(file, self.key, self.path), Path(self.path))]


class Hdf5Volume(StoredArray):
    """A dataset open for reading; h5py lets one thread at a time into the HDF5 library."""

    def __init__(self, file: Any, dataset: Any, axes: Axes, noted: attributes.Record, reader: Hdf5Reader) -> None:
        where = f"{reader.path}::{dataset.name[1:]}"
        spec = attributes.volume_spec(axes, dataset.dtype, dataset.chunks, noted, reader.voxel_size, where)
        super().__init__(dataset, axes, spec, where)
        self._file = file

    def close(self) -> None:
        self._file.close()


def open_file(path: Path, mode: str) -> Any:
    """Open an HDF5 file.

    Raises
    ------
    DataError
        If there is none, it is cut short or in use, or it is of another format.
    """
    if not path.exists():
        raise missing(path)
    kept = {"rdcc_nbytes": 0} if mode == "r+" else {}  # chunks that a full disk does not take would crash HDF5 at exit
    try:
        return h5py.File(path, mode, **kept)
    except OSError as error:
        if "truncated" in str(error):
            problem, hint = f"{path.name!r} is cut short", "copy the file again"
        elif "lock" in str(error) or "already open" in str(error):
            problem, hint = f"{path.name!r} is in use by another program or step", "close it there, or use another file"
        else:
            problem, hint = f"{path.name!r} is not an HDF5 file, or is damaged", ""
        raise DataError(problem, where=str(path), hint=hint) from error


def dataset_of(file: Any, key: str, path: str) -> Any:
    """The dataset of that key; without key, the only one there is.

    Raises
    ------
    DataError
        If it is not there, or several are and none is named; the keys are listed.
    """
    try:
        found = file.get(key) if key else None
    except (KeyError, OSError, RuntimeError) as error:  # a link into a file that is not there
        raise DataError(f"{key!r} cannot be opened: {error}", where=path) from error
    if isinstance(found, h5py.Dataset):
        return found
    keys = keys_of(file)
    if not key and len(keys) == 1:
        return file[keys[0]]
    name = Path(path).name
    problem = f"{name!r} has no dataset {key!r}" if key else f"{name!r} holds {len(keys)} arrays"
    raise DataError(problem, where=path, hint=hint_of_keys(key, keys))


def _linked(dataset: Any, path: Path) -> list[Path]:
    """Other files that hold voxels of a dataset: of a link, of a virtual or of an external dataset."""
    own = Path(dataset.file.filename)
    names = {own.name, *(name for name, *_ in dataset.external or ())}
    if dataset.is_virtual:
        names |= {source.file_name for source in dataset.virtual_sources()}
    others = {own.parent / name for name in names}
    return sorted(other for other in others if other.is_file() and not other.samefile(path))


def keys_of(file: Any) -> list[str]:
    """Keys of the datasets that may be volumes."""
    keys: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and len(item.shape or ()) >= 2 and item.dtype.kind in "biuf":
            keys.append(name)

    file.visititems(visit)
    return keys


def axes_noted(dataset: Any) -> str | None:
    """Names of the axes as ilastik notes them in `axistags`; None where there are none."""
    try:
        names = "".join(str(axis["key"]) for axis in json.loads(dataset.attrs["axistags"])["axes"])
    except (KeyError, TypeError, ValueError):
        return None
    return names if len(names) == len(dataset.shape) and np.isin(list(names), list("tczyx")).all() else None
