"""One small component per scope, so that the tests of the engine need no plugin."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from mitocore.geometry import Shape
from mitocore.interfaces import Block, LocalPostProcessor, StitchedPostProcessor
from mitocore.specs import ArraySpec, Kind, Need


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
