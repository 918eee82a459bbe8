"""Best-first merging of regions by the affinities of their contacts, compiled.

Compiled code is cached beside this file, so that a process compiles it once per machine. Importing this imports numba:
components do so when there is something to merge.
"""

import heapq
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

LEVELS = 256
"""Bins of a histogram of affinities, from 0 to 1."""


def merged_regions(
    ends: NDArray[np.int64],
    level: NDArray[np.uint8],
    count: NDArray[np.int64],
    regions: int,
    threshold: float,
    quantile: int | None,
) -> NDArray[np.int64]:
    """What every region becomes a part of: one of its members, which stands for all.

    The two regions whose contact has the highest score are merged first; histograms of contacts with a common
    neighbour are added up. Of equal scores, the contact with the earliest two of the given regions is first.

    Parameters
    ----------
    ends
        (n, 2) regions 0, 1 … that touch, the smaller first, ordered; a row per level that occurs on their contact.
    level
        (n,) bin of affinities, ascending within a contact.
    count
        (n,) how many there are.
    regions
        How many regions there are.
    threshold
        Merge while the score is above this.
    quantile
        In percent: the score is the middle of the bin that holds it. None: the mean of the middles.

    Examples
    --------
    >>> ends, count = np.array([[0, 1], [1, 2], [1, 2]]), np.array([4, 2, 1])
    >>> level = np.array([200, 30, 220], "u1")
    >>> merged_regions(ends, level, count, 3, 0.5, quantile=50).tolist()
    [1, 1, 2]
    """
    if not len(ends):
        return np.arange(regions)
    fresh = np.ones(len(ends), np.bool_)
    fresh[1:] = (ends[1:] != ends[:-1]).any(axis=1)
    starts = np.append(np.flatnonzero(fresh), len(ends))
    contacts = np.ascontiguousarray(ends[starts[:-1]])
    percent = -1 if quantile is None else quantile
    found: NDArray[np.int64] = _merged(contacts, starts, level, count.copy(), regions, float(threshold), percent)
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _score(row: Any, following: Any, level: Any, count: Any, percent: int) -> Any:
    total = twice = 0
    at = row
    while at >= 0:
        total += count[at]
        twice += (2 * np.int64(level[at]) + 1) * count[at]
        at = following[at]
    if percent < 0:
        return twice / (2 * LEVELS * total)
    left = min(percent * total // 100 + 1, total)  # the place of the quantile, from 1, as waterz counts
    at = row
    while count[at] < left:
        left -= count[at]
        at = following[at]
    return (level[at] + 0.5) / LEVELS


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _added(one: Any, other: Any, following: Any, level: Any, count: Any) -> Any:
    """Two histograms, lists of rows by ascending level, as one; the first row of it."""
    first = last = -1
    while one >= 0 or other >= 0:
        if other < 0 or (one >= 0 and level[one] <= level[other]):
            at = one
            one = following[one]
        else:
            at = other
            other = following[other]
        if last >= 0 and level[last] == level[at]:
            count[last] += count[at]
        else:
            if last < 0:
                first = at
            else:
                following[last] = at
            last = at
    following[last] = -1
    return first


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _append(entry: Any, region: Any, begin: Any, finish: Any, later: Any) -> None:
    if finish[region] < 0:
        begin[region] = entry
    else:
        later[finish[region]] = entry
    later[entry] = -1
    finish[region] = entry


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _roots(parent: Any) -> Any:
    for region in range(len(parent)):
        root = parent[region]
        while parent[root] != root:
            root = parent[root]
        parent[region] = root
    return parent


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _merged(ends: Any, starts: Any, level: Any, count: Any, regions: int, threshold: float, percent: int) -> Any:
    following = np.arange(1, len(level) + 1)  # the next row of the histogram a row is in
    following[starts[1:] - 1] = -1
    rows = starts[:-1].copy()  # the first row of each contact; -1: there is no such contact any more
    rank = np.arange(len(ends))
    version, parent = np.zeros(len(ends), np.int64), np.arange(regions)
    # contacts of a region are a list: entry 2 c belongs to the first end of contact c, 2 c + 1 to the second
    begin, finish = np.full(regions, -1), np.full(regions, -1)
    later = np.full(2 * len(ends), -1)
    degree = np.zeros(regions, np.int64)
    between = {ends[0, 0] * regions + ends[0, 1]: rank[0]}  # which contact two regions have
    queue = [(0.0, rank[0], rank[0], version[0])]
    queue.clear()
    for contact in rank.copy():
        between[ends[contact, 0] * regions + ends[contact, 1]] = contact
        for side in range(2):
            _append(2 * contact + side, ends[contact, side], begin, finish, later)
            degree[ends[contact, side]] += 1
        score = _score(rows[contact], following, level, count, percent)
        if score > threshold:
            queue.append((-score, contact, contact, version[contact]))
    heapq.heapify(queue)
    while queue:
        _, _, best, current = heapq.heappop(queue)
        if rows[best] < 0 or version[best] != current:
            continue
        into, gone = ends[best, 0], ends[best, 1]
        if degree[into] < degree[gone]:  # the shorter list moves
            into, gone = gone, into
        parent[gone] = into
        rows[best] = -1
        degree[into] -= 1
        entry = begin[gone]
        while entry >= 0:
            contact, side, after = entry // 2, entry % 2, later[entry]
            if rows[contact] >= 0:
                neighbour = ends[contact, 1 - side]
                del between[min(gone, neighbour) * regions + max(gone, neighbour)]
                key = min(into, neighbour) * regions + max(into, neighbour)
                if key in between:
                    same = between[key]
                    rows[same] = _added(rows[same], rows[contact], following, level, count)
                    rows[contact] = -1
                    degree[neighbour] -= 1
                    rank[same], version[same] = min(rank[same], rank[contact]), version[same] + 1
                    score = _score(rows[same], following, level, count, percent)
                    if score > threshold:
                        heapq.heappush(queue, (-score, rank[same], same, version[same]))
                else:
                    between[key] = contact
                    ends[contact, side] = into
                    _append(entry, into, begin, finish, later)
                    degree[into] += 1
            entry = after
    return _roots(parent)
