"""What the scopes mean: a whole volume in memory, without blocks; the engine must give the same arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import settle
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.interfaces import OBJECT, Block, LocalPostProcessor, StitchedPostProcessor
from mitocore.specs import ArraySpec
from mitocore.stitch import LINK, merged

Arrays = Mapping[str, NDArray[Any]]
"""Arrays (c, z, y, x) by name."""


def local(
    component: LocalPostProcessor, inputs: Arrays, gives: Mapping[str, ArraySpec], voxel_size: VoxelSize | None = None
) -> dict[str, NDArray[Any]]:
    """Outputs of a Local step over the whole volume, settled."""
    values = component.process(_whole(inputs, voxel_size))
    return {name: settle(values[name], spec) for name, spec in gives.items()}


def stitched(
    component: StitchedPostProcessor,
    inputs: Arrays,
    gives: Mapping[str, ArraySpec],
    voxel_size: VoxelSize | None = None,
) -> dict[str, NDArray[Any]]:
    """Outputs of a Stitched step over the whole volume, settled: one block, which has no faces to link across."""
    local_ids, columns = component.label(_whole(inputs, voxel_size))
    ids = local_ids.astype(np.uint64)
    numbers, first, size = np.unique(ids, return_index=True, return_counts=True)
    objects = np.zeros(np.count_nonzero(numbers), OBJECT + component.columns())
    objects["first"], objects["size"] = first[numbers > 0], size[numbers > 0]
    for name, _ in component.columns():
        objects[name] = columns[name] if columns is not None else 0
    reread = _whole({name: inputs[name] for name in component.rereads()}, voxel_size, ids.shape)
    links = component.link(reread, ids) if component.link_over == "blocks" else np.zeros(0, LINK)
    final = component.resolve(objects, merged(links))
    values = component.relabel(reread, ids, final)
    return {name: settle(values[name], spec) for name, spec in gives.items()}


def _whole(inputs: Arrays, voxel_size: VoxelSize | None, shape: tuple[int, ...] = ()) -> Block:
    volume = Roi.whole(as_shape(shape or next(iter(inputs.values())).shape[1:]))
    return Block(volume, volume, inputs, volume, voxel_size)
