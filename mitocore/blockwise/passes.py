"""Passes that belong to no post-processor: measure the input, prepare it, hand the result over."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import BlockFiles, Normalised, Opened, Source, Stored, VolumeSink, pack, voxel_bytes
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.work import NOTHING, bytes_of_blocks
from mitocore.blockwise.workspace import Workspace
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import Normalizer, Stats, Volume, WritableVolume
from mitocore.specs import ArraySpec, Kind, VolumeSpec

log = logging.getLogger(__name__)

ENOUGH = 8 * 2**30
"""Voxels that `fit` reads: all, or of a larger volume a fixed lattice of boxes of about that many."""
_BOX = 2**24  # voxels held at a time


def fit(
    normalizer: Normalizer,
    volume: Volume,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Stats:
    """Statistics of a whole volume, in bounded memory.

    Where voxels are not finite, a warning says how many, and so does "not_finite" in what is returned.

    `progress` is called with boxes read and boxes in all; from 0 again if the normaliser needs to see them twice.
    `cancelled` is asked before each box.

    Raises
    ------
    DataError
        If nothing varies.
    KeyboardInterrupt
        If cancelled.
    """
    boxes = _Boxes(volume, sampled(volume.spec), progress, cancelled)
    stats = normalizer.fit(boxes, volume.spec)
    not_finite = boxes.not_finite()
    progress(len(boxes.boxes), len(boxes.boxes))
    if not not_finite:
        return stats
    sample = "at least " if sum(box.voxels for box in boxes.boxes) < Roi.whole(volume.spec.shape).voxels else ""
    log.warning("voxels of the input that are NaN or infinite: %s%s; they count as mid-grey", sample, f"{not_finite:,}")
    return {**stats, "not_finite": not_finite}


def sampled(spec: VolumeSpec, enough: int = ENOUGH) -> list[Roi]:
    """The boxes `fit` reads: a function of shape and chunks alone, aligned to the chunks.

    >>> spec = VolumeSpec((4096, 512, 512), "uint8", chunks=(64, 512, 512))
    >>> len(sampled(spec)), len(sampled(spec, enough=2**28))
    (64, 16)
    """
    lattice = BlockGrid(Roi.whole(spec.shape), _grown(spec.chunks or (1, 1, spec.shape[2]), spec.shape, _BOX))
    strides = [1, 1, 1]

    def chosen() -> list[range]:
        return [range(0, n, stride) for n, stride in zip(lattice.counts, strides, strict=True)]

    while (axes := chosen()) and math.prod(map(len, axes)) * math.prod(lattice.block) > enough:
        longest = max(range(3), key=lambda axis: len(axes[axis]))
        if len(axes[longest]) == 1:
            break
        strides[longest] += 1
    _, rows, row = lattice.counts
    return [lattice.box((z * rows + y) * row + x) for z, y, x in product(*axes)]


def _grown(chunks: Shape, shape: Shape, voxels: int) -> Shape:
    """A box of whole chunks, grown along x, then y, then z while it holds at most `voxels`; one chunk at least."""
    box = [min(chunk, n) for chunk, n in zip(chunks, shape, strict=True)]
    for axis in (2, 1, 0):
        room = voxels // math.prod(box)
        box[axis] = min(box[axis] * max(room, 1), shape[axis])
    return as_shape(box)


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Boxes of a volume, read anew whenever they are iterated."""

    volume: Volume
    boxes: list[Roi]
    progress: Callable[[int, int], None]
    cancelled: Callable[[], bool]
    counted: dict[int, int] = field(default_factory=dict)
    """Voxels that are not finite, by number of the box."""

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for done in range(len(self.boxes)):
            yield self._read(done)

    def not_finite(self) -> int:
        """Voxels that are not finite; boxes that were not asked for are looked at now."""
        if np.dtype(self.volume.spec.dtype).kind == "f":
            for number in range(len(self.boxes)):
                if number not in self.counted:
                    self._read(number)
        return sum(self.counted.values())

    def _read(self, number: int) -> NDArray[Any]:
        if self.cancelled():
            raise KeyboardInterrupt
        self.progress(number, len(self.boxes))
        values = self.volume.read(self.boxes[number])
        if values.dtype.kind == "f":
            self.counted[number] = values.size - int(np.count_nonzero(np.isfinite(values)))
        return values


