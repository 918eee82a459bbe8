"""Instances from masks, and what is done to whole instances: all exact, whatever the blocks."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore import (
    LINK,
    ArraySpec,
    Block,
    ConfigError,
    Kind,
    Need,
    StitchedPostProcessor,
    VoxelSize,
    WiringError,
    unite,
)
from mitocore.geometry import SizeOption, size_in_voxels
from mitocore_rsunet.objects import Connectivity, compact, components, contacts, numbered

_INSTANCES = {"instances": ArraySpec(Kind.INSTANCE)}
_MOST = int(np.iinfo("u8").max)


def _voxels(size: int | str | None) -> int:
    """Voxels of an option that `in_voxels` has turned into voxels; None is no limit."""
    return _MOST if size is None else size_in_voxels(size, None)


class ConnectedComponents(StitchedPostProcessor):
    """Objects of a mask, or of a probability above a threshold: voxels joined by a path are one object.

    Labelled per block, joined across blocks exactly. Ids follow the raster order of first voxels.
    """

    late: ClassVar[tuple[str, ...]] = ("min_size",)

    threshold: Annotated[float, Field(ge=0, lt=1)] | None = None
    """A voxel is foreground if its probability is above this; 0.5 unless stated. Not for a mask."""
    connectivity: Connectivity = 26
    """Voxels touch across faces (6), edges too (18), or corners too (26)."""
    min_size: SizeOption = 0
    """Smaller objects become background: voxels, or "0.002 um3". Counted over whole objects, not per block."""

    def needs(self) -> Mapping[str, Need]:
        return {"mask": Need((Kind.MASK, Kind.PROBABILITY), channels=1)}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        if self.threshold is not None and given["mask"].kind == Kind.MASK:
            problem = f"threshold = {self.threshold:g} does not apply to a mask"
            raise WiringError(problem, hint="leave threshold out, or wire a probability to the input 'mask'")
        return _INSTANCES

    def in_voxels(self, voxel_size: VoxelSize | None) -> Self:
        return self.model_copy(update={"min_size": size_in_voxels(self.min_size, voxel_size)})

    def neighbourhood(self) -> Connectivity:
        return self.connectivity

    def label(self, block: Block) -> tuple[NDArray[np.uint32], None]:
        mask = block["mask"][0]
        if mask.dtype != np.bool_:
            mask = mask > (0.5 if self.threshold is None else self.threshold)
        return components(mask, self.connectivity), None

    def keep(self, objects: NDArray[Any]) -> NDArray[np.bool_]:
        large: NDArray[np.bool_] = objects["size"] >= _voxels(self.min_size)
        return large


class SizeFilter(StitchedPostProcessor):
    """Removes instances by the size of the whole instance, or gives small ones to the neighbour they touch most.

    An id is one instance, connected or not. What remains is numbered in raster order of first voxels.
    """

    late: ClassVar[tuple[str, ...]] = ("min_size", "max_size")
    link_over: ClassVar[Literal["faces", "blocks"]] = "blocks"

    min_size: SizeOption = 0
    """Smaller instances are removed: voxels, or "0.002 um3"."""
    max_size: SizeOption | None = None
    """Larger instances become background: voxels, or "5 um3"."""
    remove_small_mode: Literal["background", "neighbor"] = "background"
    """Small instances become "background"; or part of the "neighbor" that is not removed itself and that they touch
    with most pairs of voxels (across faces, edges or corners; smallest id of equals), background if there is none."""

    def needs(self) -> Mapping[str, Need]:
        return {"instances": Need((Kind.INSTANCE,), channels=1)}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        del given
        return _INSTANCES

    def in_voxels(self, voxel_size: VoxelSize | None) -> Self:
        low = size_in_voxels(self.min_size, voxel_size)
        high = self.max_size if self.max_size is None else size_in_voxels(self.max_size, voxel_size)
        if high is not None and low > high:
            raise ConfigError(
                f"min_size = {self.min_size!r} is more than max_size = {self.max_size!r}, so nothing would be left",
                hint=f"a min_size of at most {high} voxels",
            )
        return self.model_copy(update={"min_size": low, "max_size": high})

    def columns(self) -> list[tuple[str, str]]:
        return [("original", "u8")]

    def label(self, block: Block) -> tuple[NDArray[np.uint32], NDArray[Any]]:
        ids, originals = compact(block["instances"][0])
        columns = np.zeros(len(originals), self.columns())
        columns["original"] = originals
        return ids, columns

    def link(self, block: Block, ids: NDArray[np.uint64]) -> NDArray[Any]:
        if self.remove_small_mode == "background":
            return np.zeros(0, LINK)
        return contacts(ids, block.write.within(block.read), connectivity=26)

    def resolve(self, objects: NDArray[Any], links: NDArray[Any]) -> NDArray[np.uint64]:
        originals, instance = np.unique(objects["original"], return_inverse=True)
        size = np.zeros(len(originals), "u8")
        np.add.at(size, instance, objects["size"])
        small = size < _voxels(self.min_size)
        stays = ~small & (size <= _voxels(self.max_size))
        becomes = np.where(stays, np.arange(len(originals)), -1)
        a, b = (instance[links[end].astype("i8") - 1] for end in ("a", "b"))
        source, sink = np.concatenate([a, b]), np.concatenate([b, a])
        moves = small[source] & stays[sink]
        pairs, place = np.unique(source[moves] * len(originals) + sink[moves], return_inverse=True)
        weight = np.bincount(place, np.tile(links["weight"], 2)[moves], minlength=len(pairs))
        source, sink = np.divmod(pairs, max(len(originals), 1))
        order = np.lexsort((sink, -weight, source))  # originals are sorted: of equal weights, the smallest id is first
        source, best = np.unique(source[order], return_index=True)
        becomes[source] = sink[order][best]
        return numbered(objects["first"], becomes[instance])


class FillHoles(StitchedPostProcessor):
    """Fills every cavity that exactly one instance encloses.

    A cavity is a connected part of the background that reaches no face of the volume (an axis of one voxel has no
    faces, so that an image is filled like a volume). One that touches two instances stays open. What results is
    numbered in raster order of first voxels.
    """

    late: ClassVar[tuple[str, ...]] = ("max_size",)
    link_over: ClassVar[Literal["faces", "blocks"]] = "blocks"

    connectivity: Connectivity = 6
    """Background voxels touch across faces (6), edges too (18), or corners too (26): fewer cavities."""
    max_size: SizeOption | None = None
    """Larger cavities stay open: voxels, or "0.001 um3"."""

    def needs(self) -> Mapping[str, Need]:
        return {"instances": Need((Kind.INSTANCE,), channels=1)}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        del given
        return _INSTANCES

    def in_voxels(self, voxel_size: VoxelSize | None) -> Self:
        high = self.max_size if self.max_size is None else size_in_voxels(self.max_size, voxel_size)
        return self.model_copy(update={"max_size": high})

    def columns(self) -> list[tuple[str, str]]:
        return [("original", "u8"), ("on_face", "u8")]  # 0 for background; voxels at the faces of the volume

    def label(self, block: Block) -> tuple[NDArray[np.uint32], NDArray[Any]]:
        instances = block["instances"][0]
        ids = components(instances == 0, self.connectivity)
        count = int(ids.max())
        numbers, originals = compact(instances)
        inside = numbers > 0
        ids[inside] = numbers[inside] + np.uint32(count)
        columns = np.zeros(count + len(originals), self.columns())
        columns["original"][count:] = originals
        for axis, edge in ((axis, edge) for axis in range(3) for edge in ("start", "stop")):
            at_face = getattr(block.write, edge)[axis] == getattr(block.volume, edge)[axis]
            if at_face and block.volume.shape[axis] > 1:
                face = ids.take(0 if edge == "start" else -1, axis)
                columns["on_face"] += np.bincount(face.ravel(), minlength=len(columns) + 1)[1:].astype("u8")
        return ids, columns

    def link(self, block: Block, ids: NDArray[np.uint64]) -> NDArray[Any]:
        return contacts(ids, block.write.within(block.read), self.connectivity)

    def resolve(self, objects: NDArray[Any], links: NDArray[Any]) -> NDArray[np.uint64]:
        empty = objects["original"] == 0
        a, b = (links[end].astype("i8") - 1 for end in ("a", "b"))
        parts = objects[["first", "size", "on_face"]]
        closed = unite(parts, links[empty[a] & empty[b]], self._closed)[1:].astype("i8")
        across = empty[a] != empty[b]
        cavity = closed[np.where(empty[a], a, b)[across]]
        instance = np.unique(objects["original"], return_inverse=True)[1]
        around = instance[np.where(empty[a], b, a)[across]]
        lowest = np.full(closed.max(initial=0) + 1, len(objects))
        highest = np.full(len(lowest), -1)
        np.minimum.at(lowest, cavity, around)
        np.maximum.at(highest, cavity, around)
        encloses = np.where(lowest == highest, lowest, -1)
        encloses[0] = -1
        return numbered(objects["first"], np.where(empty, encloses[closed], instance))

    def _closed(self, objects: NDArray[Any]) -> NDArray[np.bool_]:
        closed: NDArray[np.bool_] = (objects["on_face"] == 0) & (objects["size"] <= _voxels(self.max_size))
        return closed
