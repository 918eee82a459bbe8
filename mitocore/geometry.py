"""Boxes of voxels and physical lengths, in (z, y, x)."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from mitocore.errors import ConfigError

Shape = tuple[int, int, int]
"""Voxels along (z, y, x)."""


def as_shape(values: Iterable[int]) -> Shape:
    """Three integers as a `Shape`.

    >>> as_shape(n // 2 for n in (8, 4, 2))
    (4, 2, 1)
    """
    z, y, x = values
    return int(z), int(y), int(x)


@dataclass(frozen=True, slots=True)
class Roi:
    """A half-open box of voxels in (z, y, x), in the frame of the whole volume.

    >>> box = Roi((0, 0, 0), (4, 8, 8))
    >>> box.shape, box.grow((1, 1, 1)).clip(box) == box
    ((4, 8, 8), True)
    """

    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Voxels along each axis."""
        return as_shape(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def voxels(self) -> int:
        """Number of voxels inside."""
        z, y, x = self.shape
        return z * y * x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that cut this box out of an array over the whole volume."""
        return self.within(Roi((0, 0, 0), self.stop))

    def grow(self, voxels: Shape) -> "Roi":
        """This box with `voxels` more at both faces of each axis."""
        start = as_shape(a - v for a, v in zip(self.start, voxels, strict=True))
        return Roi(start, as_shape(b + v for b, v in zip(self.stop, voxels, strict=True)))

    def moved(self, by: Shape) -> "Roi":
        """This box, `by` so many voxels further along each axis."""
        start = as_shape(a + v for a, v in zip(self.start, by, strict=True))
        return Roi(start, as_shape(b + v for b, v in zip(self.stop, by, strict=True)))

    def clip(self, bounds: "Roi") -> "Roi":
        """The part of this box inside `bounds`."""
        start = as_shape(max(a, lo) for a, lo in zip(self.start, bounds.start, strict=True))
        return Roi(start, as_shape(min(b, hi) for b, hi in zip(self.stop, bounds.stop, strict=True)))

    def around(self, other: "Roi") -> "Roi":
        """The smallest box that holds this one and `other`."""
        start = as_shape(min(a, b) for a, b in zip(self.start, other.start, strict=True))
        return Roi(start, as_shape(max(a, b) for a, b in zip(self.stop, other.stop, strict=True)))

    def within(self, outer: "Roi") -> tuple[slice, slice, slice]:
        """Slices that cut this Roi out of an array that covers `outer`."""
        z, y, x = (slice(a - o, b - o) for a, b, o in zip(self.start, self.stop, outer.start, strict=True))
        return z, y, x

    def contains(self, inner: "Roi") -> bool:
        """Whether `inner` lies inside this box."""
        return inner.clip(self) == inner

    @classmethod
    def whole(cls, shape: Shape) -> "Roi":
        """The box of a volume of this shape."""
        return cls((0, 0, 0), shape)

    @classmethod
    def parse(cls, text: str, shape: Shape) -> "Roi":
        """Read `"17:20, :, 0:512"` (z, y, x) in a volume of `shape` voxels.

        >>> Roi.parse("1:3,:,:4", (8, 8, 8))
        Roi(start=(1, 0, 0), stop=(3, 8, 4))

        Raises
        ------
        ValueError
            If the text is not three ranges, or a range is empty or outside the volume.
        """
        parts = [part.strip() for part in text.split(",")]
        matches = [re.fullmatch(r"(\d*):(\d*)", part) for part in parts]
        if len(parts) != 3 or None in matches:
            raise ValueError(
                f"{text!r} is not a region; write three ranges of voxels, z, y, x, such as '10:20,:,0:512'"
            )
        ends = [(int(m[1] or 0), int(m[2] or n)) for m, n in zip(matches, shape, strict=True) if m]
        if any(not 0 <= a < b <= n for (a, b), n in zip(ends, shape, strict=True)):
            raise ValueError(f"region {text!r} is empty or leaves the volume of {shape} voxels (z, y, x)")
        return cls(as_shape(a for a, _ in ends), as_shape(b for _, b in ends))


def stated_region(roi: str | None, shape: Shape) -> Roi:
    """The region that ``--roi`` names of a volume of `shape` voxels; None: all of it.

    >>> stated_region("1:3,:,:4", (8, 8, 8))
    Roi(start=(1, 0, 0), stop=(3, 8, 4))

    Raises
    ------
    ConfigError
        If it is not three ranges, or one of them is empty or outside the volume.
    """
    try:
        return Roi.whole(shape) if roi is None else Roi.parse(roi, shape)
    except ValueError as error:
        inside = ",".join(f"0:{(n + 1) // 2}" for n in shape)
        raise ConfigError(str(error), where="--roi", hint=f"--roi {inside}") from error


_UNIT_IN_NM = {"nm": 1.0, "å": 0.1, "angstrom": 0.1, "a": 0.1, "um": 1000.0, "µm": 1000.0, "μm": 1000.0}


@dataclass(frozen=True, slots=True)
class VoxelSize:
    """Edge lengths of one voxel in nanometres."""

    z: float
    y: float
    x: float

    @property
    def edges(self) -> tuple[float, float, float]:
        """(z, y, x) in nm."""
        return self.z, self.y, self.x

    @property
    def anisotropy(self) -> float:
        """Longest edge over shortest edge; 1.0 is isotropic."""
        return max(self.edges) / min(self.edges)

    @property
    def volume(self) -> float:
        """Cubic nanometres of one voxel."""
        return self.z * self.y * self.x

    @classmethod
    def parse(cls, value: Any) -> "VoxelSize":
        """Read `8`, `"13.3 Å"`, `[40, 8, 8]` (z, y, x) or `["40 nm", "8 nm", "8 nm"]`.

        >>> VoxelSize.parse("13.3 Å")
        VoxelSize(z=1.33, y=1.33, x=1.33)
        """
        if isinstance(value, cls):
            return value
        edges = list(value) if isinstance(value, list | tuple) else [value] * 3
        if len(edges) != 3:
            raise ValueError(f"{value!r} has {len(edges)} edges; write one length, or three as [z, y, x]")
        return cls(*(nanometres(edge) for edge in edges))

    def __str__(self) -> str:
        return " x ".join(f"{edge:g}" for edge in self.edges) + " nm"


def nanometres(length: Any) -> float:
    """A length in nm from `8`, `"8 nm"`, `"13.3 Å"` or `"0.5 um"`.

    >>> nanometres("0.5 um")
    500.0
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?)\s*(\S*)\s*", str(length), re.IGNORECASE)
    unit = match[2].lower() if match and match[2] else "nm"
    if not match or unit not in _UNIT_IN_NM or not 0 < float(match[1]) < 1e6:
        raise ValueError(f"{length!r} is not a length; write 8, '8 nm' or '13.3 Å'")
    return round(float(match[1]) * _UNIT_IN_NM[unit], 9)


VoxelSizeOption = Annotated[
    VoxelSize,
    BeforeValidator(VoxelSize.parse),
    PlainSerializer(lambda v: [v.z, v.y, v.x]),  # so that an option survives a round-trip through JSON
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "array", "maxItems": 3}]}),
]


