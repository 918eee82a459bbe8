"""The passes of Local, Whole and Stitched post-processors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise import contract
from mitocore.blockwise.arrays import BlockFiles, Sink, Source, pack
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.held import IDS, WORKING, given_bytes, stored_as
from mitocore.blockwise.names import Names
from mitocore.blockwise.work import NOTHING, Label, Link, Process, Provisional, Reads, Relabel, bytes_of_blocks
from mitocore.blockwise.workspace import Workspace
from mitocore.errors import ResourceError
from mitocore.geometry import Roi
from mitocore.interfaces import LocalPostProcessor, StitchedPostProcessor, WholePostProcessor
from mitocore.specs import ArraySpec, VolumeSpec
from mitocore.stitch import merged


def local(
    component: LocalPostProcessor,
    inputs: Mapping[str, Source],
    sinks: Mapping[str, Sink],
    gives: Mapping[str, ArraySpec],
    grid: BlockGrid,
    volume: VolumeSpec,
    workspace: Workspace,
    *,
    name: str,
    plugin: str = "",
    bounds: Roi | None = None,
) -> None:
    """Run a Local step: one pass over the blocks of `grid`, which cover a region of `volume`.

    Blocks read their halo from `bounds`, what the step takes for the volume (None: all of it), clipped at its faces, so
    `inputs` must reach that far. The outputs named in `sinks` are stored; `gives` declares them all. `name` names the
    journal and holds the digest of all of this.

    Raises
    ------
    ContractError
        If the component returns what it does not declare.
    RunError
        If a block keeps failing, or another driver took over the run folder.
    """
    who = contract.name_of(component, plugin)
    reads = Reads(inputs, bounds or Roi.whole(volume.shape), volume.voxel_size)
    work = Process(component, reads, gives, grid, sinks, who)
    cost = bytes_of_blocks(grid, component.halo(), reads.volume, reads.voxel_bytes + given_bytes(gives) + WORKING)
    workspace.run(name, name.partition(".")[0], work, range(len(grid)), sinks=sinks.values(), cost=cost)


def whole(
    component: WholePostProcessor,
    inputs: Mapping[str, Source],
    sinks: Mapping[str, Sink],
    gives: Mapping[str, ArraySpec],
    grid: BlockGrid,
    volume: VolumeSpec,
    workspace: Workspace,
    *,
    name: str,
    plugin: str = "",
) -> None:
    """Run a Whole step: one item, which reads and writes the whole region of `grid`.

    That region is the volume to such a step. Blocks are only what the outputs named in `sinks` are stored by; `gives`
    declares them all. `name` names the journal and holds the digest of all of this.

    Raises
    ------
    ResourceError
        If the step needs more memory than the run may use.
    ContractError
        If the component returns what it does not declare.
    RunError
        If it keeps failing, or another driver took over the run folder.
    """
    needed = component.memory(replace(volume, shape=grid.region.shape))
    label = name.partition(".")[0]
    if needed > workspace.budget:
        problem = f"{label!r} needs {needed:,} bytes for the whole volume at once, the run may use {workspace.budget:,}"
        raise ResourceError(problem, hint='a smaller region, or memory = "…" in [run]')
    reads = Reads(inputs, grid.region, volume.voxel_size)
    work = ProcessWhole(component, reads, gives, grid, sinks, contract.name_of(component, plugin))
    workspace.run(name, label, work, [0], sinks=sinks.values(), cost=lambda _: needed)


@dataclass(frozen=True, slots=True)
class ProcessWhole:
    """The one item of a Whole step."""

    component: WholePostProcessor
    reads: Reads
    gives: Mapping[str, ArraySpec]
    grid: BlockGrid
    sinks: Mapping[str, Sink]
    who: str

    def __call__(self, _: int) -> NDArray[Any]:
        """Write all blocks of the outputs."""
        block = self.reads.block(self.grid.region, self.grid.region)
        values = self.component.process(block)
        contract.outputs(self.who, values, self.gives, block.read.shape)
        for name, sink in self.sinks.items():
            for number in range(len(self.grid)):
                box = self.grid.box(number)
                part = values[name][(..., *box.within(self.grid.region))]
                sink.write(number, box, pack(part, self.gives[name]))
        return NOTHING


def stitched(
    component: StitchedPostProcessor,
    inputs: Mapping[str, Source],
    make: Callable[[str, str], Sink],
    gives: Mapping[str, ArraySpec],
    grid: BlockGrid,
    volume: VolumeSpec,
    workspace: Workspace,
    *,
    name: str,
    early: str,
    late: str,
    plugin: str = "",
    keep_ids: bool = False,
) -> int:
    """Run a Stitched step: `label`, `link`, `resolve`, `relabel`; returns the number of objects.

    The region of `grid` is the volume to such a step: objects end at its faces. Memory grows with objects, not voxels.
    To a component with a `lattice()`, the blocks of `grid` are its tiles: a grid of them, anchored at voxel 0 of the
    volume and clipped to the region, is then the only right one.

    Parameters
    ----------
    component
        The step, its options in voxels.
    inputs
        What it needs, by name.
    make
        Called once per output with its name and the dtype it is stored as, after `resolve`, when the number of objects
        is known: ids are uint32, or uint64 if there are more.
    gives
        Its outputs, by name.
    grid, volume
        Blocks and what they are blocks of.
    workspace
        The run folder.
    name
        Of the step; the first part of the names of its files.
    early, late
        Digests of all that provisional ids depend on (`grid` among it), and of that and the `late` options.
    plugin
        Named in the errors of the component.
    keep_ids
        Keep the provisional ids, so that another `late` repeats only `resolve` and `relabel`.

    Raises
    ------
    ContractError
        If the component returns what it does not declare.
    RunError
        If a block keeps failing, or another driver took over the run folder.
    """
    who, region, blocks = contract.name_of(component, plugin), grid.region, range(len(grid))
    contract.lattice(who, component.halo(), component.lattice())
    rows, of_pairs = contract.rows(who, component.columns()), contract.pairs(who, component.link_columns())
    names = Names(name, early, late)
    final = names.ids_so_far(workspace)
    ended = final is not None and names.written(workspace, len(blocks))
    ids = BlockFiles(workspace.scratch(names.ids), grid, 1, "uint32")
    reads = Reads({key: inputs[key] for key in component.rereads()}, region, volume.voxel_size)
    if not ended:
        given = Reads(inputs, region, volume.voxel_size)
        first = Label(component, given, ids, volume.shape, rows, who)
        cost = bytes_of_blocks(grid, component.halo(), region, given.voxel_bytes + IDS + WORKING)
        found = workspace.run(names.label, f"{name}: label", first, blocks, sinks=[ids], cost=cost)
        provisional = Provisional(ids, tuple(accumulate((len(table) for table in found.values()), initial=0)))
    if final is None:
        cost = bytes_of_blocks(grid, component.reach(), region, reads.voxel_bytes + IDS + WORKING)
        pairs = workspace.run(names.link, f"{name}: link", Link(component, reads, provisional, who), blocks, cost=cost)
        objects = np.concatenate([np.zeros(0, rows), *found.values()])
        final = component.resolve(objects, merged(np.concatenate([np.zeros(0, of_pairs), *pairs.values()])))
        contract.final(who, final, len(objects))
        workspace.save(names.final, final)
    count = int(final.max())
    dtypes = stored_as(gives, count)
    sinks = {array: make(array, dtype) for array, dtype in dtypes.items()}
    if not ended:
        last = Relabel(component, reads, provisional, final, gives, dtypes, sinks, who)
        cost = bytes_of_blocks(grid, (0, 0, 0), region, reads.voxel_bytes + IDS + given_bytes(gives))
        workspace.run(names.relabel, f"{name}: relabel", last, blocks, sinks=sinks.values(), cost=cost)
    if not keep_ids:
        names.discard(workspace)
    return count
