"""The curves of a training as a picture: losses, scores and learning rate over the steps."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.durable import replaced
from mitocore.pictures import figure

PICTURE = "curves.png"
_SPAN = 50, 10  # the smoothed loss forgets over this share of the steps, and over so many at least
_INCHES, _DPI = 7.0, 120
_WIDE = 20.0  # losses that fall by this factor are shown by their logarithm

Curve = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps and values."""


def recorded(logs: Path) -> dict[str, Curve]:
    """All curves in the tables of a training, by name; where a resumed training repeats a step, its word counts."""
    found: dict[str, dict[int, float]] = {}
    tables = sorted(logs.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.rpartition("_")[2]))
    for table in tables:
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name != "step" and value:
                        found.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: _sorted(values) for name, values in found.items()}


def _sorted(values: Mapping[int, float]) -> Curve:
    steps = sorted(values)
    return np.array(steps, np.int64), np.array([values[step] for step in steps], np.float64)


def smoothed(values: NDArray[np.float64], span: float) -> NDArray[np.float64]:
    """Exponential mean over about `span` values, without the pull of the first one.

    >>> smoothed(np.array([1.0, 1.0, 4.0]), 2.0).round(2).tolist()
    [1.0, 1.0, 2.71]
    """
    decay = 1 - 1 / max(span, 1.0)
    out, total, weight = np.empty_like(values), 0.0, 0.0
    for at, value in enumerate(values.tolist()):
        total, weight = decay * total + value, decay * weight + 1
        out[at] = total / weight
    return out


def draw(path: Path, curves: Mapping[str, Curve], best: int, headlines: Iterable[str]) -> None:
    """Write a PNG with three panels: losses, the scores that say what best means, and the learning rate.

    Parameters
    ----------
    best
        The step of the best validation.
    headlines
        Names of the scores that are shown.

    Raises
    ------
    ResourceError
        If the disk is full.
    DataError
        If the file cannot be written for another reason.
    """
    scores = [name for name in headlines if name in curves]
    heights = [3.0, *([2.2] if scores else []), 1.1]
    made = figure(_INCHES, sum(heights) + 0.4, _DPI)
    panels = made.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights}).tolist()
    _losses(panels[0], curves)
    if scores:
        for name in scores:
            panels[1].plot(*curves[name], marker="o", markersize=3, linewidth=1.4, label=name)
        panels[1].set_ylabel("score")
        panels[1].legend(fontsize=8, frameon=False)
    if "rate" in curves:
        panels[-1].plot(*curves["rate"], color="0.3", linewidth=1.2)
        panels[-1].set_ylim(bottom=0)
    panels[-1].set_ylabel("learning rate")
    panels[-1].set_xlabel("step")
    for axes in panels:
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.axvline(best, color="0.55", linewidth=1, linestyle="--")
    panels[0].annotate(
        f"best, step {best:,}", (best, 1), xycoords=("data", "axes fraction"), fontsize=8, color="0.35",
        xytext=(-3, -2), textcoords="offset points", ha="right", va="top", rotation=90,
    )  # fmt: skip
    with replaced(path) as file:
        made.savefig(file, format="png")


def _losses(axes: Any, curves: Mapping[str, Curve]) -> None:
    shown: list[NDArray[np.float64]] = []
    if "train.loss" in curves:
        steps, values = curves["train.loss"]
        smooth = smoothed(values, max(len(values) / _SPAN[0], _SPAN[1]))
        axes.plot(steps, values, color="#4477aa", alpha=0.25, linewidth=0.7)
        axes.plot(steps, smooth, color="#4477aa", linewidth=1.6, label="training loss, smoothed")
        shown.append(smooth)
    if "validation.loss" in curves:
        axes.plot(*curves["validation.loss"], color="#cc6633", marker="o", markersize=3, label="validation loss")
        shown.append(curves["validation.loss"][1])
    every = np.concatenate(shown) if shown else np.ones(1)
    if every.min() > 0 and every.max() / every.min() > _WIDE:
        axes.set_yscale("log")
    axes.set_ylabel("loss")
    axes.legend(fontsize=8, frameon=False)
