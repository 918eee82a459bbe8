"""Single image files, PNG or JPEG: their size and their grey levels."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore import DataError
from mitocore_io import jpeg, png
from mitocore_io.image_header import ImageHeader

JPEG = (".jpg", ".jpeg")
SUFFIXES = (".png", *JPEG)


def header(path: Path) -> ImageHeader:
    """Read the first bytes of a file.

    Raises
    ------
    DataError
        If it is not of the format that its suffix says.
    """
    return jpeg.header(path) if path.suffix.lower() in JPEG else png.header(path)


def decoded(path: Path) -> NDArray[Any]:
    """Pixels as they are stored, (y, x) or (y, x, samples), uint8 or uint16; 1-bit pixels are 0 and 255.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    return jpeg.decoded(path) if path.suffix.lower() in JPEG else png.decoded(path)


def pixels(path: Path) -> NDArray[Any]:
    """Grey levels (y, x), uint8 or uint16; 1-bit pixels are 0 and 255. Alpha is left out.

    Raises
    ------
    DataError
        If the file is damaged, or holds colours.
    """
    return grey(decoded(path), path)


def grey(image: NDArray[Any], path: Path) -> NDArray[Any]:
    """Grey levels (y, x) of decoded pixels.

    Raises
    ------
    DataError
        If they are in colour.
    """
    if image.ndim == 2:
        return image
    levels = image[..., 0]
    if image.shape[2] >= 3 and not ((levels == image[..., 1]) & (levels == image[..., 2])).all():
        y, x = np.argwhere((image[..., :3] != levels[..., None]).any(axis=2))[0]
        problem = f"{path.name!r} is in colour: pixel ({y}, {x}) is {tuple(image[y, x, :3].tolist())}"
        raise DataError(problem, where=str(path), hint="convert it to grey levels")
    return levels
