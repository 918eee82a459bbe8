"""What the commands that run pipelines do: one volume or many, with a TOML file or from the weights alone."""

import json
import time
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from mitocore import batch, recommended, run_folder, runs
from mitocore.cli.draft import drafted
from mitocore.cli.main import Voice
from mitocore.cli.render import KEPT, described, recorded, speaking, spoken, stoppable, table
from mitocore.config import toml, written
from mitocore.config.inputs import of_first, with_inputs
from mitocore.errors import DataError, MitocoreError, RunError
from mitocore.geometry import VoxelSize
from mitocore.pipeline import amount
from mitocore.specs import VolumeSpec


@dataclass(frozen=True)
class Options:
    """What `run` and `segment` have in common."""

    policy: run_folder.Policy
    take_over: bool
    dry_run: bool
    as_json: bool
    part: str | None = None
    roi: str | None = None
    until: str | None = None
    save: tuple[str, ...] = ()

    @property
    def planned(self) -> dict[str, Any]:
        """What planning takes of it."""
        return {"roi": self.roi, "until": self.until, "save": self.save}


def run(voice: Voice, file: Path, places: Sequence[str], settings: Sequence[str], options: Options) -> None:
    """Run the pipeline of a TOML file over the inputs it names, or over others."""
    _work(voice, with_inputs(toml.read(file, settings), places), options)


def segment(
    voice: Voice,
    places: Sequence[str],
    weights: str,
    output: str,
    voxel_size: VoxelSize | None,
    settings: Sequence[str],
    keep_config: Path | None,
    options: Options,
) -> None:
    """Run what weights recommend."""
    document = recommended.pipeline(weights, places, voxel_size=voxel_size, output=output, settings=settings)
    if keep_config and not options.dry_run:
        roi = f" --roi {options.roi}" if options.roi else ""
        text = f"# mitocore run {keep_config.name}{roi}\n{written.document(document.data)}\n"
        _write_new(keep_config, text, "--keep-config")
    _work(voice, document, options)


def init(source: str, weights: str, output: Path | None) -> None:
    """Write a pipeline to be edited; say what is still to be done to it."""
    text = drafted(source, weights, output.parent if output else Path())
    if output:
        _write_new(output, text, "--output")
    else:
        typer.echo(text, nl=False)
    try:
        runs.planned(toml.Document(tomllib.loads(text), output or Path("pipeline.toml"), toml.locate(text)))
    except MitocoreError as error:
        for finding in (error, *error.others):
            typer.echo(f"to be edited: {finding}", err=True)


def validate(document: toml.Document, *, data: bool) -> None:
    """Check a pipeline, and the header of each of its inputs; print the plan."""
    if data:
        _check(document, batch.batch_of(document), {})
    else:  # not even which inputs there are is looked up
        typer.echo(str(runs.planned(of_first(document), data=False)))


def clean(folders: Sequence[Path]) -> None:
    """Remove the scratch of run folders; print how much room that made."""
    for folder in folders:
        typer.echo(f"{folder}  {amount(run_folder.clean(folder))} freed")


def _work(voice: Voice, document: toml.Document, options: Options) -> None:
    many = batch.batch_of(document, part=options.part)
    if options.dry_run:
        _check(document, many, options.planned)
    elif many:
        _run_many(voice, many, options)
    else:
        _run_one(voice, document, options)


def _check(document: toml.Document, many: batch.Batch | None, planned: dict[str, Any]) -> None:
    if many is None:
        typer.echo(str(runs.planned(document, **planned)))
        return
    plans = batch.check(many, **planned)
    typer.echo("\n".join(str(plan) for plan in plans[:1]))
    rows = [
        (one.place, described(ready.plan.volume) if ready.plan.volume else "not looked at", _place(ready))
        for one, ready in zip(many.inputs, plans, strict=True)
    ]
    typer.echo(table(rows) if rows else "no input is in this part")


def _place(ready: runs.PlannedRun) -> str:
    writer = ready.plan.config.writer
    return f"→ {writer.path}" if writer else ""


def _run_one(voice: Voice, document: toml.Document, options: Options) -> None:
    ready = runs.planned(document, **options.planned)
    folder, writer = Path(ready.plan.config.run.folder or "."), ready.plan.config.writer
    begin = time.monotonic()
    with ExitStack() as stack:
        told = stack.enter_context(speaking(voice))
        stack.enter_context(recorded(folder))
        stop = stack.enter_context(stoppable(KEPT))
        result = ready.run(policy=options.policy, take_over=options.take_over, progress=told, cancel=stop)
    with result:
        kinds = {saved.name: saved.spec.kind for saved in ready.plan.saved}  # not every format keeps it
        specs = {name: replace(volume.spec, kind=kinds[name]) for name, volume in result.items()}
        place, counts = writer.path if writer else str(folder), batch.counts(ready, result)
        if options.as_json:
            arrays = {name: _facts(spec, counts.get(name)) for name, spec in specs.items()}
            seconds = round(time.monotonic() - begin, 3)
            printed = {"output": place, "folder": str(folder), "seconds": seconds, "arrays": arrays}
            typer.echo(json.dumps(printed, indent=2))
            return
        rows = [
            (name, described(spec), f"{counts[name]:,} objects" if name in counts else "")
            for name, spec in specs.items()
        ]
    saved = table(rows, indent="  ") if rows else f"  nothing to save of what is done until {options.until!r}"
    typer.echo(f"{place}\n{saved}")
    typer.echo(f"record {folder / 'record.json'} · {spoken(time.monotonic() - begin)}")


def _facts(spec: VolumeSpec, objects: int | None) -> dict[str, Any]:
    facts = {
        "kind": spec.kind,
        "dtype": spec.dtype,
        "shape": spec.shape,
        "channels": spec.channels,
        "voxel_size_nm": spec.voxel_size.edges if spec.voxel_size else None,
    }
    return facts if objects is None else {**facts, "objects": objects}


def _run_many(voice: Voice, many: batch.Batch, options: Options) -> None:
    begin = time.monotonic()
    with speaking(voice) as told, stoppable(KEPT) as stop:
        outcomes = batch.run(
            many,
            **options.planned,
            policy=options.policy,
            take_over=options.take_over,
            progress=told,
            cancel=stop,
            recorded=recorded,
        )
    rows = batch.rows(outcomes)
    if options.as_json:
        typer.echo(json.dumps({"summary": str(many.summary), "inputs": rows}, indent=2))
    else:
        shown = [{key: text for key, text in row.items() if key not in ("exit_code", "output")} for row in rows]
        typer.echo(
            table([list(shown[0]), *([str(cell) for cell in row.values()] for row in shown)]) if rows else "no input"
        )
        typer.echo(f"summary {many.summary} · {spoken(time.monotonic() - begin)}")
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(RunError.exit_code)


def _write_new(path: Path, text: str, option: str) -> None:
    """Write a text file; one that says the same already may stay, another is not overwritten."""
    try:
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise DataError(f"{str(path)!r} exists and says something else", where=option, hint="another path")
        path.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        problem = f"{str(path)!r} cannot be written: {reason}"
        raise DataError(problem, where=option, hint="a path in a folder that exists") from error
