"""What is done with one block in each pass: picklable calls that take its number and return its table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise import contract
from mitocore.blockwise.arrays import BlockFiles, Sink, Source, pack, read_all
from mitocore.blockwise.grid import BlockGrid
from mitocore.errors import ContractError
from mitocore.geometry import Roi, Shape, VoxelSize
from mitocore.interfaces import Block, LocalPostProcessor, StitchedPostProcessor
from mitocore.specs import ArraySpec, Kind
from mitocore.stitch import faces

NOTHING = np.zeros(0, np.uint8)
"""The table of a pass that leaves only voxels."""


def bytes_of_blocks(grid: BlockGrid, halo: Shape, volume: Roi, per_voxel: int) -> Callable[[int], float]:
    """What the blocks of a pass hold while they are at work: `per_voxel` bytes over what each reads."""
    return lambda number: grid.box(number).grow(halo).clip(volume).voxels * per_voxel


@dataclass(frozen=True, slots=True)
class Reads:
    """What the blocks of a pass hold, and where the volume ends for them."""

    inputs: Mapping[str, Source]
    volume: Roi
    voxel_size: VoxelSize | None

    @property
    def voxel_bytes(self) -> int:
        """Bytes per voxel of all inputs."""
        return sum(source.voxel_bytes for source in self.inputs.values())

    def block(self, write: Roi, read: Roi) -> Block:
        """A block with its inputs over `read`."""
        arrays = read_all(self.inputs, read)
        return Block(write, read, arrays, self.volume, self.voxel_size)


@dataclass(frozen=True, slots=True)
class Process:
    """A block of a Local step."""

    component: LocalPostProcessor
    reads: Reads
    gives: Mapping[str, ArraySpec]
    grid: BlockGrid
    sinks: Mapping[str, Sink]
    who: str

    def __call__(self, number: int) -> NDArray[Any]:
        """Write the outputs of a block."""
        write = self.grid.box(number)
        block = self.reads.block(write, write.grow(self.component.halo()).clip(self.reads.volume))
        values = self.component.process(block)
        contract.outputs(self.who, values, self.gives, block.read.shape)
        for name, sink in self.sinks.items():
            sink.write(number, write, pack(block.crop(values[name]), self.gives[name]))
        return NOTHING


@dataclass(frozen=True, slots=True)
class Label:
    """A block of the first pass of a Stitched step."""

    component: StitchedPostProcessor
    reads: Reads
    ids: BlockFiles
    volume: Shape
    rows: np.dtype[Any]
    who: str

    def __call__(self, number: int) -> NDArray[Any]:
        """Write the local ids of a block; a row of `first`, `size` and the author's columns per object."""
        write = self.ids.grid.box(number)
        block = self.reads.block(write, write.grow(self.component.halo()).clip(self.reads.volume))
        ids, columns = self.component.label(block)
        contract.labels(self.who, ids, write.shape)
        own = self.component.columns()
        objects = np.zeros(int(ids.max(initial=0)), self.rows)
        objects["first"], objects["size"] = first_and_size(ids, write.start, self.volume)
        contract.columns(self.who, objects["size"], columns, own)
        if columns is not None:
            for column, _ in own:
                objects[column] = columns[column]
        self.ids.write(number, write, ids[None])
        return objects


def first_and_size(ids: NDArray[np.uint32], start: Shape, volume: Shape) -> tuple[NDArray[Any], NDArray[Any]]:
    """Raster index in the volume of the first voxel of each object 1..n of a block at `start`, and its voxels.

    >>> ids = np.array([[[0, 2, 2], [1, 0, 2]]], np.uint32)
    >>> first_and_size(ids, (1, 0, 0), (4, 5, 10))
    (array([60, 51]), array([1, 3]))
    """
    flat = ids.ravel()
    runs = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])  # of equal voxels: far fewer than voxels
    found, lengths = flat[runs], np.diff(runs, append=flat.size)
    sizes = np.bincount(found, weights=lengths)[1:].astype(np.int64)
    first = np.zeros(len(sizes) + 1, np.int64)
    first[found[::-1]] = runs[::-1]  # where an id repeats, numpy keeps the last: the first voxel of the block
    places = np.unravel_index(first[1:], ids.shape)
    z, y, x = (place + offset for place, offset in zip(places, start, strict=True))
    return (z * volume[1] + y) * volume[2] + x, sizes


