"""Single JPEG files. Libraries fill what is missing of a cut file with grey, so that its end is looked for here.

Markers as in ITU-T T.81, annex B: a file is a row of segments, each a marker, its length and its content; the frame
header says the size, and coded pixels follow the first start of scan up to the end of image.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from mitocore import DataError
from mitocore_io.image_header import ImageHeader

_START, _END, _SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # tables, and what is reserved, lie between the frame headers


def header(path: Path) -> ImageHeader:
    """Read the segments of a file up to its frame header.

    Raises
    ------
    DataError
        If it is no JPEG.
    """
    with path.open("rb") as file:
        content = file.read(1 << 16)
        while len(content) < path.stat().st_size and not any(marker in _FRAMES for marker, _ in _segments(content)):
            content += file.read(len(content))  # a preview or a colour profile may stand before it
    for marker, place in _segments(content):
        if marker in _FRAMES and len(content) >= place + 9:
            precision, height, width = struct.unpack(">BHH", content[place + 4 : place + 9])
            if height and width:
                return ImageHeader(height, width, "uint8" if precision <= 8 else "uint16")
    raise DataError(f"{path.name!r} is not a JPEG file, or is cut short", where=str(path))


def decoded(path: Path) -> NDArray[Any]:
    """Pixels (y, x), or (y, x, samples) in colour.

    Raises
    ------
    DataError
        If the file is cut short or damaged.
    """
    damaged = DataError(
        f"{path.name!r} cannot be decoded: it is damaged or cut short", where=str(path), hint="copy the file again"
    )
    try:
        content = path.read_bytes()
        scan = next((place for marker, place in _segments(content) if marker == _SCAN), len(content))
        image: NDArray[Any] = imagecodecs.jpeg_decode(content)
    except (OSError, RuntimeError, ValueError) as error:
        raise damaged from error
    if content.find(_END, scan) < 0:
        raise damaged
    return image


def encode(plane: NDArray[Any], quality: int) -> bytes:
    """A grey JPEG of a (y, x) plane of uint8."""
    return bytes(imagecodecs.jpeg_encode(np.ascontiguousarray(plane), level=quality))


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment, up to the start of the first scan or the end of what there is."""
    place = len(_START) if content.startswith(_START) else len(content)
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, (length,) = content[place + 1], struct.unpack(">H", content[place + 2 : place + 4])
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        yield marker, place
        if marker == _SCAN:
            return
        place += 2 + length
