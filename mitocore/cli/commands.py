"""What the commands that work on volumes do."""

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from mitocore import conversion, run_folder, runs
from mitocore.cli.main import Voice
from mitocore.cli.render import recorded, speaking, spoken, stoppable, table
from mitocore.config import toml
from mitocore.errors import ConfigError, DataError
from mitocore.geometry import VoxelSize
from mitocore.specs import Kind, VolumeSpec

Scores = Mapping[str, Mapping[str, float]]
TRAINING_TABLES = {"volume", "objective", "train", "model"}
"""Tables that tell a training from a pipeline."""

KEPT = "interrupted; what is finished is kept, the same command goes on from there"


def run(
    voice: Voice, file: Path, settings: Sequence[str], resume: bool, fresh: bool, take_over: bool, dry_run: bool
) -> None:
    """Run a pipeline; print where each saved array lies."""
    if resume and fresh:
        raise typer.BadParameter("--resume keeps what --fresh discards; give one of them")
    planned = runs.load(file, settings)
    if dry_run:
        typer.echo(str(planned))
        return
    folder = Path(planned.plan.config.run.folder or ".")
    policy: run_folder.Policy = "resume" if resume else "fresh" if fresh else "continue"
    begin = time.monotonic()
    with ExitStack() as stack:
        told = stack.enter_context(speaking(voice))
        stack.enter_context(recorded(folder))
        stop = stack.enter_context(stoppable(KEPT))
        result = planned.run(policy=policy, take_over=take_over, progress=told, cancel=stop)
    writer = planned.plan.config.writer
    place = writer.path if writer else str(folder)
    counts = {f"{step}.": info["objects"] for step, info in result.record["steps"].items() if "objects" in info}
    rows = []
    for name, volume in result.items():
        objects = next((f"{n:,} objects" for step, n in counts.items() if name.startswith(step)), "")
        objects = objects if volume.spec.kind is Kind.INSTANCE else ""
        rows.append((name, _described(volume.spec), objects))
        volume.close()
    typer.echo(f"{place}\n{table(rows, indent='  ')}")
    typer.echo(f"record {folder / 'record.json'} · {spoken(time.monotonic() - begin)}")


def train(voice: Voice, file: Path, settings: Sequence[str], resume: bool, dry_run: bool) -> None:
    """Train; print where the weights lie and their scores."""
    if dry_run:
        typer.echo(str(runs.load_training(file, settings)))
        return
    try:
        with speaking(voice) as told:
            result = runs.train(file, settings, resume=resume, progress=told)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("interrupted; a checkpoint was written, add --resume to go on from there") from error
    typer.echo(f"{result.best}\n{_scores_table({'': result.scores})}")
    typer.echo(f"{result.steps:,} steps · {spoken(result.seconds)}")


def evaluate(
    voice: Voice,
    prediction: str,
    truth: str,
    metrics: Sequence[str],
    kind: str | None,
    roi: str | None,
    ignore: Sequence[int],
    as_json: bool,
    output: Path | None,
) -> None:
    """Score; print a table or JSON."""
    if output and output.suffix not in (".csv", ".json"):
        raise DataError(f"scores cannot be written to {str(output)!r}", where="--output", hint="-o scores.csv")
    with speaking(voice) as told:
        scores = runs.evaluate(prediction, truth, metrics, kind=_kind(kind), roi=roi, ignore=ignore, progress=told)
    if output:
        _write_scores(output, scores)
    typer.echo(json.dumps(scores, indent=2) if as_json else _scores_table(scores))


def validate(file: Path, settings: Sequence[str], no_data: bool) -> None:
    """Check; print the plan."""
    training = TRAINING_TABLES & toml.read(file, settings).data.keys()
    plan = runs.load_training if training else runs.load
    typer.echo(str(plan(file, settings, data=not no_data)))


def convert(voice: Voice, source: str, target: str, voxel_size: str | None, kind: str | None, roi: str | None) -> None:
    """Copy a volume; print what it became."""
    with speaking(voice) as told:
        spec = conversion.convert(
            source, target, voxel_size=voxel_size_of(voxel_size), kind=_kind(kind), roi=roi, progress=told
        )
    typer.echo(f"{target}\n  {_described(spec)}")


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


def _described(spec: VolumeSpec) -> str:
    channels = f" × {len(spec.channels)}" if len(spec.channels) > 1 else ""
    size = spec.voxel_size or "voxel size unknown"
    return f"{spec.kind}{channels} {spec.dtype} {' x '.join(map(str, spec.shape))}, {size}"


def _rows(scores: Scores) -> list[tuple[str, str, float]]:
    return [(metric, name, value) for metric, found in scores.items() for name, value in found.items()]


def _scores_table(scores: Scores, indent: str = "") -> str:
    def text(value: float) -> str:
        return f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.4f}"

    return table(
        [[*([metric] if metric else []), name, text(value)] for metric, name, value in _rows(scores)], indent=indent
    )


def _write_scores(path: Path, scores: Scores) -> None:
    if path.suffix == ".json":
        content = json.dumps(scores, indent=2) + "\n"
    else:
        lines = io.StringIO()
        writer: Any = csv.writer(lines, lineterminator="\n")
        writer.writerow(("metric", "score", "value"))
        writer.writerows(_rows(scores))
        content = lines.getvalue()
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{str(path)!r} cannot be written: {error.strerror}",
            where="--output",
            hint="-o scores.csv in a folder that exists",
        ) from error
