"""What post-processors promise: blocks, order, workers and kills never show in a result."""

import atexit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.executor import InProcess, Processes, Threads
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.errors import ConfigError, ContractError
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces import (
    Block,
    LocalPostProcessor,
    ObjectwisePostProcessor,
    PostProcessor,
    StitchedPostProcessor,
    WholePostProcessor,
)
from mitocore.specs import ArraySpec, Kind, Lattice
from mitocore.stitch import merged
from mitocore.testing.checking import (
    Check,
    CheckFailed,
    config_error_allowed,
    hasty_threads,
    peak,
    require,
    require_equal,
    together,
    undisturbed,
)
from mitocore.testing.every_component import importable
from mitocore.testing.one_step import (
    EDGES,
    SHAPE,
    Example,
    Killed,
    MakeArrays,
    OneStep,
    blocks_of,
    example_of,
    planned,
    results,
    run_folder,
)
from mitocore.testing.other_options import changed, validated
from mitocore.testing.suite import ComponentTests

BLOCKS: tuple[Shape, ...] = ((6, 10, 12), (5, 20, 7), (4, 9, 24))
"""Beside one block of the whole volume: even, ragged and odd ones."""
_TILES = Lattice((6, 10, 12), (2, 3, 3))
_KILLS = 12
_QUARTERS: Shape = (24, 40, 36)  # of the enlarged example
_RACES = 3
_HALVES: Shape = (6, 20, 24)  # a run for every commit, twice: few blocks
_SLACK = 2**17  # bytes: what Python itself takes


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where the checks of a post-processor get inputs."""

    make: MakeArrays | None = None
    """Inputs (c, z, y, x) by name, drawn with the generator that is given; None: random ones that satisfy `needs`."""
    voxel_size: VoxelSize | None = EDGES

    def example(self, component: PostProcessor, seed: int = 0) -> Example:
        """Inputs for this component."""
        return example_of(component, self.make, seed, voxel_size=self.voxel_size)


_RANDOM = Inputs()


def variants(component: PostProcessor) -> Iterator[tuple[str, PostProcessor]]:
    """The component as it is, and with tiles so small that the example has several."""
    tiles = [
        name for name, info in type(component).model_fields.items() if info.annotation in (Lattice, Lattice | None)
    ]
    if isinstance(component, ObjectwisePostProcessor):
        yield "", component
        halo = as_shape(max(a, b) for a, b in zip(_TILES.halo, component.in_voxels(EDGES).halo(), strict=True))
        small = {"oversize": "tile", "largest": 60, "tiles": Lattice(_TILES.tile, halo)}
        yield ' with oversize = "tile"', validated(component, small)
    elif isinstance(component, StitchedPostProcessor) and component.lattice() and tiles:
        yield " on small tiles", validated(component, dict.fromkeys(tiles, _TILES))
    else:
        yield "", component


def check_outputs(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Outputs are what `gives` declares: names, channels, dtypes and ranges."""
    example = inputs.example(component)
    for what, one in variants(component):
        try:
            found = results(one, example)
        except ContractError as error:
            raise CheckFailed(f"{error.problem}{what}", error.hint or "mend the method that is named") from error
        step = planned(one, example)
        gives = step.gives(example.given)
        if isinstance(step, LocalPostProcessor | WholePostProcessor):
            found = dict(step.process(_whole(example)))  # before values are rounded to what is stored
        for name, spec in gives.items():
            _require_in_range(name, found[name], spec)


def _require_in_range(name: str, values: NDArray[Any], spec: ArraySpec) -> None:
    if spec.kind in (Kind.SEMANTIC, Kind.INSTANCE):
        low, high, top = int(values.min(initial=0)), int(values.max(initial=0)), np.iinfo(spec.dtype).max
        change = f"give ids from 0, background, to {top - 1}; {top} means ignore"
        require(low >= 0 and high <= top, f"{name!r} holds ids from {low} to {high}", change)
    elif spec.kind is not Kind.MASK:
        require(np.isfinite(values).all(), f"{name!r} holds values that are not finite", "divide by no 0")
        if spec.kind in (Kind.PROBABILITY, Kind.AFFINITY):
            seen = f"{name!r} holds values from {values.min():g} to {values.max():g}"
            change = f"keep a {spec.kind} within 0 and 1, or declare another kind"
            require(values.min() >= 0 and values.max() <= 1, seen, change)


