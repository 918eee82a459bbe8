"""How a labelled volume is divided into parts for training, validation and test."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mitocore.geometry import Roi, Shape, VoxelSize, as_shape, nanometres

AXES = "zyx"
_NUMBER = r"(\d+(?:\.\d*)?)"


@dataclass(frozen=True, slots=True)
class Part:
    """A range of whole planes along one axis; `axis` None is the whole volume."""

    text: str
    axis: int | None
    start: float = 0
    stop: float = 0
    fractions: bool = False

    @classmethod
    def parse(cls, value: Any) -> "Part":
        """Read `"z:17-20"` (voxels, 20 excluded), `"z:0.7-0.85"` (fractions of the axis) or `"all"`.

        >>> Part.parse("z:17-20").box((20, 8, 8))
        Roi(start=(17, 0, 0), stop=(20, 8, 8))
        >>> Part.parse("y:0.5-1.0").box((4, 9, 8))
        Roi(start=(0, 4, 0), stop=(4, 9, 8))
        """
        if isinstance(value, cls):
            return value
        if value == "all":
            return cls("all", None)
        match = re.fullmatch(rf"\s*([{AXES}])\s*:\s*{_NUMBER}\s*-\s*{_NUMBER}\s*", str(value))
        if not match or ("." in match[2]) != ("." in match[3]):
            raise ValueError(f"{value!r} is not a part of a volume; write 'z:17-20' (voxels), 'z:0.7-0.85' or 'all'")
        start, stop = float(match[2]), float(match[3])
        if start >= stop or ("." in match[2] and stop > 1):
            raise ValueError(f"part {value!r} is empty or leaves the volume; fractions end at 1.0")
        return cls(str(value), AXES.index(match[1]), start, stop, "." in match[2])

    def box(self, shape: Shape) -> Roi:
        """The voxels of this part in a volume of `shape` (z, y, x).

        Raises
        ------
        ValueError
            If the part is empty or leaves the volume.
        """
        whole = Roi.whole(shape)
        if self.axis is None:
            return whole
        length = shape[self.axis]
        ends = (round(end * length) if self.fractions else int(end) for end in (self.start, self.stop))
        start, stop = ends
        if not 0 <= start < stop <= length:
            raise ValueError(f"part {self.text!r} is empty or leaves the {length} voxels along {AXES[self.axis]}")
        return _cut(whole, self.axis, start, stop)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Parts:
    """The boxes of one volume: disjoint, and `gap` voxels between training and the others."""

    train: tuple[Roi, ...]
    validation: Roi | None = None
    test: Roi | None = None


def divide(shape: Shape, validation: Part | None, test: Part | None, gap: int) -> Parts:
    """Training is what the other parts and `gap` voxels at each of their faces leave.

    >>> divide((20, 8, 8), Part.parse("z:17-20"), None, 3).train
    (Roi(start=(0, 0, 0), stop=(14, 8, 8)),)

    Raises
    ------
    ValueError
        If a part leaves the volume, or two overlap or lie along different axes.
    """
    chosen = [part for part in (validation, test) if part]
    boxes = [part.box(shape) for part in chosen]
    if len(boxes) == 2 and 0 not in _overlap(*boxes):
        raise ValueError(f"validation {chosen[0].text!r} and test {chosen[1].text!r} overlap")
    if len({part.axis for part in chosen}) > 1:
        raise ValueError(f"validation {chosen[0].text!r} and test {chosen[1].text!r} lie along different axes")
    whole = Roi.whole(shape)
    train: tuple[Roi, ...] = (whole,)
    if chosen:
        train = () if chosen[0].axis is None else _between(whole, chosen[0].axis, boxes, gap)
    return Parts(train, validation.box(shape) if validation else None, test.box(shape) if test else None)


def gap_in_voxels(gap: int | str, axis: int | None, context: Shape, voxel_size: VoxelSize | None) -> int:
    """Voxels along `axis` that a gap of `"auto"`, a number of voxels or a length such as `"15 nm"` means.

    >>> gap_in_voxels("15 nm", 0, (0, 0, 0), VoxelSize(4, 8, 8)), gap_in_voxels("auto", 0, (2, 0, 0), None)
    (4, 2)

    Raises
    ------
    ValueError
        If the gap is a length and the voxel size is not known.
    """
    if axis is None:
        return 0
    if isinstance(gap, int):
        return gap
    if gap == "auto":
        return context[axis]
    if voxel_size is None:
        raise ValueError(f"gap {gap!r} needs the voxel size of the volume, which is not known")
    return math.ceil(round(nanometres(gap) / voxel_size.edges[axis], 6))


def _cut(box: Roi, axis: int, start: int, stop: int) -> Roi:
    lower = as_shape(start if a == axis else n for a, n in enumerate(box.start))
    return Roi(lower, as_shape(stop if a == axis else n for a, n in enumerate(box.stop)))


def _overlap(one: Roi, other: Roi) -> Shape:
    return as_shape(max(0, n) for n in one.clip(other).shape)


def _between(whole: Roi, axis: int, taken: Sequence[Roi], gap: int) -> tuple[Roi, ...]:
    free, at = [], 0
    for box in sorted(taken, key=lambda box: box.start[axis]):
        if box.start[axis] - gap > at:
            free.append(_cut(whole, axis, at, box.start[axis] - gap))
        at = max(at, box.stop[axis] + gap)
    if at < whole.stop[axis]:
        free.append(_cut(whole, axis, at, whole.stop[axis]))
    return tuple(free)
