"""What `mitocore train` does: look at a training, or train and say what came of it."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mitocore import runs
from mitocore.cli import running
from mitocore.cli.main import Voice
from mitocore.cli.render import speaking, spoken, table
from mitocore.config import toml
from mitocore.header import WeightsHeader, read_header
from mitocore.pipeline import amount

if TYPE_CHECKING:
    from mitocore.learn.census import LabelCount
    from mitocore.learn.fit import TrainingResult
    from mitocore.learn.preview import Preview

_PARTS = ("validation", "test")
_FILES = {
    "curves.png": "losses, scores and learning rate",
    "panels/best.png": "raw, truth, prediction and error",
    "reliability.png": "how far probabilities can be believed",
}


def train(voice: Voice, file: Path, settings: Sequence[str], resume: bool, as_json: bool) -> None:
    """Train; print what the best weights are worth and what to do with them."""
    running.check_form(toml.read(file, settings), "training")
    try:
        with speaking(voice) as told:
            result = runs.train(file, settings, resume=resume, progress=told)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("interrupted; a checkpoint was written, add --resume to go on from there") from error
    header = read_header(result.best)
    typer.echo(json.dumps(_facts(result, header), indent=2) if as_json else _summary(result, header))


def preview(voice: Voice, file: Path, settings: Sequence[str], picture: Path | None, as_json: bool) -> None:
    """Look at a training; print the plan, what the labels hold, and what a step costs."""
    running.check_form(toml.read(file, settings), "training")
    with speaking(voice) as told:
        found = runs.preview(file, settings, picture=picture, progress=told)
    typer.echo(json.dumps(found.table, indent=2) if as_json else f"{found.plan}\n{_looked(found)}")


def _summary(result: "TrainingResult", header: WeightsHeader) -> str:
    lines = [str(result.best), f"  of step {header.provenance['step']:,} of {result.steps:,}"]
    lines += [table(_scores(result.scores), indent="  ")]
    chosen = {"threshold": header.thresholds, "temperature": header.temperature}
    rows = [(what, head, f"{value:g}") for what, by_head in chosen.items() for head, value in by_head.items()]
    if rows:
        lines.append(table(rows, indent="  "))
    files = [
        (str(result.folder / name), meaning) for name, meaning in _FILES.items() if (result.folder / name).exists()
    ]
    lines += [table(files)] if files else []
    return "\n".join([*lines, f"{result.steps:,} steps · {spoken(result.seconds)}", f"next: {_next(result, header)}"])


def _scores(scores: dict[str, float]) -> list[tuple[str, ...]]:
    """One row for each score, one column for each part that has it."""
    named = {
        part: {n.removeprefix(f"{part}."): v for n, v in scores.items() if n.startswith(f"{part}.")} for part in _PARTS
    }
    parts = [part for part in _PARTS if named[part]]
    names = dict.fromkeys(name for part in parts for name in named[part])
    rows = [(name, *(f"{named[part][name]:.4f}" if name in named[part] else "" for part in parts)) for name in names]
    return [("score", *parts), *rows]


def _next(result: "TrainingResult", header: WeightsHeader) -> str:
    weights = shlex.quote(str(result.best))
    if header.pipeline:
        return f"mitocore segment IMAGE --weights {weights} -o segmented.zarr"
    return f"mitocore init IMAGE --weights {weights} > pipeline.toml"


def _facts(result: "TrainingResult", header: WeightsHeader) -> dict[str, Any]:
    return {
        "best": str(result.best),
        "last": str(result.last),
        "folder": str(result.folder),
        "steps": result.steps,
        "best_step": header.provenance["step"],
        "scores": result.scores,
        "thresholds": header.thresholds,
        "temperature": header.temperature,
        "pictures": [str(result.folder / name) for name in _FILES if (result.folder / name).exists()],
        "seconds": round(result.seconds, 3),
        "next": _next(result, header),
    }


def _looked(found: "Preview") -> str:
    plan, cost = found.plan, found.cost
    counts: list[tuple[str, ...]] = [("part", "voxels", "labels", "foreground", "holds", "volume")]
    for one in found.parts:
        for name, count in one.labels.items():
            counts.append((one.part, f"{one.voxels:,}", name, f"{count.share:.2%}", _held(count), one.volume))
    counts += [("left out", f"{voxels:,}", "", "", "", volume) for volume, voxels in found.unused.items() if voxels]
    train, crops = plan.train, plan.train.batch * plan.train.accumulate
    taken = f"{crops} {'crop' if crops == 1 else 'crops'} in {_seconds(cost.crop_seconds)}"
    memory = f"{amount(cost.memory)} of {amount(cost.room)} that are free" if cost.memory else "not told by this system"
    costs = [
        ("network", f"{cost.parameters:,} parameters, {cost.trained:,} of them trained"),
        ("state", f"{amount(cost.state)} of weights, gradients and {train.optimizer.name}"),
        ("memory", f"{memory}; {cost.kind}" if cost.memory else memory),
        ("step", f"{taken}, network {_seconds(cost.step_seconds)}"),
        ("validation", f"{_seconds(cost.validation_seconds)}, every {train.validate_every:,} steps"),
        ("in all", f"about {spoken(found.seconds)} for {train.steps:,} steps, at the pace of now"),
    ]
    lines = [table(counts, indent="  "), f"measured on {cost.device}", table(costs, indent="  ")]
    if cost.memory and cost.memory > cost.room:
        lines.append("  this does not fit: batch = 1 with accumulate, or a smaller crop, in [train]")
    shown = str(found.picture) if found.picture else 'no picture: pip install "mitocore[report]"'
    return "\n".join(["what the parts hold", *lines, f"samples {shown}"])


def _held(count: "LabelCount") -> str:
    """What a label array holds, for people."""
    if not count.classes:
        return f"{len(count.ids):,} {'id' if len(count.ids) == 1 else 'ids'}"
    return ", ".join(f"{name} {voxels / count.counted:.1%}" for name, voxels in count.classes.items())


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 60 else spoken(seconds)
