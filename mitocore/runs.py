"""The library's front door: plan and run pipelines, train, evaluate, convert."""

import json
import logging
import os
import platform
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mitocore import evaluation
from mitocore.blockwise import passes
from mitocore.blockwise.arrays import Opened, Source
from mitocore.blockwise.executor import Executor, InProcess, Threads
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.config import toml
from mitocore.config.components import build
from mitocore.config.pipeline import PipelineConfig, PredictTable, RunTable, StepConfig, configure, kind_of
from mitocore.errors import ConfigError, DataError, PluginError, RunError
from mitocore.execution import Execution, begin_again, holds, place_of, write_json
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.header import read_header
from mitocore.interfaces import Model, Normalizer, PostProcessor, Reader, Volume
from mitocore.pipeline import Plan, plan
from mitocore.registry import Registry
from mitocore.specs import ArraySpec, Kind, Storage, VolumeSpec
from mitocore.training import TrainingPlan, plan_training
from mitocore.volumes import ArrayVolume, installed, open_volume, reader_of, writer_of

if TYPE_CHECKING:
    from mitocore.learn.fit import TrainingResult

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with a label, how much is done, and of how much."""

Policy = Literal["continue", "resume", "fresh"]
"""What to do with a run folder that holds another configuration: refuse, keep what is unchanged, or start over."""


def _quiet(_label: str, _done: int, _total: int) -> None:
    """Report nothing."""


def _never() -> bool:
    return False


class UnsavedError(ConfigError, KeyError):
    """A result that a run does not have: a KeyError too, as of any mapping."""


class _Folder:
    """A run folder; a temporary one goes when neither the run nor a result needs it any more."""

    def __init__(self, stated: str | None) -> None:
        self.path = Path(stated) if stated else Path(mkdtemp(prefix="mitocore-"))
        if not stated:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"the run folder {stated!r} cannot be made: {error.strerror}"
            raise ConfigError(problem, where="[run]", hint='folder = "…" in [run]') from error


class Result(Mapping[str, Volume]):
    """What a run gave: open volumes by "step.array"."""

    def __init__(self, folder: Path, volumes: Mapping[str, Volume], record: Mapping[str, Any]) -> None:
        self.folder = folder
        """The run folder."""
        self.record = record
        """Settings, statistics, counts and times; what record.json holds."""
        self._volumes = volumes

    def __getitem__(self, name: str) -> Volume:
        if name not in self._volumes:
            raise UnsavedError(f"the run saved no {name!r}", hint=toml.near(name, self._volumes))
        return self._volumes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._volumes)

    def __len__(self) -> int:
        return len(self._volumes)

    def close(self) -> None:
        """Close the volumes. Calling it twice is allowed."""
        for volume in self._volumes.values():
            volume.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every saved array in memory: (z, y, x), or (c, z, y, x) where there are several channels."""
        found = {}
        for name, volume in self.items():
            values = volume.read(Roi.whole(volume.spec.shape))
            found[name] = values[0] if len(values) == 1 else values
        return found


class _Scratch(Volume):
    """An array of the run folder as an open volume."""

    def __init__(self, source: Source, spec: VolumeSpec, folder: _Folder) -> None:
        self._source, self._spec, self._folder = source, spec, folder

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        return self._source.read(roi)


@dataclass(frozen=True)
class PlannedRun:
    """A pipeline that was accepted; printing it shows the plan."""

    plan: Plan
    registry: Registry
    volume: Volume | None = None
    """An input that is open already, such as an array."""

    def __str__(self) -> str:
        return str(self.plan)

    def run(
        self,
        *,
        policy: Policy = "continue",
        take_over: bool = False,
        progress: Progress = _quiet,
        cancel: Callable[[], bool] = _never,
    ) -> Result:
        """Run it in its folder, or go on where an earlier run was stopped.

        Raises
        ------
        RunError
            If the folder is in use, holds another configuration, or a block keeps failing.
        DataError
            If an output exists already.
        """
        folder, run = _Folder(self.plan.config.run.folder), self.plan.config.run
        with RunLock(folder.path, take_over=take_over) as lock, _executor(run) as executor:
            workspace = Workspace(folder.path, executor, lock, progress, cancel, run.retries)
            if self.volume is not None:
                return self._in(folder, workspace, self.volume, policy)
            if self.plan.config.reader is None:
                raise ConfigError("the pipeline has no input", hint='[input] path = "volume.zarr::raw"')
            with self.plan.config.reader.open() as volume:
                return self._in(folder, workspace, volume, policy)

    def _in(self, folder: _Folder, workspace: Workspace, volume: Volume, policy: Policy) -> Result:
        old = _read_plan(folder.path)
        _refuse_existing(self.plan, old)
        if policy == "fresh":
            begin_again(folder.path)
        execution = Execution(self.plan, self.registry, workspace, volume, volume.spec)
        execution.prepare(_identity(self.plan.config.reader, volume))
        _claim(execution, old, policy)
        begin = time.time()
        earlier = _finished(execution)
        if earlier is None:
            execution.run()
            execution.record |= _provenance(execution, begin)
            write_json(folder.path / "record.json", execution.record)
        else:
            execution.record = dict(earlier)
        result = Result(folder.path, _results(execution, folder), execution.record)
        execution.tidy()
        return result


