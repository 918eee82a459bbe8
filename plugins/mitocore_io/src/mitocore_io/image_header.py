"""What the header of a single image file says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size in pixels and the smallest dtype for the grey levels: bool, uint8 or uint16."""

    height: int
    width: int
    dtype: str
