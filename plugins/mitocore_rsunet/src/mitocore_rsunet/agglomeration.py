"""Instances from affinities, by fragments that are merged best first."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore import LINK, Block, Lattice, StitchedPostProcessor
from mitocore_rsunet.edges import BACK, FromAffinities, Share, axis_of, ends, is_near, met, nearest
from mitocore_rsunet.objects import compact, numbered

_LEVELS = 256


class AffinityAgglomeration(FromAffinities, StitchedPostProcessor):
    """Objects of affinities: fragments of a watershed, merged best first by the affinities where they touch.

    Fragments are those of waterz (Funke et al., "Large scale image segmentation with structured loss based deep
    learning for connectome reconstruction", 2019), found on `tiles`, which the result is defined on. Contacts are
    collected inside tiles and across them, and merged once for the whole volume, so that no object ends at a tile.
    Memory grows with fragments and contacts, not with voxels.
    """

    late: ClassVar[tuple[str, ...]] = ("threshold", "scoring", "quantile", "min_size")
    link_over: ClassVar[Literal["faces", "blocks"]] = "blocks"

    threshold: Share = 0.5
    """Merge while the score of the best contact is above this: 1 - t for a threshold t of waterz, whose scores are
    1 - affinity. A new value repeats only the merging."""
    scoring: Literal["quantile", "quantile_of_maxima", "mean"] = "quantile"
    """Of all affinities on a contact, in 256 bins: their "quantile" (`hist_quant_50` of the LSD tutorials, for 50);
    their "mean"; or "quantile_of_maxima", for which every two fragments bring their highest affinity only
    (`aff50_his256` of PyTorch Connectomics)."""
    quantile: Annotated[int, Field(ge=0, le=100)] = 50
    """In percent: 50 for the median; 75 merges more. Not for "mean"."""
    low: Share = 0.5
    """Without an edge above this, a voxel is background; waterz has 0.0001, and so no background. Take that for tissue
    without any, such as neurons, and for an input "foreground": the weak edges of a membrane that has become background
    are missed where two fragments touch, and they are merged too easily."""
    high: Annotated[float, Field(gt=0, le=1)] = 0.9999
    """Neighbours with an affinity of at least this are in one fragment always."""
    tiles: Lattice = Lattice()
    """Where fragments are found; larger tiles cut fewer of them. Fragments end at the faces of tiles."""

    def lattice(self) -> Lattice:
        return self.tiles

    def rereads(self) -> tuple[str, ...]:
        return ("affinities",)

    def link_columns(self) -> list[tuple[str, str]]:
        return [("level", "u1")]

    def label(self, block: Block) -> tuple[NDArray[np.uint32], None]:
        from mitocore_rsunet.basins import ascents, parts

        joined = ascents(self.near(block), self.low, self.high)
        numbers, _ = compact(block.crop(parts(joined, met(joined))))
        return numbers, None

    def link(self, block: Block, ids: NDArray[np.uint64]) -> NDArray[Any]:
        numbers, stand_for = compact(ids)
        edges, own = nearest(block["affinities"], self.steps()), np.zeros(ids.shape, np.bool_)
        own[block.write.within(block.read)] = True
        base, keys = np.uint64(len(stand_for) + 1), [np.zeros(0, "u8")]
        for axis in sorted({axis_of(offset) for offset in self.steps() if is_near(offset)}):
            later, earlier = ends(ids.shape, BACK[axis])
            one, other = numbers[later], numbers[earlier]
            touch = own[earlier] & (one != other) & (one > 0) & (other > 0)
            level = np.minimum(edges[axis][later][touch] * _LEVELS, _LEVELS - 1).astype("u8")
            a, b = np.sort([one[touch], other[touch]], axis=0).astype("u8")
            keys.append((a * base + b) * np.uint64(_LEVELS) + level)
        found, count = np.unique(np.concatenate(keys), return_counts=True)
        pairs, level = np.divmod(found, np.uint64(_LEVELS))
        links = np.zeros(len(found), [*LINK.descr, *self.link_columns()])
        for end, number in zip("ab", np.divmod(pairs, base), strict=True):
            links[end] = stand_for[number.astype("i8") - 1]
        links["level"], links["weight"] = level, count
        return links

    def resolve(self, objects: NDArray[Any], links: NDArray[Any]) -> NDArray[np.uint64]:
        from mitocore_rsunet.merging import merged_regions

        place = np.empty(len(objects), "i8")  # of each fragment, in raster order of first voxels
        place[np.argsort(objects["first"])] = np.arange(len(objects))
        pairs = np.sort([place[links[end].astype("i8") - 1] for end in "ab"], axis=0)
        order = np.lexsort((links["level"], pairs[1], pairs[0]))
        pairs, level, count = pairs[:, order].T, links["level"][order], links["weight"][order].astype("i8")
        if self.scoring == "quantile_of_maxima":
            last = np.append((pairs[1:] != pairs[:-1]).any(axis=1), np.ones(min(len(pairs), 1), bool))
            pairs, level, count = pairs[last], level[last], np.ones(np.count_nonzero(last), "i8")
        percent = None if self.scoring == "mean" else self.quantile
        group = merged_regions(pairs, level, count, len(objects), self.threshold, percent)[place]
        complete = np.zeros(len(objects), objects.dtype)
        np.add.at(complete["size"], group, objects["size"])
        return numbered(objects["first"], np.where(self.keep(complete)[group], group, -1))