@contextmanager
def _executor(run: RunTable) -> Iterator[Executor]:
    workers = (os.cpu_count() or 1) if run.workers == "auto" else run.workers
    executor: Executor = Threads(workers) if workers > 0 else InProcess()
    try:
        yield executor
    finally:
        executor.close()


def _identity(reader: Reader | None, volume: Volume) -> str:
    """What stands for the voxels of the input: header, size and time of its files; never its path."""
    spec = repr(volume.spec)
    if reader is None:
        return spec + str(time.time_ns())
    path = Path(reader.path)
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    seen = [(file.name, file.stat().st_size if file.is_file() else 0, file.stat().st_mtime_ns) for file in files]
    seen = [(name if path.is_dir() else "", size, when) for name, size, when in seen]
    return f"{type(reader).__name__} {reader.model_dump_json(exclude={'path'})} {spec} {seen}"


def _claim(execution: Execution, old: Mapping[str, Any], policy: Policy) -> None:
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


def _read_plan(folder: Path) -> dict[str, Any]:
    """What plan.json says of the run folder; nothing, if it is new."""
    path = folder / "plan.json"
    content = _read_json(path) if path.exists() else {}
    if content and (content.get("mitocore") != 1 or not {"digests", "options", "schedule"} <= content.keys()):
        raise RunError("plan.json of the run folder is not of this version", where=str(path), hint="another folder")
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{path.name} of the run folder is damaged", where=str(path), hint="--fresh starts over"
        ) from error


def _refuse_existing(ready: Plan, old: Mapping[str, Any]) -> None:
    """Refuse to write over what this run folder did not write."""
    writer = ready.config.writer
    ours = old.get("schedule", {}).get("outputs", {})
    for saved in ready.saved if writer else ():
        if ours.get(saved.name) != place_of(writer) and holds(writer, saved.name):
            raise DataError(
                f"{writer.path if writer else ''!r} already holds {saved.name!r}",
                where=ready.config.document.where("output", "path"),
                hint="another path in [output], or remove it first",
            )


def _finished(execution: Execution) -> dict[str, Any] | None:
    """The record of a run of the same digests that came to its end, if what it saved is still there."""
    path = execution.workspace.folder / "record.json"
    if not path.exists():
        return None
    record = _read_json(path)
    writer = execution.plan.config.writer
    kept = record.get("digests") == execution.digests and writer is not None
    return record if kept and all(holds(writer, saved.name) for saved in execution.plan.saved) else None


def _provenance(execution: Execution, begin: float) -> dict[str, Any]:
    import mitocore

    voxel_size = execution.spec.voxel_size
    return {
        "pipeline": execution.plan.config.name,
        "digests": execution.digests,
        "options": execution.options(),
        "input": {
            "path": execution.plan.config.reader.path if execution.plan.config.reader else None,
            "shape": execution.spec.shape,
            "dtype": execution.spec.dtype,
            "voxel_size_nm": voxel_size.edges if voxel_size else None,
        },
        "statistics": execution.stats,
        "weights": {s.name: str(s.config.weights) for s in execution.plan.steps if s.config and s.config.weights},
        "schedule": execution.schedule,
        "seconds": round(time.time() - begin, 3),
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "python": platform.python_version(),
            "mitocore": mitocore.__version__,
            **execution.registry.versions,
        },
    }


