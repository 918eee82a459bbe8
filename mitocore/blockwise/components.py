"""Connected components of the mask of an Objectwise step: found by blocks, and where each is worked on."""

from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from mitocore.blockwise import contract
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.work import Provisional
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import Block, ObjectwisePostProcessor, StitchedPostProcessor
from mitocore.specs import ArraySpec, Need
from mitocore.stitch import joined

_CORNER: Any = np.dtype((np.int64, 3))  # not "(3,)i8", which numpy parses with `ast`: in threads that can fail (3.11)
_BOX = [("start", _CORNER), ("stop", _CORNER)]
_TASK = np.dtype([("component", "i8"), ("tiled", "?"), *_BOX])


class MaskComponents(StitchedPostProcessor):
    """The components of the mask of an Objectwise step, each with its bounding box."""

    step: ObjectwisePostProcessor
    """Whose mask it is."""
    who: str
    """How errors name it."""

    def needs(self) -> dict[str, Need]:
        """What the step needs."""
        return dict(self.step.needs())

    def gives(self, given: Any) -> dict[str, ArraySpec]:
        """Nothing: its ids are scratch."""
        del given
        return {}

    def halo(self) -> Shape:
        """That of the step."""
        return self.step.halo()

    def neighbourhood(self) -> Literal[6, 18, 26]:
        """That of the step."""
        return self.step.neighbourhood()

    def columns(self) -> list[tuple[str, str]]:
        """The bounding box."""
        return _BOX

    def label(self, block: Block) -> tuple[NDArray[np.uint32], NDArray[Any]]:
        """Components of one block, and their boxes in the volume."""
        mask = self.step.mask(block)
        contract.mask(self.who, mask, block.read.shape)
        dense = np.ascontiguousarray(block.crop(mask)).view(np.uint8)  # cc3d 4.1 fails on some dense bool arrays
        ids = cc3d.connected_components(dense, connectivity=self.neighbourhood(), out_dtype=np.uint32)
        places = find_objects(ids.view(np.int32))
        ends = np.array([[(along.start, along.stop) for along in place] for place in places], np.int64)
        boxes = np.zeros(len(places), _BOX)
        boxes["start"], boxes["stop"] = np.moveaxis(ends.reshape(-1, 3, 2), 2, 0) + block.write.start
        return ids, boxes


def complete(objects: NDArray[Any], links: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The whole components in raster order of their first voxels, and the row of each provisional id 1..n among them.

    `objects` are the rows that `MaskComponents` found, `links` the pairs that touch.
    """
    rows, group = joined(objects, links, {"start": np.minimum, "stop": np.maximum})
    order = np.argsort(rows["first"], kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rows[order], rank[group]


@dataclass(frozen=True, slots=True)
class Work:
    """Which item of the pass over objects works on which component.

    Items 0..n-1 are the blocks of `grid`, with the components that lie inside one. Those that follow are the `tasks`:
    a component that crosses blocks, or a tile of an oversize one, those of the largest component first.
    """

    grid: BlockGrid
    provisional: Provisional
    component: NDArray[np.int64]
    """Row in `boxes` of each provisional id 1..n."""
    boxes: NDArray[Any]
    block: NDArray[np.int64]
    """The block each component is worked on with; -1: it has tasks."""
    tasks: NDArray[Any]
    """What each writes: the box of its component, or the part of it in one tile."""

    def __len__(self) -> int:
        return len(self.grid) + len(self.tasks)

    def inside(self, number: int) -> dict[int, tuple[int, Roi]]:
        """The components that are worked on with a block, and their boxes, by local id."""
        start, stop = self.provisional.offsets[number : number + 2]
        rows = self.component[start:stop]
        mine = np.flatnonzero(self.block[rows] == number)
        return {int(local) + 1: (int(rows[local]), roi_of(self.boxes[rows[local]])) for local in mine}

    def task(self, item: int) -> tuple[int, bool, Roi]:
        """The component of a task, whether it is worked on in tiles, and the box the task writes."""
        row = self.tasks[item - len(self.grid)]
        return int(row["component"]), bool(row["tiled"]), roi_of(row)

    def meeting(self, box: Roi) -> list[int]:
        """The tasks that write into a box."""
        touched = ((self.tasks["start"] < box.stop) & (self.tasks["stop"] > box.start)).all(axis=1)
        return [len(self.grid) + int(place) for place in np.flatnonzero(touched)]

    def upper(self, item: int) -> list[int]:
        """The later tiles of the same component that touch this one, corners included."""
        place = item - len(self.grid)
        row, later = self.tasks[place], self.tasks[place + 1 :]
        later = later[: np.searchsorted(later["component"] != row["component"], True)]
        near = ((later["start"] <= row["stop"]) & (later["stop"] >= row["start"])).all(axis=1)
        return [item + 1 + int(place) for place in np.flatnonzero(near)]

    def mask(self, component: int, roi: Roi) -> NDArray[np.bool_]:
        """(z, y, x) over `roi`: where this component is."""
        found = np.zeros(roi.shape, np.bool_)
        ids = self.provisional.ids
        for number in ids.grid.meeting(roi):
            start, stop = self.provisional.offsets[number : number + 2]
            this = np.concatenate([[False], self.component[start:stop] == component])
            if this.any():
                part = ids.grid.box(number).clip(roi)
                found[part.within(roi)] = this[ids.read(part)[0]]
        return found


def shared_out(
    step: ObjectwisePostProcessor, provisional: Provisional, boxes: NDArray[Any], component: NDArray[np.int64]
) -> Work:
    """Who works on which component, by the blocks of the provisional ids and the options of the step alone."""
    grid = provisional.ids.grid
    voxels = (boxes["stop"] - boxes["start"]).prod(axis=1)
    oversize = (voxels > step.largest) & (step.oversize == "tile")
    first = (boxes["start"] - grid.origin) // grid.block
    inside = (first == (boxes["stop"] - 1 - grid.origin) // grid.block).all(axis=1) & ~oversize
    _, rows, row = grid.counts
    block = np.where(inside, (first[:, 0] * rows + first[:, 1]) * row + first[:, 2], -1)
    others = np.flatnonzero(~inside)
    tiles = BlockGrid(grid.region, step.tiles.tile, anchor=(0, 0, 0))
    tasks = []
    for number in others[np.argsort(-voxels[others], kind="stable")]:
        box = roi_of(boxes[number])
        parts = [tiles.box(tile).clip(box) for tile in tiles.meeting(box)] if oversize[number] else [box]
        tasks += [(number, oversize[number], part.start, part.stop) for part in parts]
    return Work(grid, provisional, component, boxes, block, np.array(tasks, _TASK))


def roi_of(row: NDArray[Any]) -> Roi:
    """The box of a row with `start` and `stop`."""
    return Roi(as_shape(row["start"]), as_shape(row["stop"]))
