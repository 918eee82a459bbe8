"""OME-NGFF multiscales: several resolutions of one image in a zarr group.

Versions 0.4 (zarr v2) and 0.5 (zarr v3) of https://ngff.openmicroscopy.org; of older ones, what they share with 0.4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mitocore import DataError, Kind, Shape, VolumeSpec, VoxelSize
from mitocore_io import units

LABELS = (Kind.MASK, Kind.SEMANTIC, Kind.INSTANCE)
Version = Literal["0.4", "0.5"]
_TOLERANCE = 1.01  # scales of a pyramid are often rounded: 7.99 nm is 8 nm


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution: the array's path in the group, its voxel size (None: not stated) and origin in nm."""

    path: str
    voxel_size: VoxelSize | None
    origin: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Multiscale:
    """Names of the axes (None: the usual ones) and the levels, finest first."""

    axes: str | None
    levels: tuple[Level, ...]

    def level(self, wanted: int | VoxelSize, where: str) -> Level:
        """The level of that number; or the coarsest whose shortest voxel edge is no longer than that of a voxel size.

        Voxels of such a level show all that voxels of the size would show. Of levels with the same shortest edge, the
        one nearest to the voxel size along all axes.

        Raises
        ------
        DataError
            If there is none: no such number, no voxel sizes stated, or all levels coarser.
        """
        if isinstance(wanted, int):
            if wanted >= len(self.levels):
                problem = f"level {wanted} is not there: there are {len(self.levels)}, from 0"
                raise DataError(problem, where=where, hint=f"level = {len(self.levels) - 1}")
            return self.levels[wanted]
        edges = [level.voxel_size.edges if level.voxel_size else () for level in self.levels]
        fine = [i for i, each in enumerate(edges) if each and min(each) <= min(wanted.edges) * _TOLERANCE]
        if fine:
            return self.levels[max(fine, key=lambda i: (min(edges[i]), -_distance(edges[i], wanted.edges), -i))]
        if not any(edges):
            problem = "the levels state no voxel size that one could be chosen by"
            raise DataError(problem, where=where, hint=f"level = 0, up to {len(self.levels) - 1}")
        listed = ", ".join(f"{i}: {' x '.join(f'{e:g}' for e in each)} nm" for i, each in enumerate(edges) if each)
        problem = f"no level is as fine as {min(wanted.edges):g} nm; there are {listed}"
        raise DataError(problem, where=where, hint="level = 0, and resample, or a coarser voxel size")


def multiscale(attributes: Mapping[str, Any], where: str) -> Multiscale | None:
    """The first multiscale in the attributes of a group; None if there is none.

    Raises
    ------
    DataError
        If there is one that does not follow the specification.
    """
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping) or not ome.get("multiscales"):
        return None
    try:
        first = ome["multiscales"][0]
        axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in first.get("axes", ())]
        names = "".join(str(axis["name"]).lower() for axis in axes)
        shared = first.get("coordinateTransformations", ())
        levels = [
            _level(str(each["path"]), axes, names, [*each.get("coordinateTransformations", ()), *shared])
            for each in first["datasets"]
        ]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        problem = f"the multiscales metadata do not follow OME-NGFF: {type(error).__name__} {error}"
        raise DataError(problem, where=where, hint="name the array itself, as in key = '0'") from error
    return Multiscale(names or None, tuple(levels))


def _distance(edges: Sequence[float], others: Sequence[float]) -> float:
    return sum(abs(math.log(a / b)) for a, b in zip(edges, others, strict=True))


def _level(path: str, axes: Sequence[Mapping[str, Any]], names: str, steps: Sequence[Mapping[str, Any]]) -> Level:
    scale, shift, stated = [1.0] * len(axes), [0.0] * len(axes), False
    for step in steps:  # applied in their order: a later scale stretches an earlier translation
        if step.get("type") == "scale" and "scale" in step:
            factors, stated = [float(v) for v in step["scale"]], True
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            shift = [a * b for a, b in zip(shift, factors, strict=True)]
        elif step.get("type") == "translation" and "translation" in step:
            shift = [a + float(b) for a, b in zip(shift, step["translation"], strict=True)]
    if not stated or not {"z", "y", "x"} <= set(names):
        return Level(path, None, (0.0, 0.0, 0.0))
    spatial = [names.index(name) for name in "zyx"]
    unit = [axes[i].get("unit", "") for i in spatial]
    size = units.voxel_size([scale[i] for i in spatial], unit)
    if size is None:
        return Level(path, None, (0.0, 0.0, 0.0))
    z, y, x = (shift[i] * (units.in_nm(u) or math.nan) for i, u in zip(spatial, unit, strict=True))
    return Level(path, size, (z, y, x))


def attributes(spec: VolumeSpec, name: str, factors: Sequence[Shape], version: Version) -> dict[str, Any]:
    """Attributes of the group of a volume whose level k is `factors[k]` times coarser than level 0, called `str(k)`.

    A voxel of a coarse level covers whole voxels of the finest, so its centre lies further in by half the difference.
    """
    names = axes_of(spec)
    axes = [{"name": "c", "type": "channel"}] if "c" in names else []
    axes += [{"name": a, "type": "space"} | ({"unit": "nanometer"} if spec.voxel_size else {}) for a in "zyx"]
    edges = spec.voxel_size.edges if spec.voxel_size else (1.0, 1.0, 1.0)
    channel = [1.0] if "c" in names else []
    datasets = []
    for level, factor in enumerate(factors):
        scale = [e * f for e, f in zip(edges, factor, strict=True)]
        shift = [o + e * (f - 1) / 2 for o, e, f in zip(spec.origin, edges, factor, strict=True)]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": channel + scale}]
        steps.append({"type": "translation", "translation": [0.0] * len(channel) + shift})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    method = "nearest" if spec.kind in LABELS else "mean"
    image: dict[str, Any] = {"name": name, "axes": axes, "datasets": datasets, "type": method}
    labels = {"image-label": {"version": version}} if spec.kind in (Kind.SEMANTIC, Kind.INSTANCE) else {}
    if version == "0.4":
        return {"multiscales": [{"version": version, **image}], **labels}
    return {"ome": {"version": version, "multiscales": [image], **{name: {} for name in labels}}}


def axes_of(spec: VolumeSpec) -> str:
    """Names of the axes of the arrays that are written: no channel axis for a single channel."""
    return "czyx" if len(spec.channels) > 1 else "zyx"
