"""Objects found block by block, joined exactly: no I/O, property-tested."""

from collections.abc import Callable, Mapping
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitocore.geometry import Roi, Shape, as_shape

LINK = np.dtype([("a", "u8"), ("b", "u8"), ("weight", "f8")])
_REACH = {6: 1, 18: 2, 26: 3}


def faces(box: Roi, reach: Shape, volume: Roi) -> list[tuple[Roi, Roi]]:
    """Slabs (near, far) along the three upper faces of a block or tile: its own voxels, its neighbours' beyond.

    Two voxels of different blocks, at most `reach` apart, lie in the near and the far part of exactly one slab:
    that of the first axis on which their blocks differ.
    """
    slabs = []
    for axis in range(3):
        deep = as_shape(reach[a] if a == axis else 0 for a in range(3))
        wide = as_shape(reach[a] if a >= axis else 0 for a in range(3))
        cut = as_shape(box.stop[a] if a == axis else volume.start[a] for a in range(3))
        far = box.grow(wide).clip(Roi(cut, volume.stop))
        if 0 not in far.shape:
            edge = as_shape(box.stop[a] if a == axis else box.start[a] for a in range(3))
            slabs.append((Roi(edge, box.stop).grow(deep).clip(box), far))
    return slabs


def touching(ids: NDArray[np.uint64], inner: tuple[slice, ...], connectivity: int) -> NDArray[Any]:
    """Pairs of objects that touch across the surface of the box `inner`, each pair once.

    >>> touching(np.array([[[1, 1, 2, 2]]], np.uint64), (slice(0, 1), slice(0, 1), slice(0, 2)), 6).tolist()
    [(1, 2, 1.0)]
    """
    ends = [along.indices(n)[:2] for along, n in zip(inner, ids.shape, strict=True)]
    beyond = ids.copy()
    beyond[inner] = 0
    pairs = []
    for step in product((-1, 0, 1), repeat=3):
        if 0 < sum(map(abs, step)) <= _REACH[connectivity]:
            # the voxels of `inner` whose neighbour at `step` lies in the array, and that neighbour
            here = tuple(slice(max(a, -s), min(b, n - s)) for (a, b), s, n in zip(ends, step, ids.shape, strict=True))
            there = tuple(slice(h.start + s, h.stop + s) for h, s in zip(here, step, strict=True))
            far = beyond[there]
            if far.any():
                near = ids[here]
                touch = (near > 0) & (far > 0)
                found = np.ones(np.count_nonzero(touch), LINK)
                found["a"], found["b"] = near[touch], far[touch]
                pairs.append(found)
    links = merged(np.concatenate([np.zeros(0, LINK), *pairs]))
    links["weight"] = 1
    return links


def merged(links: NDArray[Any]) -> NDArray[Any]:
    """Each pair once, a ≤ b, ordered, with the sum of its weights.

    Columns beside `a`, `b` and `weight` are part of what makes a row: a pair occurs once for each of their values.

    >>> merged(np.array([(2, 1, 1), (1, 3, 1), (1, 2, 0.5)], LINK)).tolist()
    [(1, 2, 1.5), (1, 3, 1.0)]
    >>> levels = np.array([(2, 1, 1, 7), (1, 2, 1, 9), (1, 2, 2, 7)], [*LINK.descr, ("level", "u1")])
    >>> merged(levels).tolist()
    [(1, 2, 3.0, 7), (1, 2, 1.0, 9)]
    """
    keys = {"a": np.minimum(links["a"], links["b"]), "b": np.maximum(links["a"], links["b"])}
    keys |= {name: links[name] for name in links.dtype.names or () if name not in (LINK.names or ())}
    order = np.lexsort(tuple(keys.values())[::-1])
    fresh = np.zeros(len(links), np.bool_)
    fresh[:1] = True
    for key in keys.values():
        fresh[1:] |= key[order[1:]] != key[order[:-1]]
    starts = np.flatnonzero(fresh)
    joined = np.zeros(len(starts), links.dtype)
    for name, key in keys.items():
        joined[name] = key[order[starts]]
    joined["weight"] = np.add.reduceat(links["weight"][order], starts) if len(starts) else 0
    return joined


def unite(
    objects: NDArray[Any], links: NDArray[Any], keep: Callable[[NDArray[Any]], NDArray[np.bool_]]
) -> NDArray[np.uint64]:
    """Final id of every provisional id; index 0 is background.

    `objects` has one row per provisional id 1..n, in that order, with `first`, `size` and additive columns.
    """
    complete, group = joined(objects, links)
    return named(group, keep(complete), np.argsort(complete["first"], kind="stable"))


def joined(
    objects: NDArray[Any], links: NDArray[Any], extremes: Mapping[str, np.ufunc] = MappingProxyType({})
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Complete objects, in no order that means anything, and for every provisional id 1..n the row it became part of.

    Columns are summed, but `first` is the least, and what `extremes` names is joined as it says (`np.minimum` …).
    """
    n = len(objects)
    ends = links["a"].astype("i8"), links["b"].astype("i8")
    graph = coo_array((np.ones(len(links), bool), ends), shape=(n + 1, n + 1))
    _, group = np.unique(connected_components(graph, directed=False)[1][1:], return_inverse=True)
    complete = np.zeros(group.max(initial=-1) + 1, objects.dtype)
    complete[group] = objects  # any member of each: where least and greatest begin
    how = {"first": np.minimum, **extremes}
    for column in objects.dtype.names or ():
        if column not in how:
            complete[column] = 0
        how.get(column, np.add).at(complete[column], group, objects[column])
    return complete, group


def named(group: NDArray[np.intp], alive: NDArray[np.bool_], order: NDArray[np.intp]) -> NDArray[np.uint64]:
    """The table of final ids: complete objects that are `alive` get 1..m in this `order`, all others 0.

    >>> named(np.array([0, 1, 0, 2]), np.array([True, True, False]), np.array([1, 2, 0])).tolist()
    [0, 2, 1, 2, 0]
    """
    name = np.zeros(len(alive), "u8")
    name[order] = np.where(alive[order], np.cumsum(alive[order]), 0)
    return np.concatenate([np.zeros(1, "u8"), name[group]])
