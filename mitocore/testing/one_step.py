"""One post-processing step over one small volume, by the engine of real runs: any blocks, order, workers and kills."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import BlockFiles, Stored
from mitocore.blockwise.executor import Executor, InProcess
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.objectwise import objectwise
from mitocore.blockwise.scopes import local, stitched, whole
from mitocore.blockwise.workspace import Table, Workspace
from mitocore.errors import WiringError
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces import (
    Block,
    LocalPostProcessor,
    ObjectwisePostProcessor,
    PostProcessor,
    StitchedPostProcessor,
    WholePostProcessor,
)
from mitocore.specs import ArraySpec, Kind, Need, VolumeSpec
from mitocore.testing.checking import NotChecked
from mitocore.testing.examples import array_of

Arrays = Mapping[str, NDArray[Any]]
"""Arrays (c, z, y, x) by name."""
MakeArrays = Callable[[np.random.Generator], Arrays]
"""Inputs of a step, drawn at random."""

P = TypeVar("P", bound=PostProcessor)
SHAPE: Shape = (12, 20, 24)
EDGES = VoxelSize(16.0, 8.0, 8.0)
_KIND_OF = {"bool": Kind.MASK, "uint16": Kind.SEMANTIC, "uint64": Kind.INSTANCE}


@dataclass(frozen=True)
class Example:
    """Inputs of a step, and what is known of them before a voxel is read."""

    arrays: Arrays
    given: Mapping[str, ArraySpec]
    voxel_size: VoxelSize | None = EDGES

    @property
    def volume(self) -> VolumeSpec:
        """The volume all arrays cover."""
        shape = as_shape(next(iter(self.arrays.values())).shape[1:])
        return VolumeSpec(shape, "uint8", voxel_size=self.voxel_size)

    @property
    def region(self) -> Roi:
        """All of it."""
        return Roi.whole(self.volume.shape)

    def filled(self, value: int) -> "Example":
        """Arrays that hold one number everywhere."""
        return Example({n: np.full_like(a, value) for n, a in self.arrays.items()}, self.given, self.voxel_size)


def example_of(
    component: PostProcessor,
    make: MakeArrays | None = None,
    seed: int = 0,
    shape: Shape = SHAPE,
    voxel_size: VoxelSize | None = EDGES,
) -> Example:
    """Inputs that satisfy `needs` and `gives`: those of the author, else smooth random ones.

    Raises
    ------
    NotChecked
        If random inputs of no kind satisfy `gives`.
    """
    rng, needs = np.random.default_rng(seed), component.needs()
    if make is not None:
        arrays = dict(make(rng))
        return Example(arrays, {name: _spec_of(needs[name], array) for name, array in arrays.items()}, voxel_size)
    for specs in product(*(_candidates(need) for need in needs.values())):
        given = dict(zip(needs, specs, strict=True))
        try:
            component.gives(given)
        except WiringError:
            continue
        return Example({name: array_of(spec, shape, rng) for name, spec in given.items()}, given, voxel_size)
    raise NotChecked(f"no random input satisfies `gives` of {type(component).__name__}: write example(rng)")


def _candidates(need: Need) -> list[ArraySpec]:
    counts: tuple[tuple[str, ...] | int, ...] = (2, 1, 3, 6) if need.channels is None else (need.channels,)
    return [_spec(kind, count) for kind in need.kinds for count in counts]


def _spec(kind: Kind, channels: tuple[str, ...] | int) -> ArraySpec:
    names = tuple(f"channel{n}" for n in range(channels)) if isinstance(channels, int) else channels
    offsets: tuple[Shape, ...] = ()
    if kind is Kind.AFFINITY:
        near: tuple[Shape, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
        offsets = tuple(as_shape(np.multiply(near[n % 3], 1 + n // 3)) for n in range(len(names)))
    return ArraySpec(kind, names, offsets, classes=("background", "a", "b") if kind is Kind.SEMANTIC else ())


def _spec_of(need: Need, array: NDArray[Any]) -> ArraySpec:
    kind = _KIND_OF.get(array.dtype.name) or next(k for k in need.kinds if k not in _KIND_OF.values())
    return _spec(kind, need.channels if isinstance(need.channels, tuple) else len(array))


@dataclass(frozen=True)
class Given:
    """A source that keeps what it handed out, to see whether somebody changed it."""

    values: NDArray[Any]
    handed: list[tuple[Roi, NDArray[Any]]] = field(default_factory=list, compare=False)

    @property
    def voxel_bytes(self) -> int:
        """Of all channels."""
        return len(self.values) * self.values.itemsize

    def read(self, roi: Roi) -> NDArray[Any]:
        """A copy of the voxels of `roi`."""
        found = np.array(self.values[(..., *roi.slices)])
        self.handed.append((roi, found))
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"values": self.values, "handed": []}


class Killed(BaseException):
    """Ends a run as a kill would: no one handles it."""


class _Shuffled(Workspace):
    """Walks the items of every pass in another order."""

    def run(
        self, name: str, label: str, call: Callable[[int], Table], items: Sequence[int], **options: Any
    ) -> dict[int, Table]:
        """As a workspace does."""
        order = np.random.default_rng(len(name)).permutation(items).tolist()
        found = super().run(name, label, call, order, **options)
        return {item: found[item] for item in items}


class _Dying(RunLock):
    """Kills the run when it is confirmed for the commit of this number: voxels are written, the record is not."""

    left = float("inf")

    def hold(self) -> None:
        """Count down."""
        self.left -= 1
        if self.left < 0:
            raise Killed
        super().hold()


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for one run. It need not survive a loss of power: waiting for the disk would take most of the time."""
    with tempfile.TemporaryDirectory(prefix="mitocore-") as folder, patch.object(os, "fsync", lambda _: None):
        yield Path(folder)


