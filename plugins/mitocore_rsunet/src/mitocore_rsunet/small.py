"""What becomes of small objects: one rule for steps that hold a component in memory and for tables of whole volumes."""

from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mitocore import SizeOption, VoxelSize, size_in_voxels
from mitocore.interfaces import PostProcessor
from mitocore_rsunet.objects import contacts, looked_up, sizes_of

RemoveSmall = Literal["none", "background", "neighbor", "background_2d", "neighbor_2d"]


class MinSize(PostProcessor):
    """A step that removes small objects when they are complete."""

    late: ClassVar[tuple[str, ...]] = ("min_size",)

    min_size: SizeOption = 0
    """Smaller objects become background: voxels, or "0.002 um3". Counted over whole objects, not per block."""

    def in_voxels(self, voxel_size: VoxelSize | None) -> Self:
        return self.model_copy(update={"min_size": size_in_voxels(self.min_size, voxel_size)})

    def keep(self, objects: NDArray[Any]) -> NDArray[np.bool_]:
        """Objects that are large enough."""
        large: NDArray[np.bool_] = objects["size"] >= size_in_voxels(self.min_size, None)
        return large


def heirs(small: NDArray[np.bool_], stays: NDArray[np.bool_], links: NDArray[Any]) -> NDArray[np.int64]:
    """What each of n objects becomes: itself, the neighbour it touches most, or -1, background.

    Parameters
    ----------
    small
        (n,) who goes to the neighbour with most pairs of voxels; of equals, the first.
    stays
        (n,) who remains, and may be given others.
    links
        `LINK` array of objects 1..n that touch, with the number of their pairs of voxels; a pair may occur again.

    Examples
    --------
    >>> links = contacts(np.array([[[3, 1, 2, 2]]], "u8"), np.s_[0:1, 0:1, 0:4], 26)
    >>> heirs(np.array([True, False, True]), np.array([False, True, False]), links)
    array([ 1,  1, -1])
    """
    count = len(small)
    becomes = np.where(stays, np.arange(count), -1)
    a, b = (links[end].astype("i8") - 1 for end in ("a", "b"))
    source, sink = np.concatenate([a, b]), np.concatenate([b, a])
    moves = small[source] & stays[sink]
    pairs, place = np.unique(source[moves] * count + sink[moves], return_inverse=True)
    weight = np.bincount(place, np.tile(links["weight"], 2)[moves], minlength=len(pairs))
    source, sink = np.divmod(pairs, max(count, 1))
    order = np.lexsort((sink, -weight, source))
    source, best = np.unique(source[order], return_index=True)
    becomes[source] = sink[order][best]
    return becomes


def without_small(ids: NDArray[np.uint32], min_size: int, mode: RemoveSmall) -> NDArray[np.uint32]:
    """Whole instances (z, y, x) of one component after the rule for those of fewer than `min_size` voxels.

    "neighbor" gives them to the instance that they touch with most pairs of voxels (across faces, edges or corners;
    smallest id of equals) and that is not small itself; "background" and "none" change nothing, as sizes of whole
    instances are for `keep`. With "_2d" every slice is filtered on its own.

    >>> ids = np.array([[[1, 2, 2, 0, 3]], [[1, 1, 0, 0, 3]]], np.uint32)
    >>> without_small(ids, 2, "background_2d").tolist()
    [[[0, 2, 2, 0, 0]], [[1, 1, 0, 0, 0]]]
    >>> without_small(ids, 2, "neighbor_2d").tolist()
    [[[2, 2, 2, 0, 0]], [[1, 1, 0, 0, 0]]]
    """
    if mode in ("background_2d", "neighbor_2d"):
        filtered = [_filtered(plane[None], min_size, neighbor=mode == "neighbor_2d") for plane in ids]
        return np.concatenate(filtered) if filtered else ids
    return _filtered(ids, min_size, neighbor=True) if mode == "neighbor" else ids


def _filtered(ids: NDArray[np.uint32], min_size: int, *, neighbor: bool) -> NDArray[np.uint32]:
    size = sizes_of(ids)
    small = (size > 0) & (size < min_size)
    if not small.any():
        return ids
    stays = size >= max(min_size, 1)
    table = np.zeros(len(size) + 1, np.uint32)
    if neighbor and stays.any():
        z, y, x = ids.shape
        links = contacts(ids, (slice(0, z), slice(0, y), slice(0, x)), 26)
        table[1:] = heirs(small, stays, links) + 1
    else:
        table[1:][stays] = np.flatnonzero(stays) + 1
    return looked_up(table, ids)
