"""Reader of zarr: plain arrays, groups, OME-NGFF multiscales, and the layout of Catena."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from mitocore import DataError, Reader, Volume, VoxelSizeOption
from mitocore_io import attributes
from mitocore_io.attributes import Record
from mitocore_io.axes import Axes
from mitocore_io.ngff import Level
from mitocore_io.remote import Remote, address
from mitocore_io.stored_array import StoredArray
from mitocore_io.zarr_nodes import Node, attributes_of, format_of, multiscale_at, node_of, open_array


class ZarrReader(Reader):
    """An array of a zarr store, v2 or v3, chunk by chunk.

    Without `key`: the multiscale at the root, else the only array of the store, else `volumes/raw`. Voxel size and
    origin come from the OME-NGFF metadata (with their units) of the array's group, else from the array's attributes
    `resolution` and `offset` (nm, z y x). `path` may be an address: https://, s3://, gs:// and what else fsspec knows.
    """

    key: str = ""
    """Path of the array, or of the group of a multiscale, inside the store."""
    level: Annotated[int, Field(ge=0, strict=True)] | VoxelSizeOption = 0
    """Level of a multiscale: its number, 0 the finest; or a voxel size such as "16 nm" for the coarsest level whose
    shortest voxel edge is no longer."""
    axes: str | None = None
    """Names of the array's axes, such as "zcyx", where they are not the usual ones and the store does not say."""
    anonymous: bool = False
    """Read an address of s3:// or gs:// without credentials, as public buckets allow."""

    def open(self) -> Volume:
        node, level, names = self._array()
        where = str(node)
        array = open_array(node, "r")
        axes = Axes.of(array.shape, self.axes or names, where)
        noted = noted_at(node, level)
        spec = attributes.volume_spec(axes, np.dtype(array.dtype), array.chunks, noted, self.voxel_size, where)
        return StoredArray(array, axes, spec, where)

    def files(self) -> Sequence[Path]:
        node, _, _ = self._array()
        return [node] if isinstance(node, Path) else []  # not what stands beside it in its store: results of a run

    def fingerprint(self) -> str:
        node, _, _ = self._array()
        return node.fingerprint() if isinstance(node, Remote) else super().fingerprint()

    def _array(self) -> tuple[Node, Level | None, str | None]:
        """The folder of the array, the level of a multiscale that it is, and the names of its axes."""
        root = address(self.path, anonymous=self.anonymous) if "://" in self.path else Path(self.path)
        node = node_of(root, self.key)
        found = multiscale_at(node)
        if found:
            level = found.level(self.level, str(node))
            return node / level.path, level, found.axes
        if self.level:
            problem = f"level {self.level} of one array, which has no levels"
            raise DataError(problem, where=str(node), hint="leave level out")
        return node, *_level_above(node)


def noted_at(node: Node, level: Level | None) -> Record:
    """What is noted of an array; OME-NGFF metadata go before its own attributes."""
    noted = attributes.record(attributes_of(node))
    if level and level.voxel_size:
        return replace(noted, voxel_size=level.voxel_size, origin=level.origin)
    return noted


def _level_above(node: Node) -> tuple[Level | None, str | None]:
    """The level of the multiscale, in a group above, that an array named by its own key is."""
    for group in node.parents:
        if format_of(group) is None:
            break
        found = multiscale_at(group)
        inside = _address(node).removeprefix(_address(group)).strip("/")
        for level in found.levels if found else ():
            if level.path.strip("/") == inside:
                return level, found.axes if found else None
    return None, None


def _address(node: Node) -> str:
    return node.as_posix() if isinstance(node, Path) else str(node)
