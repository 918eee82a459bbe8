"""A file that has its full length from the start, is written in place, and may be packed when it is finished."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mitocore import DataError, Roi, VolumeSpec, WritableVolume, Writer
from mitocore.interfaces import Progress
from mitocore_io import targets
from mitocore_io.axes import Axes


class Flat(Protocol):
    """An open file whose voxels can be overwritten, unless they are packed; `own`: it says that we wrote it."""

    @property
    def spec(self) -> VolumeSpec: ...
    @property
    def packed(self) -> bool: ...
    @property
    def own(self) -> bool: ...
    def read(self, roi: Roi) -> NDArray[Any]: ...
    def write(self, roi: Roi, values: NDArray[Any]) -> None: ...
    def close(self) -> None: ...


class FlatWriter(Writer):
    """What writers of such files share: `<name>.part` until it is finished, one file per array."""

    @property
    @abstractmethod
    def format(self) -> str:
        """Name of the format, for messages."""

    @abstractmethod
    def opened(self, path: Path) -> Flat:
        """Open a file of this format."""

    @abstractmethod
    def lay_out(self, path: Path, spec: VolumeSpec) -> None:
        """Create a file of zeros that is not packed."""

    def pack(self, plain: Path, target: Path, progress: Progress) -> bool:
        """Write a finished file to `target` in packed form; false if it is to stay as it is."""
        return False

    def create(self, name: str, spec: VolumeSpec, *, resume: bool = False) -> WritableVolume:
        target = targets.named(self.path, name)
        part = targets.part_of(target)
        targets.check_dtype(spec, self.dtypes, self.format, str(target))
        if not resume:
            targets.refuse_taken(target, self.path)
        if target.exists():
            with self.open(name) as finished:
                targets.check_same(finished, spec, str(target))
            targets.unfinish(target)
        elif not self._is_laid_out(part):
            self._make(part, spec)
        volume = self.open(name)
        targets.check_same(volume, spec, str(target))
        return volume

    def open(self, name: str) -> WritableVolume:
        target = targets.named(self.path, name)
        part = targets.part_of(target)
        return WritableFlat(self, target if target.exists() or not part.exists() else part, target)

    def unpacked(self, flat: Flat, path: Path) -> None:
        """Lay out a file that can be written into, with the voxels of a packed one, in its place."""
        spec, beside = flat.spec, path.with_name(path.name + ".tmp")
        self._make(beside, spec)
        copy = self.opened(beside)
        with targets.writing(str(beside)):
            for roi in planes(spec):
                copy.write(roi, flat.read(roi))
        copy.close()
        flat.close()
        beside.replace(path)

    def _is_laid_out(self, part: Path) -> bool:
        """Whether a killed run got as far as writing voxels."""
        try:
            self.opened(part).close()
        except DataError:
            return False
        return True

    def _make(self, path: Path, spec: VolumeSpec) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.lay_out(path, spec)
        except (OSError, ValueError) as error:
            raise targets.unwritable(error, "the file cannot be created", str(path)) from error


class WritableFlat(WritableVolume):
    """A file that a writer has laid out."""

    def __init__(self, writer: FlatWriter, path: Path, target: Path) -> None:
        self._writer, self._path, self._target = writer, path, target
        self._flat = writer.opened(path)

    @property
    def spec(self) -> VolumeSpec:
        return self._flat.spec

    def read(self, roi: Roi) -> NDArray[Any]:
        return self._flat.read(roi)

    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        if self._flat.packed:
            self._unpack()
        with targets.writing(str(self._path)):
            self._flat.write(roi, values)

    def finish(self, progress: Progress = lambda _done, _total: None) -> None:
        if self._path == self._target:
            return
        beside = self._path.with_name(self._path.name + ".tmp")
        with targets.writing(str(beside)):
            packed = not self._flat.packed and self._writer.pack(self._path, beside, progress)
        self._flat.close()  # Windows renames no open file
        if packed:
            beside.replace(self._path)
        self._path.replace(self._target)
        self._path = self._target
        self._flat = self._writer.opened(self._path)

    def close(self) -> None:
        self._flat.close()

    def _unpack(self) -> None:
        if not self._flat.own:
            problem = f"{self._path.name!r} is compressed, or its pages are scattered: it cannot be written into"
            raise DataError(problem, where=str(self._path), hint="write to a file of its own")
        if self._path == self._target:  # what is written into is not whole
            self._flat.close()
            targets.unfinish(self._target)
            self._path = targets.part_of(self._target)
            self._flat = self._writer.opened(self._path)
        self._writer.unpacked(self._flat, self._path)
        self._flat = self._writer.opened(self._path)


def planes(spec: VolumeSpec) -> list[Roi]:
    """The planes of a volume, in ascending z."""
    depth, height, width = spec.shape
    return [Roi((z, 0, 0), (z + 1, height, width)) for z in range(depth)]


def overwrite(path: Path, dtype: np.dtype[Any], offset: int, axes: Axes, roi: Roi, values: NDArray[Any]) -> None:
    """Overwrite voxels that lie in one piece from `offset` bytes on, planes (y, x) innermost."""
    stored = axes.lay_out(values).astype(dtype, copy=False)
    height, width = axes.shape[-2:]
    (_, top, left), (_, bottom, right) = roi.start, roi.stop
    numbers = axes.planes(roi)
    cut = stored.reshape(*numbers.shape, bottom - top, right - left)
    whole_rows = right - left == width
    with path.open("r+b") as file:  # not through a map: a full disk is then an error, not a signal
        for place, number in np.ndenumerate(numbers):
            for first in (top,) if whole_rows else range(top, bottom):
                file.seek(offset + ((int(number) * height + first) * width + left) * stored.itemsize)
                file.write(cut[place][first - top : None if whole_rows else first - top + 1].tobytes())
