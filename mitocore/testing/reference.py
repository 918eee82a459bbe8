"""What the scopes mean: a whole volume in memory, without blocks; the engine must give the same arrays.

Where a result is defined on tiles, they are here too. `region` is what of the inputs a step takes for its volume, as
the engine does for a part of a volume; outputs cover it.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, generate_binary_structure, label

from mitocore.blockwise.arrays import settle
from mitocore.blockwise.grid import BlockGrid
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces import (
    OBJECT,
    Block,
    LocalPostProcessor,
    ObjectwisePostProcessor,
    StitchedPostProcessor,
    WholePostProcessor,
)
from mitocore.specs import ArraySpec, Kind
from mitocore.stitch import LINK, faces, merged

Arrays = Mapping[str, NDArray[Any]]
"""Arrays (c, z, y, x) by name."""
Specs = Mapping[str, ArraySpec]
"""What outputs hold, by name."""


def local(
    component: LocalPostProcessor,
    inputs: Arrays,
    gives: Specs,
    voxel_size: VoxelSize | None = None,
    *,
    region: Roi | None = None,
) -> dict[str, NDArray[Any]]:
    """Outputs of a Local step, settled."""
    volume = region or _everything(inputs)
    return _settled(component.process(_cut(inputs, volume, volume, volume, voxel_size)), gives)


def whole(
    component: WholePostProcessor,
    inputs: Arrays,
    gives: Specs,
    voxel_size: VoxelSize | None = None,
    *,
    region: Roi | None = None,
) -> dict[str, NDArray[Any]]:
    """Outputs of a Whole step, settled."""
    volume = region or _everything(inputs)
    return _settled(component.process(_cut(inputs, volume, volume, volume, voxel_size)), gives)


def stitched(
    component: StitchedPostProcessor,
    inputs: Arrays,
    gives: Specs,
    voxel_size: VoxelSize | None = None,
    *,
    region: Roi | None = None,
) -> dict[str, NDArray[Any]]:
    """Outputs of a Stitched step, settled: one block, which has no faces to link across; or the tiles it asks for."""
    volume, lattice = region or _everything(inputs), component.lattice()
    tiles = _tiles(lattice.tile, volume) if lattice else [volume]
    ids, columns = np.zeros(volume.shape, np.uint64), []
    for tile in tiles:
        found, own = component.label(_cut(inputs, tile, tile.grow(component.halo()), volume, voxel_size))
        ids[tile.within(volume)] = np.where(found, found + ids.max(), 0)
        columns.append(own if own is not None else np.zeros(found.max(initial=0), component.columns()))
    objects = np.zeros(ids.max(), OBJECT + component.columns())
    numbers, first, size = np.unique(ids, return_index=True, return_counts=True)
    objects["first"] = _in_volume(first[numbers > 0], volume, inputs)
    objects["size"] = size[numbers > 0]
    for name, _ in component.columns():
        objects[name] = np.concatenate(columns)[name]
    reread = {name: inputs[name] for name in component.rereads()}
    links = [np.zeros(0, [*LINK.descr, *component.link_columns()])]
    for tile in tiles:
        for near, far in faces(tile, component.reach(), volume) if component.link_over == "faces" else ():
            slab = np.zeros(volume.shape, np.uint64)  # only what lies in the two
            for part in (near, far):
                slab[part.within(volume)] = ids[part.within(volume)]
            read = near.grow(component.reach()).clip(volume)
            links.append(component.link(_cut(reread, near, read, volume, voxel_size), slab[read.within(volume)]))
        if component.link_over == "blocks":
            read = tile.grow(component.reach()).clip(volume)
            links.append(component.link(_cut(reread, tile, read, volume, voxel_size), ids[read.within(volume)]))
    final = component.resolve(objects, merged(np.concatenate(links)))
    return _settled(component.relabel(_cut(reread, volume, volume, volume, voxel_size), ids, final), gives)


def objectwise(
    component: ObjectwisePostProcessor,
    inputs: Arrays,
    gives: Specs,
    voxel_size: VoxelSize | None = None,
    *,
    region: Roi | None = None,
) -> dict[str, NDArray[Any]]:
    """Outputs of an Objectwise step, settled: the components of its mask, one after the other."""
    volume = region or _everything(inputs)
    mask = component.mask(_cut(inputs, volume, volume, volume, voxel_size))
    found, _ = label(mask, generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[component.neighbourhood()]))
    numbers, first = np.unique(found, return_index=True)
    outputs = {name: np.zeros((len(spec.channels), *volume.shape), spec.dtype) for name, spec in gives.items()}
    instances = next((name for name, spec in gives.items() if spec.kind is Kind.INSTANCE), None)
    places: list[NDArray[np.intp]] = []  # of the voxels of each instance, in raster order
    for number in numbers[np.argsort(first)]:
        if number == 0:
            continue
        this = found == number
        box = _at(find_objects(this.view(np.uint8))[0], volume)
        tiled = component.oversize == "tile" and box.voxels > component.largest
        writes = [tile.clip(box) for tile in _tiles(component.tiles.tile, volume)] if tiled else [box]
        halo = as_shape(map(max, component.halo(), component.tiles.halo)) if tiled else component.halo()
        seen: list[tuple[Roi, Roi, NDArray[Any]]] = []
        for write in writes:
            if min(write.shape) < 1 or not this[write.within(volume)].any():
                continue
            block = _cut(inputs, write, write.grow(halo), volume, voxel_size)
            alone = np.ascontiguousarray(this[block.read.within(volume)])
            for name, values in component.process(block, alone).items():
                part = np.where(alone, values, values.dtype.type(0))
                if name == instances:
                    ids = np.zeros(volume.shape, np.int64)
                    ids[block.read.within(volume)] = part[0]
                    seen.append((write, block.read, ids))
                else:
                    target = outputs[name][(..., *write.within(volume))]
                    np.copyto(target, settle(block.crop(part), gives[name]), where=block.crop(alone))
        places += sorted(_united(seen, volume), key=lambda place: int(place[0]))
    if instances:
        rows = np.zeros(len(places), OBJECT)
        rows["first"] = _in_volume(np.array([place[0] for place in places], np.intp), volume, inputs)
        rows["size"] = [len(place) for place in places]
        alive = component.keep(rows)
        for number, kept in enumerate((place for place, stays in zip(places, alive, strict=True) if stays), 1):
            outputs[instances].ravel()[kept] = number
    return outputs


def _united(seen: list[tuple[Roi, Roi, NDArray[Any]]], volume: Roi) -> list[NDArray[np.intp]]:
    """The voxels of each instance: pieces of touching tiles are one where more than half of what they cover agrees."""
    pieces: dict[tuple[int, int], NDArray[np.intp]] = {}
    for tile, (write, _, ids) in enumerate(seen):
        own = np.zeros(volume.shape, np.bool_)
        own[write.within(volume)] = True
        pieces |= {(tile, int(n)): np.flatnonzero((ids == n) & own) for n in np.unique(ids[own]) if n}
    group = {piece: {piece} for piece in pieces}
    for (one, a), (two, b) in combinations(pieces, 2):
        shared = seen[one][1].clip(seen[two][1])
        touch = seen[one][0].grow((1, 1, 1)).clip(seen[two][0])
        if one == two or min(shared.shape) < 1 or min(touch.shape) < 1:
            continue
        mine, theirs = (seen[t][2][shared.within(volume)] == n for t, n in ((one, a), (two, b)))
        if (mine & theirs).sum() > (mine | theirs).sum() / 2:
            group[one, a] |= group[two, b]
            for member in group[one, a]:
                group[member] = group[one, a]
    united = {id(members): members for members in group.values()}
    return [np.sort(np.concatenate([pieces[piece] for piece in members])) for members in united.values()]


def _tiles(tile: Shape, volume: Roi) -> list[Roi]:
    grid = BlockGrid(volume, tile, anchor=(0, 0, 0))
    return [grid.box(number) for number in range(len(grid))]


def _everything(inputs: Arrays) -> Roi:
    return Roi.whole(as_shape(next(iter(inputs.values())).shape[1:]))


def _cut(inputs: Arrays, write: Roi, read: Roi, volume: Roi, voxel_size: VoxelSize | None) -> Block:
    read = read.clip(volume)
    arrays = {name: np.ascontiguousarray(values[(..., *read.slices)]) for name, values in inputs.items()}
    return Block(write, read, arrays, volume, voxel_size)


def _at(corner: tuple[slice, ...], volume: Roi) -> Roi:
    start = as_shape(along.start + o for along, o in zip(corner, volume.start, strict=True))
    return Roi(start, as_shape(along.stop + o for along, o in zip(corner, volume.start, strict=True)))


def _in_volume(places: NDArray[np.intp], region: Roi, inputs: Arrays) -> NDArray[np.intp]:
    """Raster indices in a region as those in the volume."""
    at = np.unravel_index(places, region.shape)
    shape = _everything(inputs).shape
    return np.ravel_multi_index([a + o for a, o in zip(at, region.start, strict=True)], shape)


def _settled(values: Arrays, gives: Specs) -> dict[str, NDArray[Any]]:
    return {name: settle(values[name], spec) for name, spec in gives.items()}
