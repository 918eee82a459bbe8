"""What a run folder says: whose it is, what it holds, what came of it."""

import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeGuard

from mitocore.blockwise.lock import RunLock
from mitocore.durable import read_json, write_json
from mitocore.errors import DataError, RunError
from mitocore.execution import Execution
from mitocore.geometry import VoxelSize
from mitocore.interfaces import Reader, Volume, Writer
from mitocore.outputs import CHANGING, held, outline, place_of, stamp_of
from mitocore.pipeline import Plan
from mitocore.specs import VolumeSpec
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
        content = read_json(path)
    except RunError:
        if policy == "fresh":
            return {}
        raise
    if _is_plan(content):
        return content
    if policy == "fresh":
        return {}
    raise RunError("plan.json is damaged, or not of this version", where=str(path), hint="--fresh starts over")


def _is_plan(content: Mapping[str, Any]) -> bool:
    digests, options, schedule = (content.get(key) for key in ("digests", "options", "schedule"))
    if content.get("mitocore") != 1 or not isinstance(digests, dict):
        return False
    if not _of_tables(options) or not _of_tables(schedule):
        return False
    outputs = schedule.get("outputs", {})
    return _of_tables(outputs) and all({"place", "spec", "stamp"} <= own.keys() for own in outputs.values())


def _of_tables(value: Any) -> TypeGuard[dict[str, dict[str, Any]]]:
    return isinstance(value, dict) and all(isinstance(part, dict) for part in value.values())


def refuse_existing(ready: Plan, old: Mapping[str, Any]) -> None:
    """Refuse to write over what this run folder did not write, or what cannot become this run's output."""
    writer = ready.config.writer
    if writer is None:
        return
    ours = old.get("schedule", {}).get("outputs", {})
    place = place_of(writer, Path(ready.config.run.folder or ""))  # a temporary folder has no outputs yet
    for saved in ready.saved:
        there = held(writer, saved.name)
        if there is None:
            continue
        own, wanted = ours.get(saved.name), outline(ready, saved)
        if own is None:
            problem = f"already holds {saved.name!r}"
        elif own["place"] != place:
            problem = f"already holds {saved.name!r}: this run folder wrote it elsewhere, or with other options"
        elif difference := _other_array({**own["spec"], **_laid_out(there, wanted)}, wanted):
            problem = f"holds {saved.name!r} {difference}"
        elif own["stamp"] not in (CHANGING, stamp_of(writer, saved.name)):
            problem = f"holds {saved.name!r}, which has changed since this run folder wrote it"
        else:
            continue
        raise DataError(
            f"{writer.path!r} {problem}",
            where=ready.config.document.where("output", "path"),
            hint="another path in [output], or remove it first",
        )


def _laid_out(there: VolumeSpec, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What any format says of an array, as of an outline."""
    return {"shape": list(there.shape), "dtype": wanted["dtype"] and there.dtype}


def _other_array(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first thing in which an array differs from the one that is to be written, in words; "": none."""
    for key, value in wanted.items():
        if found.get(key) != value:
            before, after = (_said(key, each) for each in (found.get(key), value))
            return f"of {key.replace('_', ' ')} {before}, where {after} will be written"
    return ""


def _said(key: str, value: Any) -> str:
    if key == "voxel_size":
        return str(VoxelSize(*value)) if value else "unknown"
    return f"{tuple(value)} nm" if key == "origin" else f"{value}"


def finished(execution: Execution) -> dict[str, Any] | None:
    """The record of a run of the same digests and output that came to its end; any other record is removed.

    It must go before anything is written, or a run that is killed now would be taken for the finished one.
    """
    path = execution.workspace.folder / "record.json"
    if not path.exists():
        return None
    writer = execution.plan.config.writer
    try:
        record = read_json(path)
    except RunError:
        record = {}
    same = record.get("digests") == execution.digests and record.get("output") == _output(execution)
    noted = execution.schedule.get("outputs", {})
    if same and writer and all(_as_noted(writer, saved.name, noted) for saved in execution.plan.saved):
        return record
    path.unlink()
    return None


def _as_noted(writer: Writer, name: str, noted: Mapping[str, Any]) -> bool:
    """Whether an array is finished, and is the one that this run folder wrote."""
    stamp = stamp_of(writer, name)
    return bool(stamp) and stamp == noted.get(name, {}).get("stamp")


def _output(execution: Execution) -> dict[str, Any]:
    plan = execution.plan
    place = place_of(plan.config.writer, execution.workspace.folder)
    return {"place": place, "saved": [saved.name for saved in plan.saved], "until": plan.until}


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
            write_json(mark, {**read_json(mark), "freed": True})  # before the journals: these would be believed
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

    Raises
    ------
    RunError
        If the run folder is gone.
    """
    plan = read_plan(folder, "continue")
    if not plan:
        raise RunError(f"the run folder {str(folder)!r} is gone", hint="run the pipeline anew")
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
