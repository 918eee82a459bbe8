"""Several volumes through one pipeline: a run folder each, and a table of what came of them."""

import csv
import io
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mitocore import runs
from mitocore.config import toml
from mitocore.config.components import nearest_hinted
from mitocore.config.inputs import STEM, Input, folders_of, inputs_of
from mitocore.durable import replaced
from mitocore.errors import ConfigError, DataError, MitocoreError
from mitocore.registry import Registry
from mitocore.run_folder import Policy
from mitocore.specs import Kind
from mitocore.volumes import installed

log = logging.getLogger(__name__)

Status = Literal["done", "kept", "failed"]
"""Computed now; finished by an earlier call; or refused or ended by an error."""


@dataclass(frozen=True)
class Outcome:
    """What came of one input."""

    place: str
    status: Status
    seconds: float
    """Wall time of this call."""
    output: str = ""
    """Where its arrays lie."""
    objects: Mapping[str, int] = field(default_factory=dict)
    """How many, by saved instance array."""
    error: MitocoreError | None = None

    @property
    def exit_code(self) -> int:
        """What the command line would leave with, had it been the only input."""
        return self.error.exit_code if self.error else 0


@dataclass(frozen=True)
class Batch:
    """The inputs of a pipeline, or a share of them."""

    inputs: tuple[Input, ...]
    """In the order of their places."""
    summary: Path
    """The CSV file of what came of them, in the folder that holds the run folders."""