@dataclass(frozen=True, slots=True)
class Provisional:
    """Local ids of blocks made unique over the volume by the number of objects in all blocks before."""

    ids: BlockFiles
    offsets: tuple[int, ...]

    def read(self, roi: Roi) -> NDArray[np.uint64]:
        """(z, y, x) over `roi`."""
        values = np.zeros(roi.shape, np.uint64)
        for number in self.ids.grid.meeting(roi):
            if self.offsets[number] < self.offsets[number + 1]:
                part = self.ids.grid.box(number).clip(roi)
                local = self.ids.read(part)[0]
                values[part.within(roi)] = np.where(local, local + np.uint64(self.offsets[number]), np.uint64(0))
        return values


@dataclass(frozen=True, slots=True)
class Link:
    """A block of the second pass of a Stitched step."""

    component: StitchedPostProcessor
    reads: Reads
    provisional: Provisional
    who: str

    def __call__(self, number: int) -> NDArray[Any]:
        """The pairs that the faces of a block, or the block, contribute."""
        box, volume = self.provisional.ids.grid.box(number), self.reads.volume
        reach = self.component.reach()
        if self.component.link_over == "blocks":
            read = box.grow(reach).clip(volume)
            return self._pairs(box, read, self.provisional.read(read))
        found = []
        for near, far in faces(box, reach, volume):
            parts = [(part, self.provisional.read(part)) for part in (near, far)]
            if all(part.any() for _, part in parts):
                read = near.around(far)
                ids = np.zeros(read.shape, np.uint64)  # between the two lie pairs that belong to other slabs
                for part, values in parts:
                    ids[part.within(read)] = values
                found.append(self._pairs(near, read, ids))
        return np.concatenate(found) if found else np.zeros(0, self._dtype)

    def _pairs(self, write: Roi, read: Roi, ids: NDArray[np.uint64]) -> NDArray[Any]:
        found = self.component.link(self.reads.block(write, read), ids)
        contract.links(self.who, found, self.provisional.offsets[-1], self._dtype)
        return found

    @property
    def _dtype(self) -> np.dtype[Any]:
        return contract.pairs(self.who, self.component.link_columns())


@dataclass(frozen=True, slots=True)
class Relabel:
    """A block of the last pass of a Stitched step."""

    component: StitchedPostProcessor
    reads: Reads
    provisional: Provisional
    final: NDArray[np.uint64]
    gives: Mapping[str, ArraySpec]
    dtypes: Mapping[str, str]
    sinks: Mapping[str, Sink]
    who: str

    def __call__(self, number: int) -> NDArray[Any]:
        """Write the outputs of a block."""
        write = self.provisional.ids.grid.box(number)
        if type(self.component).relabel is StitchedPostProcessor.relabel and set(self.gives) == {"instances"}:
            packed = {"instances": self._looked_up(number)}
        else:
            ids = self.provisional.read(write)
            values = self.component.relabel(self.reads.block(write, write), ids, self.final)
            contract.outputs(self.who, values, self.gives, write.shape)
            packed = {name: self._packed(name, values[name]) for name in self.gives}
        for name, sink in self.sinks.items():
            sink.write(number, write, packed[name])
        return NOTHING

    def _looked_up(self, number: int) -> NDArray[Any]:
        """What the default `relabel` gives, from the part of the table that this block needs."""
        start, stop = self.provisional.offsets[number : number + 2]
        table = self.final[start : stop + 1].astype(self.dtypes["instances"])
        table[0] = 0
        local = self.provisional.ids.load(number)
        values = np.empty(local.shape, table.dtype)
        for plane, where in zip(values[0], local[0], strict=True):  # numpy turns indices into int64: a plane at a time
            np.take(table, where, out=plane, mode="clip")
        return values

    def _packed(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if self.gives[name].kind is not Kind.INSTANCE:
            return pack(values, self.gives[name])
        largest = int(values.max(initial=0))
        if largest > np.iinfo(self.dtypes[name]).max:
            problem = f"relabel of {self.who} returned id {largest} in {name!r}; resolve went to {self.final.max()}"
            raise ContractError(problem, hint="return values of the final table")
        return values.astype(self.dtypes[name])
