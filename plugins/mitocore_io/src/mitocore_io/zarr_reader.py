"""Reader of zarr: plain arrays, groups, OME-NGFF multiscales, and the layout of Catena."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt

from mitocore import DataError, Reader, Volume
from mitocore_io import attributes
from mitocore_io.attributes import Record
from mitocore_io.axes import Axes
from mitocore_io.ngff import Level
from mitocore_io.stored_array import StoredArray
from mitocore_io.zarr_nodes import attributes_of, format_of, multiscale_at, node_of, open_array


class ZarrReader(Reader):
    """An array of a zarr store, v2 or v3, chunk by chunk.

    Without `key`: the multiscale at the root, else the only array of the store, else `volumes/raw`. Voxel size and
    origin come from the OME-NGFF metadata (with their units) of the array's group, else from the array's attributes
    `resolution` and `offset` (nm, z y x).
    """

    key: str = ""
    """Path of the array, or of the group of a multiscale, inside the store."""
    level: NonNegativeInt = 0
    """Level of a multiscale; 0 is the finest."""
    axes: str | None = None
    """Names of the array's axes, such as "zcyx", where they are not the usual ones and the store does not say."""

    def open(self) -> Volume:
        node, level, names = self._array()
        where = str(node)
        array = open_array(node, "r")
        axes = Axes.of(array.shape, self.axes or names, where)
        noted = noted_at(node, level)
        spec = attributes.volume_spec(axes, np.dtype(array.dtype), array.chunks, noted, self.voxel_size, where)
        return StoredArray(array, axes, spec, where)

    def files(self) -> Sequence[Path]:
        return [self._array()[0]]  # not what stands beside the array in its store, such as the results of a run

    def _array(self) -> tuple[Path, Level | None, str | None]:
        """The folder of the array, the level of a multiscale that it is, and the names of its axes."""
        node = node_of(Path(self.path), self.key)
        found = multiscale_at(node)
        if found:
            if self.level >= len(found.levels):
                problem = f"level {self.level} is not there: there are {len(found.levels)}, from 0"
                raise DataError(problem, where=str(node), hint=f"level = {len(found.levels) - 1}")
            level = found.levels[self.level]
            return node / level.path, level, found.axes
        if self.level:
            problem = f"level {self.level} of one array, which has no levels"
            raise DataError(problem, where=str(node), hint="level = 0")
        return node, *_level_above(node)


def noted_at(node: Path, level: Level | None) -> Record:
    """What is noted of an array; OME-NGFF metadata go before its own attributes."""
    noted = attributes.record(attributes_of(node))
    if level and level.voxel_size:
        return replace(noted, voxel_size=level.voxel_size, origin=level.origin)
    return noted


def _level_above(node: Path) -> tuple[Level | None, str | None]:
    """The level of the multiscale, in a group above, that an array named by its own key is."""
    for group in node.parents:
        if format_of(group) is None:
            break
        found = multiscale_at(group)
        inside = node.relative_to(group).as_posix()
        for level in found.levels if found else ():
            if level.path.strip("/") == inside:
                return level, found.axes if found else None
    return None, None
