"""Flips and transposes of a volume, and what they do to vectors, affinities and shape descriptors."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal

from mitocore.errors import WiringError
from mitocore.geometry import Shape, as_shape
from mitocore.specs import DESCRIPTORS, Head, Kind

AXES = "zyx"
Turns = Literal["none", "flips", "plane", "all"]
"""Sets of symmetries: flips of y and x (4); those and the y-x transpose (8); those and the flip of z (16)."""


@dataclass(frozen=True, slots=True)
class Symmetry:
    """Axis i of what comes out is axis `axes[i]` of what goes in, reversed where `flips[i]`."""

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @property
    def inverse(self) -> "Symmetry":
        """What undoes it.

        >>> Symmetry((0, 2, 1), (False, True, False)).inverse
        Symmetry(axes=(0, 2, 1), flips=(False, False, True))
        """
        z, y, x = (self.axes.index(axis) for axis in range(3))
        return Symmetry((z, y, x), (self.flips[z], self.flips[y], self.flips[x]))

    def back(self, vector: Shape) -> Shape:
        """A vector of the turned volume, as it lies in the volume before the turn.

        >>> Symmetry((0, 2, 1), (False, True, False)).back((0, 3, 1))
        (0, 1, -3)
        """
        found = [0, 0, 0]
        for axis, flip, component in zip(self.axes, self.flips, vector, strict=True):
            found[axis] = -component if flip else component
        return as_shape(found)


@dataclass(frozen=True, slots=True)
class Move:
    """Where a channel comes from once a turned result was turned back."""

    source: int
    """Channel of the turned result."""
    mirrored: bool = False
    """Whether its sign changes: a vector -v, a descriptor 1 - v."""
    shift: Shape = (0, 0, 0)
    """The value of voxel v is found at v + shift: an affinity that became its own opposite."""


def symmetries(turns: Turns) -> tuple[Symmetry, ...]:
    """The symmetries of a set; the identity comes first.

    >>> [len(symmetries(turns)) for turns in ("none", "flips", "plane", "all")]
    [1, 4, 8, 16]
    """
    flat, tall = (False,), (False, True)
    axes = ((0, 1, 2), (0, 2, 1)) if turns in ("plane", "all") else ((0, 1, 2),)
    yx = product(flat, flat) if turns == "none" else product(tall, tall)
    deep = tall if turns == "all" else flat
    planes = list(yx)
    return tuple(Symmetry(order, (z, y, x)) for z in deep for order in axes for y, x in planes)


def of_the_cube() -> Iterator[Symmetry]:
    """All 48.

    >>> len(set(of_the_cube()))
    48
    """
    for axes in permutations((0, 1, 2)):
        for flips in product((False, True), repeat=3):
            yield Symmetry(as_shape(axes), (flips[0], flips[1], flips[2]))


def moves(head: Head, symmetry: Symmetry) -> tuple[Move, ...]:
    """How the channels of a head, predicted on a turned volume, become those of the volume itself.

    >>> head = Head("offset", ("y", "x"), "none", Kind.OFFSET)
    >>> moves(head, Symmetry(flips=(False, True, False)))
    (Move(source=0, mirrored=True, shift=(0, 0, 0)), Move(source=1, mirrored=False, shift=(0, 0, 0)))

    Raises
    ------
    WiringError
        If a head cannot be turned: its channels have no meaning in space, or an offset has no counterpart.
    """
    if head.kind is Kind.AFFINITY:
        return tuple(_affinity(head, symmetry, offset) for offset in head.offsets)
    if head.kind is Kind.OFFSET:
        return tuple(_component(head, symmetry, name) for name in head.channels)
    if head.kind is Kind.DESCRIPTOR:
        return tuple(_descriptor(head, symmetry, name) for name in head.channels)
    if head.kind is Kind.EMBEDDING:
        raise WiringError(f"head {head.name!r} is an embedding, which cannot be turned", hint='tta = "none"')
    return tuple(Move(channel) for channel in range(len(head.channels)))


def _affinity(head: Head, symmetry: Symmetry, offset: Shape) -> Move:
    found = [symmetry.back(other) for other in head.offsets]
    opposite = as_shape(-component for component in offset)
    if offset in found:
        return Move(found.index(offset))
    if opposite in found:  # what was found at v is the affinity of v - offset
        return Move(found.index(opposite), shift=offset)
    problem = f"head {head.name!r} has no affinity that becomes offset {offset} when it is turned"
    raise WiringError(problem, hint='tta = "flips", or "none"')


def _component(head: Head, symmetry: Symmetry, name: str) -> Move:
    if name not in AXES:
        raise WiringError(f"channel {name!r} of head {head.name!r} names no axis", hint='tta = "none"')
    at = symmetry.axes.index(AXES.index(name))
    source = AXES[symmetry.axes.index(AXES.index(name))]
    if source not in head.channels:
        raise WiringError(
            f"head {head.name!r} has no component along {source} to turn into {name}", hint='tta = "flips"'
        )
    return Move(head.channels.index(source), mirrored=symmetry.flips[at])


def _descriptor(head: Head, symmetry: Symmetry, name: str) -> Move:
    if name not in DESCRIPTORS or set(head.channels) != set(DESCRIPTORS):
        problem = f"head {head.name!r} must have the channels {', '.join(DESCRIPTORS)} to be turned"
        raise WiringError(problem, hint='tta = "none"')
    word, _, axes = name.partition("_")
    at = [symmetry.axes.index(AXES.index(axis)) for axis in axes]
    turned = "".join(AXES[axis] for axis in sorted(at))
    mirrored = word != "variance" and sum(symmetry.flips[axis] for axis in at) % 2 == 1
    return Move(head.channels.index(f"{word}_{turned}" if axes else word), mirrored=mirrored)