def grid_of(component: PostProcessor, example: Example, block: Shape) -> BlockGrid:
    """The blocks of a step: those wanted, those it insists on, or its lattice."""
    tiles = component.lattice() if isinstance(component, StitchedPostProcessor) else None
    if tiles:
        return BlockGrid(example.region, tiles.tile)
    wanted = as_shape(min(b, n) for b, n in zip(block, example.volume.shape, strict=True))
    return BlockGrid(example.region, component.block_shape(example.volume, wanted))


def planned(component: P, example: Example) -> P:
    """A step as a run would plan it for this example."""
    return component.in_voxels(example.voxel_size).reading(example.given)


def blocks_of(component: PostProcessor, example: Example, shape: Shape) -> list[Block]:
    """What a step is given, block by block, in its first pass."""
    grid, halo, blocks = grid_of(component, example, shape), component.halo(), []
    for number in range(len(grid)):
        write = grid.box(number)
        read = write.grow(halo).clip(grid.region)
        arrays = {name: np.ascontiguousarray(array[(..., *read.slices)]) for name, array in example.arrays.items()}
        blocks.append(Block(write, read, arrays, grid.region, example.voxel_size))
    return blocks


@dataclass
class OneStep:
    """A step, its inputs and its blocks; the same folder resumes what was killed."""

    component: PostProcessor
    example: Example
    block: Shape = SHAPE
    shuffled: bool = False
    executor: Executor = field(default_factory=InProcess)

    def __post_init__(self) -> None:
        self.step = planned(self.component, self.example)
        self.gives = self.step.gives(self.example.given)
        self.grid = grid_of(self.step, self.example, self.block)
        self.commits = 0  # the beginning of every pass counts as one
        self.sources = {name: Given(array) for name, array in self.example.arrays.items()}

    def run(
        self,
        folder: Path,
        *,
        before: float = float("inf"),
        after: float = float("inf"),
        keep_ids: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """The outputs, as a later step would see them.

        Killed before commit number `before` is recorded, or after number `after`.

        Raises
        ------
        Killed
            If it was.
        """
        left = [after]

        def progress(_label: str, _done: int, _total: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            self.commits += 1

        kind = _Shuffled if self.shuffled else Workspace
        with _Dying(folder) as lock:
            lock.left = before
            workspace = kind(folder, self.executor, lock, progress, every=0.0, retries=0)
            return self._passes(workspace, keep_ids)

    def _passes(self, workspace: Workspace, keep_ids: bool) -> dict[str, NDArray[Any]]:
        made: dict[str, BlockFiles] = {}

        def make(array: str, dtype: str) -> BlockFiles:
            channels = len(self.gives[array].channels)
            made[array] = BlockFiles(workspace.scratch(f"out.{array}"), self.grid, channels, dtype)
            return made[array]

        step = self.step
        args = self.gives, self.grid, self.example.volume, workspace
        if isinstance(step, LocalPostProcessor | WholePostProcessor):
            sinks = {name: make(name, spec.stored) for name, spec in self.gives.items()}
            if isinstance(step, LocalPostProcessor):
                local(step, self.sources, sinks, *args, name="step.digest")
            else:
                whole(step, self.sources, sinks, *args, name="step.digest")
        elif isinstance(step, StitchedPostProcessor):
            stitched(step, self.sources, make, *args, name="step", early="e", late="l", keep_ids=keep_ids)
        elif isinstance(step, ObjectwisePostProcessor):
            objectwise(step, self.sources, make, *args, name="step", early="e", late="l", keep_ids=keep_ids)
        else:
            raise NotChecked(f"{type(step).__name__} inherits from no scope, such as mitocore.LocalPostProcessor")
        return {name: Stored(made[name], spec).read(self.grid.region) for name, spec in self.gives.items()}


def results(
    component: PostProcessor,
    example: Example,
    block: Shape = SHAPE,
    *,
    shuffled: bool = False,
    executor: Executor | None = None,
) -> dict[str, NDArray[Any]]:
    """The outputs of an uninterrupted run."""
    with run_folder() as folder:
        return OneStep(component, example, block, shuffled, executor or InProcess()).run(folder)
