"""Steps that look at a voxel and its neighbourhood."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from scipy.ndimage import median_filter

from mitocore.errors import WiringError
from mitocore.geometry import Shape, as_shape
from mitocore.interfaces import Block, LocalPostProcessor
from mitocore.specs import ArraySpec, Kind, Need


class Threshold(LocalPostProcessor):
    """A mask of the voxels whose probability is above a threshold, channel by channel."""

    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The mask is where the probability is greater; a voxel exactly at the threshold is background."""

    def needs(self) -> Mapping[str, Need]:
        return {"probability": Need((Kind.PROBABILITY,))}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        return {"mask": ArraySpec(Kind.MASK, given["probability"].channels)}

    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        return {"mask": block["probability"] > self.threshold}


class Argmax(LocalPostProcessor):
    """The class of the most probable channel, numbered from 0; the first of equals."""

    def needs(self) -> Mapping[str, Need]:
        return {"probability": Need((Kind.PROBABILITY,))}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        channels = given["probability"].channels
        if len(channels) < 2:
            problem = f"the most probable of one channel ({channels[0]!r}) is always that one"
            raise WiringError(problem, where="step argmax", hint='postprocessor = "threshold"')
        return {"semantic": ArraySpec(Kind.SEMANTIC, classes=channels)}

    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        return {"semantic": block["probability"].argmax(axis=0)[None].astype(np.uint16)}


def _odd(size: Shape) -> Shape:
    if any(n < 1 or n % 2 == 0 for n in size):
        raise ValueError(f"{list(size)} are not three odd numbers of voxels (z, y, x), such as [3, 1, 1]")
    return size


class Median(LocalPostProcessor):
    """The median of a box around each voxel, channel by channel; the volume is mirrored at its faces."""

    size: Annotated[Shape, AfterValidator(_odd)] = (3, 3, 3)
    """Voxels of the box along (z, y, x), odd."""

    def needs(self) -> Mapping[str, Need]:
        return {"values": Need((Kind.PROBABILITY, Kind.MASK, Kind.IMAGE, Kind.DISTANCE))}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        return {"values": given["values"]}

    def halo(self) -> Shape:
        return as_shape(n // 2 for n in self.size)

    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        values = block["values"]
        return {"values": median_filter(values, size=(1, *self.size), mode="reflect")}
