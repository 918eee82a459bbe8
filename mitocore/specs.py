"""What arrays hold, what steps need and give, and what a network takes."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from mitocore.errors import DataError, WiringError
from mitocore.geometry import Shape, VoxelSize, as_shape


class Kind(StrEnum):
    """What the numbers in an array mean."""

    IMAGE = "image"  # intensities, any real dtype
    PROBABILITY = "probability"  # [0, 1]; one channel per named class, boundary, centre …
    AFFINITY = "affinity"  # [0, 1]; per offset: v and v + offset are one object, stored at v; its sign is the side
    OFFSET = "offset"  # voxels; vector to the instance centre
    DISTANCE = "distance"  # signed, positive inside: nm; or squashed to -1 … 1 (head with tanh)
    EMBEDDING = "embedding"  # channels have no order
    DESCRIPTOR = "descriptor"  # [0, 1]; local shape descriptors, channels named as in `DESCRIPTORS`
    MASK = "mask"  # bool
    SEMANTIC = "semantic"  # uint16 class ids
    INSTANCE = "instance"  # uint64 object ids, unique over the whole volume
    WEIGHT = "weight"  # training only: factor of the loss per voxel, 0 = ignore


Storage = Literal["float32", "float16", "uint8"]
Blending = Literal["ramp", "gaussian", "bump"]
"""How much each voxel of a tile counts where tiles overlap."""
_MEMORY = {Kind.MASK: "bool", Kind.SEMANTIC: "uint16", Kind.INSTANCE: "uint64"}
UNIT = (Kind.PROBABILITY, Kind.AFFINITY)
"""What lies between 0 and 1; in a file of uint8 it is value / 255. `storage` applies to these."""
_HALF = (*UNIT, Kind.OFFSET, Kind.EMBEDDING, Kind.DESCRIPTOR)
DESCRIPTORS = (
    *("offset_z", "offset_y", "offset_x"),
    *("variance_z", "variance_y", "variance_x"),
    *("correlation_zy", "correlation_zx", "correlation_yx"),
    "size",
)
"""Channels of `Kind.DESCRIPTOR`: mean offset, variances and correlations of an object around a voxel, and its share of
the neighbourhood (Sheridan et al. 2023, local shape descriptors)."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """What a named array holds; known before any voxel is read."""

    kind: Kind
    channels: tuple[str, ...] = ("",)
    offsets: tuple[Shape, ...] = ()  # affinities only: one (z, y, x) per channel
    classes: tuple[str, ...] = ()  # semantic only: name of id 0, 1, …
    storage: Storage | None = None  # probability and affinity only; None: float16

    def __post_init__(self) -> None:
        if self.storage and self.kind not in UNIT:
            raise WiringError(f"storage = {self.storage!r} does not apply to {self.kind}", hint="leave storage out")

    @property
    def dtype(self) -> str:
        """In memory, as every component sees it."""
        return _MEMORY.get(self.kind, "float32")

    @property
    def stored(self) -> str:
        """On disk. Values are rounded to it when they leave a step, stored or not. uint8 means round(255 p)."""
        if self.kind in _MEMORY:
            return self.dtype
        return self.storage or ("float16" if self.kind in _HALF else "float32")


def offsets_of(channels: Sequence[str]) -> tuple[Shape, ...]:
    """The offsets (z, y, x) that channels of affinities are named after; none if a name is no offset.

    >>> offsets_of(("z-1", "y+5x-2")), offsets_of(("0", "1"))
    (((-1, 0, 0), (0, 5, -2)), ())
    """
    if not all(re.fullmatch(r"(z[+-]\d+)?(y[+-]\d+)?(x[+-]\d+)?", name) and name for name in channels):
        return ()
    steps = [dict(re.findall(r"([zyx])([+-]\d+)", name)) for name in channels]
    return tuple(as_shape(int(each.get(axis, 0)) for axis in "zyx") for each in steps)


def channel_of(offset: Shape) -> str:
    """The name of a channel of affinities with this offset (z, y, x).

    >>> channel_of((0, 5, -2))
    'y+5x-2'
    """
    return "".join(f"{axis}{step:+}" for axis, step in zip("zyx", offset, strict=True) if step)


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """What is known of a volume from its header alone."""

    shape: Shape
    dtype: str
    channels: tuple[str, ...] = ("",)
    voxel_size: VoxelSize | None = None  # None: the file does not say
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)  # nm
    chunks: Shape | None = None
    kind: Kind = Kind.IMAGE

    def array(self, kind: Kind | None = None) -> ArraySpec:
        """What steps see of the volume, if it holds `kind`; None: what its file says.

        >>> VolumeSpec((8, 64, 64), "uint8", ("z-1", "x-2")).array(Kind.AFFINITY).offsets
        ((-1, 0, 0), (0, 0, -2))

        Raises
        ------
        DataError
            If values of its dtype cannot be of this kind.
        """
        kind = kind or self.kind
        if kind in UNIT and not (self.dtype.startswith("float") or self.dtype == "uint8"):
            labels = 'kind = "mask"' if self.dtype == "bool" else 'kind = "instance" or "semantic"'
            raise DataError(
                f"{self.dtype} does not hold {kind}: that is float, 0 to 1, or uint8, read as value / 255",
                hint=f"{labels}, if these are labels; else write it again as float32 between 0 and 1",
            )
        return ArraySpec(kind, self.channels, offsets_of(self.channels) if kind is Kind.AFFINITY else ())


@dataclass(frozen=True, slots=True)
class Need:
    """What a step requires of one input."""

    kinds: Collection[Kind]
    channels: tuple[str, ...] | int | None = None  # these names, this many, or any
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """One named output of a model."""

    name: str
    channels: tuple[str, ...]
    activation: Literal["sigmoid", "softmax", "tanh", "none"] = "sigmoid"
    kind: Kind = Kind.PROBABILITY
    offsets: tuple[Shape, ...] = ()
    auxiliary: bool = False  # used by losses only; absent at inference


@dataclass(frozen=True, slots=True)
class Lattice:
    """Tiles that a *result* is defined on: anchored at voxel 0 of the volume, an option of the component, so part of
    its digest. `halo` voxels of context are read around each tile, clipped at the volume's faces."""

    tile: Shape = (128, 256, 256)
    halo: Shape = (16, 32, 32)

    def __post_init__(self) -> None:  # ValueError: pydantic, the loader and the kit translate it to ConfigError
        if min(self.tile) < 1 or min(self.halo) < 0:
            raise ValueError(f"tile {self.tile} has an empty axis, or halo {self.halo} a negative one")


