"""How far the surfaces of matching objects lie apart."""

from collections.abc import Hashable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.extents import Located
from mitocore.builtin.metrics.matching import Overlaps
from mitocore.builtin.metrics.whole_objects import Length, WholeObjects, known_edges, object_of
from mitocore.geometry import Roi, nanometres
from mitocore.interfaces import Block, Seen


class Surface(WholeObjects):
    """Distances in nm between the surfaces of objects that match, and the share that lies within a tolerance.

    The surface of an object is its voxels that have one of their six neighbours outside it, as in MONAI; beyond the
    region, and where the truth is unknown, is outside. From every voxel of either surface the distance to the nearest
    voxel of the other is taken, between centres, with the voxel's true edges. Of each match:

    * assd: the mean of all these distances (average symmetric surface distance),
    * hd95: the larger of the 95th percentiles of the two directions (Hausdorff distance, robust),
    * nsd: the share of these distances within the tolerance (normalised surface Dice, Nikolov et al. 2018, by voxels of
      the surface instead of its area).

    What is given is the mean over the matches, those of `instance` at `threshold`; NaN if there are none. Objects
    without a match do not count here.
    """

    lower_is_better: ClassVar[bool] = True

    threshold: float = Field(default=0.5, gt=0, le=1)
    """Smallest IoU of a match."""
    tolerance: Length = 30.0
    """Largest distance that is no error: nm, or text such as "0.05 um"."""

    def objects(self, partial: Located) -> Mapping[Hashable, Roi]:
        overlaps = Overlaps(partial.table)
        matched = overlaps.matched(self.threshold)
        pairs = zip(overlaps.ids[overlaps.predicted[matched]], overlaps.true_ids[overlaps.truth[matched]], strict=True)
        return {
            (int(p), int(t)): partial.predicted.box(partial.predicted.row(p)).around(
                partial.truth.box(partial.truth.row(t))
            )
            for p, t in pairs
        }

    def measured(self, key: tuple[int, int], block: Block) -> tuple[float, float, float]:
        """Average symmetric surface distance, Hausdorff distance, normalised surface Dice."""
        predicted, truth = (
            object_of(block, side, number) for side, number in zip(("predicted", "truth"), key, strict=True)
        )
        there, back = distances(predicted, truth, known_edges(block.voxel_size))
        every = np.concatenate([there, back])
        robust = max(np.percentile(there, 95), np.percentile(back, 95))
        return float(every.mean()), float(robust), float((every <= nanometres(self.tolerance)).mean())

    def total(self, partial: Seen) -> dict[str, float]:
        found = np.array(list(partial.objects.values()), float).reshape(-1, 3)
        means = found.mean(axis=0) if len(found) else np.full(3, np.nan)
        names = ("assd_nm", "hd95_nm", "nsd")
        return {**dict(zip(names, means.tolist(), strict=True)), "matches": float(len(found))}


def distances(
    one: NDArray[np.bool_], other: NDArray[np.bool_], edges: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances in nm from the surface voxels of each of two objects (z, y, x) to the surface of the other."""
    import edt

    surfaces = _surface(one), _surface(other)
    to = [edt.edt(np.ascontiguousarray(~surface), anisotropy=edges, parallel=1) for surface in surfaces]
    return to[1][surfaces[0]].astype(np.float64), to[0][surfaces[1]].astype(np.float64)


def _surface(shape: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion

    inner: NDArray[np.bool_] = binary_erosion(shape)
    return shape & ~inner
