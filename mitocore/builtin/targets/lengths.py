"""Lengths that targets are told in voxels or nm, and the edges they are measured along."""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from mitocore.errors import ConfigError
from mitocore.geometry import Shape, VoxelSize, as_shape, nanometres


def _checked(length: float | str) -> float | str:
    if isinstance(length, str):
        nanometres(length)
    elif not 0 < length < math.inf:
        raise ValueError(f"a length of {length:g} voxels is not above 0")
    return length


PositiveLength = Annotated[float | str, AfterValidator(_checked)]
"""A number of voxels, counted along the shorter edge in the plane, or a length such as "80 nm"."""

_HINT = "voxel_size = [40, 8, 8] in [[volume]] (nm, z y x)"


@dataclass(frozen=True, slots=True)
class Scale:
    """What one voxel measures: `edges` (z, y, x), in nm or, where these are not known, in voxels of the plane."""

    edges: tuple[float, float, float]
    physical: bool

    @property
    def voxel(self) -> float:
        """The shorter edge in the plane."""
        return min(self.edges[1:])

    def length(self, length: float | str) -> float:
        """A length in the unit of `edges`.

        Raises
        ------
        ConfigError
            If the length is physical and the voxel size is not known.
        """
        if not isinstance(length, str):
            return length * self.voxel
        if not self.physical:
            problem = f"length {length!r} needs the voxel size of the labels, which is not known"
            raise ConfigError(problem, hint=f"{_HINT}, or a number of voxels")
        return nanometres(length)

    def voxels(self, length: float | str) -> tuple[float, float, float]:
        """A length in voxels along z, y and x."""
        measured = self.length(length)
        z, y, x = (measured / edge for edge in self.edges)
        return z, y, x

    def reach(self, length: float | str) -> Shape:
        """The whole voxels along z, y and x that hold a length."""
        return as_shape(math.ceil(round(voxels, 6)) for voxels in self.voxels(length))


def scale_of(voxel_size: VoxelSize | None, anisotropy: float | None, per_slice: bool) -> Scale:
    """What one voxel measures; a stated `anisotropy` stands for the edge along z.

    >>> scale_of(VoxelSize(30, 8, 8), None, per_slice=False).voxels("60 nm")
    (2.0, 7.5, 7.5)
    >>> scale_of(None, 6, per_slice=False).edges
    (6.0, 1.0, 1.0)

    Raises
    ------
    ConfigError
        If neither tells how long voxels are along z, and it matters.
    """
    if voxel_size is None and anisotropy is None and not per_slice:
        problem = "distances in 3-D need the voxel size of the labels, which is not known"
        raise ConfigError(problem, hint=f"{_HINT}, or in the target: anisotropy = 1, or per_slice = true")
    z, y, x = voxel_size.edges if voxel_size else (1.0, 1.0, 1.0)
    return Scale((anisotropy * min(y, x) if anisotropy else z, y, x), physical=voxel_size is not None)
