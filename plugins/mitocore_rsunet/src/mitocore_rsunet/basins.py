"""Objects of a graph of neighbouring voxels, compiled.

Compiled code is cached beside this file, so that a process compiles it once per machine. Importing this imports numba:
components do so when a block is there.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


def parts(edges: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Numbers 1..n, in raster order of first voxels, of what edges connect; 0 outside.

    Parameters
    ----------
    edges
        (3, z, y, x): whether a voxel and the one before it along z, y and x are joined; False where there is none.
    inside
        (z, y, x) voxels that get a number, if only one of their own: those at which edges end, and maybe more.

    Examples
    --------
    >>> edges = np.array([[[[0, 0, 0, 0]]], [[[0, 0, 0, 0]]], [[[0, 1, 0, 0]]]], bool)
    >>> parts(edges, np.array([[[1, 1, 0, 1]]], bool))
    array([[[1, 1, 0, 2]]], dtype=uint32)
    """
    _, z, y, x = edges.shape
    joined, those = np.ascontiguousarray(edges).reshape(3, -1), np.ascontiguousarray(inside).ravel()
    found: NDArray[np.uint32] = _parts(joined, those, y * x, x).reshape(z, y, x)
    return found


def ascents(edges: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    """The edges that join every voxel to the basin it belongs to: its strongest edges.

    The watershed of an affinity graph: Zlateski and Seung, "Image segmentation by size-dependent single linkage
    clustering of a watershed basin graph", 2015; the fragments of waterz. A plateau is divided among the ways out of
    it, by distance; equal distances by raster order and then direction.

    Parameters
    ----------
    edges
        (3, z, y, x) affinity of a voxel and the one before it along z, y and x; 0 where there is none.
    low
        Edges that are not above this join nothing.
    high
        Edges of at least this always join.

    Returns
    -------
    (3, z, y, x), for `parts`.
    """
    _, z, y, x = edges.shape
    values = np.ascontiguousarray(edges, np.float32).reshape(3, -1)
    joined: NDArray[np.bool_] = _ascents(values, z, y, x, np.float32(low), np.float32(high)).reshape(edges.shape)
    return joined


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _root(parent: Any, voxel: int) -> Any:
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _parts(edges: Any, inside: Any, plane: int, row: int) -> Any:
    voxels = edges.shape[1]
    parent = np.arange(voxels)
    for voxel in range(voxels):
        for axis in range(3):
            if edges[axis, voxel]:
                before = voxel - (plane if axis == 0 else row if axis == 1 else 1)
                one, other = _root(parent, voxel), _root(parent, before)
                parent[max(one, other)] = min(one, other)
    ids = np.zeros(voxels, np.uint32)
    count = 0
    for voxel in range(voxels):
        if inside[voxel]:
            root = _root(parent, voxel)
            if root == voxel:  # the first voxel of its object: the root of a set is its least voxel
                count += 1
                ids[voxel] = count
            else:
                ids[voxel] = ids[root]
    return ids


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _ascents(edges: Any, depth: int, height: int, width: int, low: Any, high: Any) -> Any:
    voxels = edges.shape[1]
    steps = np.array([-height * width, -width, -1, height * width, width, 1])
    ways = np.zeros(voxels, np.uint8)  # a bit for each direction that leads up: before along z, y, x; after
    around = np.zeros(6, np.float32)
    voxel = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                for axis in range(3):
                    around[axis] = edges[axis, voxel]
                around[3] = edges[0, voxel + steps[3]] if z + 1 < depth else 0
                around[4] = edges[1, voxel + steps[4]] if y + 1 < height else 0
                around[5] = edges[2, voxel + steps[5]] if x + 1 < width else 0
                best = around.max()
                if best > low:
                    for way in range(6):
                        if around[way] == best or around[way] >= high:
                            ways[voxel] |= np.uint8(1 << way)
                voxel += 1
    queued = np.zeros(voxels, np.bool_)
    queue = np.empty(voxels, np.int64)
    end = 0
    for voxel in range(voxels):  # where a plateau is left: a way up that does not come back
        for way in range(6):
            if ways[voxel] >> way & 1 and not ways[voxel + steps[way]] >> ((way + 3) % 6) & 1:
                queued[voxel] = True
                queue[end] = voxel
                end += 1
                break
    place = 0
    while place < end:  # from there inwards, every voxel of the plateau keeps one way: to who was there before
        voxel = queue[place]
        kept = np.uint8(0)
        for way in range(6):
            if ways[voxel] >> way & 1:
                other = voxel + steps[way]
                if not ways[other] >> ((way + 3) % 6) & 1:
                    kept = np.uint8(1 << way)
                elif not queued[other]:
                    queued[other] = True
                    queue[end] = other
                    end += 1
        ways[voxel] = kept
        place += 1
    joined = np.zeros((3, voxels), np.bool_)
    for voxel in range(voxels):
        for way in range(6):
            if ways[voxel] >> way & 1:
                joined[way % 3, voxel if way < 3 else voxel + steps[way]] = True
    return joined
