"""Files of scratch: whatever was written is there, so that what is gone cannot pass for background."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.durable import ANEW, read_npy, replaced, sync_folder, write_npy
from mitocore.errors import RunError
from mitocore.geometry import Roi


@dataclass(frozen=True, slots=True)
class ScratchFiles:
    """A folder with one `.npy` file per block of the pass that writes it.

    The file of a block that holds only 0 is empty: it costs an entry of the folder, but no space, and no wait for the
    disk. No other file can be empty, as files with values are on the disk before they have their name. Ids are stored
    in the fewest bytes that hold those of the block.
    """

    folder: Path

    def write(self, block: int, roi: Roi, values: NDArray[Any]) -> None:
        """Store a whole block; a reader sees all of it or none."""
        del roi
        if not values.any():
            self.blank(block)
            return
        if values.dtype.kind == "u":
            values = values.astype(np.min_scalar_type(values.max()), copy=False)
        # a driver that was replaced may be writing it still
        write_npy(self.path(block), values, sync=False, shared=True)

    def blank(self, block: int) -> None:
        """Store a block that holds only 0."""
        with replaced(self.path(block), sync=False, shared=True):
            pass

    def sync(self) -> None:
        """Make the renames durable."""
        sync_folder(self.folder)

    def stored(self, block: int, *, mapped: bool = False) -> NDArray[Any] | None:
        """A whole block, in the dtype of its file; None: it holds only 0.

        Raises
        ------
        RunError
            If its file is missing or damaged.
        """
        path = self.path(block)
        try:
            blank = path.stat().st_size == 0
        except FileNotFoundError as error:
            problem = f"block {block} of scratch {self.folder.name!r} is missing"
            raise RunError(problem, where=str(self.folder), hint=ANEW) from error
        return None if blank else read_npy(path, mapped=mapped)

    def path(self, block: int) -> Path:
        """The file of a block."""
        return self.folder / f"{block}.npy"