def batch_of(document: toml.Document, *, part: str | None = None, registry: Registry | None = None) -> Batch | None:
    """The inputs a pipeline names; None: it names one volume, and `runs.planned` takes it as it is.

    Parameters
    ----------
    part
        "3/200": the third of 200 shares of the inputs, each of which has a summary of its own.

    Raises
    ------
    ConfigError
        If the output does not say ``{stem}``, two inputs would write to one place, or there is no such part.
    DataError
        If nothing matches a pattern.
    """
    inputs = inputs_of(document, registry or installed())
    if inputs is None:
        if part:
            problem = f"there is one input, so part {part!r} of them is none"
            raise ConfigError(problem, where="--part", hint='several inputs, and "{stem}" in the path of the output')
        return None
    name = "summary.csv"
    if part:
        number, count = _share(part)
        inputs = inputs[(number - 1) * len(inputs) // count : number * len(inputs) // count]
        name = f"summary.{number}-of-{count}.csv"
    above = next(folder for folder in Path(folders_of(document)).parents if STEM not in str(folder))
    return Batch(inputs, above / name)


def planned(document: toml.Document, **options: Any) -> runs.PlannedRun:
    """The plan of one input, as `runs.planned` makes it; an input that is not there is answered with the nearest names.

    Raises
    ------
    MitocoreError
        If it is refused.
    """
    table = document.data.get("input")
    path = table.get("path") if isinstance(table, dict) else None
    with nearest_hinted(*([path] if isinstance(path, str) else []), folder=document.folder_of("input", "path")):
        return runs.planned(document, **options)


def check(batch: Batch, **options: Any) -> tuple[runs.PlannedRun | MitocoreError, ...]:
    """The plan of each input, or why it is refused; `options` are those of `runs.planned`.

    Raises
    ------
    MitocoreError
        If all inputs are refused for one and the same reason.
    """
    _refuse_what_is_wrong_for_all(batch, options)
    plans: list[runs.PlannedRun | MitocoreError] = []
    for one in batch.inputs:
        try:
            plans.append(planned(one.document, **options))
        except MitocoreError as error:
            plans.append(error)
    return tuple(plans)


def told(place: str, finding: MitocoreError) -> MitocoreError:
    """A finding that names its input, once."""
    named = place.partition("::")[0] in f"{finding.problem} {finding.where}"
    if named:
        return finding
    return type(finding)(f"{place}: {finding.problem}", where=finding.where, hint=finding.hint)


class Kept:
    """Whether a run was finished by an earlier call; made before it runs, asked when it is over."""

    def __init__(self, ready: runs.PlannedRun) -> None:
        self._record = Path(ready.plan.config.run.folder or ".") / "record.json"
        self._before = self._written()

    def status(self) -> Literal["done", "kept"]:
        """What came of the run."""
        return "kept" if self._before and self._written() == self._before else "done"

    def _written(self) -> int:
        return self._record.stat().st_mtime_ns if self._record.exists() else 0


def run(
    batch: Batch,
    *,
    roi: str | None = None,
    until: str | None = None,
    save: Sequence[str] = (),
    policy: Policy = "continue",
    take_over: bool = False,
    progress: runs.Progress = lambda _label, _done, _total: None,
    cancel: Callable[[], bool] = lambda: False,
    recorded: Callable[[Path], AbstractContextManager[None]] = lambda _folder: nullcontext(),
) -> tuple[Outcome, ...]:
    """Run one input after the other; one that fails does not stop the others, a finished one is not computed again.

    The summary is written after each input. `roi`, `until` and `save` are those of `runs.planned`.

    Parameters
    ----------
    recorded
        Opened around the work in each run folder, such as a log in it.

    Raises
    ------
    MitocoreError
        If all inputs are refused for one and the same reason, before anything is computed.
    KeyboardInterrupt
        If `cancel` says so: no other input is begun.
    """
    options = {"roi": roi, "until": until, "save": tuple(save)}
    _refuse_what_is_wrong_for_all(batch, options)
    outcomes: list[Outcome] = []
    progress("inputs", 0, len(batch.inputs))
    for number, one in enumerate(batch.inputs, 1):
        if cancel():
            raise KeyboardInterrupt
        log.info("input %d of %d: %s", number, len(batch.inputs), one.place)
        begin = time.monotonic()
        try:
            with recorded(one.folder):
                outcome = _run(one, begin, options, policy, take_over, _prefixed(progress, one.stem), cancel)
        except MitocoreError as error:
            for finding in (error, *error.others):
                log.error("%s", told(one.place, finding))  # noqa: TRY400 - for people: no trace
            outcome = Outcome(one.place, "failed", time.monotonic() - begin, error=error)
        outcomes.append(outcome)
        write_summary(batch.summary, outcomes)
        progress("inputs", number, len(batch.inputs))
    return tuple(outcomes)


def _run(
    one: Input,
    begin: float,
    options: Mapping[str, Any],
    policy: Policy,
    take_over: bool,
    progress: runs.Progress,
    cancel: Callable[[], bool],
) -> Outcome:
    ready = planned(one.document, **options)
    kept = Kept(ready)
    with ready.run(policy=policy, take_over=take_over, progress=progress, cancel=cancel) as result:
        writer = ready.plan.config.writer
        return Outcome(
            one.place,
            kept.status(),
            time.monotonic() - begin,
            writer.path if writer else str(one.folder),
            counts(ready, result),
        )


def counts(ready: runs.PlannedRun, result: runs.Result) -> dict[str, int]:
    """How many objects each saved instance array has."""
    steps = result.record["steps"]
    instances = [saved.name for saved in ready.plan.saved if saved.spec.kind is Kind.INSTANCE]
    found = {name: steps.get(name.partition(".")[0], {}).get("objects") for name in instances}
    return {name: count for name, count in found.items() if count is not None}


def _prefixed(progress: runs.Progress, stem: str) -> runs.Progress:
    return lambda label, done, total: progress(f"{stem} · {label}", done, total)


def _refuse_what_is_wrong_for_all(batch: Batch, options: Mapping[str, Any]) -> None:
    """Raise what refuses every input alike, such as a misspelt option, once instead of once for each."""
    if len(batch.inputs) < 2:
        return
    first: MitocoreError | None = None
    for one in batch.inputs:
        try:
            planned(one.document, **options)
        except MitocoreError as error:
            if first and first.problem != error.problem:
                return
            first = error
        else:
            return
    if first:
        raise first


COLUMNS = ("input", "status", "exit_code", "seconds", "output", "error")
"""Of the summary, beside one "objects in …" for each saved instance array."""


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The summary: a row for each input, by column."""
    arrays = list(dict.fromkeys(name for outcome in outcomes for name in outcome.objects))
    return [
        {
            "input": outcome.place,
            "status": outcome.status,
            "exit_code": outcome.exit_code,
            **{f"objects in {name}": outcome.objects.get(name, "") for name in arrays},
            "seconds": round(outcome.seconds, 1),
            "output": outcome.output,
            "error": outcome.error.problem if outcome.error else "",
        }
        for outcome in outcomes
    ]


def write_summary(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the summary as CSV, in a folder that is made for it.

    Raises
    ------
    MitocoreError
        If it cannot be written.
    """
    table = rows(outcomes)
    text = io.StringIO()
    writer = csv.DictWriter(text, table[0] if table else COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{str(path.parent)!r} cannot hold the summary: {error.strerror}"
        raise DataError(problem, hint='folder = "…" in [run]') from error
    with replaced(path) as file:
        file.write(text.getvalue().encode())


def _share(part: str) -> tuple[int, int]:
    """Number and count of "3/200"."""
    match = re.fullmatch(r"(\d+)/(\d+)", part.strip())
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        problem = f"{part!r} is no share of the inputs; shares are K/N, K from 1 to N"
        raise ConfigError(problem, where="--part", hint="--part 1/3 to --part 3/3")
    return number, count
