"""What the commands do that train, score, check and copy."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from mitocore import conversion, runs
from mitocore.cli import running
from mitocore.cli.main import Voice
from mitocore.cli.render import KEPT, described, recorded, speaking, spoken, stoppable, table
from mitocore.config import toml
from mitocore.config.components import nearest_hinted
from mitocore.errors import ConfigError, DataError
from mitocore.geometry import VoxelSize
from mitocore.specs import Kind

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Asked:
    """What `mitocore evaluate` is asked to look at, and to list."""

    metrics: Sequence[str]
    kind: str | None
    roi: str | None
    ignore: Sequence[int]
    scores: str | None
    settings: Sequence[str]
    false_positives: Path | None
    matches: Path | None


def evaluate(voice: Voice, prediction: str, truth: str, asked: Asked, as_json: bool, output: Path | None) -> None:
    """Score; print a table or JSON."""
    if output and output.suffix not in (".csv", ".json"):
        raise DataError(f"scores cannot be written to {str(output)!r}", where="--output", hint="-o scores.csv")
    given = [prediction, truth, *([asked.scores] if asked.scores else [])]
    with speaking(voice) as told, nearest_hinted(*given):
        scores = runs.evaluate(
            prediction,
            truth,
            asked.metrics,
            kind=_kind(asked.kind),
            roi=asked.roi,
            ignore=asked.ignore,
            options=_options(asked.settings),
            scores=asked.scores,
            false_positives=asked.false_positives,
            matches=asked.matches,
            progress=told,
        )
    if output:
        _write_scores(output, scores)
    typer.echo(_json(scores) if as_json else _scores_table(scores))


def _options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options by metric, of METRIC.OPTION=VALUE."""
    names = {text.partition(".")[0] for text in settings if "." in text.partition("=")[0]}
    return toml.override(toml.Document({name: {} for name in names}), settings).data


def validate(file: Path, settings: Sequence[str], no_data: bool) -> None:
    """Check a training or a pipeline; print the plan."""
    document = toml.read(file, settings)
    if running.form(document) == "training":
        typer.echo(str(runs.load_training(file, settings, data=not no_data)))
    else:
        running.validate(document, data=not no_data)


def convert(
    voice: Voice,
    source: str,
    target: str,
    voxel_size: str | None,
    kind: str | None,
    roi: str | None,
    scale: str | None,
    dtype: str | None,
    reader: str | None,
    writer: str | None,
) -> None:
    """Copy a volume; print what it became."""
    size, held = voxel_size_of(voxel_size), _kind(kind)
    with speaking(voice) as told, nearest_hinted(source):
        spec = conversion.convert(
            source,
            target,
            voxel_size=size,
            kind=held,
            roi=roi,
            scale_factors=scale,
            dtype=dtype,
            reader=reader,
            writer=writer,
            progress=told,
        )
    typer.echo(f"{target}\n  {described(spec)}")


def demo(voice: Voice, name: str, output: Path, fresh: bool) -> None:
    """Run a demo; print its scores and where the report is."""
    from mitocore.demo import find_demo, run_demo

    found = find_demo(name)
    with speaking(voice) as told, recorded(output / "run"), stoppable(KEPT) as stop:
        result = run_demo(found, output, fresh=fresh, progress=told, cancel=stop)
    if result.scores:
        typer.echo(f"scores against the truth\n{_scores_table(result.scores, indent='  ')}")
    typer.echo(result.table.summary())
    typer.echo(f"report {result.report} · {spoken(result.seconds)}")


def new_plugin(name: str, kind: str, folder: Path) -> None:
    """Write a plugin; print its files and what to do next."""
    from mitocore.scaffold import create

    files = create(name, kind, folder)
    project = Path(os.path.commonpath(files))
    typer.echo("\n".join(map(str, files)))
    plugin = project.name.removeprefix("mitocore-").replace("-", "_")
    typer.echo(f"next:\n  pip install -e {project}\n  pytest {project}\n  mitocore plugins {plugin} --check")


def _kind(text: str | None) -> Kind | None:
    if text is not None and text not in list(Kind):
        raise ConfigError(f"{text!r} is not a kind of array", where="--kind", hint=toml.near(text, Kind))
    return Kind(text) if text else None


def voxel_size_of(text: str | None) -> VoxelSize | None:
    """The voxel size of `--voxel-size`.

    >>> voxel_size_of("40,8,8"), voxel_size_of("13.3 Å")
    (VoxelSize(z=40.0, y=8.0, x=8.0), VoxelSize(z=1.33, y=1.33, x=1.33))
    """
    if text is None:
        return None
    edges = text.split(",")
    try:
        return VoxelSize.parse(edges[0] if len(edges) == 1 else edges)
    except ValueError as error:
        raise ConfigError(str(error), where="--voxel-size", hint="--voxel-size 8nm, or 40,8,8 (nm; z, y, x)") from error


def _rows(scores: Scores) -> list[tuple[str, str, float]]:
    return [(metric, name, value) for metric, found in scores.items() for name, value in found.items()]


def _scores_table(scores: Scores, indent: str = "") -> str:
    def text(value: float) -> str:
        if math.isnan(value):
            return "–"
        return f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.4f}"

    return table(
        [[*([metric] if metric else []), name, text(value)] for metric, name, value in _rows(scores)], indent=indent
    )


def _json(scores: Scores) -> str:
    """NaN, where there is nothing to say, becomes null: JSON has no other word for it."""
    known = {metric: {n: None if math.isnan(v) else v for n, v in found.items()} for metric, found in scores.items()}
    return json.dumps(known, indent=2)


def _write_scores(path: Path, scores: Scores) -> None:
    if path.suffix == ".json":
        content = _json(scores) + "\n"
    else:
        lines = io.StringIO()
        writer: Any = csv.writer(lines, lineterminator="\n")
        writer.writerow(("metric", "score", "value"))
        writer.writerows((*names, "" if math.isnan(value) else value) for *names, value in _rows(scores))
        content = lines.getvalue()
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{str(path)!r} cannot be written: {error.strerror}",
            where="--output",
            hint="-o scores.csv in a folder that exists",
        ) from error
