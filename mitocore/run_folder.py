"""What a run folder says: whose it is, what it holds, what came of it."""

import json
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mitocore.blockwise.lock import RunLock
from mitocore.durable import write_json
from mitocore.errors import DataError, RunError
from mitocore.execution import Execution
from mitocore.interfaces import Reader, Volume
from mitocore.outputs import held, place_of
from mitocore.pipeline import Plan
from mitocore.volumes import ArrayVolume

Policy = Literal["continue", "resume", "fresh"]
"""What to do with a run folder that holds another configuration: refuse, keep what is unchanged, or start over."""


def identity(reader: Reader | None, volume: Volume) -> str:
    """What stands for the voxels of the input: its header, and what its reader says of its files; never its path."""
    spec = repr(volume.spec)
    if isinstance(volume, ArrayVolume):
        return spec + volume.fingerprint()
    if reader is None:
        return spec + str(time.time_ns())  # nobody can tell whether an open volume has changed
    return f"{type(reader).__name__} {reader.model_dump_json(exclude={'path'})} {spec} {reader.fingerprint()}"


def claim(execution: Execution, old: Mapping[str, Any], policy: Policy) -> None:
    """Compare the run folder with this run, and make it ours.

    Raises
    ------
    RunError
        If it holds another configuration and `policy` does not say what to do.
    """
    if not old or policy == "fresh":
        execution.schedule = {"outputs": old.get("schedule", {}).get("outputs", {})}
        execution.save()
        return
    changed = [name for name, digest in execution.digests.items() if old["digests"].get(name) != digest]
    changed += [name for name in old["digests"] if name not in execution.digests]
    if changed and policy == "continue":
        raise RunError(
            f"the run folder holds another run: {_difference(old, execution, changed[0])}",
            where=str(execution.workspace.folder),
            hint="--resume keeps what is unchanged, --fresh starts over; or another folder in [run]",
        )
    execution.schedule = dict(old["schedule"])
    if changed:
        (execution.workspace.folder / "record.json").unlink(missing_ok=True)
        execution.drop_stale()
    execution.save()


def _difference(old: Mapping[str, Any], execution: Execution, step: str) -> str:
    """The first option of a step that differs, in words."""
    if step == "input":
        return "the input is another, or has changed"
    before, after = old["options"].get(step), execution.options().get(step)
    if before is None or after is None:
        return f"step {step!r} is {'new' if before is None else 'gone'}"
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if not keys:
        return f"step {step!r} was computed by another version of {after['component']!r}"
    if keys[0] == "weights":
        return f"the weights of step {step!r} are others"
    return f"{step}.{keys[0]} was {before.get(keys[0])!r}, now {after.get(keys[0])!r}"


def read_plan(folder: Path, policy: Policy) -> dict[str, Any]:
    """What plan.json says of the run folder; nothing, if it is new, or damaged and to be started over."""
    path = folder / "plan.json"
    if not path.exists():
        return {}
    try:
        content = _read_json(path)
    except RunError:
        if policy == "fresh":
            return {}
        raise
    if content.get("mitocore") == 1 and {"digests", "options", "schedule"} <= content.keys():
        return content
    if policy == "fresh":
        return {}
    raise RunError("plan.json is not of this version", where=str(path), hint="--fresh starts over")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{path.name} of the run folder is damaged", where=str(path), hint="--fresh starts over"
        ) from error


def refuse_existing(ready: Plan, old: Mapping[str, Any]) -> None:
    """Refuse to write over what this run folder did not write, or what cannot become this run's output."""
    writer, spec = ready.config.writer, ready.result
    ours = old.get("schedule", {}).get("outputs", {})
    for saved in ready.saved if writer else ():
        there = held(writer, saved.name)
        if there is None:
            continue
        if ours.get(saved.name) != place_of(writer):
            problem = f"already holds {saved.name!r}"
        elif there.shape != spec.shape or there.voxel_size not in (None, spec.voxel_size):
            problem = f"holds {saved.name!r} of {there.shape} voxels of {there.voxel_size or 'unknown size'}"
        else:
            continue
        raise DataError(
            f"{writer.path if writer else ''!r} {problem}",
            where=ready.config.document.where("output", "path"),
            hint="another path in [output], or remove it first",
        )


def finished(execution: Execution) -> dict[str, Any] | None:
    """The record of a run of the same digests and output that came to its end; any other record is removed.

    It must go before anything is written, or a run that is killed now would be taken for the finished one.
    """
    path = execution.workspace.folder / "record.json"
    if not path.exists():
        return None
    writer = execution.plan.config.writer
    try:
        record = _read_json(path)
    except RunError:
        record = {}
    same = record.get("digests") == execution.digests and record.get("output") == _output(execution)
    if same and writer and all(held(writer, saved.name) for saved in execution.plan.saved):
        return record
    path.unlink()
    return None


def _output(execution: Execution) -> dict[str, Any]:
    plan = execution.plan
    return {"place": place_of(plan.config.writer), "saved": [saved.name for saved in plan.saved], "until": plan.until}


def provenance(execution: Execution, versions: Mapping[str, str], begin: float) -> dict[str, Any]:
    """What record.json adds to counts and times; `versions` are those of plugins, `begin` is when the run began."""
    import mitocore

    voxel_size = execution.spec.voxel_size
    return {
        "pipeline": execution.plan.config.name,
        "digests": execution.digests,
        "output": _output(execution),
        "options": execution.options(),
        "input": {
            "path": execution.plan.config.reader.path if execution.plan.config.reader else None,
            "shape": execution.spec.shape,
            "dtype": execution.spec.dtype,
            "voxel_size_nm": voxel_size.edges if voxel_size else None,
        },
        "region": [execution.region.start, execution.region.stop],
        "statistics": execution.stats,
        "weights": {s.name: str(s.config.weights) for s in execution.plan.steps if s.config and s.config.weights},
        "schedule": execution.schedule,
        "seconds": round(time.time() - begin, 3),
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "python": platform.python_version(),
            "mitocore": mitocore.__version__,
            **versions,
        },
    }


def clean(folder: Path) -> int:
    """Remove the scratch of a run folder, and what says that it is there; how many bytes that freed.

    Outputs, plan, statistics and record stay: a finished run stays finished. One that is not begins again.

    Raises
    ------
    DataError
        If it is no run folder.
    RunError
        If a run is at work in it.
    """
    if not (folder / "plan.json").is_file():
        raise DataError(f"{str(folder)!r} is not a run folder: it holds no plan.json", hint="mitocore clean runs/NAME")
    with RunLock(folder):
        freed = sum(_bytes(part) for part in (folder / "scratch", folder / "state"))
        for mark in (folder / "state").glob("*.done.json"):
            write_json(mark, {**_read_json(mark), "freed": True})  # before the journals: these would be believed
        for path in (folder / "state").glob("*"):
            if not path.name.endswith(".json"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        return freed - sum(_bytes(part) for part in (folder / "scratch", folder / "state"))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def branch(folder: Path, new: Path) -> None:
    """Begin another run folder with what one has computed; files of scratch are shared where the disk can share them.

    Scratch files are replaced, never changed, so neither folder sees what the other does. Outputs are not shared.
    """
    plan = read_plan(folder, "continue")
    plan["schedule"] = {name: cut for name, cut in plan["schedule"].items() if name != "outputs"}
    shutil.copytree(folder / "state", new / "state")
    for path in (folder / "scratch").rglob("*.npy"):
        target = new / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(path)
        except OSError:  # another disk, or one without links
            shutil.copyfile(path, target)
    write_json(new / "plan.json", plan)
