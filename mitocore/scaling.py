"""Results at another resolution than they were computed at: which voxels they have, and what those hold."""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import ConfigError, DataError
from mitocore.geometry import Roi, VoxelSize
from mitocore.resampling import ROUNDING, Factors, Resampling
from mitocore.specs import Kind, VolumeSpec

_VECTORS = (Kind.OFFSET, Kind.AFFINITY)  # say how many voxels away something is
_NAMES = (Kind.MASK, Kind.SEMANTIC, Kind.INSTANCE)


def factors_of(stated: Any) -> Factors:
    """Three factors of resolution from what a file or a command says of them.

    >>> factors_of("1, 0.5, 0.5"), factors_of([1, 0.5, 0.5])
    ((1.0, 0.5, 0.5), (1.0, 0.5, 0.5))

    Raises
    ------
    ValueError
        If they are not three numbers between 1/1000 and 1000.
    """
    parts = stated.split(",") if isinstance(stated, str) else stated
    try:
        found = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        found = ()
    if len(found) != 3 or not all(0.001 <= factor <= 1000 for factor in found):
        raise ValueError(f"{stated!r} is not three factors (z, y, x) from 0.001 to 1000, such as 1,0.5,0.5")
    return found[0], found[1], found[2]


def stated_factors(stated: Any, where: str, hint: str) -> Factors | None:
    """Factors of resolution that are asked for; None: none are, or all are 1.

    Raises
    ------
    ConfigError
        As `factors_of`, with `where` they are stated and a `hint`.
    """
    if stated is None:
        return None
    try:
        factors = factors_of(stated)
    except ValueError as error:
        raise ConfigError(str(error), where=where, hint=hint) from error
    return None if factors == (1, 1, 1) else factors


class _Boxes(Protocol):
    """What is read box by box."""

    @property
    def voxel_bytes(self) -> int:
        """Bytes per voxel that a read holds, at most."""

    def read(self, roi: Roi) -> NDArray[Any]:
        """Voxels (c, z, y, x)."""


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A region of a volume at another resolution: new voxels are those whose centres lie in it.

    The lattice begins at voxel 0 of the volume, not at the region, so a label of a region is that of the whole volume;
    so is an intensity, but for those at the region's faces that are made of voxels beyond it: for them the face
    repeats, as the face of a volume does.
    """

    source: _Boxes
    """Old voxels, in the frame of the volume."""
    resampling: Resampling
    """Of the whole volume."""
    region: Roi
    """Of old voxels; no other is read."""
    labels: bool
    """Whether values are never mixed."""
    rounded: str = ""
    """An integer dtype that intensities are rounded to; "": they are float32."""

    @property
    def voxel_bytes(self) -> int:
        """Of a new voxel: the old ones it is made of, and itself."""
        return self.source.voxel_bytes * math.prod(math.ceil(ratio) for ratio in self.resampling.ratio) + 8

    @property
    def box(self) -> Roi:
        """The new voxels of the region, in their own frame."""
        return self.resampling.box(self.region)

    def read(self, roi: Roi) -> NDArray[Any]:
        """Values (c, z, y, x) of new voxels."""
        if self.labels:
            return self.resampling.labels(self.source.read, roi)
        values = self.resampling.image(self._inside, roi)
        return np.rint(values).astype(self.rounded) if self.rounded else values

    def _inside(self, old: Roi) -> NDArray[Any]:
        inner = old.clip(self.region)
        ends = zip(inner.start, old.start, old.stop, inner.stop, strict=True)
        beyond = [(start - first, last - stop) for start, first, last, stop in ends]
        values = self.source.read(inner)
        return np.pad(values, [(0, 0), *beyond], mode="edge") if np.any(beyond) else values


def scaled(spec: VolumeSpec, factors: Factors, region: Roi) -> tuple[VolumeSpec, Resampling]:
    """What a region of a volume is at `factors` times its resolution, and how it becomes that.

    Raises
    ------
    DataError
        If nothing is left of the region, or the values count voxels of this size.
    """
    if spec.kind in _VECTORS:
        problem = f"{spec.kind} values speak of voxels of one size: they cannot be stored at another"
        raise DataError(problem, hint="scale what is made of them, such as instances")
    resampling = Resampling.by(spec.shape, factors)
    box = resampling.box(region)
    if min(box.shape) < 1 or any(n * factor < 1 - ROUNDING for n, factor in zip(spec.shape, factors, strict=True)):
        problem = f"{factors} times the resolution leaves nothing of {region.shape} voxels (z, y, x)"
        raise DataError(problem, hint="larger factors, or 1 along the short axis")
    size = spec.voxel_size
    edges = [round(e * r, 9) for e, r in zip(size.edges, resampling.ratio, strict=True)] if size else [0.0] * 3
    z, y, x = (first + n * edge for first, n, edge in zip(spec.origin, box.start, edges, strict=True))
    smaller = VoxelSize(*edges) if size else None
    return replace(spec, shape=box.shape, voxel_size=smaller, origin=(z, y, x), chunks=None), resampling


def averaged(kind: Kind, dtype: str) -> bool:
    """Whether values become means of what a larger voxel covers; those of masks, classes and ids never do.

    >>> averaged(Kind.PROBABILITY, "uint8"), averaged(Kind.INSTANCE, "uint32"), averaged(Kind.IMAGE, "bool")
    (True, False, False)
    """
    return kind not in _NAMES and dtype != "bool"
