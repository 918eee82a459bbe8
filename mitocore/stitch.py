"""Objects found block by block, joined exactly: no I/O, property-tested."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitocore.geometry import Roi, Shape

LINK = np.dtype([("a", "u8"), ("b", "u8"), ("weight", "f8")])
_REACH = {6: 1, 18: 2, 26: 3}


def faces(box: Roi, reach: Shape, volume: Roi) -> list[tuple[Roi, Roi]]:
    """Slabs (near, far) along the three upper faces of a block or tile: its own voxels, its neighbours' beyond.

    Two voxels of different blocks, at most `reach` apart, lie in the near and the far part of exactly one slab:
    that of the first axis on which their blocks differ.
    """
    slabs = []
    for axis in range(3):
        deep = tuple(reach[a] if a == axis else 0 for a in range(3))
        wide = tuple(reach[a] if a >= axis else 0 for a in range(3))
        cut = tuple(box.stop[a] if a == axis else volume.start[a] for a in range(3))
        far = box.grow(wide).clip(Roi(cut, volume.stop))
        if 0 not in far.shape:
            edge = tuple(box.stop[a] if a == axis else box.start[a] for a in range(3))
            slabs.append((Roi(edge, box.stop).grow(deep).clip(box), far))
    return slabs


def touching(ids: NDArray[np.uint64], inner: tuple[slice, ...], connectivity: int) -> NDArray[Any]:
    """Pairs of objects that touch across the surface of the box `inner`, each pair once."""
    near = np.zeros(ids.shape, bool)
    near[inner] = ids[inner] > 0
    far = ids > 0
    far[inner] = False
    pairs = [np.zeros((0, 2), "u8")]
    for step in product((-1, 0, 1), repeat=3):
        if 0 < sum(map(abs, step)) <= _REACH[connectivity]:
            here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, ids.shape, strict=True))
            there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, ids.shape, strict=True))
            if (out := near[here] & far[there]).any():
                pairs.append(np.stack([ids[here][out], ids[there][out]], axis=1))
    low, high = np.sort(np.concatenate(pairs), axis=1).T
    order = np.lexsort((high, low))
    fresh = np.diff(low[order], prepend=0).astype(bool) | np.diff(high[order], prepend=0).astype(bool)
    links = np.ones(fresh.sum(), LINK)
    links["a"], links["b"] = low[order][fresh], high[order][fresh]
    return links


def unite(
    objects: NDArray[Any], links: NDArray[Any], keep: Callable[[NDArray[Any]], NDArray[np.bool_]]
) -> NDArray[np.uint64]:
    """Final id of every provisional id; index 0 is background.

    `objects` has one row per provisional id 1..n, in that order, with `first`, `size` and additive columns.
    """
    n = len(objects)
    ends = links["a"].astype("i8"), links["b"].astype("i8")
    graph = coo_array((np.ones(len(links), bool), ends), shape=(n + 1, n + 1))
    _, group = np.unique(connected_components(graph, directed=False)[1][1:], return_inverse=True)
    merged = np.zeros(group.max(initial=-1) + 1, objects.dtype)
    merged["first"] = np.iinfo("u8").max
    for column in objects.dtype.names or ():
        (np.minimum if column == "first" else np.add).at(merged[column], group, objects[column])
    alive = keep(merged)
    order = np.argsort(merged["first"], kind="stable")
    name = np.zeros(len(merged), "u8")
    name[order] = np.where(alive[order], np.cumsum(alive[order]), 0)
    return np.concatenate([np.zeros(1, "u8"), name[group]])
