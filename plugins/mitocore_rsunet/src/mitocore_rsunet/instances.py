"""Instances from masks, and what is done to whole instances: all exact, whatever the blocks."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mitocore import (
    LINK,
    ArraySpec,
    Block,
    ConfigError,
    Kind,
    Need,
    StitchedPostProcessor,
    VoxelSize,
    unite,
)
from mitocore.geometry import SizeOption, size_in_voxels
from mitocore_rsunet.masks import above, check_threshold
from mitocore_rsunet.objects import Connectivity, compact, components, contacts, numbered
from mitocore_rsunet.peers import SMALL, translated
from mitocore_rsunet.small import MinSize, heirs

_INSTANCES = {"instances": ArraySpec(Kind.INSTANCE)}
_MOST = int(np.iinfo("u8").max)


def _voxels(size: int | str | None) -> int:
    """Voxels of an option that `in_voxels` has turned into voxels; None is no limit."""
    return _MOST if size is None else size_in_voxels(size, None)


class ConnectedComponents(MinSize, StitchedPostProcessor):
    """Objects of a mask, or of a probability above a threshold: voxels joined by a path are one object.

    Labelled per block, joined across blocks exactly. Ids follow the raster order of first voxels.
    """

    threshold: Annotated[float, Field(ge=0, lt=1)] | None = None
    """A voxel is foreground if its probability is above this; 0.5 unless stated. Not for a mask."""
    connectivity: Connectivity = 26
    """Voxels touch across faces (6), edges too (18), or corners too (26)."""

    @model_validator(mode="before")
    @classmethod
    def _in_our_words(cls, options: Any) -> Any:
        if isinstance(options, Mapping) and (mode := options.get("remove_small_mode")) is not None:
            if mode not in ("none", "background"):
                raise ValueError(
                    f'remove_small_mode = "{mode}" is of the step "size_filter": state it there, with min_size, '
                    "after this one"
                )
            sizes = () if mode == "background" else ("min_size", "thres_small")
            options = {name: value for name, value in options.items() if name not in ("remove_small_mode", *sizes)}
        return translated(options, {**SMALL, "thres": "threshold"})

    def needs(self) -> Mapping[str, Need]:
        return {"mask": Need((Kind.MASK, Kind.PROBABILITY), channels=1)}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        check_threshold(self.threshold, given["mask"])
        return _INSTANCES

    def neighbourhood(self) -> Connectivity:
        return self.connectivity

    def label(self, block: Block) -> tuple[NDArray[np.uint32], None]:
        mask = above(block["mask"][0], 0.5 if self.threshold is None else self.threshold)
        return components(mask, self.connectivity), None


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
    remove_small_mode: Literal["background", "neighbor", "background_2d", "neighbor_2d"] = "background"
    """Small instances become "background"; or part of the "neighbor" that is not removed itself and that they touch
    with most pairs of voxels (across faces, edges or corners; smallest id of equals), background if there is none. With
    "background_2d" and "neighbor_2d", each slice of an instance is measured by `min_size`, and removed, on its own."""

    @property
    def _per_slice(self) -> bool:
        return self.remove_small_mode.endswith("_2d")

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
        return [("original", "u8"), ("slice", "u8")]  # the slice is 0 of whole instances

    def label(self, block: Block) -> tuple[NDArray[np.uint32], NDArray[Any]]:
        ids, originals = compact(block["instances"][0])
        slices = np.zeros(len(originals), "u8")
        if self._per_slice:
            count = np.uint64(len(originals) + 1)
            depth = np.arange(block.write.shape[0], dtype="u8")[:, None, None]
            ids, pieces = compact(np.where(ids, ids + depth * count, np.uint64(0)))
            originals, slices = originals[(pieces % count).astype("i8") - 1], pieces // count + block.write.start[0]
        columns = np.zeros(len(originals), self.columns())
        columns["original"], columns["slice"] = originals, slices
        return ids, columns

    def link(self, block: Block, ids: NDArray[np.uint64]) -> NDArray[Any]:
        if not self.remove_small_mode.startswith("neighbor"):
            return np.zeros(0, LINK)
        return contacts(ids, block.write.within(block.read), connectivity=26, in_plane=self._per_slice)

    def resolve(self, objects: NDArray[Any], links: NDArray[Any]) -> NDArray[np.uint64]:
        originals, instance = np.unique(objects["original"], return_inverse=True)
        count = max(len(originals), 1)
        pieces, piece = np.unique(objects["slice"].astype("i8") * count + instance, return_inverse=True)
        owner = pieces % count  # of the pieces of a slice, those of the smallest original are first
        size, whole = (np.bincount(of, objects["size"].astype("f8")).astype("u8") for of in (piece, instance))
        small = size < _voxels(self.min_size)
        stays = ~small & (whole[owner] <= _voxels(self.max_size))
        joined = links.copy()
        for end in ("a", "b"):
            joined[end] = piece[links[end].astype("i8") - 1] + 1
        becomes = heirs(small, stays, joined)
        becomes[becomes >= 0] = owner[becomes[becomes >= 0]]
        return numbered(objects["first"], becomes[piece])


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
