"""Accuracy by the length of objects."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.extents import Located
from mitocore.builtin.metrics.compared import ratio, suffix
from mitocore.builtin.metrics.matching import Overlaps
from mitocore.builtin.metrics.whole_objects import Length, WholeObjects, known_edges, object_of
from mitocore.geometry import Roi, nanometres
from mitocore.interfaces import Block, Seen

LENGTHS = "short", "medium", "long"


class SkeletonAccuracy(WholeObjects):
    """Accuracy TP / (TP + FP + FN) of true objects by the length of their skeleton.

    The ranking of the MitoEM challenge (Franco-Barranco et al. 2023) looks at accuracy at an IoU of 0.75 in classes of
    skeleton length. A match and a missed object belong to the class of the true object, a predicted object that matches
    none to the class of its own length. Matches are those of `instance`.

    The skeleton is that of Lee et al. (1994) on the voxel grid; its length is that of its longest path in nm: between
    the two ends farthest apart along it, which two sweeps find (exactly where it has no loop). A ball has length 0.
    Objects cut by the region are measured as far as they lie in it. NaN where a class has no object.
    """

    lengths: tuple[Length, Length] = ("1 um", "3 um")
    """Shortest object that is medium, and shortest that is long: nm, or text such as "2 um". The challenge's own
    classes are not published with its rules; state those that you compare with."""
    threshold: float = Field(default=0.75, gt=0, le=1)
    """Smallest IoU of a match."""

    def objects(self, partial: Located) -> Mapping[Hashable, Roi]:
        overlaps = Overlaps(partial.table)
        matched = overlaps.predicted[overlaps.matched(self.threshold)]
        boxes: dict[Hashable, Roi] = {
            ("truth", number): partial.truth.box(row) for row, number in enumerate(partial.truth.ids.tolist())
        }
        for number in np.delete(overlaps.ids, matched).tolist():
            boxes["predicted", number] = partial.predicted.box(partial.predicted.row(number))
        return boxes

    def measured(self, key: tuple[str, int], block: Block) -> float:
        """Length in nm."""
        side, number = key
        return length(object_of(block, side, number), known_edges(block.voxel_size))

    def total(self, partial: Seen) -> dict[str, float]:
        overlaps = Overlaps(partial.partial.table)
        pairs = overlaps.matched(self.threshold)
        edges = [nanometres(one) for one in self.lengths]

        def counted(side: str, ids: NDArray[np.uint64]) -> NDArray[np.intp]:
            lengths = [partial.objects[side, number] for number in ids.tolist()]
            return np.bincount(np.searchsorted(edges, lengths, side="right"), minlength=len(LENGTHS))

        right = counted("truth", overlaps.true_ids[overlaps.truth[pairs]])
        true = counted("truth", overlaps.true_ids)
        wrong = counted("predicted", np.delete(overlaps.ids, overlaps.predicted[pairs]))
        name = f"accuracy{suffix(self.threshold)}"
        accuracy = np.where(true + wrong > 0, ratio(right, true + wrong), np.nan)
        return {
            name: float(ratio(right.sum(), (true + wrong).sum())),
            **{f"{name}_{one}": float(score) for one, score in zip(LENGTHS, accuracy, strict=True)},
            **{f"true_{one}": float(number) for one, number in zip(LENGTHS, true, strict=True)},
        }


def length(shape: NDArray[np.bool_], edges: tuple[float, float, float]) -> float:
    """Length of the longest path of the skeleton of an object in nm.

    >>> rod = np.zeros((3, 3, 9), bool)
    >>> rod[1, 1, 1:8] = True
    >>> length(rod, (30, 8, 8))
    48.0
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, dijkstra
    from skimage.morphology import skeletonize

    voxels = np.argwhere(np.asarray(skeletonize(np.pad(shape, 1))))
    if len(voxels) < 2:
        return 0.0
    place = np.full(np.array(shape.shape) + 2, -1)
    place[tuple(voxels.T)] = np.arange(len(voxels))
    rows, columns, steps = [], [], []
    for offset in np.argwhere(np.ones((3, 3, 3), bool))[14:] - 1:  # one half of the 26 neighbours
        neighbour = place[tuple((voxels + offset).T)]
        near = neighbour >= 0
        rows.append(np.flatnonzero(near))
        columns.append(neighbour[near])
        steps.append(np.full(np.count_nonzero(near), np.linalg.norm(offset * edges)))
    links: Any = (np.concatenate(rows), np.concatenate(columns))
    graph = coo_array((np.concatenate(steps), links), shape=(len(voxels),) * 2).tocsr()
    pieces, piece = connected_components(graph, directed=False)
    longest = 0.0
    for number in range(pieces):
        begin = int(np.argmax(piece == number))
        end = _farthest(dijkstra(graph, directed=False, indices=begin))[0]
        longest = max(longest, _farthest(dijkstra(graph, directed=False, indices=end))[1])
    return longest


def _farthest(distances: NDArray[np.float64]) -> tuple[int, float]:
    """Which voxel can be reached and is farthest, and how far it is."""
    reached = np.where(np.isinf(distances), -1, distances)
    return int(np.argmax(reached)), float(reached.max())
