"""The passes of each scope of post-processor."""

from collections.abc import Callable, Mapping
from itertools import accumulate

import numpy as np

from mitocore.blockwise import contract
from mitocore.blockwise.arrays import BlockFiles, Sink, Source, voxel_bytes
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.work import Label, Link, Process, Provisional, Reads, Relabel, bytes_of_blocks
from mitocore.blockwise.workspace import Workspace
from mitocore.geometry import Roi
from mitocore.interfaces import LocalPostProcessor, StitchedPostProcessor
from mitocore.specs import ArraySpec, Kind, VolumeSpec
from mitocore.stitch import LINK, merged

_WORKING = 8
"""Bytes per voxel that a component works with, beside what it is given and gives: two float32, or one id."""
_IDS = 12
"""Bytes per voxel of local and of provisional ids."""


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
) -> None:
    """Run a Local step: one pass over the blocks of `grid`, which cover a region of `volume`.

    Blocks read their halo from the volume, clipped at its faces, so `inputs` must reach that far. The outputs named in
    `sinks` are stored; `gives` declares them all. `name` names the journal and holds the digest of all of this.

    Raises
    ------
    ContractError
        If the component returns what it does not declare.
    RunError
        If a block keeps failing, or another driver took over the run folder.
    """
    who, reads = contract.name_of(component, plugin), Reads(inputs, Roi.whole(volume.shape), volume.voxel_size)
    work = Process(component, reads, gives, grid, sinks, who)
    cost = bytes_of_blocks(grid, component.halo(), reads.volume, reads.voxel_bytes + _given(gives) + _WORKING)
    workspace.run(name, name.partition(".")[0], work, range(len(grid)), sinks=sinks.values(), cost=cost)


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
    rows = contract.rows(who, component.columns())
    label, link = f"{name}.label.{early}", f"{name}.link.{early}"
    resolved, relabel = f"{name}.final.{late}", f"{name}.relabel.{late}"
    final = workspace.table(resolved)
    with workspace.journal(relabel) as journal:
        ended = final is not None and len(journal.tables) == len(blocks)
    ids = BlockFiles(workspace.scratch(f"{name}.ids.{early}"), grid, 1, "uint32")
    reads = Reads({key: inputs[key] for key in component.rereads()}, region, volume.voxel_size)
    if not ended:
        given = Reads(inputs, region, volume.voxel_size)
        first = Label(component, given, ids, volume.shape, rows, who)
        cost = bytes_of_blocks(grid, component.halo(), region, given.voxel_bytes + _IDS + _WORKING)
        found = workspace.run(label, f"{name}: label", first, blocks, sinks=[ids], cost=cost)
        provisional = Provisional(ids, tuple(accumulate((len(table) for table in found.values()), initial=0)))
    if final is None:
        cost = bytes_of_blocks(grid, component.reach(), region, reads.voxel_bytes + _IDS + _WORKING)
        pairs = workspace.run(link, f"{name}: link", Link(component, reads, provisional, who), blocks, cost=cost)
        objects = np.concatenate([np.zeros(0, rows), *found.values()])
        final = component.resolve(objects, merged(np.concatenate([np.zeros(0, LINK), *pairs.values()])))
        contract.final(who, final, len(objects))
        workspace.save(resolved, final)
    count = int(final.max())
    ids_as = "uint32" if count < np.iinfo(np.uint32).max else "uint64"  # the maximum itself means "ignore"
    dtypes = {array: ids_as if spec.kind is Kind.INSTANCE else spec.stored for array, spec in gives.items()}
    sinks = {array: make(array, dtype) for array, dtype in dtypes.items()}
    if not ended:
        last = Relabel(component, reads, provisional, final, gives, dtypes, sinks, who)
        cost = bytes_of_blocks(grid, (0, 0, 0), region, reads.voxel_bytes + _IDS + _given(gives))
        workspace.run(relabel, f"{name}: relabel", last, blocks, sinks=sinks.values(), cost=cost)
    if not keep_ids:
        workspace.forget(label)  # before the ids, which it says are there
        workspace.forget(link)
        workspace.discard(f"{name}.ids.{early}")
    return count


def _given(gives: Mapping[str, ArraySpec]) -> int:
    return sum(map(voxel_bytes, gives.values()))
