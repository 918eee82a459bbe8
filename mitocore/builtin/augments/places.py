"""Where the voxels of a warped crop come from, and what is found there."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.interfaces import VALID, Labels

_PIECE = 1 << 15
"""Voxels worked on at once: few enough for the caches of a processor."""
_ROUNDING = 1e-3
"""Voxels by which a place may lie beyond the last voxel and still be that voxel."""


class Places:
    """For each voxel the place it comes from, along the last two axes (the same in every section) or all three.

    Image values are interpolated linearly, labels are those of the nearest voxel. A place beyond what was read gives
    the nearest voxel that was, and does not count: it is marked 0 in `VALID`.

    Parameters
    ----------
    coordinates
        Indices of voxels, one array per axis, that together broadcast to `shape`.
    shape
        Of the last axes of every array that is moved.
    """

    def __init__(self, coordinates: Sequence[NDArray[np.float32]], shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        count = math.prod(self.shape)
        self._inside = np.ones(count, bool)
        self._corner = np.zeros(count, np.intp)  # the voxel before each place, along every axis
        self._nearest = np.zeros(count, np.intp)
        self._fractions: list[tuple[int, NDArray[np.float32]]] = []  # step to the voxel behind, and how far to go
        for axis, (places, size) in enumerate(zip(coordinates, self.shape, strict=True)):
            step = math.prod(self.shape[axis + 1 :])
            fractions = self._along(np.broadcast_to(places, self.shape).reshape(-1), size, step)
            if fractions.any():
                self._fractions.append((step, fractions))

    def _along(self, places: NDArray[np.float32], size: int, step: int) -> NDArray[np.float32]:
        """Take one more axis into account; how far each place is behind the voxel before it."""
        fractions = np.empty(places.size, np.float32)
        for piece in _pieces(places.size):
            exact = places[piece]
            self._inside[piece] &= (exact >= -_ROUNDING) & (exact <= size - 1 + _ROUNDING)
            before = np.floor(exact.clip(0, max(size - 2, 0)))
            fraction = (exact - before).clip(0, min(size - 1, 1), out=fractions[piece])
            index = before.astype(np.intp)
            index *= step
            self._corner[piece] += index
            index += (fraction >= 0.5) * step
            self._nearest[piece] += index
        return fractions

    def moved(self, image: NDArray[np.float32], labels: Labels) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        """Image (c, z, y, x) and labels (z, y, x) as they look from here."""
        found = {name: self.nearest(array) for name, array in labels.items()}
        if VALID in found:
            found[VALID] *= self._inside.reshape(self.shape)
        return self.linear(image), found

    def nearest(self, array: NDArray[Any]) -> NDArray[Any]:
        """Values of the nearest voxels."""
        return array.reshape(-1, self._nearest.size).take(self._nearest, axis=1).reshape(array.shape)

    def linear(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values between the voxels."""
        rows = array.reshape(-1, self._corner.size)
        found = np.empty_like(rows)
        for row, result in zip(rows, found, strict=True):
            for piece in _pieces(row.size):
                result[piece] = self._between(row, piece, len(self._fractions))
        return found.reshape(array.shape)

    def _between(self, row: NDArray[np.float32], piece: slice, axes: int) -> NDArray[np.float32]:
        """Interpolated along the first so many axes that need it."""
        if not axes:
            return row.take(self._corner[piece])
        step, fraction = self._fractions[axes - 1]
        low, high = self._between(row, piece, axes - 1), self._between(row[step:], piece, axes - 1)
        high -= low
        high *= fraction[piece]
        high += low
        return high


def mapped(matrix: NDArray[np.float64], shape: Sequence[int]) -> Places:
    """Places that a matrix (d, d) gives for offsets, in voxels, from the middle of the last d axes."""
    middle = (np.array(shape) - 1) / 2
    offsets = np.ix_(*(np.arange(size) - half for size, half in zip(shape, middle, strict=True)))
    places = []
    for row, half in zip(matrix, middle, strict=True):
        first, *others = ((factor * offset).astype(np.float32) for factor, offset in zip(row, offsets, strict=True))
        places.append(sum(others, first + np.float32(half)))
    return Places(places, shape)


def _pieces(count: int) -> list[slice]:
    return [slice(start, start + _PIECE) for start in range(0, count, _PIECE)]