def check_dense_ids(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Instances that are made from objects or from the whole volume are numbered 1..n, each number once."""
    if isinstance(component, LocalPostProcessor):
        return
    example = inputs.example(component)
    for what, one in variants(component):
        found = results(one, example)
        for name, spec in one.gives(example.given).items():
            if spec.kind is Kind.INSTANCE:
                ids = np.unique(found[name])
                ids = ids[ids > 0]
                seen = f"{name!r}{what} holds {len(ids)} ids up to {ids.max(initial=0)}"
                require(len(ids) == ids.max(initial=0), seen, "number what remains 1..n, after small ones are removed")


def check_block_invariance(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """One block equals even, ragged and shuffled blocks bit for bit, ids included."""
    for seed in range(2):
        example = inputs.example(component, seed)
        for what, one in variants(component):
            expected = results(one, example)
            for block in BLOCKS:
                found = results(one, example, block, shuffled=block == BLOCKS[-1])
                for name in expected:
                    seen = f"{name!r}{what} in blocks of {block}, compared with one block"
                    require_equal(found[name], expected[name], seen, _blocks_show(component))


def _blocks_show(component: PostProcessor) -> str:
    if isinstance(component, LocalPostProcessor):
        return "enlarge `halo`, treat the faces of the volume alone as its end, or inherit from another scope"
    if isinstance(component, StitchedPostProcessor):
        return (
            "let `link` name all pairs across faces (`reach`, `neighbourhood`), and `resolve` ask for the sizes of "
            "whole objects; or fix tiles in `lattice`"
        )
    if isinstance(component, ObjectwisePostProcessor):
        return "`mask` must fit its `halo`, `process` use nothing outside `mask`, and size filters belong in `keep`"
    return "let `process` depend on the inputs alone"


def check_workers(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Threads and processes give what the calling thread gives, also if several begin at the same moment."""
    example = inputs.example(component)
    change = "keep no state in the component, its class or its module; guard libraries with a lock"
    for what, one in variants(component):
        _require_undisturbed(one, _enlarged(example), change)
        expected = results(one, example, BLOCKS[0])
        with closing(Threads(4)) as threads, hasty_threads():
            found = results(one, example, BLOCKS[0], executor=threads)
        for name, values in expected.items():
            require_equal(found[name], values, f"{name!r}{what} by four threads", change)
    importable(type(component))
    for what, one in variants(component):
        expected = results(one, example, BLOCKS[0])
        found = results(one, example, BLOCKS[0], executor=_processes())
        for name, values in expected.items():
            require_equal(found[name], values, f"{name!r}{what} by two processes", change)


def _require_undisturbed(component: PostProcessor, example: Example, change: str) -> None:
    """Blocks that are computed at the same moment, several times over, are as they are one after the other."""
    step = planned(component, example)
    calls = [partial(_computed, step, block) for block in blocks_of(step, example, _QUARTERS)[:4]]
    expected = [call() for call in calls]
    for _ in range(_RACES if len(calls) > 1 else 0):
        for number, found in enumerate(together(calls)):
            for name, values in expected[number].items():
                require_equal(found[name], values, f"{name} of block {number}, four at the same moment,", change)


def _computed(step: PostProcessor, block: Block) -> Mapping[str, NDArray[Any]]:
    """What the first pass of a step computes for a block; of copies, as what it does to them is not asked here."""
    block = replace(block, arrays={name: array.copy() for name, array in block.arrays.items()})
    if isinstance(step, LocalPostProcessor):
        return step.process(block)
    if isinstance(step, StitchedPostProcessor):
        return {"labels": step.label(block)[0]}
    if isinstance(step, ObjectwisePostProcessor):
        mask = step.mask(block)
        return {"mask": mask, **step.process(block, mask)}
    return {}


@cache
def _processes() -> Processes:
    """Started once: a process takes a second."""
    processes = Processes(2)
    atexit.register(processes.close)
    return processes


def check_killed_and_resumed(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Killed before or after any commit (of many, a dozen) and resumed, a run gives what an uninterrupted one gives."""
    example = inputs.example(component)
    change = "write nothing but what is returned, and let every call depend on its arguments alone"
    for what, one in variants(component):
        with run_folder() as folder:
            calm = OneStep(one, example, _HALVES)
            expected = calm.run(folder)
        for moment in ("before", "after"):
            for number in np.unique(np.linspace(0, calm.commits - 1, _KILLS).astype(int)).tolist():
                with run_folder() as folder:
                    step = OneStep(one, example, _HALVES)
                    try:
                        found = (
                            step.run(folder, before=number) if moment == "before" else step.run(folder, after=number)
                        )
                    except Killed:
                        found = step.run(folder)
                for name in expected:
                    seen = f"{name!r}{what}, killed {moment} commit {number} and resumed,"
                    require_equal(found[name], expected[name], seen, change)


def check_late_options(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Options read late change neither what blocks are labelled nor how they are linked."""
    if not isinstance(component, StitchedPostProcessor | ObjectwisePostProcessor):
        return
    strange = sorted({*component.late, *component.read_late()} - set(type(component).model_fields))
    require(not strange, f"`late` names {strange}, which are no options", "name options of this class")
    example = inputs.example(component)
    before = _early(component, example)
    for option in component.read_late():
        for other in changed(component, option):
            try:
                after = _early(other, example)
            except ConfigError:  # a value that another option rules out
                continue
            change = f"leave {option!r} out of `late`, or read it in `keep`, `resolve` or `relabel` alone"
            for name, array in before.items():
                value = getattr(other, option)
                require_equal(after[name], array, f"{name} with {option} = {value!r}, a late option,", change)


def _early(component: PostProcessor, example: Example) -> dict[str, NDArray[Any]]:
    """All that early passes leave behind: ids, tables, parts."""
    with run_folder() as folder:
        step = OneStep(component, example, BLOCKS[0])
        step.run(folder, keep_ids=True)
        late = ("final", "relabel", "paint")
        found: dict[str, NDArray[Any]] = {}
        for file in sorted((folder / "scratch").rglob("*.npy")):
            if not file.parent.name.startswith("out."):
                blank = not file.stat().st_size  # a block of zeros
                found[f"{file.parent.name}/{file.name}"] = np.zeros(0) if blank else np.load(file)
        with RunLock(folder) as lock:
            workspace = Workspace(folder, InProcess(), lock)
            for file in sorted((folder / "state").glob("*.journal")):
                if file.name.split(".")[1] not in late:
                    with workspace.journal(file.stem) as journal:
                        found |= {f"{file.stem}, block {number}": table for number, table in journal.tables.items()}
    return found


def check_order_of_objects(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """`resolve` gives each object the same final id in whatever order the tables list them."""
    if not isinstance(component, StitchedPostProcessor):
        return
    objects, links = _tables(component, inputs.example(component))
    step = component.in_voxels(inputs.voxel_size)
    expected = step.resolve(objects.copy(), links.copy())
    order = np.random.default_rng(1).permutation(len(objects))
    new = np.zeros(len(objects) + 1, "u8")
    new[1 + order] = np.arange(1, len(objects) + 1)
    moved = links.copy()
    moved["a"], moved["b"] = new[links["a"].astype("i8")], new[links["b"].astype("i8")]
    found = step.resolve(objects[order], merged(moved))
    seen, change = "final ids after objects were listed in another order", "break ties by `first`, not by the row"
    require_equal(found[new.astype("i8")], expected, seen, change)


def _tables(component: StitchedPostProcessor, example: Example) -> tuple[NDArray[Any], NDArray[Any]]:
    """What `resolve` gets: rows of objects and merged links."""
    early = {}
    with run_folder() as folder:
        step = OneStep(component, example, BLOCKS[0])
        step.run(folder, keep_ids=True)
        with RunLock(folder) as lock:
            workspace = Workspace(folder, InProcess(), lock)
            for name in ("label", "link"):
                with workspace.journal(f"step.{name}.e") as journal:
                    early[name] = [journal.tables[number] for number in range(len(step.grid))]
    return np.concatenate(early["label"]), merged(np.concatenate(early["link"]))


def check_empty_and_full(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Volumes of nothing and volumes of one thing alone are results like others, blocks or not."""
    example = inputs.example(component)
    for what, one in variants(component):
        for filling, value in (("empty", 0), ("full", 1)):
            filled = example.filled(value)
            try:
                expected, found = results(one, filled), results(one, filled, BLOCKS[0])
            except ContractError as error:
                raise CheckFailed(f"{error.problem}: {filling} volume{what}", error.hint) from error
            for name in expected:
                seen = f"{name!r} of a volume that is {filling}{what}, in blocks"
                require_equal(found[name], expected[name], seen, _blocks_show(component))


def check_halo(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Voxels farther away than `halo` change nothing: of a Local step's outputs, of an Objectwise step's mask."""
    if not isinstance(component, LocalPostProcessor | ObjectwisePostProcessor):
        return
    example, other = inputs.example(component), inputs.example(component, 1)
    step = planned(component, example)
    halo, volume = step.halo(), example.region
    for write in (Roi((4, 8, 9), (7, 11, 14)), Roi((0, 0, 0), (2, 3, 4)), Roi((10, 15, 20), SHAPE)):
        read = write.grow(halo).clip(example.region)
        mixed = {name: array.copy() for name, array in other.arrays.items()}
        for name, array in mixed.items():
            array[(slice(None), *read.slices)] = example.arrays[name][(slice(None), *read.slices)]
        changed_beyond = _local(step, Block(volume, volume, mixed, volume, example.voxel_size))
        for name, values in _local(step, _whole(example)).items():
            found = changed_beyond[name]
            seen = f"{name!r} at {write} after a change beyond the halo {halo}"
            require_equal(found[(..., *write.slices)], values[(..., *write.slices)], seen, "enlarge `halo`")


def _local(step: PostProcessor, block: Block) -> Mapping[str, NDArray[Any]]:
    if isinstance(step, LocalPostProcessor):
        return step.process(block)
    return {"mask": step.mask(block)} if isinstance(step, ObjectwisePostProcessor) else {}


def check_inputs(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """The arrays that are given stay as they are."""
    for _, one in variants(component):
        with run_folder() as folder:
            step = OneStep(one, inputs.example(component), BLOCKS[0])
            step.run(folder)
        for name, source in step.sources.items():
            for roi, array in source.handed:
                change = "work on a copy: arrays that are given belong to others too"
                require_equal(array, source.values[(..., *roi.slices)], f"input {name!r} afterwards", change)


def check_no_state(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """A component that was used gives what a fresh one gives, and draws no random numbers of the program."""
    example, other = inputs.example(component), inputs.example(component, 1)
    change = "keep nothing from one call to the next: neither in the component nor in its class or module"
    first = results(component, example, BLOCKS[0])
    with undisturbed():
        results(component, other, BLOCKS[0])
        again = results(component, example, BLOCKS[0])
    fresh = results(validated(component, {}), example, BLOCKS[0])
    for name, values in first.items():
        require_equal(again[name], values, f"{name!r} of the same volume after another one", change)
        require_equal(fresh[name], values, f"{name!r} of an equal component", change)
    importable(type(component))
    with closing(Processes(1)) as process:
        elsewhere = process.submit(partial(_last, component, (other, example)), None).result()
    for name, values in first.items():
        require_equal(elsewhere[name], values, f"{name!r} of a new process that met another volume first", change)


def _last(component: PostProcessor, examples: Sequence[Example], _item: None) -> dict[str, NDArray[Any]]:
    """What a process gives for the last of several volumes."""
    return [results(component, example, BLOCKS[0]) for example in examples][-1]


def check_unknown_voxel_size(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Where the voxel size is not known, there is a result, or a ConfigError that says what is missing."""
    with config_error_allowed("a volume of unknown voxel size"):
        results(component, replace(inputs.example(component), voxel_size=None), BLOCKS[0])


def check_columns(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """Columns that are summed are integers: sums of floats depend on the order of blocks in their last bits."""
    if not isinstance(component, StitchedPostProcessor) or type(component).resolve is not StitchedPostProcessor.resolve:
        return
    columns = component.in_voxels(inputs.voxel_size).columns()
    inexact = [name for name, dtype in columns if np.dtype(dtype).kind not in "iub"]
    change = (
        "sum integers, such as np.rint(value * 2**20) as i8; or override `resolve`, and sum in an order of your own"
    )
    require(not inexact, f"columns that are summed, and not integers: {', '.join(inexact)}", change)


def check_memory(component: PostProcessor, inputs: Inputs = _RANDOM) -> None:
    """`bytes_per_voxel` and `memory` are at least what `process` takes."""
    if not isinstance(component, ObjectwisePostProcessor | WholePostProcessor):
        return
    example = _enlarged(inputs.example(component))
    step, whole = planned(component, example), _whole(example)
    inside = step.mask(whole) if isinstance(step, ObjectwisePostProcessor) else np.zeros(0, bool)

    def process() -> object:
        return step.process(whole, inside) if isinstance(step, ObjectwisePostProcessor) else step.process(whole)

    process()  # what is imported or kept at the first call does not count
    taken = peak(process)
    voxels = whole.read.voxels
    if isinstance(step, ObjectwisePostProcessor):
        said, change = step.bytes_per_voxel * voxels, f"bytes_per_voxel = {-(-taken // voxels)} or more"
    else:
        given = sum(array.nbytes for array in example.arrays.values())
        said, change = (
            step.memory(example.volume) - given,
            f"let `memory` give {taken + given} or more for {whole.read.shape}",
        )
    require(
        taken <= said + _SLACK, f"process takes {taken:,} bytes for {voxels:,} voxels, {said:,} are declared", change
    )


def _enlarged(example: Example) -> Example:
    """The example repeated along all axes: so large that Python's own memory does not count."""
    repeated = {name: np.tile(array, (1, 2, 4, 3)) for name, array in example.arrays.items()}
    return Example(repeated, example.given, example.voxel_size)


def _whole(example: Example) -> Block:
    copies = {name: array.copy() for name, array in example.arrays.items()}
    return Block(example.region, example.region, copies, example.region, example.voxel_size)


CHECKS: tuple[Check, ...] = (
    check_outputs,
    check_dense_ids,
    check_block_invariance,
    check_workers,
    check_killed_and_resumed,
    check_late_options,
    check_order_of_objects,
    check_empty_and_full,
    check_halo,
    check_inputs,
    check_no_state,
    check_unknown_voxel_size,
    check_columns,
    check_memory,
)


class PostProcessorTests(ComponentTests):
    """Tests of a post-processor of any scope. Set `component`; write `example` if random inputs mean nothing to it.

    ```python
    class TestWatershed(PostProcessorTests):
        component = Watershed()

        def example(self, rng):
            return {"foreground": ..., "boundary": ...}  # (1, z, y, x) float32, at least 12 x 20 x 24 voxels
    ```
    """

    checks: ClassVar[tuple[Check, ...]] = CHECKS
    voxel_size: ClassVar[VoxelSize | None] = EDGES
    """Of the volumes that the component is given."""

    def example(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any]] | None:
        """Inputs (c, z, y, x) by the names of `needs`, in the dtype components see; None: smooth random ones."""
        del rng
        return None

    def apply(self, check: Check, component: Any, folder: Path) -> None:
        """Hand the check the inputs."""
        own = type(self).example is not PostProcessorTests.example
        check(component, Inputs(self._made if own else None, self.voxel_size))

    def _made(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any]]:
        return self.example(rng) or {}
