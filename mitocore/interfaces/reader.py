"""What opens the volumes of one file format."""

from abc import abstractmethod
from typing import ClassVar

from mitocore.component import Component, PathOption
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