def prepared(
    normalizer: Normalizer,
    stats: Stats,
    volume: Volume,
    region: Roi,
    preferred: Shape,
    workspace: Workspace,
    *,
    name: str,
) -> Source:
    """The normalised input over `region`: where it is read if `normalizer` is voxel-wise, else as a stored pass.

    Blocks are those of the whole volume, of which the pass takes the ones that meet `region`. `preferred` is the
    shape of blocks of that pass unless the normaliser insists on another; `name` names its journal and scratch and
    holds the digest of normaliser, statistics, input and blocks.

    Raises
    ------
    RunError
        If a block keeps failing, or another driver took over the run folder.
    """
    source = Opened(volume)
    if normalizer.voxelwise:
        return Normalised(source, normalizer, stats)
    spec = ArraySpec(Kind.IMAGE, volume.spec.channels)
    whole = Roi.whole(volume.spec.shape)
    grid = BlockGrid(whole, normalizer.block_shape(volume.spec, preferred))
    files = BlockFiles(workspace.scratch(name), grid, len(spec.channels), spec.stored)
    work = _Normalise(normalizer, stats, source, volume.spec, files)
    halo = normalizer.halo(volume.spec.voxel_size)
    cost = bytes_of_blocks(grid, halo, whole, source.voxel_bytes + 2 * voxel_bytes(spec))
    workspace.run(name, name.partition(".")[0], work, grid.meeting(region), sinks=[files], cost=cost)
    return Stored(files, spec)


@dataclass(frozen=True, slots=True)
class _Normalise:
    normalizer: Normalizer
    stats: Stats
    source: Source
    volume: VolumeSpec
    files: BlockFiles

    def __call__(self, number: int) -> NDArray[Any]:
        write = self.files.grid.box(number)
        read = write.grow(self.normalizer.halo(self.volume.voxel_size)).clip(Roi.whole(self.volume.shape))
        values = self.normalizer.apply(self.source.read(read), self.stats)
        self.files.write(number, write, np.ascontiguousarray(values[(..., *write.within(read))]))
        return NOTHING


def export(
    source: Source,
    spec: ArraySpec | None,
    target: WritableVolume,
    order: Literal["any", "planes"],
    workspace: Workspace,
    name: str,
    *,
    origin: Shape = (0, 0, 0),
) -> None:
    """Copy an array into an open volume that cannot be written by the pass that computes it, one box at a time.

    Boxes are whole planes in ascending z, or for `order = "any"` whole chunks of the target, and bounded in size.
    Values are packed as `spec` says, then widened to the dtype of the target; without a spec they are copied as they
    are. A killed export continues after the last box it committed. `name` names the journal and holds the digest of
    array and target; `origin` is the voxel of the source that becomes the first of the target.

    Raises
    ------
    DataError
        If the target cannot hold an id, or the values that are to be copied as they are.
    RunError
        If a box keeps failing, or another driver took over the run folder.
    """
    shape, chunks = target.spec.shape, target.spec.chunks or (1, 1, target.spec.shape[2])
    least = (chunks[0], *shape[1:]) if order == "planes" else chunks
    region = Roi(origin, as_shape(o + n for o, n in zip(origin, shape, strict=True)))
    grid = BlockGrid(region, _grown(least, shape, max(1, _BOX // len(target.spec.channels))))
    sink = VolumeSink(target, spec, origin)
    executor = InProcess()  # one box after the other, as the target asks
    work = _Copy(source, spec, sink, grid)
    workspace.run(name, name.partition(".")[0], work, range(len(grid)), sinks=[sink], executor=executor)


@dataclass(frozen=True, slots=True)
class _Copy:
    source: Source
    spec: ArraySpec | None
    sink: VolumeSink
    grid: BlockGrid

    def __call__(self, number: int) -> NDArray[Any]:
        box = self.grid.box(number)
        values = self.source.read(box)
        self.sink.write(number, box, values if self.spec is None else pack(values, self.spec))
        return NOTHING
