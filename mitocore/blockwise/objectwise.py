"""The passes of an Objectwise step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise import contract
from mitocore.blockwise.arrays import BlockFiles, Sink, Source
from mitocore.blockwise.components import MaskComponents, Work, complete, roi_of, shared_out
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.held import IDS, WORKING, given_bytes, stored_as
from mitocore.blockwise.names import Names
from mitocore.blockwise.objects import INSTANCE, LinkPieces, Paint, PartFiles, ProcessObjects
from mitocore.blockwise.work import Label, Link, Provisional, Reads, bytes_of_blocks
from mitocore.blockwise.workspace import Table, Workspace
from mitocore.errors import ResourceError
from mitocore.interfaces import OBJECT, ObjectwisePostProcessor
from mitocore.specs import ArraySpec, VolumeSpec
from mitocore.stitch import LINK, joined, merged, named


def objectwise(
    component: ObjectwisePostProcessor,
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
    """Run an Objectwise step; returns the number of instances, or of components if no output holds instances.

    The passes are: the components of the mask (`label`, `link`), found as a Stitched step finds its objects; `objects`,
    which processes each on its own; `pieces`, which compares the tiles of oversize ones; and, once all instances are
    numbered, `paint`. The region of `grid` is the volume to such a step. Beside one component, memory grows with
    objects, not voxels.

    Parameters
    ----------
    component
        The step, its options in voxels.
    inputs
        What it needs, by name.
    make
        Called once per output with its name and the dtype it is stored as, when the number of instances is known: ids
        are uint32, or uint64 if there are more.
    gives
        Its outputs, by name.
    grid, volume
        Blocks and what they are blocks of.
    workspace
        The run folder; its budget is what objects at work at the same time may hold together.
    name
        Of the step; the first part of the names of its files.
    early, late
        Digests of all that the instances of components depend on (`grid` among it), and of that and the `late` options.
    plugin
        Named in the errors of the component.
    keep_ids
        Keep what was processed, so that another `late` repeats only the numbering and `paint`.

    Raises
    ------
    ResourceError
        If a component is too large for the memory the run may use.
    ContractError
        If the component returns what it does not declare.
    RunError
        If a block or an object keeps failing, or another driver took over the run folder.
    """
    who = contract.name_of(component, plugin)
    instances, blocks = contract.instances_of(who, gives), range(len(grid))
    names = Names(name, early, late, tuple(gives))
    final = names.ids_so_far(workspace)
    ended = final is not None and names.written(workspace, len(blocks))
    if not ended:
        reads = Reads(inputs, grid.region, volume.voxel_size)
        ids = BlockFiles(workspace.scratch(names.ids), grid, 1, "uint32")
        work = _components(component, reads, ids, volume, workspace, names, who)
        dtypes = stored_as(gives, 0)
        files = {
            array: BlockFiles(workspace.scratch(folder), grid, len(gives[array].channels), dtypes[array])
            for array, folder in names.blocks.items()
        }
        parts = {array: PartFiles(workspace.scratch(folder)) for array, folder in names.parts.items()}
        objects = ProcessObjects(component, reads, work, gives, instances, files, parts, volume.shape, who)
        found = _processed(objects, workspace, names)
        offsets = tuple(accumulate((len(table) for table in found), initial=0))
    if final is None:
        final = _numbered(objects, found, offsets, workspace, names)
        workspace.save(names.final, final)
    dtypes = stored_as(gives, int(final.max()))
    sinks = {array: make(array, dtype) for array, dtype in dtypes.items()}
    if not ended:
        last = Paint(objects, offsets, final, dtypes, sinks)
        cost = bytes_of_blocks(grid, (0, 0, 0), grid.region, IDS + 2 * given_bytes(gives))
        workspace.run(names.relabel, f"{name}: paint", last, blocks, sinks=sinks.values(), cost=cost)
    if not keep_ids:
        names.discard(workspace)
    return int(final.max())


def _components(
    step: ObjectwisePostProcessor,
    reads: Reads,
    ids: BlockFiles,
    volume: VolumeSpec,
    workspace: Workspace,
    names: Names,
    who: str,
) -> Work:
    """The connected components of the mask, and which item works on each."""
    mask, grid = MaskComponents(step=step, who=who), ids.grid
    looked_at = step.mask_reads()
    reads = replace(reads, inputs={name: source for name, source in reads.inputs.items() if name in looked_at})
    rows = contract.rows(who, mask.columns())
    work = Label(mask, reads, ids, volume.shape, rows, who)
    cost = bytes_of_blocks(grid, step.halo(), grid.region, reads.voxel_bytes + IDS + WORKING)
    found = workspace.run(names.label, f"{names.step}: label", work, range(len(grid)), sinks=[ids], cost=cost)
    provisional = Provisional(ids, tuple(accumulate((len(table) for table in found.values()), initial=0)))
    link = Link(mask, Reads({}, grid.region, None), provisional, who)
    cost = bytes_of_blocks(grid, mask.reach(), grid.region, IDS + WORKING)
    pairs = workspace.run(names.link, f"{names.step}: link", link, range(len(grid)), cost=cost)
    boxes, component = complete(
        np.concatenate([np.zeros(0, rows), *found.values()]), np.concatenate([np.zeros(0, LINK), *pairs.values()])
    )
    return shared_out(step, provisional, boxes, component)


def _processed(objects: ProcessObjects, workspace: Workspace, names: Names) -> list[Table]:
    """The instances that every item found: tasks begin first, the largest components ahead, then the blocks."""
    work, grid = objects.work, objects.work.grid
    blocks, tasks = range(len(grid)), range(len(grid), len(work))
    held = objects.reads.voxel_bytes + given_bytes(objects.gives)
    of_object = held + objects.step.bytes_per_voxel
    inside = np.flatnonzero(work.block >= 0)
    of_inside = of_object * objects.voxels_read(work.boxes[inside], np.zeros(len(inside), bool))
    of_tasks = of_object * objects.voxels_read(work.tasks, work.tasks["tiled"])
    needed, component = np.concatenate([of_inside, of_tasks]), np.concatenate([inside, work.tasks["component"]])
    if needed.max(initial=0) > workspace.budget:
        number = int(needed.argmax())
        _refuse(objects.step, component[number], work, int(needed[number]), workspace.budget, names.step)
    largest = np.zeros(len(blocks), np.int64)
    np.maximum.at(largest, work.block[inside], of_inside)

    def cost(item: int) -> float:
        if item >= len(blocks):
            return float(of_tasks[item - len(blocks)])
        return objects.around(grid.box(item)).voxels * (held + IDS) + float(largest[item])

    sinks: list[Sink] = [*objects.blocks.values(), *objects.parts.values()]
    found = workspace.run(names.objects, f"{names.step}: objects", objects, [*tasks, *blocks], sinks=sinks, cost=cost)
    return [found[item] for item in range(len(work))]


def _refuse(step: ObjectwisePostProcessor, row: int, work: Work, needed: int, budget: float, name: str) -> NoReturn:
    box = roi_of(work.boxes[row])
    problem = (
        f"component {row + 1} of the mask, from {box.start} to {box.stop} (z, y, x), "
        f"needs {needed:,} bytes; the run may use {budget:,.0f}"
    )
    tile = 'smaller "largest" and "tiles"' if step.oversize == "tile" else 'oversize = "tile"'
    raise ResourceError(problem, where=f"step {name!r}", hint=f'{tile}, or more memory = "…" in [run]')


def _numbered(
    objects: ProcessObjects,
    found: Sequence[Table],
    offsets: tuple[int, ...],
    workspace: Workspace,
    names: Names,
) -> NDArray[np.uint64]:
    """The final id of every provisional instance: joined, asked for by `keep`, ordered by component and first voxel."""
    if objects.instances is None:
        return np.arange(len(objects.work.boxes) + 1, dtype=np.uint64)  # the components are what there is to count
    work = objects.work
    tiles = [len(work.grid) + int(place) for place in np.flatnonzero(work.tasks["tiled"])]
    call = LinkPieces(objects, objects.instances, offsets)
    cost = {item: 2 * IDS * objects.covered(item).voxels for item in tiles}
    pairs = workspace.run(names.pieces, f"{names.step}: pieces", call, tiles, cost=cost.__getitem__)
    links = merged(np.concatenate([np.zeros(0, LINK), *pairs.values()]))
    rows, group = joined(np.concatenate([np.zeros(0, INSTANCE), *found]), links, {"component": np.minimum})
    complete = np.zeros(len(rows), OBJECT)
    complete["first"], complete["size"] = rows["first"], rows["size"]
    alive = objects.step.keep(complete)
    contract.kept(objects.who, alive, len(complete))
    return named(group, alive, np.lexsort((rows["first"], rows["component"])))
