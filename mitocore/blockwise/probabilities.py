"""Files of probabilities that somebody else wrote: what is none is refused where it is read."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import Opened
from mitocore.errors import DataError
from mitocore.geometry import Roi

ROUNDING = 1e-3
"""How far beyond 0 and 1 a value may lie that is meant to be one of them; it then becomes it."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """An open volume of probabilities or affinities, whose values lie between 0 and 1 or are refused.

    They are looked at when they are read for the work, so a bad one is found in the first block that has it.
    """

    opened: Opened
    place: str
    """What people call the volume."""

    @property
    def voxel_bytes(self) -> int:
        """Of the volume."""
        return self.opened.voxel_bytes

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) float32 over `roi`.

        Raises
        ------
        DataError
            If a value is NaN, or lies outside 0 to 1.
        """
        values = self.opened.read(roi)
        low, high = values.min(initial=0), values.max(initial=1)  # NaN if a value is
        if low >= 0 and high <= 1:
            return values
        if low >= -ROUNDING and high <= 1 + ROUNDING:
            return values.clip(0, 1)
        raise _refusal(values, roi, self.place)


def _refusal(values: NDArray[Any], roi: Roi, place: str) -> DataError:
    """The error for a block, which quotes the value that is farthest from being a probability."""
    beyond = np.where(np.isnan(values), np.inf, np.abs(values - 0.5))
    channel, *voxel = np.unravel_index(int(beyond.argmax()), values.shape)
    z, y, x = (int(at) + start for at, start in zip(voxel, roi.start, strict=True))
    worst = values[channel, z - roi.start[0], y - roi.start[1], x - roi.start[2]]
    box = ",".join(f"{a}:{b}" for a, b in zip(roi.start, roi.stop, strict=True))
    return DataError(
        f"probability {worst:g} at voxel ({z}, {y}, {x}) of channel {channel} does not lie between 0 and 1",
        where=f"{place}, box {box}",
        hint=_hint(values),
    )


def _hint(values: NDArray[Any]) -> str:
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        return "write it again with 0 where nothing is known: np.nan_to_num"
    if low < -ROUNDING:
        squashed = high <= 1 + ROUNDING and low >= -1 - ROUNDING
        distance = 'a distance between -1 and 1 is read with kind = "distance"; ' if squashed else ""
        return f"{distance}the output of a network before its sigmoid becomes a probability by 1 / (1 + exp(-x))"
    if high <= 255 + ROUNDING:
        return "values from 0 to 255: divide them by 255, or write them as uint8, which is read as value / 255"
    return 'divide by the largest value there can be; or kind = "image", if these are intensities'
