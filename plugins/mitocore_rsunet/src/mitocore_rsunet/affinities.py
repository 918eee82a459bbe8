"""Instances from affinities, as connected components."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore import LINK, Block, Shape, StitchedPostProcessor
from mitocore_rsunet.edges import BACK, FromAffinities, Share, ends, met, nearest


class AffinityComponents(FromAffinities, StitchedPostProcessor):
    """Objects of affinities: neighbours whose affinity is above a threshold are in one object.

    Only channels that lead to a voxel beside count. A voxel with no such neighbour is background. Labelled per block,
    joined across blocks exactly: one wrong voxel joins two objects. Ids follow the raster order of first voxels.
    """

    threshold: Share = 0.5
    """Two neighbours are in one object if their affinity is above this."""

    def halo(self) -> Shape:
        return (1, 1, 1)  # a voxel whose only edge leads to the next block is no background

    def rereads(self) -> tuple[str, ...]:
        return ("affinities",)

    def label(self, block: Block) -> tuple[NDArray[np.uint32], None]:
        from mitocore_rsunet.basins import parts

        edges = self.near(block) > self.threshold
        inside, inner = block.crop(met(edges)), block.crop(edges)
        for axis in range(3):
            np.moveaxis(inner[axis], axis, 0)[0] = False  # to another block
        return parts(inner, inside), None

    def link(self, block: Block, ids: NDArray[np.uint64]) -> NDArray[Any]:
        edges = nearest(block["affinities"], self.steps()) > self.threshold
        own = np.zeros(ids.shape, np.bool_)
        own[block.write.within(block.read)] = True
        found = [np.zeros(0, LINK)]
        for axis in range(3):
            after, before = ends(ids.shape, BACK[axis])
            crossed = edges[axis][after] & (own[after] != own[before]) & (ids[after] > 0) & (ids[before] > 0)
            pairs = np.ones(np.count_nonzero(crossed), LINK)
            pairs["a"], pairs["b"] = ids[after][crossed], ids[before][crossed]
            found.append(np.unique(pairs))
        return np.concatenate(found)
