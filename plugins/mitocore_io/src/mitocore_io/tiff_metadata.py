"""What a TIFF file says of its axes and voxel size, and how we note them."""

import html
import json
import re
from typing import Any

import numpy as np

from mitocore import DataError, VolumeSpec, VoxelSize
from mitocore_io import attributes, units
from mitocore_io.attributes import Record

TAG = 65434
"""A private tag (of the range that TIFF leaves free for any use) that holds our record as JSON."""

_CLASSIC = 2**31  # bytes; ImageJ and many readers take offsets as signed 32-bit numbers


def axes_of(series: Any, where: str) -> str:
    """Names of the axes of a series, of t, c, z, y, x.

    Pages that are counted as time points, or not counted at all, are slices where nothing else is.

    Raises
    ------
    DataError
        If the file is in colour, or its axes are no volume's.
    """
    names = str(series.axes).upper()
    if "S" in names:
        problem = f"the file holds colours: {series.keyframe.samplesperpixel} samples per pixel"
        raise DataError(problem, where=where, hint="convert it to grey levels, as Image > Type > 8-bit in Fiji does")
    stacked = [name for name in names if name not in "CZYX"]
    if "Z" not in names and len(stacked) == 1:
        return names.replace(stacked[0], "Z").lower()
    if stacked and stacked != ["T"]:
        problem = f"the axes {names} of shape {series.shape} are no volume's"
        raise DataError(problem, where=where, hint='axes = "czyx": one letter per axis, of t, c, z, y, x')
    return names.lower()


def record_of(tif: Any, number: int) -> Record:
    """What a series says of itself: all of it in our own tag, else the voxel size in OME-XML or ImageJ metadata."""
    series = tif.series[number]
    tag = series.keyframe.tags.get(TAG)
    if tag is not None:
        try:
            return attributes.record(json.loads(bytes(tag.value)))
        except (AttributeError, TypeError, ValueError):  # somebody else's tag of that number
            pass
    size = _ome(tif.ome_metadata, number) if tif.ome_metadata else None
    return Record(voxel_size=size or (_imagej(tif.imagej_metadata, series) if tif.imagej_metadata else None))


def _ome(xml: str, number: int) -> VoxelSize | None:
    images = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    if number >= len(images):
        return None
    stated = {k: html.unescape(v) for k, v in re.findall(r'PhysicalSize(\w+)="([^"]*)"', images[number])}
    return units.voxel_size([stated.get(a) for a in "ZYX"], [stated.get(f"{a}Unit", "um") for a in "ZYX"])


def _imagej(noted: dict[str, Any], series: Any) -> VoxelSize | None:
    x, y = (series.keyframe.tags.get(f"{axis}Resolution") for axis in "XY")
    if x is None or y is None:
        return None
    unit = noted.get("unit", "")
    edges = [noted.get("spacing"), _inverse(y.value), _inverse(x.value)]
    return units.voxel_size(edges, [noted.get("zunit", unit), noted.get("yunit", unit), unit])


def _inverse(resolution: tuple[int, int]) -> float:
    pixels, length = resolution
    return length / pixels if pixels else 0.0


def flavour(spec: VolumeSpec) -> dict[str, Any]:
    """Arguments that make tifffile write a file other programs understand best.

    ImageJ's metadata where ImageJ takes the dtype and size, OME-XML where OME takes the dtype, and neither for 64-bit
    integers and float16. BigTIFF from 2 GiB on.
    """
    size = len(spec.channels) * spec.shape[0] * spec.shape[1] * spec.shape[2] * np.dtype(spec.dtype).itemsize
    metadata: dict[str, Any] = {"axes": "ZCYX"}
    arguments: dict[str, Any] = {"metadata": metadata, "photometric": "minisblack"}
    micrometres = [edge / 1000 for edge in spec.voxel_size.edges] if spec.voxel_size else []
    if spec.dtype in ("uint8", "uint16", "float32") and size < _CLASSIC:
        if micrometres:
            metadata.update(spacing=micrometres[0], unit="um")
            arguments.update(resolution=(1 / micrometres[2], 1 / micrometres[1]), resolutionunit="NONE")
        arguments["imagej"] = True
    elif spec.dtype not in ("uint64", "int64", "float16"):
        for axis, edge in zip("ZYX", micrometres, strict=False):
            metadata.update({f"PhysicalSize{axis}": edge, f"PhysicalSize{axis}Unit": "µm"})
        arguments["ome"] = True
    note = json.dumps(attributes.attributes(spec)).encode()
    return arguments | {"extratags": [(TAG, "B", 0, note, True)], "bigtiff": size >= _CLASSIC}
