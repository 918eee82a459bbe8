"""The axes of an array on disk, and how they become (c, z, y, x)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore import DataError, Roi, Shape

_VOLUME = "czyx"
_USUAL = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}


@dataclass(frozen=True, slots=True)
class Axes:
    """Names (of t, c, z, y, x, each once) and lengths of the axes of an array on disk.

    >>> axes = Axes.of((6, 5, 2), "yxc", "image.h5")
    >>> axes.volume, axes.channels
    ((1, 6, 5), 2)
    """

    names: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int], names: str | None, where: str) -> "Axes":
        """Axes of an array of this shape; without names the usual ones: yx, zyx, czyx, tczyx.

        Raises
        ------
        DataError
            If the names do not fit the shape, or there is more than one time point.
        """
        if names is None and len(shape) not in _USUAL:
            raise DataError(f"an array of shape {tuple(shape)} is not a volume; two to five axes are read", where=where)
        names = names or _USUAL[len(shape)]
        known = len(set(names)) == len(names) and {"y", "x"} <= set(names) <= set("tczyx")
        if not known or len(names) != len(shape):
            problem = f"axes {names!r} do not describe an array of shape {tuple(shape)}"
            raise DataError(problem, where=where, hint='axes = "zyx": one letter per axis, of t, c, z, y, x')
        axes = cls(names, tuple(int(n) for n in shape))
        if axes._length("t") > 1:
            problem = f"an array of shape {axes.shape} has {axes._length('t')} time points ({names}); one is read"
            raise DataError(problem, where=where, hint='axes = "zcyx", if the first axis is something else')
        if 0 in axes.shape:
            raise DataError(f"an array of shape {axes.shape} is empty", where=where)
        return axes

    def _length(self, name: str) -> int:
        return self.shape[self.names.index(name)] if name in self.names else 1

    @property
    def volume(self) -> Shape:
        """Voxels along (z, y, x); an axis that is not there counts one."""
        return self._length("z"), self._length("y"), self._length("x")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self._length("c")

    def of_volume(self, lengths: Sequence[int]) -> Shape:
        """The (z, y, x) part of lengths given per axis, such as the shape of a chunk."""
        z, y, x = (int(lengths[self.names.index(a)]) if a in self.names else 1 for a in "zyx")
        return z, y, x

    def index(self, roi: Roi) -> tuple[slice | int, ...]:
        """What cuts `roi`, all its channels, out of the array."""
        ranges: dict[str, slice | int] = {"t": 0, "c": slice(None), **dict(zip("zyx", roi.slices, strict=True))}
        return tuple(ranges[name] for name in self.names)

    def planes(self, roi: Roi) -> NDArray[np.int64]:
        """Numbers of the planes (y, x) that meet `roi`, where these are the last axes, along the axes before them."""
        stack = self.shape[:-2]
        return np.array(np.arange(math.prod(stack)).reshape(stack)[self.index(roi)[:-2]])

    def arrange(self, values: NDArray[Any]) -> NDArray[Any]:
        """What `index` cut out, as (c, z, y, x)."""
        held = self.names.replace("t", "")
        values = values.transpose([held.index(name) for name in _VOLUME if name in held])
        return np.expand_dims(values, [i for i, name in enumerate(_VOLUME) if name not in held])

    def lay_out(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (c, z, y, x) as they stand in the array at `index`."""
        held = self.names.replace("t", "")
        values = values.squeeze(tuple(i for i, name in enumerate(_VOLUME) if name not in held))
        order = [name for name in _VOLUME if name in held]
        return values.transpose([order.index(name) for name in held])
