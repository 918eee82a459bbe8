"""What opens the volumes of one file format."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from mitocore.component import Component, PathOption
from mitocore.errors import DataError
from mitocore.geometry import VoxelSizeOption
from mitocore.interfaces.volume import Volume


class Reader(Component):
    """Opens volumes of one file format."""

    kind: ClassVar[str] = "reader"

    path: PathOption
    """File, folder or address."""
    voxel_size: VoxelSizeOption | None = None
    """Overrides what the file says; (z, y, x)."""

    @abstractmethod
    def open(self) -> Volume:
        """Open and read the header only.

        Raises
        ------
        DataError
            If the path does not exist, is not of this format, or the key inside it is missing.
        """

    def files(self) -> Sequence[Path]:
        """The files, and the folders with all that is in them, whose content is the volume; none if options decide.

        By default what `path` names. A reader of part of a folder, or of something that is no file, overrides this.
        """
        return [Path(self.path)]

    def fingerprint(self) -> str:
        """Stands for the content without its path: sizes and times of `files`; any rewritten voxel changes it.

        Where that cannot tell one content from another, as of an address, a reader overrides this method.

        Raises
        ------
        DataError
            If one of the files is not there.
        """
        paths = self.files()
        digest = hashlib.sha256()
        for path in paths:
            name = path.name if len(paths) > 1 else ""
            try:
                for inside, size, time in _inventory(path, name):
                    digest.update(f"{inside}\0{size}\0{time}\n".encode(errors="surrogateescape"))
            except OSError as error:
                problem = f"'{error.filename or path}' cannot be looked at: {error.strerror}"
                raise DataError(problem, hint="check the path") from error
        return digest.hexdigest()


def _inventory(
    path: Path, name: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, int, int]]:
    """Name below the start, bytes and time (ns) of a file, or of all files in a folder, in the order of their names."""
    found = path.stat()
    if not path.is_dir():
        yield name, found.st_size, found.st_mtime_ns
        return
    here = (found.st_dev, found.st_ino)
    if here in above:  # a link to a folder that it lies in
        return
    for child in sorted(path.iterdir()):
        yield from _inventory(child, f"{name}/{child.name}", above | {here})
