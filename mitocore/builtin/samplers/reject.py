"""Patches without much to see, drawn less often."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.samplers.balanced import few_voxels
from mitocore.builtin.samplers.lattice import NO_ID, Lattice
from mitocore.builtin.samplers.patches import Chosen, indexed
from mitocore.builtin.samplers.reading import Piece, named, pieces
from mitocore.errors import DataError
from mitocore.geometry import Shape
from mitocore.interfaces import LabelledVolume, SamplerIndex


class Reject(Chosen):
    """Crops at places of a fine grid; one with little foreground, or few objects, is rejected with some probability.

    The rejection sampling of PyTorch Connectomics (Lin et al. 2021), without its trials: what every place holds is
    counted once, and each weighs as much as it would after any number of trials, 1 or 1 - `probability`. Crops are
    judged as they lie in the volume; PyTorch Connectomics judges them after augmentation.
    """

    minimum: Annotated[int, Field(ge=0)] = 100
    """Foreground voxels below which a crop is rejected. 0: whatever it holds."""
    diversity: Annotated[int, Field(ge=0, le=64)] = 0
    """Distinct ids, background included, below which a crop is rejected. 0: whatever it holds."""
    probability: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Of rejecting such a crop."""
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A crop of which no more than this share is inside the `valid` mask of its volume is never drawn."""
    label: str | None = None
    """Label array that says what is foreground, and whose ids are counted. Default: any of them is foreground, and
    "instances" counts, or the first there is."""

    share: ClassVar[int] = 8

    def index(self, volumes: Sequence[LabelledVolume], shape: Shape) -> SamplerIndex:
        arrays = dict(self.grid(volumes, shape))
        found = [
            self._counted(volume, cells)
            for volume, cells, _ in self.lattices(volumes, arrays, shape, max(1, self.diversity))
        ]
        foreground, distinct, valid = (np.concatenate([counts[part] for counts in found]) for part in range(3))
        usable = valid > self.valid_share * np.prod(shape)
        if not usable.any():
            problem = f"no crop of {shape} voxels has more than {100 * self.valid_share:g} % inside the mask"
            raise DataError(problem, where="[sampler] valid_share", hint="a smaller crop or share; or check the mask")
        if foreground[usable].max() < self.minimum:
            raise few_voxels(foreground[usable], self.minimum, self.label)
        good = usable & (foreground >= self.minimum) & (distinct >= self.diversity)
        if not good.any():
            problem = f"no crop of {shape} voxels passes: the most distinct ids of one are {distinct[usable].max()}"
            raise DataError(problem, where="[sampler]", hint="a smaller diversity or minimum, or a larger crop")
        kept = np.where(good, 1.0, 1 - self.probability) * usable
        return indexed(volumes, arrays, self.patch_weights(volumes, arrays) * kept)

    def _counted(self, volume: LabelledVolume, cells: Lattice) -> tuple[NDArray[np.int64], ...]:
        """Of each patch: foreground voxels, distinct ids (no more than matter), voxels inside the mask."""
        names = named(volume, self.label)
        ids = "instances" if "instances" in names else names[0]
        foreground, valid = np.zeros(cells.shape, np.int64), np.zeros(cells.shape, np.int64)
        smallest = np.full((*cells.shape, self.diversity), NO_ID)
        for piece in pieces(volume, names):
            cells.add(foreground, piece.foreground(), piece.offset)
            if self.diversity:
                cells.note(smallest, _ids(piece, ids), piece.offset)
            inside = np.ones(piece.ids[ids].shape, bool) if piece.valid is None else piece.valid
            cells.add(valid, inside, piece.offset)
        distinct = cells.distinct(smallest) if self.diversity else np.zeros_like(cells.totals(foreground))
        return cells.totals(foreground).reshape(-1), distinct.reshape(-1), cells.totals(valid).reshape(-1)


def _ids(piece: Piece, name: str) -> NDArray[np.uint64]:
    return np.where(piece.known(name), piece.ids[name].astype(np.uint64), NO_ID)
