"""How what is learned looks: a picture of one channel, by its kind."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.pictures import Picture, colours, outline, painted
from mitocore.specs import Kind

_UNKNOWN = (0.55, 0.55, 0.55)
_TRUTH = (0.95, 0.8, 0.1)  # far from the colours of errors
_SIGNED = (Kind.DISTANCE, Kind.OFFSET, Kind.EMBEDDING)
_SHARES = (Kind.PROBABILITY, Kind.AFFINITY, Kind.DESCRIPTOR, Kind.MASK)


@dataclass(frozen=True)
class Look:
    """Colours for the values from `low` to `high`."""

    colours: str
    """As matplotlib calls them."""
    low: float
    high: float

    def picture(self, values: NDArray[Any]) -> Picture:
        """Values (y, x) in these colours."""
        from matplotlib import colormaps

        scaled = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        return np.asarray(colormaps[self.colours](scaled)[..., :3], np.float32)


def look(kind: Kind, arrays: Iterable[NDArray[Any]]) -> Look:
    """One for all arrays of a kind: black to white for what is a share, blue to red around 0 for what has a sign."""
    if kind in _SHARES:
        return Look("gray", 0.0, 1.0)
    finite = [np.abs(array[np.isfinite(array)]) for array in arrays]
    most = max((float(np.percentile(values, 99.5)) for values in finite if values.size), default=1.0) or 1.0
    return Look("RdBu_r", -most, most) if kind in _SIGNED else Look("viridis", 0.0, most)


def labelled(raw: Picture, ids: NDArray[Any]) -> Picture:
    """Labels (y, x) over the image; what is to be ignored is grey."""
    unknown = ids == np.iinfo(ids.dtype).max
    known = np.where(unknown, 0, ids).astype(np.uint64)
    picture = painted(raw, known, known)
    return np.where(unknown[..., None], 0.5 * picture + 0.5 * np.array(_UNKNOWN), picture).astype(np.float32)


def tinted(raw: Picture, inside: NDArray[np.bool_]) -> Picture:
    """A mask (y, x) over the image, with a solid outline."""
    mixed = np.where(inside[..., None], 0.65 * raw + 0.35 * np.array(_TRUTH), raw)
    edge = outline(inside.astype(np.uint64))
    return np.where(edge[..., None], np.array(_TRUTH), mixed).astype(np.float32)


def classes(raw: Picture, ids: NDArray[Any]) -> Picture:
    """Classes (y, x) in solid colours over the image, the first left out."""
    inside = ids > 0
    return np.where(inside[..., None], 0.35 * raw + 0.65 * colours(ids.astype(np.uint64)), raw).astype(np.float32)
