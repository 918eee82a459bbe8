"""What the commands that run pipelines do: one volume or many, with a TOML file or from the weights alone."""

import json
import time
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import typer

from mitocore import batch, recommended, run_folder, runs
from mitocore.cli.draft import drafted
from mitocore.cli.failures import shown
from mitocore.cli.main import Voice
from mitocore.cli.render import KEPT, described, recorded, speaking, spoken, stoppable, table
from mitocore.config import toml, written
from mitocore.config.components import nearest_hinted
from mitocore.config.inputs import NAME, of_first, with_inputs
from mitocore.errors import ConfigError, DataError, MitocoreError, RunError
from mitocore.geometry import VoxelSize
from mitocore.pipeline import amount
from mitocore.specs import VolumeSpec

_TRAINING = {"volume", "objective", "train"}
_PIPELINE = {"input", "output", "run", "step"}
"""Tables that tell one kind of file from the other; a training may recommend steps."""


def form(document: toml.Document) -> Literal["training", "pipeline"]:
    """What a TOML file is for."""
    tables = document.data.keys()
    return "training" if _TRAINING & tables or ("model" in tables and not _PIPELINE & tables) else "pipeline"


def check_form(document: toml.Document, wanted: Literal["training", "pipeline"]) -> None:
    """Refuse a file that is for the other command, before its tables are refused one by one.

    Raises
    ------
    ConfigError
        With the command it is for.
    """
    found = form(document)
    if found == wanted or (found == "pipeline" and not _PIPELINE & document.data.keys()):
        return
    command = "train" if found == "training" else "run"
    problem = f"{str(document.path)!r} is a {found}, not a {wanted}"
    raise ConfigError(problem, hint=f"mitocore {command} {document.path}")


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
    document = toml.read(file, settings)
    check_form(document, "pipeline")
    _work(voice, with_inputs(document, places), options)


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
    flags = {("input", "path"): "INPUT", ("input", "voxel_size"): "--voxel-size", ("output", "path"): "--output"}
    document = replace(document, flags={key: flag for key, flag in flags.items() if key not in document.overridden})
    if keep_config and not options.dry_run:
        roi = f" --roi {options.roi}" if options.roi else ""
        text = f"# mitocore run {keep_config.name}{roi}\n{written.document(document.data)}\n"
        _write_new(keep_config, text, "--keep-config")
    _work(voice, document, options)


def init(source: str, weights: str, output: Path | None, voxel_size: VoxelSize | None) -> None:
    """Write a pipeline to be edited; say what is still to be done to it."""
    with nearest_hinted(source):
        text = drafted(source, weights, output.parent if output else Path(), voxel_size)
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
    if options.save:
        document = replace(document, flags={**document.flags, ("output", "save"): "--save"})
    many = batch.batch_of(document, part=options.part)
    if options.dry_run:
        _check(document, many, options.planned)
    elif many:
        _run_many(voice, many, options)
    else:
        _run_one(voice, document, options)


def _check(document: toml.Document, many: batch.Batch | None, planned: dict[str, Any]) -> None:
    if many is None:
        typer.echo(str(batch.planned(document, **planned)))
        return
    plans = batch.check(many, **planned)
    good = next((ready for ready in plans if isinstance(ready, runs.PlannedRun)), None)
    if good:
        typer.echo(str(good))
    rows = []
    for one, ready in zip(many.inputs, plans, strict=True):
        if isinstance(ready, MitocoreError):
            for finding in (ready, *ready.others):
                typer.echo(shown(batch.told(one.place, finding)), err=True)
            rows.append((one.place, "refused", ready.problem))
        else:
            volume = ready.plan.volume
            rows.append((one.place, described(volume) if volume else "not looked at", f"→ {_place(ready)}"))
    typer.echo(table(rows) if rows else "no input is in this part")
    if refused := [ready for ready in plans if isinstance(ready, MitocoreError)]:
        raise typer.Exit(refused[0].exit_code if len({one.exit_code for one in refused}) == 1 else RunError.exit_code)


def _place(ready: runs.PlannedRun) -> str:
    """Where the saved arrays lie, a path for each if each has one of its own."""
    config, folder = ready.plan.config, str(ready.plan.config.run.folder or ".")
    names = [saved.name for saved in ready.plan.saved]
    paths = [config.writer.path.replace(NAME, name) for name in names] if config.writer else [folder]
    return ", ".join(dict.fromkeys(paths)) or folder


def _run_one(voice: Voice, document: toml.Document, options: Options) -> None:
    ready = batch.planned(document, **options.planned)
    folder, kept = Path(ready.plan.config.run.folder or "."), batch.Kept(ready)
    begin = time.monotonic()
    with ExitStack() as stack:
        told = stack.enter_context(speaking(voice))
        stack.enter_context(recorded(folder))
        stop = stack.enter_context(stoppable(KEPT))
        result = ready.run(policy=options.policy, take_over=options.take_over, progress=told, cancel=stop)
    with result:
        kinds = {saved.name: saved.spec.kind for saved in ready.plan.saved}  # not every format keeps it
        specs = {name: replace(volume.spec, kind=kinds[name]) for name, volume in result.items()}
        counts, status = batch.counts(ready, result), kept.status()
        place = _place(ready) if specs else ""
        if options.as_json:
            arrays = {name: _facts(spec, counts.get(name)) for name, spec in specs.items()}
            seconds = round(time.monotonic() - begin, 3)
            printed = {
                "status": status, "output": place, "folder": str(folder), "seconds": seconds, "arrays": arrays
            }  # fmt: skip
            typer.echo(json.dumps(printed, indent=2))
            return
        rows = [
            (name, described(spec), f"{counts[name]:,} objects" if name in counts else "")
            for name, spec in specs.items()
        ]
    saved = table(rows, indent="  ") if rows else ""
    typer.echo(f"{place}\n{saved}" if rows else f"nothing to save of what is done until {options.until!r}")
    took = "finished earlier; nothing to compute" if status == "kept" else spoken(time.monotonic() - begin)
    typer.echo(f"record {folder / 'record.json'} · {took}")


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
        if path.exists() and path.read_bytes() != text.encode():
            problem = f"{str(path)!r} exists and says something else"
            raise DataError(problem, where=option, hint=f"{option} {path.with_name(f'{path.stem}_new.toml')}")
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        problem = f"{str(path)!r} cannot be written: {error.strerror}"
        raise DataError(problem, where=option, hint="a path in a folder that exists") from error