Axis = int | Literal["all"]


@dataclass(frozen=True, slots=True)
class Window:
    """The geometry of one forward pass.

    An axis of `shape` is a number of voxels, or "all": the whole axis of the volume, padded to a multiple of
    `divisor`. `crop` voxels at each face of the input are context and not predicted, so the output has shape
    `shape - 2 * crop`. Neighbouring outputs overlap by `overlap` voxels and are blended.

    2-D: (1, Y, X), or (1, "all", "all") for whole sections. 2.5-D, the middle of 2k+1 slices: (2k+1, Y, X) with crop
    (k, 0, 0). 3-D: (Z, Y, X).
    """

    shape: tuple[Axis, Axis, Axis]
    crop: Shape = (0, 0, 0)
    overlap: Shape = (0, 0, 0)
    divisor: Shape = (1, 1, 1)
    padding: Literal["mirror", "zero"] = "mirror"  # at the volume's own faces, after normalisation

    def __post_init__(self) -> None:  # ValueError: pydantic, the loader and the kit translate it to ConfigError
        for size, crop, overlap, divisor in zip(self.shape, self.crop, self.overlap, self.divisor, strict=True):
            if size == "all" and (crop or overlap):
                raise ValueError('an axis that is "all" has neither crop nor overlap')
            if size != "all" and (size % divisor or crop < 0 or not 0 <= overlap < size - 2 * crop):
                problem = f"not a multiple of {divisor}, or crop {crop} or overlap {overlap} negative or too large"
                raise ValueError(f"window axis of {size}: {problem}")

    def tile(self, volume: Shape) -> Shape:
        """What the network receives: (z, y, x) voxels including padding."""
        axes = zip(self.shape, volume, self.divisor, strict=True)
        return as_shape(-(-n // d) * d if s == "all" else s for s, n, d in axes)

    def output(self, volume: Shape) -> Shape:
        """What one forward pass contributes to the volume, padding removed."""
        axes = zip(self.shape, volume, self.crop, strict=True)
        return as_shape(n if s == "all" else s - 2 * c for s, n, c in axes)

    @property
    def planar(self) -> bool:
        """Whether one plane goes out, so that the model may be run along any axis."""
        return self.shape[0] != "all" and self.shape[0] - 2 * self.crop[0] == 1
