"""Every patch of a grid, once per pass."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.samplers.chances import shuffled
from mitocore.builtin.samplers.patches import Natural, Patchwise, patch
from mitocore.errors import DataError
from mitocore.geometry import Shape
from mitocore.interfaces import Crop, LabelledVolume, SamplerIndex


class Subsampled(Patchwise):
    """Some of the patches of a grid."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the patches that is used; the others are never seen."""
    number: Natural | None = None
    """Most patches that are used, after `fraction`. Default: all."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Chooses the patches that are used, and the order of `grid`."""

    def grid(self, volumes: Sequence[LabelledVolume], shape: Shape) -> dict[str, NDArray[np.int64]]:
        arrays = super().grid(volumes, shape)
        rng, patches = np.random.default_rng(self.seed), arrays["patches"]
        kept = int(self.fraction * len(patches))
        if not kept:
            problem = f"a fraction of {self.fraction:g} of {len(patches)} patches is none"
            raise DataError(problem, where="[sampler] fraction", hint="choose a larger fraction or a smaller stride")
        for most in (kept, self.number or kept):
            if most < len(patches):
                patches = rng.choice(patches, most, replace=False, shuffle=False)
        return {**arrays, "patches": np.sort(patches)}


class Grid(Subsampled):
    """Every patch of a grid once, then all of them again in another order, and so on.

    Nothing is drawn: the patch follows from the number of the sample. A pass (an epoch) takes as many samples as there
    are patches. Where volumes differ in weight, a pass holds the patches of each in proportion to it.
    """

    def index(self, volumes: Sequence[LabelledVolume], shape: Shape) -> SamplerIndex:
        arrays = self.grid(volumes, shape)
        weights = self.patch_weights(volumes, arrays)
        # In patches per pass: exactly one of each if all weigh the same.
        turns = np.cumsum(weights / weights.max())
        turns *= len(turns) / turns[-1]
        return SamplerIndex(tuple(v.region for v in volumes), {**arrays, "turns": turns})

    def draw(self, index: SamplerIndex, shape: Shape, number: int, rng: np.random.Generator) -> Crop:
        del rng
        turns = index.arrays["turns"]
        again, position = divmod(number, len(turns))
        of_pass = np.random.default_rng([self.seed, again])
        shift = of_pass.random()  # systematic sampling: a patch of 1.3 turns comes once or twice, 1.3 times on average
        slot = shuffled(position, len(turns), of_pass.integers(0, 1 << 62, 4))
        row = int(np.searchsorted(turns, slot + shift, side="right"))
        return patch(index, min(row, len(turns) - 1), shape)
