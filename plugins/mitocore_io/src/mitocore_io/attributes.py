"""What is noted beside an array: `resolution` and `offset` as Catena and funlib write them, and what the array means.

The same record serves as attributes in zarr and HDF5, as a tag in TIFF and as a file beside PNG slices. While an array
is being written its state says so; readers refuse it then, so that half an array is never taken for a whole one.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mitocore import DataError, Kind, VolumeSpec, VoxelSize
from mitocore_io import units
from mitocore_io.axes import Axes


@dataclass(frozen=True, slots=True)
class Record:
    """What the attributes of an array say; what they do not say is None, or what is usual."""

    voxel_size: VoxelSize | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    kind: Kind = Kind.IMAGE
    channels: tuple[str, ...] = ()
    writing: bool = False
    stamp: str = ""


def record(attributes: Mapping[str, Any]) -> Record:
    """Read attributes, ours or those of Catena, funlib, ilastik and Fiji."""
    own = attributes.get("mitocore", {})
    own = json.loads(own) if isinstance(own, str | bytes) else own
    own = own if isinstance(own, Mapping) else {}
    kind = own.get("kind")
    return Record(
        voxel_size=_voxel_size(attributes),
        origin=_origin(attributes.get("offset")),
        kind=Kind(kind) if kind in list(Kind) else Kind.IMAGE,
        channels=tuple(str(name) for name in own.get("channels", ())),
        writing=own.get("state") == "writing",
        stamp=str(own.get("stamp", "")),
    )


def attributes(spec: VolumeSpec, *, writing: bool = False, stamp: str = "") -> dict[str, Any]:
    """Attributes of an array of this spec, JSON-able; lengths in nm, (z, y, x).

    `stamp` tells a finished array from what was there before; see `Writer.stamp`.
    """
    own: dict[str, Any] = {"kind": spec.kind.value}
    if spec.channels != channel_names(len(spec.channels)):
        own["channels"] = list(spec.channels)
    if writing:
        own["state"] = "writing"
    if stamp:
        own["stamp"] = stamp
    noted: dict[str, Any] = {"mitocore": own}
    if spec.voxel_size:
        noted["resolution"] = [_plain(edge) for edge in spec.voxel_size.edges]
    if spec.voxel_size or any(spec.origin):
        noted["offset"] = [_plain(length) for length in spec.origin]
    return noted


def channel_names(count: int, named: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names that were noted, if there is one per channel; else numbers, and none for a single channel."""
    if len(named) == count:
        return named
    return ("",) if count == 1 else tuple(str(number) for number in range(count))


def volume_spec(
    axes: Axes,
    dtype: np.dtype[Any],
    chunks: tuple[int, ...] | None,
    noted: Record,
    override: VoxelSize | None,
    where: str,
) -> VolumeSpec:
    """The spec of an array on disk.

    Raises
    ------
    DataError
        If the array is still being written, or does not hold numbers.
    """
    if noted.writing:
        problem = "the array is not finished: the run that writes it was stopped, or is not done"
        raise DataError(problem, where=where, hint="resume that run")
    if dtype.kind not in "biuf":
        raise DataError(f"the array holds {dtype}; bool, integers and real numbers are read", where=where)
    return VolumeSpec(
        shape=axes.volume,
        dtype=dtype.newbyteorder("=").name,
        channels=channel_names(axes.channels, noted.channels),
        voxel_size=override or noted.voxel_size,
        origin=noted.origin,
        chunks=axes.of_volume(chunks) if chunks else None,
        kind=noted.kind,
    )


def _voxel_size(attributes: Mapping[str, Any]) -> VoxelSize | None:
    stated = attributes.get("units", "nm")  # funlib states units beside voxel_size; Catena's resolution is nm
    for key, unit in (("resolution", stated), ("voxel_size", stated), ("element_size_um", "um")):
        edges = np.atleast_1d(attributes.get(key, ())).tolist()
        if len(edges) >= 3:
            named = [unit] if isinstance(unit, str) else list(np.atleast_1d(unit))
            size = units.voxel_size(edges[-3:], named[-3:] if len(named) >= 3 else named[:1] * 3)
            if size:
                return size
    return None


def _origin(offset: Any) -> tuple[float, float, float]:
    lengths = np.atleast_1d(() if offset is None else offset).tolist()
    if len(lengths) < 3 or not all(isinstance(v, int | float) and math.isfinite(v) for v in lengths[-3:]):
        return 0.0, 0.0, 0.0
    z, y, x = (float(v) for v in lengths[-3:])
    return z, y, x


def _plain(length: float) -> float | int:
    return int(length) if float(length).is_integer() else length  # funlib wants whole numbers where they are whole
