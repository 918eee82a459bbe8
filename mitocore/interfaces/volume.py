"""Open arrays, read and written box by box."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

from numpy.typing import NDArray

from mitocore.geometry import Roi
from mitocore.specs import VolumeSpec

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class Volume(ABC):
    """An open array that can be read box by box.

    `read` must be safe to call from several threads. Workers in other processes open their own:
    an open volume is never pickled.
    """

    @property
    @abstractmethod
    def spec(self) -> VolumeSpec: ...

    @abstractmethod
    def read(self, roi: Roi) -> NDArray[Any]:
        """Voxels of `roi` as (c, z, y, x), in the dtype of `spec`. `roi` lies inside the volume."""

    def close(self) -> None:  # noqa: B027
        """Release what `open` took. Calling it twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class WritableVolume(Volume):
    """An open array that can also be written box by box."""

    @abstractmethod
    def write(self, roi: Roi, values: NDArray[Any]) -> None:
        """Store `values` (c, z, y, x) at `roi`, durably enough to survive the death of this process.
        Boxes written at the same time never share a chunk."""

    def finish(self, progress: Progress = lambda _done, _total: None) -> None:
        """Make the array final: header statistics, pyramid levels, rename of a `.part` file. Called once, by the
        driver, after the last write; calling it again after a crash is allowed. What takes long tells `progress`."""
