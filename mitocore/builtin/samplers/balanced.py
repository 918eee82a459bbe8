"""Patches with and without foreground, in a chosen share."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.samplers.grid import Subsampled
from mitocore.builtin.samplers.patches import Chosen, Natural, indexed
from mitocore.builtin.samplers.reading import named, no_foreground, pieces
from mitocore.errors import DataError
from mitocore.geometry import Shape
from mitocore.interfaces import LabelledVolume, SamplerIndex


class Balanced(Subsampled, Chosen):
    """Patches of a grid, of which a share is positive: with foreground.

    Each positive patch weighs positive / (number of positive patches), each other one (1 - positive) / (number of the
    others), so the share holds whether foreground is rare or everywhere. If all patches are positive, all are alike.
    """

    positive: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the crops that are positive."""
    minimum: Natural = 100
    """Foreground voxels from which on a patch is positive."""
    label: str | None = None
    """Label array that says what is foreground: whatever is neither 0 nor "ignore". Default: any of them."""

    def index(self, volumes: Sequence[LabelledVolume], shape: Shape) -> SamplerIndex:
        arrays = self.grid(volumes, shape)
        counts = self._foreground(volumes, arrays, shape)
        positive = counts >= self.minimum
        if not positive.any():
            raise few_voxels(counts, self.minimum, self.label)
        chances = np.zeros(len(counts))
        for those, share in ((positive, self.positive), (~positive, 1 - self.positive)):
            if those.any():
                weights = self.patch_weights(volumes, {**arrays, "patches": arrays["patches"][those]})
                chances[those] = share * weights / weights.sum()
        return indexed(volumes, arrays, chances)

    def _foreground(
        self, volumes: Sequence[LabelledVolume], arrays: Mapping[str, NDArray[np.int64]], shape: Shape
    ) -> NDArray[np.int64]:
        """Foreground voxels of each patch."""
        found = []
        for volume, cells, own in self.lattices(volumes, arrays, shape):
            counts = np.zeros(cells.shape, np.int64)
            for piece in pieces(volume, named(volume, self.label)):
                cells.add(counts, piece.foreground(), piece.offset)
            found.append(cells.totals(counts).reshape(-1)[own])
        return np.concatenate(found)


def few_voxels(counts: NDArray[np.int64], minimum: int, label: str | None) -> DataError:
    """What to say if no patch holds as much foreground as is asked for."""
    if not counts.max():
        return no_foreground(label)
    problem = f"no patch holds {minimum:,} voxels of foreground; the fullest holds {counts.max():,}"
    return DataError(problem, where="[sampler] minimum", hint=f"minimum = {counts.max() // 2 or 1}, or a larger crop")