def _cubic_nanometres(size: str) -> float:
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?)\s*(\S+?)(?:3|³|\^3)\s*", size, re.IGNORECASE)
    if not match or match[2].lower() not in _UNIT_IN_NM:
        raise ValueError(f"{size!r} is not a size; write a number of voxels, '0.002 um3' or '2e6 nm3'")
    return float(match[1]) * _UNIT_IN_NM[match[2].lower()] ** 3


def _checked_size(size: int | str) -> int | str:
    if isinstance(size, str):
        _cubic_nanometres(size)
    elif size < 0:
        raise ValueError(f"{size} voxels is less than none")
    return size


SizeOption = Annotated[int | str, AfterValidator(_checked_size)]
"""The size of an object: a number of voxels, or a volume such as "0.002 um3"."""


def size_in_voxels(size: int | str, voxel_size: VoxelSize | None) -> int:
    """The smallest number of voxels that has at least this size.

    >>> size_in_voxels("0.001 um3", VoxelSize(10, 10, 10)), size_in_voxels(64, None)
    (1000, 64)

    Raises
    ------
    ConfigError
        If the size is physical and the voxel size is not known.
    """
    if isinstance(size, int):
        return size
    if voxel_size is None:
        raise ConfigError(
            f"size {size!r} needs the voxel size of the volume, which is not known",
            hint="voxel_size = [40, 8, 8] in [input] (nm, z y x), or a number of voxels",
        )
    return math.ceil(round(_cubic_nanometres(size) / voxel_size.volume, 6))
