"""What post-processors do with arrays and tables of object ids."""

from itertools import product
from typing import Any, Literal

import cc3d
import fastremap
import numpy as np
from numpy.typing import NDArray

from mitocore import LINK

Connectivity = Literal[6, 18, 26]
"""Voxels touch across faces (6), edges too (18), or corners too (26)."""

_AXES_CROSSED = {6: 1, 18: 2, 26: 3}


def components(mask: NDArray[np.bool_], connectivity: Connectivity) -> NDArray[np.uint32]:
    """Numbers 1..n of the connected parts of a mask (z, y, x).

    With connected-components-3d: Wu, Otoo and Suzuki, "Two strategies to speed up connected component labeling
    algorithms", 2005.

    >>> components(np.array([[[1, 0, 1]]], bool), 26)
    array([[[1, 0, 2]]], dtype=uint32)
    """
    # as bytes: for bools cc3d (4.1) expects too few labels at 26 if an extent is odd, and fails on isolated voxels
    numbers: NDArray[np.uint32] = cc3d.connected_components(
        np.ascontiguousarray(mask).view("u1"), connectivity=connectivity, out_dtype=np.uint32
    )
    return numbers


def sizes_of(numbers: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Voxels of each object 1..n of an array of numbers, 0 background.

    >>> sizes_of(np.array([[[0, 1, 3, 3]]], np.uint32))
    array([1, 0, 2])
    """
    found: NDArray[np.int64] = np.bincount(numbers[numbers > 0])  # of all voxels: eight bytes for each
    return found[1:]


def looked_up(table: NDArray[np.uint32], numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """What a table says of each number of an array (z, y, x).

    >>> looked_up(np.array([0, 7], np.uint32), np.array([[[0, 1]]], np.uint32))
    array([[[0, 7]]], dtype=uint32)
    """
    found = np.empty_like(numbers)
    for plane, where in zip(found, numbers, strict=True):  # numpy turns indices into int64: a plane at a time
        np.take(table, where, out=plane, mode="clip")
    return found


def compact(ids: NDArray[np.unsignedinteger[Any]]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Numbers 1..n in place of arbitrary ids, and the ids they stand for.

    >>> numbers, stand_for = compact(np.array([[[0, 900, 7, 900]]], "u8"))
    >>> stand_for[numbers[numbers > 0] - 1]
    array([900,   7, 900], dtype=uint64)
    """
    numbers, number_of = fastremap.renumber(ids, preserve_zero=True)
    number_of.pop(0, None)
    stand_for = np.zeros(len(number_of), "u8")
    stand_for[np.fromiter(number_of.values(), "i8") - 1] = np.fromiter(number_of, "u8")
    return numbers.astype("u4", copy=False), stand_for


def contacts(
    ids: NDArray[np.unsignedinteger[Any]],
    inner: tuple[slice, slice, slice],
    connectivity: Connectivity,
    *,
    in_plane: bool = False,
) -> NDArray[Any]:
    """Pairs of objects that touch, as a `LINK` array; the weight counts their pairs of voxels.

    Parameters
    ----------
    ids
        (z, y, x) ids; 0 is background.
    inner
        The box in which the lower voxel (raster order) of a counted pair lies.
    connectivity
        Which voxels touch.
    in_plane
        Only voxels of one slice do.

    Examples
    --------
    >>> contacts(np.array([[[1, 2, 2], [1, 0, 2]]], "u8"), (slice(0, 1), slice(0, 2), slice(0, 3)), 26)
    array([(1, 2, 2.)], dtype=[('a', '<u8'), ('b', '<u8'), ('weight', '<f8')])
    """
    numbers, stand_for = compact(ids)
    base = np.uint64(len(stand_for) + 1)
    keys = [np.zeros(0, "u8")]
    for step in product((-1, 0, 1), repeat=3):
        if step > (0, 0, 0) and sum(map(abs, step)) <= _AXES_CROSSED[connectivity] and not (in_plane and step[0]):
            axes = list(zip(step, inner, ids.shape, strict=True))
            here = tuple(slice(max(box.start, -s), min(box.stop, n - s)) for s, box, n in axes)
            there = tuple(slice(max(box.start + s, 0), min(box.stop + s, n)) for s, box, n in axes)
            one, other = numbers[here], numbers[there]
            differ = (one != other) & (one > 0) & (other > 0)
            ends = np.sort([one[differ], other[differ]], axis=0).astype("u8")
            keys.append(ends[0] * base + ends[1])
    pairs, count = np.unique(np.concatenate(keys), return_counts=True)
    links = np.zeros(len(pairs), LINK)
    ends = np.sort([stand_for[(pairs // base).astype("i8") - 1], stand_for[(pairs % base).astype("i8") - 1]], axis=0)
    links["a"], links["b"], links["weight"] = *ends, count
    return links


def numbered(first: NDArray[np.uint64], group: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Final id of every provisional id; index 0 is background.

    Parameters
    ----------
    first
        (n,) raster index of the first voxel of provisional objects 1..n.
    group
        (n,) number 0, 1 … of the object that each becomes a part of; -1 removes it.

    Examples
    --------
    >>> numbered(np.array([5, 3, 0, 9], "u8"), np.array([0, 1, -1, 1]))
    array([0, 2, 1, 0, 1], dtype=uint64)
    """
    stays = group >= 0
    earliest = np.full(group.max(initial=-1) + 1, np.iinfo("u8").max, "u8")
    np.minimum.at(earliest, group[stays], first[stays])
    occurring = np.unique(group[stays])
    name = np.zeros(len(earliest), "u8")
    name[occurring[np.argsort(earliest[occurring], kind="stable")]] = np.arange(1, len(occurring) + 1)
    final = np.zeros(len(group) + 1, "u8")
    final[1:][stays] = name[group[stays]]
    return final
