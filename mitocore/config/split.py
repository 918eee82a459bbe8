"""How a labelled volume is divided into parts for training, validation and test."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

from mitocore.geometry import Roi, Shape, VoxelSize, as_shape, nanometres

AXES = "zyx"
PARTS = ("train", "validation", "test")
_NUMBER = r"(\d+(?:\.\d*)?)"
_BOX = re.compile(r"\s*\d*\s*:\s*\d*\s*(,\s*\d*\s*:\s*\d*\s*){2}")


def checked_box(text: str) -> str:
    """A box as text, `"z0:z1,y0:y1,x0:x1"`, without spaces.

    Raises
    ------
    ValueError
        If it is none.
    """
    if not _BOX.fullmatch(text):
        raise ValueError(f"{text!r} is not a box; write three ranges of voxels, z, y, x, such as '10:20,:,0:512'")
    return re.sub(r"\s", "", text)


def text_of(box: Roi) -> str:
    """A box as it is written in tables.

    >>> text_of(Roi((0, 4, 0), (4, 9, 8)))
    '0:4,4:9,0:8'
    """
    return ",".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True))


@dataclass(frozen=True, slots=True)
class Part:
    """Whole planes along one axis, listed boxes, or (neither) the whole volume."""

    text: str
    axis: int | None = None
    start: float = 0
    stop: float = 0
    fractions: bool = False
    listed: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: Any) -> "Part":
        """Read `"z:17-20"` (voxels, 20 excluded), `"z:0.7-0.85"` (fractions), boxes or `"all"`.

        >>> Part.parse("z:17-20").boxes(Roi.whole((20, 8, 8)))
        (Roi(start=(17, 0, 0), stop=(20, 8, 8)),)
        >>> Part.parse("y:0.5-1.0").boxes(Roi.whole((4, 9, 8)))
        (Roi(start=(0, 4, 0), stop=(4, 9, 8)),)
        >>> Part.parse(["0:2,:,:", "2:4,0:4,:"]).boxes(Roi.whole((4, 9, 8)))
        (Roi(start=(0, 0, 0), stop=(2, 9, 8)), Roi(start=(2, 0, 0), stop=(4, 4, 8)))
        """
        if isinstance(value, cls):
            return value
        if value == "all":
            return cls("all")
        if isinstance(value, list | tuple) and value:
            return cls("; ".join(map(str, value)), listed=tuple(checked_box(str(box)) for box in value))
        if "," in str(value):
            return cls(str(value), listed=(checked_box(str(value)),))
        match = re.fullmatch(rf"\s*([{AXES}])\s*:\s*{_NUMBER}\s*-\s*{_NUMBER}\s*", str(value))
        if not match or ("." in match[2]) != ("." in match[3]):
            problem = f"{value!r} is not a part of a volume; write 'z:17-20' (voxels), 'z:0.7-0.85'"
            raise ValueError(f"{problem}, ['0:20,0:64,0:64'] or 'all'")
        start, stop = float(match[2]), float(match[3])
        if start >= stop or ("." in match[2] and stop > 1):
            raise ValueError(f"part {value!r} is empty or leaves the volume; fractions end at 1.0")
        return cls(str(value), AXES.index(match[1]), start, stop, "." in match[2])

    def boxes(self, region: Roi, shape: Shape | None = None) -> tuple[Roi, ...]:
        """The voxels of this part in the `region` used of a volume of `shape` voxels (default: all of it).

        Raises
        ------
        ValueError
            If the part is empty, leaves the volume or the region, or lists voxels twice.
        """
        shape = shape or region.stop
        if self.listed:
            boxes = tuple(Roi.parse(text, shape).clip(region) for text in self.listed)
            if outside := [text for text, box in zip(self.listed, boxes, strict=True) if is_empty(box)]:
                raise ValueError(f"box {outside[0]!r} lies outside of the region {text_of(region)!r}")
            if twice := next((pair for pair in combinations(boxes, 2) if meet(*pair)), None):
                raise ValueError(f"boxes {text_of(twice[0])!r} and {text_of(twice[1])!r} overlap")
            return boxes
        if self.axis is None:
            return (region,)
        low, length = region.start[self.axis], region.shape[self.axis]
        ends = (low + round(end * length) if self.fractions else int(end) for end in (self.start, self.stop))
        start, stop = ends
        if not low <= start < stop <= low + length:
            raise ValueError(f"part {self.text!r} is empty or leaves the {length} voxels along {AXES[self.axis]}")
        return (_cut(region, self.axis, start, stop),)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Parts:
    """The boxes of one volume: disjoint, and a gap between training and the others."""

    train: tuple[Roi, ...] = ()
    validation: tuple[Roi, ...] = ()
    test: tuple[Roi, ...] = ()

    @property
    def held(self) -> tuple[Roi, ...]:
        """What is not trained on."""
        return (*self.validation, *self.test)


def divide(
    region: Roi,
    validation: Sequence[Roi],
    test: Sequence[Roi],
    gap: Shape,
    *,
    guard: Shape = (0, 0, 0),
    crop: Shape = (1, 1, 1),
) -> Parts:
    """Training is what the other parts, and `gap` voxels around them, leave of a region.

    >>> whole, last = Roi.whole((20, 8, 8)), Roi((17, 0, 0), (20, 8, 8))
    >>> divide(whole, [last], [], (3, 3, 3)).train
    (Roi(start=(0, 0, 0), stop=(14, 8, 8)),)

    Parameters
    ----------
    guard
        Voxels of the test part that are left out where it meets the validation part.
    crop
        Among the ways to cut the rest into boxes, that is taken in which most voxels lie in boxes as large as this.

    Raises
    ------
    ValueError
        If two parts overlap.
    """
    for one in validation:
        if other := next((box for box in test if meet(one, box)), None):
            raise ValueError(f"validation {text_of(one)!r} and test {text_of(other)!r} overlap")
    around = [box.grow(gap) for box in (*validation, *test)]
    ways = [_without([region], around, order) for order in permutations(range(3))]
    train = max(ways, key=lambda boxes: sum(box.voxels for box in boxes if fits(crop, box)))
    apart = [box.grow(guard) for box in validation] if any(guard) else []
    return Parts(tuple(train), tuple(validation), tuple(_without(test, apart, (0, 1, 2))))


def gap_in_voxels(
    gap: int | str,
    context: Shape,
    voxel_size: VoxelSize | None,
    ratio: tuple[float, float, float] = (1, 1, 1),
) -> Shape:
    """Voxels along each axis that a gap of `"auto"`, a number of voxels or a length such as `"15 nm"` means.

    >>> gap_in_voxels("15 nm", (0, 0, 0), VoxelSize(4, 8, 8)), gap_in_voxels("auto", (2, 0, 0), None)
    ((4, 2, 2), (2, 0, 0))

    Parameters
    ----------
    voxel_size
        Of the voxels that are counted.
    ratio
        Their edges, in voxels of the file.

    Raises
    ------
    ValueError
        If the gap is a length and the voxel size is not known.
    """
    if isinstance(gap, int):
        return as_shape(math.ceil(round(gap / edge, 6)) for edge in ratio)
    if gap == "auto":
        return context
    if voxel_size is None:
        raise ValueError(f"gap {gap!r} needs the voxel size of the volume, which is not known")
    return as_shape(math.ceil(round(nanometres(gap) / edge, 6)) for edge in voxel_size.edges)


def is_empty(box: Roi) -> bool:
    """Whether a box holds no voxel."""
    return min(box.shape) <= 0


def meet(one: Roi, other: Roi) -> bool:
    """Whether two boxes share a voxel."""
    return not is_empty(one.clip(other))


def fits(crop: Shape, box: Roi) -> bool:
    """Whether a crop fits into a box."""
    return all(c <= n for c, n in zip(crop, box.shape, strict=True))


def _cut(box: Roi, axis: int, start: int, stop: int) -> Roi:
    lower = as_shape(start if a == axis else n for a, n in enumerate(box.start))
    return Roi(lower, as_shape(stop if a == axis else n for a, n in enumerate(box.stop)))


def _without(boxes: Iterable[Roi], taken: Sequence[Roi], order: Sequence[int]) -> list[Roi]:
    """What `taken` leaves of disjoint boxes, as disjoint boxes: cut along the first axis of `order` first."""
    left = list(boxes)
    for hole in taken:
        left = [piece for box in left for piece in _around(box, hole, order)]
    return sorted(left, key=lambda box: box.start)


def _around(box: Roi, hole: Roi, order: Sequence[int]) -> list[Roi]:
    inner = box.clip(hole)
    if is_empty(inner):
        return [box]
    pieces = []
    for axis in order:
        pieces.append(_cut(box, axis, box.start[axis], inner.start[axis]))
        pieces.append(_cut(box, axis, inner.stop[axis], box.stop[axis]))
        box = _cut(box, axis, inner.start[axis], inner.stop[axis])
    return [piece for piece in pieces if not is_empty(piece)]
