"""One small component per scope, so that the tests of the engine need no plugin."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, grey_dilation, label, maximum_filter

from mitocore.geometry import Shape
from mitocore.interfaces import (
    Block,
    LocalPostProcessor,
    ObjectwisePostProcessor,
    StitchedPostProcessor,
    WholePostProcessor,
)
from mitocore.specs import ArraySpec, Kind, Lattice, Need, VolumeSpec


class Threshold(LocalPostProcessor):
    """Where a probability reaches a level: a Local step without halo."""

    level: float = 0.5
    """Smallest probability inside."""

    def needs(self) -> Mapping[str, Need]:
        """One probability."""
        return {"probability": Need((Kind.PROBABILITY,), channels=1)}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """One mask."""
        del given
        return {"mask": ArraySpec(Kind.MASK)}

    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        """Compare each voxel."""
        return {"mask": block["probability"] >= np.float32(self.level)}


class Widen(LocalPostProcessor):
    """The largest probability within a box around each voxel: a Local step with a halo."""

    radius: int = 1
    """Voxels from the centre of the box to its faces."""

    def needs(self) -> Mapping[str, Need]:
        """One probability."""
        return {"probability": Need((Kind.PROBABILITY,))}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """A probability with the same channels."""
        return {"widened": given["probability"]}

    def halo(self) -> Shape:
        """The radius."""
        return (self.radius, self.radius, self.radius)

    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        """Maximum filter, channel by channel."""
        size = 2 * self.radius + 1
        return {"widened": maximum_filter(block["probability"], size=(1, size, size, size), mode="nearest")}


class Components(StitchedPostProcessor):
    """Connected components of a mask: a Stitched step."""

    late: ClassVar[tuple[str, ...]] = ("min_size",)

    connectivity: Literal[6, 18, 26] = 6
    """Which voxels touch."""
    min_size: int = 0
    """Voxels of the smallest object that stays."""

    def needs(self) -> Mapping[str, Need]:
        """One mask."""
        return {"mask": Need((Kind.MASK,))}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """Instances."""
        del given
        return {"instances": ArraySpec(Kind.INSTANCE)}

    def neighbourhood(self) -> Literal[6, 18, 26]:
        """As the option says."""
        return self.connectivity

    def label(self, block: Block) -> tuple[NDArray[np.uint32], None]:
        """Components of one block, by cc3d."""
        mask = block["mask"][0].view(np.uint8)  # cc3d 4.1 fails on some dense bool arrays at connectivity 26
        return cc3d.connected_components(mask, connectivity=self.connectivity, out_dtype=np.uint32), None

    def keep(self, objects: NDArray[Any]) -> NDArray[np.bool_]:
        """Complete objects that are large enough."""
        large: NDArray[np.bool_] = objects["size"] >= self.min_size
        return large


class BrightOfTile(StitchedPostProcessor):
    """Components of what is brighter than the mean of its tile and halo: a Stitched step that tiles define."""

    tiles: Lattice = Lattice((4, 4, 4), (1, 1, 1))
    """Tiles that the means are of."""

    def lattice(self) -> Lattice:
        """As the option says."""
        return self.tiles

    def needs(self) -> Mapping[str, Need]:
        """One probability."""
        return {"probability": Need((Kind.PROBABILITY,), channels=1)}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """Instances."""
        del given
        return {"instances": ArraySpec(Kind.INSTANCE)}

    def label(self, block: Block) -> tuple[NDArray[np.uint32], None]:
        """Components of one tile."""
        values = block["probability"][0]
        ids, _ = label(block.crop(values > values.mean(dtype=np.float64)))
        return ids.astype(np.uint32), None


class Flood(ObjectwisePostProcessor):
    """Objects split between their seeds, each voxel to the seed it is nearest to within the object: Objectwise.

    No halo would do: which seed is nearest depends on the whole object.
    """

    late: ClassVar[tuple[str, ...]] = ("min_size",)

    level: float = 0.3
    """Smallest probability inside."""
    seed: float = 0.8
    """Smallest probability of a seed; an object without one stays whole."""
    min_size: int = 0
    """Voxels of the smallest instance that stays."""

    def needs(self) -> Mapping[str, Need]:
        """One probability."""
        return {"probability": Need((Kind.PROBABILITY,), channels=1)}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """Instances."""
        del given
        return {"instances": ArraySpec(Kind.INSTANCE)}

    def mask(self, block: Block) -> NDArray[np.bool_]:
        """Compare each voxel."""
        inside: NDArray[np.bool_] = block["probability"][0] >= np.float32(self.level)
        return inside

    def process(self, block: Block, mask: NDArray[np.bool_]) -> Mapping[str, NDArray[Any]]:
        """Grow the seeds by one voxel at a time; where two meet, the later seed wins."""
        ids, count = label(mask & (block["probability"][0] >= np.float32(self.seed)), generate_binary_structure(3, 3))
        if count == 0:
            return {"instances": mask[None].astype(np.uint32)}
        while ((grown := grey_dilation(ids, (3, 3, 3), mode="constant") * (mask & (ids == 0))) > 0).any():
            ids += grown
        return {"instances": ids[None]}

    def keep(self, objects: NDArray[Any]) -> NDArray[np.bool_]:
        """Complete instances that are large enough."""
        large: NDArray[np.bool_] = objects["size"] >= self.min_size
        return large


class AboveMean(WholePostProcessor):
    """Where a probability is above its mean over the volume: a Whole step."""

    def needs(self) -> Mapping[str, Need]:
        """One probability."""
        return {"probability": Need((Kind.PROBABILITY,), channels=1)}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """One mask."""
        del given
        return {"mask": ArraySpec(Kind.MASK)}

    def memory(self, volume: VolumeSpec) -> int:
        """A float32 and a bool per voxel."""
        z, y, x = volume.shape
        return 5 * z * y * x

    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        """Compare with the mean of everything."""
        values = block["probability"]
        return {"mask": values > values.mean(dtype=np.float64)}
