"""A folder that shows a result: overlay pictures, instance table, scores, run record, and one page with all of it."""

import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore import pictures
from mitocore.blockwise.arrays import Opened
from mitocore.errors import DataError, PluginError
from mitocore.geometry import Roi, VoxelSize
from mitocore.interfaces import Volume
from mitocore.measure import InstanceTable
from mitocore.pictures import ADDED, AGREES, MISSED, errors, grey, painted, scale_bar
from mitocore.specs import Kind

LARGEST = 1024
"""Voxels along an edge of a picture; of a larger section, the middle is shown."""
ROWS = 200
"""Instances on the page; the CSV has all."""
_INCHES, _DPI = 3.6, 150


def check_installed() -> None:
    """Refuse early if pictures cannot be drawn.

    Raises
    ------
    PluginError
        If the extra ``mitocore[report]`` is not installed.
    """
    if not pictures.installed():
        raise PluginError("a report needs 'matplotlib', which is not installed", hint='pip install "mitocore[report]"')


@dataclass(frozen=True)
class _Section:
    """What one picture shows, all (y, x)."""

    z: int
    raw: NDArray[Any]
    predicted: NDArray[np.uint64]
    truth: NDArray[np.uint64] | None
    probability: NDArray[np.float32] | None
    voxel_size: VoxelSize | None


