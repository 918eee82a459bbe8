"""Units of length as file formats spell them, in nanometres."""

import math
from collections.abc import Sequence
from typing import Any

from mitocore import VoxelSize

_NM = {
    "pm": 1e-3, "picometer": 1e-3,
    "a": 0.1, "å": 0.1, "angstrom": 0.1, "ångström": 0.1,
    "nm": 1.0, "nanometer": 1.0,
    "um": 1e3, "µm": 1e3, "\\u00b5m": 1e3, "micron": 1e3, "micrometer": 1e3,
    "mm": 1e6, "millimeter": 1e6, "cm": 1e7, "centimeter": 1e7, "m": 1e9, "meter": 1e9,
    "in": 25.4e6, "inch": 25.4e6, '"': 25.4e6,
}  # fmt: skip


def in_nm(unit: Any) -> float | None:
    """Nanometres in one unit; None for what is no length, such as "pixel".

    >>> in_nm("micron"), in_nm("nanometers"), in_nm("pixel")
    (1000.0, 1.0, None)
    """
    name = str(unit).strip().strip("\0").lower().replace("metre", "meter").replace("\N{GREEK SMALL LETTER MU}", "µ")
    return _NM.get(name) or _NM.get(name.removesuffix("s"))


def voxel_size(edges: Sequence[Any], units: Sequence[Any]) -> VoxelSize | None:
    """Edges (z, y, x), each in its unit; None if one is not a positive length or a unit is not known."""
    lengths = []
    for edge, unit in zip(edges, units, strict=True):
        factor = in_nm(unit)
        try:
            length = round(float(edge) * factor, 9) if factor else math.nan
        except (TypeError, ValueError):
            return None
        if not 0 < length < math.inf:
            return None
        lengths.append(length)
    z, y, x = lengths
    return VoxelSize(z, y, x)