def _results(execution: Execution, folder: _Folder) -> dict[str, Volume]:
    writer = execution.plan.config.writer
    if writer is not None:
        return {saved.name: writer.open(saved.name) for saved in execution.plan.saved}
    found: dict[str, Volume] = {}
    for saved in execution.plan.saved:
        spec = replace(
            execution.spec, dtype=saved.spec.dtype, channels=saved.spec.channels, chunks=None, kind=saved.spec.kind
        )
        found[saved.name] = _Scratch(execution.sources[saved.name], spec, folder)
    return found


def load(
    path: str | Path, overrides: Sequence[str] = (), *, data: bool = True, registry: Registry | None = None
) -> PlannedRun:
    """Plan the pipeline of a TOML file; ``TABLE.KEY=VALUE`` overrides it. Equal to ``mitocore validate``.

    Raises
    ------
    MitocoreError
        If it is refused.
    """
    registry = registry or installed()
    document = toml.read(Path(path), overrides)
    config = configure(document, registry, data=data)
    if config.run.folder is None:
        config = replace(config, run=config.run.model_copy(update={"folder": str(Path("runs") / config.name)}))
    else:
        folder = document.folder_of("run", "folder") / config.run.folder
        config = replace(config, run=config.run.model_copy(update={"folder": str(folder)}))
    return PlannedRun(plan(config, registry, data=data), registry)


@dataclass(frozen=True)
class Step:
    """One step of a pipeline made in Python; its component need not be registered."""

    component: Model | PostProcessor
    name: str | None = None
    """Default: the class in lower case."""
    inputs: Mapping[str, str] | None = None
    weights: str | Path | None = None
    predict: Mapping[str, Any] | None = None
    storage: Storage | None = None


class Pipeline:
    """Steps made in Python: numpy in, numpy out, or any volume.

    Parameters
    ----------
    steps
        In the order of work.
    run
        Options of the [run] table, such as ``workers=2``.
    """

    def __init__(self, steps: Sequence[Step], **run: Any) -> None:
        self.steps = tuple(steps)
        self.options = toml.parse(RunTable, {"workers": 0, **run}, toml.Document({"run": run}), "run")

    def plan(
        self,
        source: NDArray[Any] | Volume | str | Path,
        *,
        voxel_size: Any = None,
        kind: Kind | str | None = None,
        save: Sequence[str] = (),
        output: str | Path | None = None,
    ) -> PlannedRun:
        """Check the pipeline against an array, an open volume or ``PATH[::KEY]``."""
        registry = installed()
        volume: Volume | None
        reader = None
        if isinstance(source, np.ndarray):
            volume = ArrayVolume(source, voxel_size)
        elif isinstance(source, Volume):
            volume = source
        else:
            volume, reader = None, reader_of(source, registry, **({"voxel_size": voxel_size} if voxel_size else {}))
        config = PipelineConfig(
            steps=tuple(_configured(step, registry) for step in self.steps),
            reader=reader,
            kind=kind_of(kind),
            writer=writer_of(output, registry) if output else None,
            save=tuple(save),
            run=self.options,
        )
        return PlannedRun(plan(config, registry, volume.spec if volume else None), registry, volume)

    def run(
        self,
        source: NDArray[Any] | Volume | str | Path,
        *,
        progress: Progress = _quiet,
        cancel: Callable[[], bool] = _never,
        **options: Any,
    ) -> Result:
        """Plan and run; `options` are those of `plan`."""
        return self.plan(source, **options).run(progress=progress, cancel=cancel)


def _configured(step: Step, registry: Registry) -> StepConfig:
    name = step.name or type(step.component).__name__.lower()
    predict = toml.parse(PredictTable, dict(step.predict or {}), toml.Document({}), what="predict")
    header = path = normalizer = None
    if isinstance(step.component, Model):
        if step.weights is None:
            raise ConfigError(f"step {name!r} has no weights", hint='Step(model, weights="best.safetensors")')
        path = Path(step.weights)
        header = read_header(path)
        built, _ = build("normalizer", header.normalizer, registry)
        normalizer = built if isinstance(built, Normalizer) else None
    return StepConfig(
        name=name,
        component=step.component,
        inputs=dict(step.inputs or {}),
        predict=predict,
        storage=step.storage,
        weights=path,
        header=header,
        normalizer=normalizer,
        where=f"step {name!r}",
    )


def load_training(path: str | Path, overrides: Sequence[str] = (), registry: Registry | None = None) -> TrainingPlan:
    """Plan the training of a TOML file; refused before a voxel is read or torch imported."""
    return plan_training(toml.read(Path(path), overrides), registry or installed())


