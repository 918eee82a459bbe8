"""Filters of masks."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, model_validator

from mitocore import ArraySpec, Block, Kind, LocalPostProcessor, Need, Shape, as_shape
from mitocore_rsunet.masks import above, check_threshold
from mitocore_rsunet.median import majority
from mitocore_rsunet.peers import Above, translated


def _odd(size: Shape) -> Shape:
    if any(n < 1 or n % 2 == 0 for n in size):
        raise ValueError(f"{list(size)} are not three odd numbers of voxels (z, y, x), such as [7, 7, 7]")
    return size


OddBox = Annotated[Shape, AfterValidator(_odd)]
"""Voxels of a box along (z, y, x) that is as wide to both sides of its middle."""


class BinaryMedian(LocalPostProcessor):
    """What most voxels of a box around each voxel are, channel by channel: foreground or not.

    The volume is mirrored at its faces. Equal to the median of the thresholded probability, as PyTorch Connectomics'
    `binarize_and_median` gives it.
    """

    threshold: Above | None = None
    """A voxel counts as foreground if its probability is above this; 0.8 unless stated. Not for a mask."""
    size: OddBox = (7, 7, 7)
    """Voxels of the box along (z, y, x), odd."""

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, options: Any) -> Any:
        return translated(options, {"thres": "threshold"})

    def needs(self) -> Mapping[str, Need]:
        return {"mask": Need((Kind.MASK, Kind.PROBABILITY))}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        check_threshold(self.threshold, given["mask"])
        return {"mask": ArraySpec(Kind.MASK, given["mask"].channels)}

    def halo(self) -> Shape:
        return as_shape(n // 2 for n in self.size)

    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        # mirrored at every face of what was read: those inside the volume are half a box away from what is kept
        mask = above(block["mask"], 0.8 if self.threshold is None else self.threshold)
        return {"mask": np.stack([majority(channel, self.size) for channel in mask])}
