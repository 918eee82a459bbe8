"""Pictures of sections: grey values, objects in colours, errors, lengths. Drawn without a screen."""

import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.geometry import VoxelSize

Picture = NDArray[np.float32]
"""(y, x, rgb) in [0, 1]."""

AGREES, ADDED, MISSED = (0.0, 0.62, 0.45), (0.9, 0.45, 0.0), (0.2, 0.55, 0.95)  # told apart by colour-blind eyes, too


def installed() -> bool:
    """Whether pictures can be drawn: matplotlib comes with the extra ``mitocore[report]``."""
    return importlib.util.find_spec("matplotlib") is not None


def figure(width: float, height: float, dpi: int) -> Any:
    """An empty figure of matplotlib, in inches, that belongs to nobody: no window waits to be closed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure((width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(made)
    return made


def scale_bar(axes: Any, size: VoxelSize, width: int, height: int) -> None:
    """Draw a bar of a round length into the lower left of a section of this many voxels."""
    from matplotlib import patheffects
    from matplotlib.patches import Rectangle

    length = nice_length(width * size.x / 4)
    voxels, thick, margin = length / size.x, height / 80, width / 25
    bottom = height - margin * size.x / size.y
    axes.add_patch(Rectangle((margin, bottom - thick), voxels, thick, facecolor="white", edgecolor="black", lw=0.5))
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    outlined = [patheffects.withStroke(linewidth=2, foreground="black")]
    place = (margin, bottom - 2 * thick)
    axes.text(*place, text, color="white", fontsize=8, ha="left", va="bottom", path_effects=outlined)


def nice_length(nanometres: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50 … nm that is not longer.

    >>> nice_length(730.0), nice_length(90.0)
    (500.0, 50.0)
    """
    power = 10.0 ** np.floor(np.log10(nanometres))
    return float(max(step * power for step in (1, 2, 5) if step * power <= nanometres))


def grey(raw: NDArray[Any]) -> Picture:
    """Intensities as grey values, the darkest and brightest 0.5 % clipped."""
    values = np.nan_to_num(raw.astype(np.float32))
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    return np.repeat(scaled[..., None], 3, axis=2).astype(np.float32)


def colours(ids: NDArray[np.uint64]) -> Picture:
    """A bright colour for each id, always the same, far from those of neighbouring ids."""
    from matplotlib.colors import hsv_to_rgb

    wheel = (ids % np.uint64(9973)).astype(np.float64)
    hue, value = wheel * 0.6180339887 % 1, 1 - 0.3 * (wheel * 0.7548776662 % 1)
    return np.asarray(hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.75), value], axis=-1)), np.float32)


def painted(raw: Picture, objects: NDArray[np.uint64], paint: NDArray[np.uint64]) -> Picture:
    """Objects over the image: tinted inside, with a solid outline; `paint` is the id whose colour a voxel gets."""
    colour, inside, edge = colours(paint), objects > 0, outline(objects)
    mixed = np.where(inside[..., None], 0.6 * raw + 0.4 * colour, raw)
    return np.where(edge[..., None], colour, mixed).astype(np.float32)


def errors(raw: Picture, predicted: NDArray[np.uint64], truth: NDArray[np.uint64]) -> Picture:
    """Voxels found, added and missed, over the dimmed image; what the truth leaves open stays grey."""
    open_ = truth == np.iinfo(truth.dtype).max
    found, true = (predicted > 0) & ~open_, (truth > 0) & ~open_
    picture = 0.25 + 0.5 * raw
    for where, colour, strength in (
        (found & true, AGREES, 0.45),
        (found & ~true, ADDED, 0.9),
        (true & ~found, MISSED, 0.9),
    ):
        picture = np.where(where[..., None], (1 - strength) * picture + strength * np.array(colour), picture)
    edge = outline(np.where(open_, 0, truth))
    return np.where(edge[..., None] & (found == true)[..., None], 0.0, picture).astype(np.float32)


def outline(objects: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """The voxels of objects with another id to the right or below, or left or above of the background."""
    edge = np.zeros(objects.shape, bool)
    for axis in (0, 1):
        lines, marks = np.moveaxis(objects, axis, 0), np.moveaxis(edge, axis, 0)
        differs = lines[1:] != lines[:-1]
        marks[1:] |= differs & (lines[:-1] == 0)
        marks[:-1] |= differs
    return edge & (objects > 0)