def write_report(
    folder: Path,
    image: Volume,
    prediction: Volume,
    *,
    table: InstanceTable,
    truth: Volume | None = None,
    probability: Volume | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    record: Mapping[str, Any] | None = None,
    title: str = "Report",
    sections: int = 3,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> Path:
    """Write `index.html`, pictures of some sections, `instances.csv`, `scores.json` and `record.json`.

    Parameters
    ----------
    image, prediction, truth, probability
        Open volumes of one shape; `prediction` and `truth` hold instances. Of several channels, the first is shown.
    table
        Measurements of `prediction`, see `mitocore.measure.instance_table`.
    scores
        By metric and name.
    record
        The run record; its settings are shown on the page.
    sections
        How many sections are shown: those where the instances are.

    Returns
    -------
    The path of the page.

    Raises
    ------
    PluginError
        If the extra ``mitocore[report]`` is not installed.
    DataError
        If the folder cannot be written.
    """
    check_installed()
    scores, record = scores or {}, record or {}
    chosen = chosen_sections(table, image.spec.shape[0], sections)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("section_*.png"):  # of an earlier report, which may show other sections
            left.unlink()
        for number, z in enumerate(chosen):
            progress("report", number, len(chosen))
            _draw(_section(z, image, prediction, truth, probability), folder / _picture(z))
        progress("report", len(chosen), len(chosen))
        (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        (folder / "record.json").write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
        table.write_csv(folder / "instances.csv")
        page = folder / "index.html"
        page.write_text(_page(title, chosen, table, scores, record), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{str(folder)!r} cannot be written: {error.strerror}", hint="choose another folder") from error
    return page


def chosen_sections(table: InstanceTable, depth: int, number: int) -> list[int]:
    """Sections with instances, spread over the volume: quantiles of the heights of their voxels."""
    shares = (np.arange(number) + 0.5) / number
    if not len(table):
        return sorted({int(share * depth) for share in shares})
    order = np.argsort(table.rows["centroid"][:, 0], kind="stable")
    weight = np.cumsum(table.rows["voxels"][order])
    places = np.searchsorted(weight, shares * weight[-1])
    return sorted({int(table.rows["centroid"][order[place], 0]) for place in places})


def _picture(z: int) -> str:
    return f"section_{z:05d}.png"


def _section(z: int, image: Volume, prediction: Volume, truth: Volume | None, probability: Volume | None) -> _Section:
    _, height, width = image.spec.shape
    top, left = max(0, (height - LARGEST) // 2), max(0, (width - LARGEST) // 2)
    box = Roi((z, top, left), (z + 1, min(height, top + LARGEST), min(width, left + LARGEST)))
    return _Section(
        z=z,
        raw=image.read(box)[0, 0],
        predicted=Opened(prediction, Kind.INSTANCE).read(box)[0, 0],
        truth=Opened(truth, Kind.INSTANCE).read(box)[0, 0] if truth else None,
        probability=Opened(probability, Kind.PROBABILITY).read(box)[0, 0] if probability else None,
        voxel_size=image.spec.voxel_size,
    )


def _draw(section: _Section, path: Path) -> None:
    raw = grey(section.raw)
    panels = {"raw": raw}
    if section.probability is not None:
        panels["probability"] = np.repeat(np.clip(section.probability, 0, 1)[..., None], 3, axis=2)
    if section.truth is None:
        panels["prediction"] = painted(raw, section.predicted, section.predicted)
    else:
        panels["prediction, in the colours of the truth"] = painted(
            raw, section.predicted, matched(section.predicted, section.truth)
        )
        panels["truth"] = painted(raw, section.truth, section.truth)
        panels["errors"] = errors(raw, section.predicted, section.truth)
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = -(-len(panels) // columns)
    size = section.voxel_size
    aspect = size.y / size.x if size else 1.0
    height = _INCHES * aspect * raw.shape[0] / raw.shape[1] + 0.3
    figure = pictures.figure(columns * _INCHES, rows * height, _DPI)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in grid:
        axes.set_axis_off()
    for axes, (title, picture) in zip(grid, panels.items(), strict=False):
        axes.imshow(picture, aspect=aspect, interpolation="nearest")
        axes.set_title(title, fontsize=9)
    if size:
        scale_bar(grid[0], size, raw.shape[1], raw.shape[0])
    if section.truth is not None:
        _legend(figure, grid, len(panels))
    figure.savefig(path)


def _legend(figure: Any, grid: Sequence[Any], used: int) -> None:
    from matplotlib.patches import Patch

    names = {"found": AGREES, "found, not in the truth": ADDED, "missed": MISSED}
    patches = [Patch(facecolor=colour, label=name) for name, colour in names.items()]
    patches.append(Patch(facecolor="none", edgecolor="black", label="outline: objects of the truth"))
    if used < len(grid):
        grid[used].legend(handles=patches, title="errors", loc="center left", frameon=False, fontsize=9)
    else:
        figure.legend(handles=patches, loc="outside lower right", ncols=len(patches), frameon=False, fontsize=8)


def matched(predicted: NDArray[np.uint64], truth: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """For every voxel of a predicted object, the true object it shares most voxels with, else its own id."""
    ids, inverse = np.unique(predicted, return_inverse=True)
    trues, true_inverse = np.unique(truth, return_inverse=True)
    shared = np.zeros((len(ids), len(trues)), np.int64)
    np.add.at(shared, (inverse.reshape(-1), true_inverse.reshape(-1)), 1)
    shared[:, (trues == 0) | (trues == np.iinfo(truth.dtype).max)] = 0
    best = np.where(shared.any(axis=1), trues[shared.argmax(axis=1)], ids).astype(np.uint64)
    best[ids == 0] = 0
    return np.asarray(best[inverse.reshape(predicted.shape)])


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
img { width: 100%; } figure { margin: 1rem 0; } figcaption { color: #555; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
td, th { padding: 0.15rem 0.8rem 0.15rem 0; text-align: left; vertical-align: top; }
th { color: #555; font-weight: 600; }
.scroll { overflow-x: auto; }
"""


def _page(
    title: str,
    sections: Sequence[int],
    table: InstanceTable,
    scores: Mapping[str, Mapping[str, float]],
    record: Mapping[str, Any],
) -> str:
    figures = "\n".join(
        f'<figure><img src="{_picture(z)}" alt="section {z}"><figcaption>section z = {z}</figcaption></figure>'
        for z in sections
    )
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(table.summary())}</p>"]
    if scores:
        rows = [(metric, name, f"{value:.4g}") for metric, found in scores.items() for name, value in found.items()]
        parts += ["<h2>Scores against the truth</h2>", _table(("metric", "score", "value"), rows)]
    parts += ["<h2>Pictures</h2>", figures, "<h2>Settings</h2>", _table(("", "", ""), _settings(record))]
    parts += ["<h2>Instances</h2>", _table(table.columns(), table.records()[:ROWS])]
    if len(table) > ROWS:
        parts.append(f"<p>The first {ROWS} of {len(table):,}.</p>")
    files = " · ".join(f'<a href="{name}">{name}</a>' for name in ("instances.csv", "scores.json", "record.json"))
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join([*parts, files])
        + "\n</body></html>\n"
    )


def _settings(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = [("input", str(name), str(value)) for name, value in record.get("input", {}).items() if value]
    for step, options in record.get("options", {}).items():
        rows += [(step, str(name), str(value)) for name, value in options.items()]
        rows += [(step, str(name), str(value)) for name, value in record.get("steps", {}).get(step, {}).items()]
    rows += [("version", str(name), str(value)) for name, value in record.get("versions", {}).items()]
    parts = [part for part, _, _ in rows]
    repeated = [part == before for part, before in zip(parts, ["", *parts], strict=False)]
    return [("" if again else part, *rest) for again, (part, *rest) in zip(repeated, rows, strict=True)]


def _table(columns: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    def cells(tag: str, values: Iterable[object]) -> str:
        return "".join(f"<{tag}>{html.escape(str(value))}</{tag}>" for value in values)

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", columns)}</tr>\n{body}\n</table></div>'