def train(
    path: str | Path, overrides: Sequence[str] = (), *, resume: bool = False, progress: Any = _quiet
) -> "TrainingResult":
    """Train as a TOML file says; the best weights are a .safetensors file that describes itself.

    Raises
    ------
    MitocoreError
        If the training is refused, or the extra ``mitocore[torch]`` is not installed.
    """
    ready = load_training(path, overrides)
    try:
        from mitocore.learn import fit
    except ModuleNotFoundError as error:
        raise PluginError(f"training needs {error.name!r}", hint='pip install "mitocore[torch]"') from error
    return fit.fit(ready, resume=resume, progress=progress)


def evaluate(
    prediction: str | Path | Volume | NDArray[Any],
    truth: str | Path | Volume | NDArray[Any],
    metrics: Sequence[str] = (),
    *,
    kind: Kind | str | None = None,
    roi: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress = _quiet,
) -> dict[str, dict[str, float]]:
    """Scores of a prediction, by metric; none named: all that fit what the prediction holds.

    Parameters
    ----------
    kind
        What the prediction holds ("instance", "probability", "mask" …), where its file does not say.
    roi
        Three ranges of voxels (z, y, x), such as "17:20,:,:".
    options
        Options by metric, such as ``{"voxel": {"thresholds": [0.3, 0.5]}}``.
    """
    with _volume(prediction) as predicted, _volume(truth) as true:
        pair = evaluation.compared(predicted, true, kind=kind_of(kind), roi=roi)
        chosen = evaluation.metrics_of(metrics, pair.kind, installed(), options or {})
        return evaluation.evaluate(pair, chosen, progress=progress)


def _volume(source: str | Path | Volume | NDArray[Any]) -> AbstractContextManager[Volume]:
    """A volume, closed at the end if it was opened here."""
    if isinstance(source, np.ndarray):
        return ArrayVolume(source)
    return nullcontext(source) if isinstance(source, Volume) else open_volume(source)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    voxel_size: Any = None,
    kind: Kind | str | None = None,
    roi: str | None = None,
    progress: Progress = _quiet,
) -> VolumeSpec:
    """Copy a volume into another format, block by block; voxel size, origin and kind go along.

    Parameters
    ----------
    kind
        What the volume holds, where its file does not say; labels are refused by lossy formats.
    roi
        Three ranges of voxels (z, y, x): only this part.

    Raises
    ------
    DataError
        If the target exists, or cannot hold the values.
    """
    registry = installed()
    writer = writer_of(str(target).partition("::")[0], registry)
    name = str(target).partition("::")[2] or "volume"
    with reader_of(source, registry, **({"voxel_size": voxel_size} if voxel_size else {})).open() as volume:
        spec = volume.spec
        try:
            region = Roi.parse(roi, spec.shape) if roi else Roi.whole(spec.shape)
        except ValueError as error:
            raise DataError(str(error), where="--roi", hint="--roi 10:20,:,0:512") from error
        held = kind_of(kind) or spec.kind
        if spec.dtype not in writer.dtypes:
            raise DataError(
                f"{str(source)!r} is {spec.dtype}; this format holds {', '.join(writer.dtypes)}",
                where=str(target),
                hint="write to zarr, HDF5 or .npy",
            )
        if writer.lossy and held in (Kind.MASK, Kind.SEMANTIC, Kind.INSTANCE):
            raise DataError(f"{str(target)!r} would change the ids of labels", hint="write to zarr, TIFF or PNG")
        edges = spec.voxel_size.edges if spec.voxel_size else (0.0, 0.0, 0.0)
        z, y, x = (o + s * e for o, s, e in zip(spec.origin, region.start, edges, strict=True))
        wanted = replace(spec, shape=region.shape, origin=(z, y, x), kind=held, chunks=None)
        with TemporaryDirectory(prefix="mitocore-") as temporary:
            folder = Path(temporary)
            with RunLock(folder) as lock, writer.create(name, wanted) as copy:
                workspace = Workspace(folder, InProcess(), lock, progress)
                as_is = ArraySpec(Kind.IMAGE, spec.channels)
                order = writer.order
                passes.export(Opened(volume), as_is, copy, order, workspace, "convert", origin=as_shape(region.start))
                copy.finish()
                return copy.spec


__all__ = [
    "Pipeline",
    "PlannedRun",
    "Progress",
    "Result",
    "Step",
    "VoxelSize",
    "convert",
    "evaluate",
    "load",
    "load_training",
    "open_volume",
    "train",
]
