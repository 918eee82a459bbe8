"""What an Objectwise step does with its objects: picklable calls that take the number of an item."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise import contract
from mitocore.blockwise.arrays import BlockFiles, Sink, pack
from mitocore.blockwise.components import Work
from mitocore.blockwise.scratch import ScratchFiles
from mitocore.blockwise.work import NOTHING, Reads, first_and_size
from mitocore.durable import damaged
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import OBJECT, Block, ObjectwisePostProcessor
from mitocore.specs import ArraySpec
from mitocore.stitch import LINK

INSTANCE = np.dtype([*OBJECT, ("component", "u8")])
"""A row per instance, or piece of one, and the component of the mask it lies in."""


@dataclass(frozen=True, slots=True)
class PartFiles(ScratchFiles):
    """Scratch of the tasks, each over a box of its own.

    Boxes of different components overlap: they could not be parts of one array.
    """

    def read(self, task: int, cover: Roi, part: Roi) -> NDArray[Any] | None:
        """(c, z, y, x) over `part` of the box that a task covers; None if the whole box holds 0.

        Raises
        ------
        RunError
            If the file of the task is missing or damaged.
        """
        values = self.stored(task, mapped=True)
        if values is None:
            return None
        if values.shape[1:] != cover.shape:
            raise damaged(self.path(task))
        return np.array(values[(..., *part.within(cover))])


@dataclass(frozen=True, slots=True)
class ProcessObjects:
    """An item of the pass over objects: the components inside a block, or one task."""

    step: ObjectwisePostProcessor
    reads: Reads
    work: Work
    gives: Mapping[str, ArraySpec]
    instances: str | None
    """The output that holds instances."""
    blocks: Mapping[str, BlockFiles]
    """Where the blocks write each output."""
    parts: Mapping[str, PartFiles]
    """Where the tasks do."""
    volume: Shape
    who: str

    def __call__(self, item: int) -> NDArray[Any]:
        """Write what lies inside a block, or the part of a task; a row per instance or piece."""
        return self._block(item) if item < len(self.work.grid) else self._task(item)

    def covered(self, item: int) -> Roi:
        """The box of the files of a task: what it writes; of a tile what it reads, so that others can be compared."""
        _, tiled, write = self.work.task(item)
        return self.around(write, tiled=True) if tiled else write

    def around(self, write: Roi, *, tiled: bool = False) -> Roi:
        """What is read for the box of a component, or for a tile of one."""
        return write.grow(self._halo(tiled=tiled)).clip(self.reads.volume)

    def voxels_read(self, boxes: NDArray[Any], tiled: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Voxels in what is `around` each of many boxes."""
        volume, halo = self.reads.volume, np.where(tiled[:, None], self._halo(tiled=True), self._halo(tiled=False))
        shapes = np.minimum(boxes["stop"] + halo, volume.stop) - np.maximum(boxes["start"] - halo, volume.start)
        return np.asarray(shapes.prod(axis=1))

    def _halo(self, *, tiled: bool) -> Shape:
        own, tiles = self.step.halo(), self.step.tiles.halo
        return as_shape(map(max, own, tiles)) if tiled else own

    def _block(self, number: int) -> NDArray[Any]:
        inside = self.work.inside(number)
        if not inside:
            for files in self.blocks.values():
                files.blank(number)
            return np.zeros(0, INSTANCE)
        box = self.work.grid.box(number)
        surroundings = self.around(box)
        given = self.reads.block(box, surroundings).arrays
        ids = self.work.provisional.ids.load(number)[0]
        outputs = {name: np.zeros((files.channels, *box.shape), files.dtype) for name, files in self.blocks.items()}
        count, rows = 0, []
        for local, (component, write) in inside.items():
            read = self.around(write)
            mask = np.zeros(read.shape, np.bool_)
            mask[write.within(read)] = ids[write.within(box)] == local
            arrays = {
                name: np.ascontiguousarray(values[(..., *read.within(surroundings))]) for name, values in given.items()
            }
            block = Block(write, read, arrays, self.reads.volume, self.reads.voxel_size)
            found = self._processed(block, mask, write)
            rows.append(self._rows(found, component, write, write))
            for name, values in found.items():
                target, own = outputs[name][(..., *write.within(box))], values != 0
                if name == self.instances:
                    np.add(values, np.uint32(count), out=target, where=own)
                else:
                    np.copyto(target, values, where=own)
            count += len(rows[-1])
        for name, files in self.blocks.items():
            files.write(number, box, outputs[name])
        return np.concatenate(rows)

    def _task(self, item: int) -> NDArray[Any]:
        component, tiled, write = self.work.task(item)
        read, cover = self.around(write, tiled=tiled), self.covered(item)
        mask = self.work.mask(component, read)
        if not mask[write.within(read)].any():  # a tile in a bay of its component
            for files in self.parts.values():
                files.blank(item)
            return np.zeros(0, INSTANCE)
        found = self._processed(self.reads.block(write, read), mask, cover)
        for name, values in found.items():
            self.parts[name].write(item, cover, values)
        return self._rows(found, component, write, cover)

    def _processed(self, block: Block, mask: NDArray[np.bool_], cover: Roi) -> dict[str, NDArray[Any]]:
        """Outputs over `cover`, packed, 0 outside the mask; instances that own voxels of `block.write` as 1..n."""
        values = self.step.process(block, mask)
        contract.outputs(self.who, values, self.gives, block.read.shape)
        place, packed = cover.within(block.read), {}
        alone = mask[place]
        for name, spec in self.gives.items():
            part = values[name][(..., *place)]
            if name == self.instances:
                inside = part[0][alone]  # far fewer voxels than the box has
                contract.local_ids(self.who, name, inside)
                written = block.write.within(cover)
                own = inside if block.write == cover else part[0][written][alone[written]]
                packed[name] = np.zeros((1, *cover.shape), np.uint32)
                packed[name][0][alone] = numbered(inside, own)
            else:
                packed[name] = pack(np.where(alone, part, part.dtype.type(0)), spec)
        return packed

    def _rows(self, found: Mapping[str, NDArray[Any]], component: int, write: Roi, cover: Roi) -> NDArray[Any]:
        if self.instances is None:
            return np.zeros(0, INSTANCE)
        ids = found[self.instances][0][write.within(cover)]
        rows = np.zeros(int(ids.max(initial=0)), INSTANCE)
        rows["first"], rows["size"] = first_and_size(ids, write.start, self.volume)
        rows["component"] = component
        return rows


