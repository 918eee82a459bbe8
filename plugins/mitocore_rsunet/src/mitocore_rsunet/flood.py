"""Seeded watershed of one box, bit for bit that of scikit-image, on landscapes of integer levels.

Flooding in the order of height (Soille and Ansoult, "Automated basin delineation from digital elevation models using
mathematical morphology", 1990; Meyer, "Topographic distance and watershed lines", 1994) as
`skimage.segmentation.watershed` (0.25.2 and later) defines it: a priority queue holds (level, age). Seeds enter in
raster order, all of age 0; an element that leaves gives its label to its unlabelled neighbours, in the order -z, -y,
-x, +x, +y, +z, and they enter with the age of their entrance and the higher of their own level and the one that left.
So the level never falls, and elements of one level leave in the order they entered: a first-in, first-out queue per
level suffices, with no heap. Seeds are the exception: those of one level are equal, so the shape of scikit-image's
binary heap says which of them leaves first, and a voxel between two objects goes to one or the other accordingly.

That heap is therefore followed exactly, but no longer and no further than it matters:

- until the last seed that has an unlabelled neighbour has left; the queues hold everything that entered since;
- what leaves later than that seed is all alike in the heap, as it cannot change the places of what leaves earlier;
- equal seeds at the top of the heap are a tree that is left from its leftmost path on: they leave in preorder, and the
  places they vacate come in postorder. So one walk over the tree does them all, and the last element of the heap sinks
  from the vacated place instead of from the top: on average a few steps, as when a heap is built.

The compiled code is cached beside this file, or in the user's cache if that folder cannot be written; if neither can,
every process compiles it again. Numba replaces cache files whole, so processes may compile at the same time.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_PAYLOAD = 46  # bits: the voxel of a seed, 0 if it has nothing to flood; or the age of another element
_LATER = 1 << _PAYLOAD  # set in all but seeds, which leave their level first
_LEVEL = _PAYLOAD + 1  # the bits from here are the level
_LAST = np.iinfo("i8").max  # leaves after the last seed, in whatever order
_CHUNK_BITS = 9
_CHUNK = 1 << _CHUNK_BITS  # voxels in a link of a queue
_WAITING = 64  # more than the depth of any heap


def flood(landscape: NDArray[Any], seeds: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Labels grown from seeds over a mask, the low parts of the landscape first, across faces of voxels.

    Parameters
    ----------
    landscape
        (z, y, x) heights. Unsigned integers of 8 or 16 bits are fast: 4 bytes per voxel, 8 per voxel of a seed, 4 per
        voxel that waits to be flooded. Anything else, real numbers above all, goes to scikit-image itself: exact,
        several times slower, and some 30 bytes per voxel.
    seeds
        (z, y, x) 32-bit labels up to 2**31 - 1, of one or more pieces each; 0 is none. Those outside the mask count as
        none.
    mask
        (z, y, x) what is flooded.

    Returns
    -------
    NDArray[np.int32]
        (z, y, x) labels, 0 outside the mask and where no seed reaches; equal to those of
        `skimage.segmentation.watershed(landscape, seeds, mask=mask)`.

    Raises
    ------
    ValueError
        If shapes differ, a label is not in 0 .. 2**31 - 1, or the box has 2**32 voxels or more.

    Examples
    --------
    >>> landscape = np.array([[[0, 3, 9, 1, 0]]], "u1")
    >>> flood(landscape, np.array([[[1, 0, 0, 0, 2]]], "i4"), np.ones((1, 1, 5), bool))
    array([[[1, 1, 2, 2, 2]]], dtype=int32)
    """
    if not landscape.shape == seeds.shape == mask.shape or landscape.ndim != 3:
        raise ValueError(f"landscape {landscape.shape}, seeds {seeds.shape} and mask {mask.shape} must share one box")
    if seeds.dtype not in (np.dtype("i4"), np.dtype("u4")):
        raise ValueError(f"seeds are {seeds.dtype}; int32 or uint32 is needed")
    if landscape.dtype not in (np.dtype("u1"), np.dtype("u2")):
        from skimage.segmentation import watershed

        slow: NDArray[np.int32] = watershed(landscape, seeds.view("i4"), mask=mask).astype("i4", copy=False)
        return slow
    padded = tuple(n + 2 for n in landscape.shape)
    if np.prod(padded, dtype=object) >= 2**32:
        raise ValueError(f"a box of {landscape.shape} voxels is too large; 2**32 voxels is the limit")
    state = np.zeros(padded, "i4")  # within a border of a voxel, so that every voxel has neighbours
    seeded, last = _prepare(landscape, seeds.view("i4"), mask.view("u1"), state)
    if last == -2:
        raise ValueError(f"the lowest label is {seeds.view('i4').min()}; 0 to 2**31 - 1 are possible")
    flat = state.reshape(-1)
    if last >= 0:
        _rise(flat, seeded, last, int(landscape.max()) + 1, padded[1] * padded[2], padded[2])
    _close_up(state, flat)
    return flat[: landscape.size].reshape(landscape.shape)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in machine code, cached if any cache can be written."""
    try:
        compiled: Callable[..., Any] = numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # no folder for a cache
        compiled = numba.njit(function, nogil=True)
    return compiled


# A first-in, first-out queue of elements per level is kept in plain arrays, and what is done for every neighbour stands
# in the loops themselves: handing all of them to a function for every neighbour took longer than the work.
#   pool     chunks of voxels; drained chunks are used again
#   follows  the chunk after each, in its queue or among the free ones
#   first    where in the pool each level is read next
#   end      where it is written next; -1: the level has no chunk
#   book     the first free chunk, -1 is none; how many were ever used


@_compiled
def _wider(pool: NDArray[np.uint32], follows: NDArray[np.int32]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """The same pool with twice the room."""
    wider = np.empty(2 * pool.size, np.uint32)
    wider[: pool.size] = pool
    longer = np.empty(2 * follows.size, np.int32)
    longer[: follows.size] = follows
    return wider, longer


@_compiled
def _new_chunk(follows: NDArray[np.int32], book: NDArray[np.int64]) -> int:
    chunk = int(book[0])
    if chunk >= 0:
        book[0] = follows[chunk]
    else:
        chunk = int(book[1])
        book[1] += 1
    return chunk


@_compiled
def _continued(follows: NDArray[np.int32], book: NDArray[np.int64], place: int) -> int:
    """Where a queue is written next if the place is behind its chunk."""
    chunk: int = _new_chunk(follows, book)
    follows[(place >> _CHUNK_BITS) - 1] = chunk
    return chunk << _CHUNK_BITS


@_compiled
def _drained(follows: NDArray[np.int32], book: NDArray[np.int64], place: int) -> int:
    """Where a queue is read next if the place is behind its chunk, which is free from then on."""
    chunk = (place >> _CHUNK_BITS) - 1
    following = int(follows[chunk])
    follows[chunk] = book[0]
    book[0] = chunk
    return following << _CHUNK_BITS


@_compiled
def _key(item: int) -> int:
    """What the heap compares: all of an item, but of a seed only the level."""
    return item & (-_LATER | -((item >> _PAYLOAD) & 1))


@_compiled
def _sift_up(heap: NDArray[np.int64], place: int, item: int) -> None:
    """Put an item at the end of the heap, or above it, as far as it is smaller than what is there."""
    key = _key(item)
    while place > 0:
        parent = (place - 1) >> 1
        if _key(heap[parent]) <= key:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = item


@_compiled
def _sift_down(heap: NDArray[np.int64], size: int, place: int, item: int) -> None:
    """Put an item at a place, or below it, as far as the smaller child is smaller; the left one of equals."""
    key = _key(item)
    child = 2 * place + 1
    while child < size:
        smaller = _key(heap[child])
        if child + 1 < size:
            right = _key(heap[child + 1])
            child += int(right < smaller)
            smaller = min(smaller, right)
        if smaller >= key:
            break
        heap[place] = heap[child]
        place = child
        child = 2 * place + 1
    heap[place] = item


@_compiled
def _descend(
    heap: NDArray[np.int64], size: int, place: int, waiting: NDArray[np.int64], entered: int
) -> tuple[int, int]:
    """Walk from one of the equals at the top of the heap down their leftmost path; each is waiting from then on."""
    equal = heap[0] >> _PAYLOAD
    while True:
        waiting[entered % _WAITING] = heap[place]
        entered += 1
        child = 2 * place + 1
        if child < size and heap[child] >> _PAYLOAD == equal:
            place = child
        elif child + 1 < size and heap[child + 1] >> _PAYLOAD == equal:
            place = child + 1
        else:
            return place, entered


@_compiled
def _next(heap: NDArray[np.int64], size: int, place: int, waiting: NDArray[np.int64], entered: int) -> tuple[int, int]:
    """The place that the walk leaves after this one, in postorder; -1 after the top."""
    if place == 0:
        return -1, entered
    if place & 1 and place + 1 < size and heap[place + 1] >> _PAYLOAD == heap[0] >> _PAYLOAD:
        found: tuple[int, int] = _descend(heap, size, place + 1, waiting, entered)
        return found
    return (place - 1) >> 1, entered


@_compiled
def _prepare(
    landscape: NDArray[Any], seeds: NDArray[np.int32], mask: NDArray[np.uint8], state: NDArray[np.int32]
) -> tuple[NDArray[np.int64], int]:
    """Fill the state; the seeds in raster order as items of the heap, and the highest level of one that can flood.

    The state of a voxel is its label; where it has none yet, -1 less its height; 0 where it gets none. The level is -1
    if no seed has a neighbour to flood, -2 if a label is negative.
    """
    depth, rows, columns = landscape.shape
    count = 0
    for z in range(depth):
        for y in range(rows):
            for x in range(columns):
                if mask[z, y, x]:
                    label = seeds[z, y, x]
                    if label == 0:
                        state[z + 1, y + 1, x + 1] = -1 - np.int32(landscape[z, y, x])
                    else:
                        state[z + 1, y + 1, x + 1] = label
                        count += 1
                        if label < 0:
                            return np.empty(0, np.int64), -2
    items = np.empty(count, np.int64)
    last, count = -1, 0
    for z in range(1, depth + 1):
        for y in range(1, rows + 1):
            for x in range(1, columns + 1):
                if state[z, y, x] > 0:
                    level = int(landscape[z - 1, y - 1, x - 1])
                    items[count] = level << _LEVEL
                    lowest = min(state[z - 1, y, x], state[z, y - 1, x], state[z, y, x - 1])
                    lowest = min(lowest, state[z, y, x + 1], state[z, y + 1, x], state[z + 1, y, x])
                    if lowest < 0:
                        items[count] |= (z * (rows + 2) + y) * (columns + 2) + x
                        last = max(last, level)
                    count += 1
    return items, last


@_compiled
def _rise(state: NDArray[np.int32], heap: NDArray[np.int64], last: int, levels: int, plane: int, row: int) -> None:
    """Flood, level by level.

    `heap` holds the seeds in raster order, `last` is the highest level of one that has something to flood, and a plane
    and a row are as many voxels as stated.
    """
    pool, follows = np.empty(64 * _CHUNK, np.uint32), np.empty(64, np.int32)
    first, end = np.full(levels, -1, np.int64), np.full(levels, -1, np.int64)
    book = np.array([-1, 0])
    pool, follows = _rise_with_seeds(state, heap, last, pool, follows, first, end, book, plane, row)
    for level in range(last, levels):
        place = first[level]
        while place != end[level]:
            if book[1] + 12 > follows.size:
                pool, follows = _wider(pool, follows)
            voxel = np.int64(pool[place])
            place += 1
            if place & (_CHUNK - 1) == 0:
                place = _drained(follows, book, place)
            label = state[voxel]
            for step in (-plane, -row, -1, 1, row, plane):
                neighbour = voxel + step
                own = state[neighbour]
                if own < 0:
                    state[neighbour] = label
                    height = max(-1 - own, level)
                    free = end[height]
                    if free < 0:
                        free = _new_chunk(follows, book) << _CHUNK_BITS
                        first[height] = free
                    pool[free] = neighbour
                    free += 1
                    if free & (_CHUNK - 1) == 0:
                        free = _continued(follows, book, free)
                    end[height] = free


@_compiled
def _rise_with_seeds(  # noqa: PLR0915 - one loop: see the queues above
    state: NDArray[np.int32],
    heap: NDArray[np.int64],
    last: int,
    pool: NDArray[np.uint32],
    follows: NDArray[np.int32],
    first: NDArray[np.int64],
    end: NDArray[np.int64],
    book: NDArray[np.int64],
    plane: int,
    row: int,
) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Flood until the last seed has left; what has entered by then, and has not left, is in the queues."""
    size = heap.size
    left = 0
    for place in range(size):
        item = heap[place]
        if item >> _LEVEL > last:
            item = _LAST
        elif item & (_LATER - 1):
            left += 1
        _sift_up(heap, place, item)
    waiting = np.empty(_WAITING, np.int64)  # seeds met by the walk over equal ones, that are still to leave
    entered, gone = 0, 0  # how many of them there were, ever
    vacated = -1  # the place in the heap that the walk leaves next; -1: there is no walk
    swapped = -1  # the end of the heap if it was one of the equals: put on top, it leaves next
    age = 0
    while left > 0:
        if size + 7 > heap.size:
            larger = np.empty(heap.size + heap.size // 2 + 64, np.int64)
            larger[:size] = heap[:size]
            heap = larger
        if book[1] + 12 > follows.size:
            pool, follows = _wider(pool, follows)
        top = heap[0]
        level = top >> _LEVEL
        if top & _LATER:
            place = first[level]
            voxel = np.int64(pool[place])
            place += 1
            if place & (_CHUNK - 1) == 0:
                place = _drained(follows, book, place)
            first[level] = place
            size -= 1
            _sift_down(heap, size, 0, heap[size])
        else:
            equal = top >> _PAYLOAD
            if vacated < 0:
                vacated, entered = _descend(heap, size, 0, waiting, entered)
            if swapped >= 0:
                top = swapped
                swapped = -1
            else:
                top = waiting[gone % _WAITING]
                gone += 1
            size -= 1
            item = heap[size]
            if item >> _PAYLOAD != equal:
                _sift_down(heap, size, vacated, item)
                vacated, entered = _next(heap, size, vacated, waiting, entered)
            elif size == 0:
                vacated = -1
            else:
                swapped = item
                if size == vacated:
                    entered -= 1
                    vacated, entered = _next(heap, size, vacated, waiting, entered)
            voxel = top & (_LATER - 1)
            if voxel == 0:
                continue
            left -= 1
        label = state[voxel]
        for step in (-plane, -row, -1, 1, row, plane):
            neighbour = voxel + step
            own = state[neighbour]
            if own < 0:
                state[neighbour] = label
                height = max(-1 - own, level)
                free = end[height]
                if free < 0:
                    free = _new_chunk(follows, book) << _CHUNK_BITS
                    first[height] = free
                pool[free] = neighbour
                free += 1
                if free & (_CHUNK - 1) == 0:
                    free = _continued(follows, book, free)
                end[height] = free
                if height < last:
                    _sift_up(heap, size, (height << _LEVEL) | _LATER | age)
                    age += 1
                else:
                    heap[size] = _LAST
                size += 1
    return pool, follows


@_compiled
def _close_up(state: NDArray[np.int32], flat: NDArray[np.int32]) -> None:
    """Move labels from within the border to the front of the same memory, in raster order."""
    depth, rows, columns = state.shape
    place = 0
    for z in range(1, depth - 1):
        for y in range(1, rows - 1):
            for x in range(1, columns - 1):
                flat[place] = max(state[z, y, x], 0)
                place += 1
