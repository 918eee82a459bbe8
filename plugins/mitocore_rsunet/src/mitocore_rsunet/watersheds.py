"""Instances from predicted foreground, boundaries and distances: the decoders of PyTorch Connectomics, out of core.

Lin et al., "PyTorch Connectomics", 2021 (arXiv 2112.05754); foreground and boundaries with a watershed are U3D-BC of
Wei et al., "MitoEM dataset", MICCAI 2020. Defaults are theirs; their names of options are understood too.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, model_validator
from scipy.ndimage import distance_transform_edt, maximum_filter

from mitocore import Block, Need, Shape, as_shape
from mitocore_rsunet.filters import OddBox
from mitocore_rsunet.objects import components
from mitocore_rsunet.peers import SEEDED, SMALL, Above, Below
from mitocore_rsunet.seeded import PROBABILITY, Decoder, ReadsDistance, SeededFlood


class BinaryWatershed(SeededFlood):
    """Instances of a foreground: one around each region of very high probability."""

    peers: ClassVar[Mapping[str, str]] = {**SEEDED, "thres2": "threshold"}

    seed_threshold: Above = 0.98
    """Seeds are where the foreground is above this (`thres1`)."""
    threshold: Above = 0.85
    """Objects end where the foreground is not above this (`thres2`)."""

    @model_validator(mode="after")
    def _agreeing(self) -> Self:
        self.agreeing("seed_threshold", "threshold")
        return self

    def needs(self) -> Mapping[str, Need]:
        return {**super().needs(), "foreground": PROBABILITY}

    def mask_reads(self) -> tuple[str, ...]:
        return ("foreground",)

    def mask(self, block: Block) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = block["foreground"][0] > self.threshold
        return inside

    def seeds(self, block: Block) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = block["foreground"][0] > self.seed_threshold
        return found

    def height(self, block: Block, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float, float]:
        del mask
        return block["foreground"][0], 0.0, 1.0

    def no_seeds(self) -> str:
        return (
            f"seeds need {max(self.min_seed_size, 1)} voxels that touch, with a foreground above "
            f"{self.seed_threshold:g}; a lower seed_threshold finds more"
        )


class BoundaryConnected(Decoder):
    """Connected parts of the foreground away from boundaries, each widened by a box."""

    peers: ClassVar[Mapping[str, str]] = {
        **SMALL,
        "thres1": "seed_threshold",
        "thres2": "boundary_threshold",
        "dilation_struct": "dilation",
    }

    seed_threshold: Above = 0.8
    """Instances are where the foreground is above this (`thres1`)."""
    boundary_threshold: Below = 0.5
    """… and the boundary is below this (`thres2`)."""
    dilation: OddBox = (1, 5, 5)
    """Voxels (z, y, x) of the box that widens each instance, odd; it may reach beyond the foreground. Where two meet,
    the one whose first voxel is later wins. (1, 1, 1) widens none."""

    def needs(self) -> Mapping[str, Need]:
        return {"foreground": PROBABILITY, "boundary": PROBABILITY}

    def halo(self) -> Shape:
        return as_shape(n // 2 for n in self.dilation)

    def _core(self, block: Block) -> NDArray[np.bool_]:
        core: NDArray[np.bool_] = block["foreground"][0] > self.seed_threshold
        core &= block["boundary"][0] < self.boundary_threshold
        return core

    def mask(self, block: Block) -> NDArray[np.bool_]:
        widened: NDArray[np.bool_] = maximum_filter(self._core(block).view("u1"), self.dilation, mode="constant")
        return widened.view(np.bool_)

    def instances(self, block: Block, mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
        cores = components(self._core(block) & mask, 26)
        widened: NDArray[np.uint32] = maximum_filter(cores, self.dilation, mode="constant")
        return widened

    def hint_if_empty(self) -> str:
        return _swapped(self.seed_threshold, self.boundary_threshold)


class BoundaryWatershed(BinaryWatershed):
    """Instances of a foreground: one around each region of high probability away from boundaries."""

    peers: ClassVar[Mapping[str, str]] = {**SEEDED, "thres2": "boundary_threshold", "thres3": "threshold"}

    seed_threshold: Above = 0.9
    """Seeds are where the foreground is above this (`thres1`)."""
    boundary_threshold: Below = 0.8
    """… and the boundary is below this (`thres2`)."""
    threshold: Above = 0.85
    """Objects end where the foreground is not above this (`thres3`)."""

    def needs(self) -> Mapping[str, Need]:
        return {**super().needs(), "boundary": PROBABILITY}

    def seeds(self, block: Block) -> NDArray[np.bool_]:
        found = super().seeds(block)
        found &= block["boundary"][0] < self.boundary_threshold
        return found

    def no_seeds(self) -> str:
        return _swapped(self.seed_threshold, self.boundary_threshold)


def _swapped(above: float, below: float) -> str:
    return (
        f"instances begin where foreground > {above:g} and boundary < {below:g}: were the two swapped? "
        'inputs = { foreground = "…", boundary = "…" } names them'
    )


class BoundaryDistanceWatershed(ReadsDistance, BoundaryWatershed):
    """Instances of a foreground: one around each region away from boundaries and deep inside."""

    peers: ClassVar[Mapping[str, str]] = {
        **BoundaryWatershed.peers,
        "thres4": "seed_distance",
        "thres5": "distance_threshold",
    }

    seed_distance: float = 0.5
    """Seeds are, besides, where the distance is above this (`thres4`): nm, or -1 to 1, as predicted."""
    distance_threshold: float = 0.0
    """Objects end, besides, where the distance is not above this (`thres5`)."""
    landscape: Literal["foreground", "distance"] = "foreground"
    """What is flooded, highest values first."""

    @model_validator(mode="after")
    def _distances_agree(self) -> Self:
        self.agreeing("seed_distance", "distance_threshold")
        return self

    def mask_reads(self) -> tuple[str, ...]:
        return ("foreground", "distance")

    def mask(self, block: Block) -> NDArray[np.bool_]:
        inside = super().mask(block)
        inside &= self.distance(block) > self.distance_threshold
        return inside

    def seeds(self, block: Block) -> NDArray[np.bool_]:
        found = super().seeds(block)
        found &= self.distance(block) > self.seed_distance
        return found

    def height(self, block: Block, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float, float]:
        if self.landscape == "foreground":
            return super().height(block, mask)
        return _depth(self.distance(block), mask)


class DistanceWatershed(ReadsDistance):
    """Instances of what lies inside by a signed distance: one around each deep region."""

    peers: ClassVar[Mapping[str, str]] = SMALL
    bytes_per_voxel: ClassVar[int] = 64

    seed_distance: float = 0.5
    """Seeds are where the distance is above this: nm, or -1 to 1, as predicted."""
    threshold: float = 0.0
    """Objects end where the distance is not above this."""
    min_seed_size: NonNegativeInt = 50
    """Seeds of fewer voxels do not count."""
    landscape: Literal["distance", "mask"] = "distance"
    """What is flooded, deepest first: the predicted "distance", or the distance to the edge of the "mask", measured
    anew in nm (in voxels if the voxel size is not known)."""

    @model_validator(mode="after")
    def _agreeing(self) -> Self:
        self.agreeing("seed_distance", "threshold")
        return self

    def mask_reads(self) -> tuple[str, ...]:
        return ("distance",)

    def halo(self) -> Shape:
        return (1, 1, 1) if self.landscape == "mask" else (0, 0, 0)  # of background, which depth is measured from

    def mask(self, block: Block) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = self.distance(block) > self.threshold
        return inside

    def seeds(self, block: Block) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.distance(block) > self.seed_distance
        return found

    def height(self, block: Block, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float, float]:
        if self.landscape == "distance":
            return _depth(self.distance(block), mask)
        edges = block.voxel_size.edges if block.voxel_size else (1.0, 1.0, 1.0)
        if mask.all():  # no edge to measure from, where the volume or a tile is full: equally deep everywhere
            return _depth(np.ones(mask.shape, np.float32), mask)
        return _depth(distance_transform_edt(mask, edges).astype(np.float32), mask)

    def no_seeds(self) -> str:
        return (
            f"seeds need {max(self.min_seed_size, 1)} voxels that touch, with a distance above {self.seed_distance:g}; "
            "is it in nm, or -1 to 1?"
        )


def _depth(distance: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float, float]:
    """A landscape whose levels span the distances of one component, however they are scaled."""
    return distance, float(distance.min(where=mask, initial=np.inf)), float(distance.max(where=mask, initial=-np.inf))
