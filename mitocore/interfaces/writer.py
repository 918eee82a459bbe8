"""What creates the volumes of one file format."""

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from mitocore.component import Component, PathOption
from mitocore.interfaces.volume import WritableVolume
from mitocore.specs import VolumeSpec


class Writer(Component):
    """Creates volumes of one file format."""

    kind: ClassVar[str] = "writer"
    order: ClassVar[Literal["any", "planes"]] = "any"
    """In which order boxes may arrive: any, or whole planes in ascending z."""
    sharing: ClassVar[Literal["processes", "threads", "one"]] = "one"
    """Who may write at the same time: zarr processes, MRC memory map threads, HDF5 one."""
    holds: ClassVar[Literal["one", "many"]] = "many"
    """How many arrays one path holds; "one": several need `{name}` in the path."""
    lossy: ClassVar[bool] = False
    """Whether values change on the way, as in JPEG; masks, classes and ids are then refused (WiringError)."""
    dtypes: ClassVar[tuple[str, ...]] = (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64"),
    )
    """What can be stored. Instance ids are written as uint32, as uint64 if there are more, as less only where these two
    are missing and the ids fit; other values are widened to the next of these that holds them."""

    path: PathOption
    """File, folder or address."""

    def check(self, name: str) -> None:
        """Refuse a place at which `create` could not make the array `name`; asked before anything is computed.

        By default, what stands at `path` and is not of this format, if a path holds one array. A writer whose paths
        hold many overrides this.

        Raises
        ------
        DataError
            If something else stands there.
        """
        if self.holds == "one" and Path(self.path.replace("{name}", name)).exists():
            self.open(name).close()

    @abstractmethod
    def create(self, name: str, spec: VolumeSpec, *, resume: bool = False) -> WritableVolume:
        """Create the array `name`, filled with zeros; with `resume`, open it as a killed run left it.

        One that is finished then counts as unfinished again, so that a kill leaves no mixture that passes as whole.

        Raises
        ------
        DataError
            If it exists and `resume` is false, or if the format cannot hold `spec`.
        """

    @abstractmethod
    def open(self, name: str) -> WritableVolume:
        """Open the existing array `name` for reading and writing; what a worker process does."""

    def stamp(self, name: str) -> str:
        """What changes whenever the array `name` is written anew; "" if it is not there, or not finished.

        By it a run knows whether an output is still the one it wrote. By default size and time of change of the file
        at `path`, or of each entry of the folder. A writer whose array has its final name before it is finished, or
        whose paths hold many, overrides this; a random token in the metadata, new with each `finish`, is best: it
        goes along when the file is copied.
        """
        path = Path(self.path.replace("{name}", name))
        try:
            entries = sorted(path.iterdir()) if path.is_dir() else [path]
            states = [(entry.name, entry.stat()) for entry in entries]
        except OSError:
            return ""
        text = repr([(entry, state.st_size, state.st_mtime_ns) for entry, state in states])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
