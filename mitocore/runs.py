"""The library's front door: plan and run pipelines, train, evaluate."""

import logging
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from mitocore import evaluation, object_lists, run_folder, weights
from mitocore.blockwise.arrays import Source
from mitocore.blockwise.executor import Executor, InProcess, Processes, Threads
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.confidence import read_scores
from mitocore.config import toml
from mitocore.config.components import build
from mitocore.config.pipeline import (
    Member,
    PipelineConfig,
    PredictTable,
    RunTable,
    StepConfig,
    configure,
    kind_of,
    member,
    stated_weights,
)
from mitocore.durable import write_json
from mitocore.errors import ConfigError, PluginError
from mitocore.execution import Execution, begin_again
from mitocore.geometry import Roi, Shape
from mitocore.header import read_header
from mitocore.interfaces import Model, Normalizer, PostProcessor, Volume
from mitocore.pipeline import Plan, plan
from mitocore.registry import Registry
from mitocore.run_folder import Policy
from mitocore.scaling import stated_factors
from mitocore.specs import Kind, Storage, VolumeSpec
from mitocore.training import TrainingPlan, plan_training
from mitocore.volumes import Reopened, in_memory, installed, reader_of, writer_of

if TYPE_CHECKING:
    from mitocore.learn.fit import TrainingResult
    from mitocore.learn.preview import Preview

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with a label, how much is done, and of how much."""


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

    def __init__(
        self, run: "PlannedRun", folder: _Folder, volumes: Mapping[str, Volume], record: Mapping[str, Any]
    ) -> None:
        self.folder = folder.path
        """The run folder."""
        self.record = record
        """Settings, statistics, counts and times; what record.json holds."""
        self._run, self._folder, self._volumes = run, folder, volumes

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

    def rerun(
        self,
        settings: Mapping[str, Any],
        *,
        progress: Progress = _quiet,
        cancel: Callable[[], bool] = _never,
    ) -> "Result":
        """Run again with other options of post-processors, such as ``{"mask.threshold": 0.4}``.

        What does not depend on them is not computed again; no network is run, if the run kept its heads. The new
        result lies in a temporary folder of its own, and is written to no output; this one stays as it is.

        Raises
        ------
        ConfigError
            If there is no such step or option, or the option does not take the value.
        """
        if not isinstance(settings, Mapping):
            problem = f"rerun takes options by name, not {settings!r}"
            raise ConfigError(problem, hint='rerun({"mask.threshold": 0.4})')
        config = _changed(self._run.plan.config, settings)
        planned = replace(self._run, plan=plan(config, self._run.registry, self._run.plan.volume, roi=self._run.roi))
        folder = _Folder(None)
        run_folder.branch(self.folder, folder.path)
        return planned.run_in(folder, policy="resume", progress=progress, cancel=cancel)


def _changed(config: PipelineConfig, settings: Mapping[str, Any]) -> PipelineConfig:
    """The pipeline with other options of its steps, without an output."""
    steps = {step.name: step for step in config.steps}
    for setting, value in settings.items():
        name, _, option = setting.partition(".")
        if name not in steps:
            raise ConfigError(f"no step is called {name!r}", where=f"rerun {setting!r}", hint=toml.near(name, steps))
        component = steps[name].component
        if not isinstance(component, PostProcessor):
            raise ConfigError(
                f"{name!r} is no post-processor", where=f"rerun {setting!r}", hint="run the pipeline anew"
            )
        table = {**component.model_dump(), option: value}
        steps[name] = replace(steps[name], component=toml.parse(type(component), table, toml.Document({}), what=name))
    return replace(config, steps=tuple(steps.values()), writer=None, scale_factors=None)


class _Scratch(Volume):
    """An array of the run folder as an open volume; `corner` is where it begins in the volume of the run."""

    def __init__(self, source: Source, spec: VolumeSpec, corner: Shape, folder: _Folder) -> None:
        self._source, self._spec, self._corner, self._folder = source, spec, corner, folder

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        return self._source.read(roi.moved(self._corner))


@dataclass(frozen=True)
class PlannedRun:
    """A pipeline that was accepted; printing it shows the plan."""

    plan: Plan
    registry: Registry
    volume: Volume | None = None
    """An input that is open already, such as an array."""
    roi: str | None = None
    """The part that is segmented, as it was asked for."""

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
        folder = _Folder(self.plan.config.run.folder)
        return self.run_in(folder, policy=policy, take_over=take_over, progress=progress, cancel=cancel)

    def run_in(
        self,
        folder: _Folder,
        *,
        policy: Policy,
        take_over: bool = False,
        progress: Progress = _quiet,
        cancel: Callable[[], bool] = _never,
    ) -> Result:
        """Run it in a folder other than that of the pipeline, as `run` does."""
        run = self.plan.config.run
        with RunLock(folder.path, take_over=take_over) as lock, _executor(run) as executor:
            workspace = Workspace(
                folder.path, executor, lock, progress, cancel, run.retries, self.plan.memory or float("inf")
            )
            if self.volume is not None:
                return self._in(folder, workspace, self.volume, policy)
            if self.plan.config.reader is None:
                raise ConfigError("the pipeline has no input", hint='[input] path = "volume.zarr::raw"')
            with Reopened(self.plan.config.reader) as volume:
                return self._in(folder, workspace, volume, policy)

    def _in(self, folder: _Folder, workspace: Workspace, volume: Volume, policy: Policy) -> Result:
        for note in self.plan.notes:
            log.warning(note)
        old = run_folder.read_plan(folder.path, policy)
        run_folder.refuse_existing(self.plan, old)
        if policy == "fresh":
            begin_again(folder.path)
        identity = run_folder.identity(self.plan.config.reader, volume)
        execution = Execution(self.plan, workspace, volume, volume.spec, identity)
        run_folder.claim(execution, old, policy)
        begin = time.time()
        earlier = run_folder.finished(execution)
        if earlier is None:
            execution.run()
            execution.record |= run_folder.provenance(execution, self.registry.versions, begin)
            write_json(folder.path / "record.json", execution.record)
        else:
            execution.record = dict(earlier)
        result = Result(self, folder, _results(execution, folder), execution.record)
        execution.tidy()
        return result


@contextmanager
def _executor(run: RunTable) -> Iterator[Executor]:
    workers = (os.cpu_count() or 1) if run.workers == "auto" else run.workers
    beside = Processes if run.engine == "processes" else Threads
    executor: Executor = beside(workers) if workers > 0 else InProcess()
    try:
        yield executor
    finally:
        executor.close()


def _results(execution: Execution, folder: _Folder) -> dict[str, Volume]:
    writer = execution.plan.config.writer
    if writer is not None:
        return {saved.name: writer.open(saved.name) for saved in execution.plan.saved}
    found: dict[str, Volume] = {}
    for saved in execution.plan.saved:
        result, region = execution.plan.result, execution.region
        spec = replace(result, dtype=saved.spec.dtype, channels=saved.spec.channels, kind=saved.spec.kind)
        found[saved.name] = _Scratch(execution.sources[saved.name], spec, region.start, folder)
    return found


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: bool = True,
    registry: Registry | None = None,
    roi: str | None = None,
    until: str | None = None,
    save: Sequence[str] = (),
) -> PlannedRun:
    """Plan the pipeline of a TOML file. Equal to ``mitocore validate``.

    Parameters
    ----------
    overrides
        ``TABLE.KEY=VALUE`` or ``STEP.OPTION=VALUE``, in order.
    data
        False: nothing of the input, the weights or the disk is looked at.
    roi
        The part to segment: three ranges of voxels (z, y, x), such as "17:20,:,:".
    until
        Name of the last step to run.
    save
        Arrays to save in place of those of [output]; "all": every one.

    Raises
    ------
    MitocoreError
        If it is refused.
    """
    document = toml.read(Path(path), overrides)
    return planned(document, data=data, registry=registry, roi=roi, until=until, save=save)


def planned(
    document: toml.Document,
    *,
    data: bool = True,
    registry: Registry | None = None,
    roi: str | None = None,
    until: str | None = None,
    save: Sequence[str] = (),
) -> PlannedRun:
    """Plan the pipeline of a document, as `load` does that of a file."""
    registry = registry or installed()
    config = configure(document, registry, data=data)
    stated = config.run.folder
    folder = document.folder_of("run", "folder") / (stated or Path("runs") / config.name)
    run = config.run.model_copy(update={"folder": str(folder)})
    config = replace(config, run=run, save=tuple(save) or config.save)
    return PlannedRun(plan(config, registry, data=data, roi=roi, until=until), registry, roi=roi)


@dataclass(frozen=True)
class Step:
    """One step of a pipeline made in Python; its component need not be registered."""

    component: Model | PostProcessor
    name: str | None = None
    """Default: the class in lower case."""
    inputs: Mapping[str, str] | None = None
    weights: str | Path | Sequence[str | Path] | None = None
    """A file, or a name of `mitocore weights list`; several are an ensemble."""
    predict: Mapping[str, Any] | None = None
    storage: Storage | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.component, Model | PostProcessor):
            hint = 'Pipeline([Threshold(), Step(model, weights="best.safetensors")])'
            raise ConfigError(f"{self.component!r} is neither a model nor a post-processor", hint=hint)


class Pipeline:
    """Steps made in Python: numpy in, numpy out, or any volume.

    Parameters
    ----------
    steps
        In the order of work; a component alone is a step with nothing else to say.
    run
        Options of the [run] table, such as ``workers=2``.

    Raises
    ------
    ConfigError
        If a step is none, or an option of the run is unknown.
    """

    def __init__(self, steps: Sequence[Step | Model | PostProcessor], **run: Any) -> None:
        if not isinstance(steps, Sequence):
            raise ConfigError(f"a pipeline takes a list of steps, not {steps!r}", hint="Pipeline([Threshold()])")
        self.steps = tuple(step if isinstance(step, Step) else Step(step) for step in steps)
        self.options = toml.parse(RunTable, {"workers": 0, **run}, toml.Document({"run": run}), "run")

    def plan(
        self,
        source: NDArray[Any] | Volume | str | Path,
        *,
        voxel_size: Any = None,
        kind: Kind | str | None = None,
        save: Sequence[str] = (),
        output: str | Path | None = None,
        scale_factors: Sequence[float] | None = None,
        roi: str | None = None,
        until: str | None = None,
    ) -> PlannedRun:
        """Check the pipeline against an array, an open volume or ``PATH[::KEY]``; `roi` and `until` as in `load`.

        `scale_factors` are voxels of `output` per voxel of the input along (z, y, x), as in [output].
        """
        registry = installed()
        if scale_factors is not None and output is None:
            problem = "without an output nothing is stored at another resolution"
            raise ConfigError(problem, where="scale_factors", hint='output="mito.zarr"')
        volume = reader = None
        if isinstance(source, str | Path):
            stated = {} if voxel_size is None else {"voxel_size": voxel_size}
            reader = reader_of(source, registry, **stated)
        else:
            volume = in_memory(source, voxel_size)
        config = PipelineConfig(
            steps=tuple(_configured(step, registry) for step in self.steps),
            reader=reader,
            kind=kind_of(kind),
            writer=writer_of(output, registry) if output else None,
            save=tuple(save),
            scale_factors=stated_factors(scale_factors, "scale_factors", "scale_factors=(1, 0.5, 0.5)"),
            run=self.options,
        )
        spec = volume.spec if volume else None
        return PlannedRun(plan(config, registry, spec, roi=roi, until=until), registry, volume, roi)

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
    ensemble: tuple[Member, ...] = ()
    if isinstance(step.component, Model):
        if step.weights is None:
            raise ConfigError(f"step {name!r} has no weights", hint='Step(model, weights="best.safetensors")')
        where = f"step {name!r}"
        named = (
            step.weights if isinstance(step.weights, Sequence) and not isinstance(step.weights, str) else [step.weights]
        )
        stated_weights(named, where)
        path, *others = (w if isinstance(w, Path) else weights.resolve(w, Path()) for w in named)
        header = read_header(path)
        built, _ = build("normalizer", header.normalizer, registry)
        normalizer = built if isinstance(built, Normalizer) else None
        for other in others:
            there = read_header(other)
            component = type(step.component).model_validate(there.options)
            ensemble += (member(step.component, header, component, other, there, where),)
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
        ensemble=ensemble,
    )


def load_training(
    path: str | Path, overrides: Sequence[str] = (), *, data: bool = True, registry: Registry | None = None
) -> TrainingPlan:
    """Plan the training of a TOML file; refused before a voxel is read or torch imported.

    Parameters
    ----------
    data
        False: no volume is opened, and the plan has none.
    """
    return plan_training(toml.read(Path(path), overrides), registry or installed(), data=data)


def train(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    progress: Callable[[str, int, int, Mapping[str, float]], None] = lambda _what, _done, _total, _numbers: None,
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


def preview(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    picture: str | Path | None = None,
    progress: Callable[[str, int, int, Mapping[str, float]], None] = lambda _what, _done, _total, _numbers: None,
) -> "Preview":
    """Look at a training without beginning it: what its parts hold, what a step costs, and how its samples look.

    Equal to ``mitocore train --dry-run``. Nothing is written but one picture.

    Parameters
    ----------
    picture
        A PNG of sample crops; left out: `samples.png` in the folder of the training.

    Raises
    ------
    MitocoreError
        If the training is refused, or the extra ``mitocore[torch]`` is not installed.
    """
    ready = load_training(path, overrides)
    try:
        from mitocore.learn.preview import preview as looked
    except ModuleNotFoundError as error:
        problem = f"a look at a training needs {error.name!r}"
        hint = f'pip install "mitocore[torch]"; mitocore validate {path} needs none'
        raise PluginError(problem, hint=hint) from error
    return looked(ready, picture=Path(picture) if picture else None, progress=progress)


def evaluate(
    prediction: str | Path | Volume | NDArray[Any],
    truth: str | Path | Volume | NDArray[Any],
    metrics: Sequence[str] = (),
    *,
    kind: Kind | str | None = None,
    roi: str | None = None,
    ignore: Sequence[int] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    scores: str | Path | Volume | NDArray[Any] | Mapping[int, float] | None = None,
    false_positives: str | Path | None = None,
    matches: str | Path | None = None,
    progress: Progress = _quiet,
) -> dict[str, dict[str, float]]:
    """Scores of a prediction, by metric; none named: all that fit what the prediction holds.

    Parameters
    ----------
    prediction
        An array, an open volume, or ``PATH[::KEY][:CHANNEL]``: of several channels one is compared.
    kind
        What the prediction holds ("instance", "probability", "mask" …), where its file does not say.
    roi
        Three ranges of voxels (z, y, x), such as "17:20,:,:".
    ignore
        Values of the truth that are left out, beside those that always mean "ignore".
    options
        Options by metric, such as ``{"voxel": {"thresholds": [0.3, 0.5]}}``.
    scores
        How sure the prediction is, by which `average_precision` ranks objects: a volume of probabilities, of which an
        object's mean counts; or a number by id, also as a .csv file of columns id and score. None: the larger goes
        first.
    false_positives
        A .csv file to be written: predicted objects that match no true one at an IoU of 0.5, and where they lie.
    matches
        A .csv file to be written: every pair of objects that overlap, and objects that overlap none, the worst first.
    """
    with evaluation.opened(prediction) as predicted, evaluation.opened(truth) as true, _scores(scores) as sure:
        pair = evaluation.compared(predicted, true, kind=kind_of(kind), roi=roi, ignore=ignore, scores=sure)
        chosen = evaluation.metrics_of(metrics, pair.kind, installed(), options or {})
        return object_lists.evaluate(
            pair,
            chosen,
            wrong=Path(false_positives) if false_positives else None,
            overlapping=Path(matches) if matches else None,
            progress=progress,
        )


def _scores(
    source: str | Path | Volume | NDArray[Any] | Mapping[int, float] | None,
) -> AbstractContextManager[Volume | Mapping[int, float] | None]:
    if source is None or isinstance(source, Mapping):
        return nullcontext(source)
    if isinstance(source, str | Path) and Path(source).suffix == ".csv":
        return nullcontext(read_scores(Path(source)))
    return evaluation.opened(source)
