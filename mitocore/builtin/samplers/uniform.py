"""Crops anywhere."""

from collections.abc import Sequence

import numpy as np

from mitocore.builtin.samplers.chances import OfSources, uniform
from mitocore.geometry import Shape
from mitocore.interfaces import Crop, LabelledVolume, SamplerIndex


class Uniform(OfSources):
    """Crops anywhere in the regions; a volume is drawn in proportion to its weight and its voxels."""

    def index(self, volumes: Sequence[LabelledVolume], shape: Shape) -> SamplerIndex:
        return SamplerIndex(tuple(v.region for v in volumes), {"anywhere": self.anywhere(volumes, shape)})

    def draw(self, index: SamplerIndex, shape: Shape, number: int, rng: np.random.Generator) -> Crop:
        del number
        return uniform(index, shape, rng)
