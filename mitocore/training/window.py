"""How large a crop the network sees in training, and the window its weights are used with."""

from dataclasses import replace

from mitocore.errors import ConfigError
from mitocore.geometry import Shape, as_shape
from mitocore.specs import Axis, Window
from mitocore.training.plan import dimensions


def checked_crop(stated: Shape | None, window: Window) -> Shape:
    """The voxels a network sees in training: those stated, or the window of the model.

    Raises
    ------
    ConfigError
        If they are not stated for a model of whole sections, or do not fit its divisor and context.
    """
    if stated is None and "all" in window.shape:
        raise ConfigError("the model takes whole sections, so the crop must be stated", hint="crop = [1, 256, 256]")
    crop = as_shape(int(n) for n in (stated or window.shape))
    for size, context, divisor in zip(crop, window.crop, window.divisor, strict=True):
        if size % divisor or size <= 2 * context:
            near_by = as_shape(
                max(-(-n // d), -(-(2 * c + 1) // d)) * d
                for n, c, d in zip(crop, window.crop, window.divisor, strict=True)
            )
            rule = f"multiples of {dimensions(window.divisor)}"
            rule += f" above {dimensions(as_shape(2 * c for c in window.crop))}" if any(window.crop) else ""
            raise ConfigError(
                f"a crop of {dimensions(crop)} does not fit the model: {rule}", hint=f"crop = {list(near_by)}"
            )
    return crop


def trained_window(window: Window, crop: Shape) -> Window:
    """The window weights are used with: the crop; an axis that is "all" stays so."""
    shape: list[Axis] = ["all" if n == "all" else c for n, c in zip(window.shape, crop, strict=True)]
    overlap = [
        0 if n == "all" else v * (c - 2 * k) // (n - 2 * k)
        for n, c, k, v in zip(window.shape, crop, window.crop, window.overlap, strict=True)
    ]
    z, y, x = shape
    return replace(window, shape=(z, y, x), overlap=as_shape(overlap))