def numbered(ids: NDArray[Any], those: NDArray[Any]) -> NDArray[np.uint32]:
    """Instances as 1..n in ascending order: what occurs in `those`, but 0; all others are 0.

    >>> numbered(np.array([9, 0, 7, 2**40, 7]), np.array([0, 7, 7, 2**40])).tolist()
    [0, 0, 1, 2, 1]
    """
    top = int(ids.max(initial=0))
    if top > ids.size:  # too large for a table
        distinct, ids = np.unique(ids, return_inverse=True)
        return numbered(ids + (distinct[0] > 0), np.searchsorted(distinct, those) + (distinct[0] > 0))
    occurs = np.zeros(top + 1, np.bool_)
    occurs[those] = True
    occurs[0] = False
    number = np.cumsum(occurs, dtype=np.uint32)
    number[~occurs] = 0
    return np.asarray(number[ids])


@dataclass(frozen=True, slots=True)
class LinkPieces:
    """A tile of an oversize component: which of its pieces go on in the tiles after it."""

    objects: ProcessObjects
    instances: str
    offsets: tuple[int, ...]
    """Of provisional instance ids: the number of instances in all items before."""

    def __call__(self, item: int) -> NDArray[Any]:
        """Pairs of pieces that agree where both tiles looked."""
        parts = self.objects.parts[self.instances]
        mine, pairs = self.objects.covered(item), [np.zeros(0, LINK)]
        for other in self.objects.work.upper(item):
            theirs = self.objects.covered(other)
            shared = mine.clip(theirs)
            if 0 not in shared.shape:
                one = parts.read(item, mine, shared)
                two = parts.read(other, theirs, shared)
                if one is not None and two is not None:
                    found = agreeing(one, two)
                    found["a"] += self.offsets[item]
                    found["b"] += self.offsets[other]
                    pairs.append(found)
        return np.concatenate(pairs)


def agreeing(one: NDArray[Any], two: NDArray[Any]) -> NDArray[Any]:
    """Pairs of ids whose voxels in two labellings of the same box have an intersection over union above 0.5.

    No id can be in two of them.

    >>> agreeing(np.array([1, 1, 1, 2, 0]), np.array([1, 1, 0, 3, 3])).tolist()
    [(1, 1, 1.0)]
    """
    areas = np.bincount(one.ravel()), np.bincount(two.ravel())
    width = len(areas[1])
    pairs, overlap = np.unique(one.astype(np.int64) * width + two, return_counts=True)
    a, b = np.divmod(pairs, width)
    agree = (a > 0) & (b > 0) & (3 * overlap > areas[0][a] + areas[1][b])  # overlap / union > 1/2, in integers
    links = np.ones(np.count_nonzero(agree), LINK)
    links["a"], links["b"] = a[agree], b[agree]
    return links


@dataclass(frozen=True, slots=True)
class Paint:
    """A block of the last pass: its own scratch and the parts that meet it, under final ids."""

    objects: ProcessObjects
    offsets: tuple[int, ...]
    final: NDArray[np.uint64]
    dtypes: Mapping[str, str]
    sinks: Mapping[str, Sink]

    def __call__(self, number: int) -> NDArray[Any]:
        """Write the outputs of a block."""
        work = self.objects.work
        box = work.grid.box(number)
        outputs = {
            name: self._named(name, number, files.load(number)).astype(self.dtypes[name], copy=False)
            for name, files in self.objects.blocks.items()
        }
        for item in work.meeting(box):
            _, _, write = work.task(item)
            shared, cover = write.clip(box), self.objects.covered(item)
            for name, values in outputs.items():
                part = self.objects.parts[name].read(item, cover, shared)
                if part is not None:
                    target = values[(..., *shared.within(box))]
                    np.copyto(target, self._named(name, item, part), where=part != 0)
        for name, sink in self.sinks.items():
            sink.write(number, box, outputs[name])
        return NOTHING

    def _named(self, name: str, item: int, values: NDArray[Any]) -> NDArray[Any]:
        """Local ids of an item as final ones; other outputs as they are."""
        if name != self.objects.instances:
            return values
        start, stop = self.offsets[item : item + 2]
        table = self.final[start : stop + 1].astype(self.dtypes[name])
        table[0] = 0
        named = np.empty(values.shape, table.dtype)
        for plane, where in zip(named[0], values[0], strict=True):  # numpy turns indices into int64: a plane at a time
            np.take(table, where, out=plane, mode="clip")
        return named
