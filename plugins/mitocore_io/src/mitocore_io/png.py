"""Single PNG files."""

import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from mitocore import DataError
from mitocore_io.image_header import ImageHeader

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0  # colour type without palette, colours and alpha


def header(path: Path) -> ImageHeader:
    """Read the first bytes of a file.

    Raises
    ------
    DataError
        If it is no PNG.
    """
    with path.open("rb") as file:
        first = file.read(26)
    if len(first) < 26 or not first.startswith(_SIGNATURE) or first[12:16] != b"IHDR":
        raise DataError(f"{path.name!r} is not a PNG file, or is cut short", where=str(path))
    width, height, depth, colour = struct.unpack(">IIBB", first[16:26])
    one_bit = depth == 1 and colour == _GREY
    return ImageHeader(height, width, "bool" if one_bit else "uint16" if depth == 16 else "uint8")


def decoded(path: Path) -> NDArray[Any]:
    """Pixels (y, x), or (y, x, samples) in colour or with alpha; 1-bit pixels are 0 and 255.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    try:
        image: NDArray[Any] = imagecodecs.png_decode(path.read_bytes())
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"{path.name!r} cannot be decoded: it is damaged or cut short"
        raise DataError(problem, where=str(path), hint="copy the file again") from error
    return image


def encode(plane: NDArray[Any]) -> bytes:
    """A grey PNG of 1, 8 or 16 bits of a (y, x) plane of bool, uint8 or uint16."""
    if plane.dtype != np.bool_:
        return bytes(imagecodecs.png_encode(np.ascontiguousarray(plane), level=3))
    height, width = plane.shape  # imagecodecs writes no 1-bit files; each row begins with its filter, none
    rows = np.pad(np.packbits(plane, axis=1), ((0, 0), (1, 0))).tobytes()
    form = struct.pack(">IIBBBBB", width, height, 1, _GREY, 0, 0, 0)
    parts = ((b"IHDR", form), (b"IDAT", zlib.compress(rows, 3)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
