"""How a training is refused before a voxel is read, and what is left to do if it is not."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mitocore import weights
from mitocore.component import AtInference, Component
from mitocore.config.components import build
from mitocore.config.split import AXES, Parts
from mitocore.config.toml import Document, Key, near, parse
from mitocore.config.training import ComponentTable, LabelValues, ObjectiveTable, Train, Training
from mitocore.config.volumes import PlannedVolume, plan_volume
from mitocore.errors import ConfigError, DataError, MitocoreError, WiringError, together
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.header import WeightsHeader, read_header
from mitocore.interfaces import Augment, Loss, Metric, Model, Normalizer, Reader, Sampler, Target
from mitocore.registry import Registry
from mitocore.specs import Axis, Head, Window

Table = dict[str, Any]


@dataclass(frozen=True)
class PlannedObjective:
    """One loss of the sum."""

    head: Head
    target: Target
    loss: Loss
    weight: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label arrays the target reads."""
        return tuple(self.target.needs())


@dataclass(frozen=True)
class TrainingPlan:
    """A checked training: `mitocore.learn.fit.fit(plan)` runs it."""

    seed: int
    model: Model
    component: str
    """Qualified name of the model."""
    window: Window
    """As trained: the crop, with context and overlap of the model's own window."""
    crop: Shape
    """Voxels the network sees in training."""
    normalizer: Normalizer
    sampler: Sampler
    augments: tuple[Augment, ...]
    objectives: tuple[PlannedObjective, ...]
    volumes: tuple[PlannedVolume, ...]
    train: Train
    folder: Path
    metric: tuple[str, Metric] | None = None
    """Head and metric that say what best means; None: the validation loss."""
    start: Path | None = None
    """Weights to start from."""
    pipeline: tuple[Table, ...] = ()
    """Recommended post-processing, for the header."""
    tables: Table = field(default_factory=dict)
    """All settings that decide the result, defaults included, as they would stand in TOML."""

    @property
    def voxel_size(self) -> VoxelSize | tuple[VoxelSize, VoxelSize] | None:
        """Of the volumes: one, (smallest, largest), or unknown."""
        sizes = [volume.spec.voxel_size for volume in self.volumes]
        known = sorted({size for size in sizes if size}, key=lambda size: size.volume)
        if None in sizes or not known:
            return None
        return known[0] if len(known) == 1 else (known[0], known[-1])

    @property
    def digest(self) -> str:
        """Fingerprint of the settings that decide the result."""
        return hashlib.sha256(json.dumps(self.tables, sort_keys=True).encode()).hexdigest()[:16]

    def header(self, **more: Any) -> WeightsHeader:
        """What weights of this training say of themselves; `more` are further fields."""
        return WeightsHeader(
            component=self.component,
            options=self.model.model_dump(mode="json"),
            channels=self.model.channels(),
            heads=self.model.heads(),
            window=self.window,
            voxel_size=self.voxel_size,
            pipeline=self.pipeline,
            normalizer=self.tables["normalizer"],
            **more,
        )

    def __str__(self) -> str:
        train = self.train
        start = f", starting from {self.start}" if self.start else ""
        rows = [
            f"{self.component}{start}",
            f"  {train.steps} steps of {train.batch * train.accumulate} crops of {_text(self.crop)} voxels",
            f"  {train.optimizer.name}, learning rate {train.optimizer.lr:g}, {train.schedule.name}, {train.precision}",
            f"  normalizer {self.tables['normalizer']['normalizer']}, sampler {self.tables['sampler']['sampler']}",
        ]
        rows += [f"  augment {table['augment']}" for table in self.tables["augment"]]
        rows += [
            f"  objective {o['head']}: {o['target']['target']}, {o['loss']['loss']}, weight {o['weight']:g}"
            for o in self.tables["objective"]
        ]
        for volume in self.volumes:
            size = volume.spec.voxel_size or "voxel size unknown"
            rows.append(f"  volume {volume.path}: {_text(volume.spec.shape)} voxels, {size}")
            held = {"validation": volume.parts.validation, "test": volume.parts.test}
            named = [("train", box) for box in volume.parts.train] + [(n, box) for n, box in held.items() if box]
            rows += [f"    {name:<10} {_ranges(box):<32} {box.voxels:>14,} voxels" for name, box in named]
        best = f"{train.keep_best}, every {train.validate_every} steps"
        return "\n".join([*rows, f"  best by {best}", f"  folder {self.folder}"])


class _Findings(list[MitocoreError]):
    """What is wrong, gathered until a stage is over."""

    @contextmanager
    def gather(self, where: str = "") -> Iterator[None]:
        try:
            yield
        except MitocoreError as error:
            error.where = error.where or where
            self.extend([error, *error.others])

    def stop(self) -> None:
        if self:
            raise together(self)


def plan_training(document: Document, registry: Registry, *, data: bool = True) -> TrainingPlan:
    """Check a `train.toml` as far as file headers allow: no voxel is read and torch is not imported.

    Parameters
    ----------
    data
        False: no volume is opened, and the plan has none; components and their wiring are checked.

    Raises
    ------
    MitocoreError
        With all findings of the first stage that has any: components, wiring, volumes.
    """
    config = parse(Training, document.data, document, what="the training")
    plan = _Planning(config, document, registry)
    findings = _Findings()
    plan.build_components(findings)
    findings.stop()
    plan.wire(findings)
    findings.stop()
    if data:
        plan.open_volumes(findings)
        findings.stop()
    return plan.finished()


class _Planning:
    """The stages of `plan_training`, which fill this object."""

    def __init__(self, config: Training, document: Document, registry: Registry) -> None:
        self.config, self.document, self.registry = config, document, registry
        self.tables: Table = {"seed": config.seed, "step": list(config.step)}
        self.start: Path | None = None
        self.header: WeightsHeader | None = None
        self.objectives: list[PlannedObjective] = []
        self.volumes: list[PlannedVolume] = []
        self.metric: tuple[str, Metric] | None = None

    def build_components(self, findings: _Findings) -> None:
        config = self.config
        with findings.gather():
            self.model, self.tables["model"] = self._model()
        with findings.gather():
            self.normalizer, self.tables["normalizer"] = self._normalizer()
        with findings.gather():
            self.sampler, self.tables["sampler"] = self._component("sampler", config.sampler, "sampler")
        built = []
        for number, value in enumerate(config.augment):
            with findings.gather():
                built.append(self._component("augment", value, "augment", number))
        self.augments = tuple(augment for augment, _ in built)
        self.tables["augment"] = [table for _, table in built]
        self.tables["objective"] = []
        self.compared: list[tuple[ObjectiveTable, Target, Loss]] = []
        for number, objective in enumerate(config.objective):
            keys = ("objective", number)
            with findings.gather():
                target, target_table = self._component("target", objective.target, *keys, "target")
                loss, loss_table = self._component("loss", objective.loss, *keys, "loss")
                self.compared.append((objective, target, loss))
                words = {"head": objective.head, "weight": objective.weight}
                self.tables["objective"].append({**words, "target": target_table, "loss": loss_table})
        for number, step in enumerate(config.step):
            with findings.gather():
                build("postprocessor", step, self.registry, self.document, "step", number, allow=("name", "inputs"))

    def wire(self, findings: _Findings) -> None:
        heads = {head.name: head for head in self.model.heads()}
        for number, (objective, target, loss) in enumerate(self.compared):
            where = self.document.where("objective", number)
            with findings.gather(where):
                self.objectives.append(self._objective(objective, target, loss, heads, where))
        trained = {objective.head for objective in self.config.objective}
        if untrained := [name for name, head in heads.items() if not head.auxiliary and name not in trained]:
            hint = f'[[objective]] with head = "{untrained[0]}", or a model without it'
            findings.append(WiringError(f"no objective trains head {untrained[0]!r} of the model", hint=hint))
        with findings.gather(self.document.where("train", "keep_best")):
            self.metric = self._metric(heads)
        with findings.gather(self.document.where("train", "crop")):
            self.crop = _checked_crop(self.config.train.crop, self.model.window())

    def open_volumes(self, findings: _Findings) -> None:
        for number, table in enumerate(self.config.volume):
            with findings.gather(self.document.where("volume", number)):
                opened = plan_volume(table, number, self.model, self.crop, self.registry, self.document)
                self.volumes.append(opened)
        findings.stop()
        boxes = {
            "training": any(volume.parts.train for volume in self.volumes),
            "validation": any(volume.parts.validation for volume in self.volumes),
        }
        where, hint = self.document.where("volume", 0), 'split = { validation = "z:0.85-1.0" }'
        empty = [part for part, found in boxes.items() if not found]
        findings += [ConfigError(f"no volume has a part for {part}", where=where, hint=hint) for part in empty]
        names = ("image", "labels", "valid", "values", "weight", "parts")
        self.tables["volume"] = [{name: _plain(getattr(v, name)) for name in names} for v in self.volumes]

    def finished(self) -> TrainingPlan:
        train = self.config.train
        settings = train.model_dump(mode="json", exclude={"devices", "workers", "folder"})
        self.tables["train"] = {**settings, "crop": list(self.crop)}
        if self.start:
            self.tables["weights"] = weights.sha256(self.start)
        stem = self.document.path.stem if self.document.path else "train"
        folder = self.document.folder_of("train", "folder") / (train.folder or f"runs/{stem}")
        return TrainingPlan(
            seed=self.config.seed,
            model=self.model,
            component=self.tables["model"]["model"],
            window=_trained_window(self.model.window(), self.crop),
            crop=self.crop,
            normalizer=self.normalizer,
            sampler=self.sampler,
            augments=self.augments,
            objectives=tuple(self.objectives),
            volumes=tuple(self.volumes),
            train=train,
            folder=folder,
            metric=self.metric,
            start=self.start,
            pipeline=self.config.step,
            tables=self.tables,
        )

    def _component(self, kind: str, value: ComponentTable, *keys: Key) -> tuple[Any, Table]:
        component, entry = build(kind, value, self.registry, self.document, *keys, allow=("weights",))
        return component, {kind: entry.qualified, **component.model_dump(mode="json")}

    def _model(self) -> tuple[Model, Table]:
        value = self.config.model
        table: Table = {"model": value} if isinstance(value, str) else value
        if "weights" not in table:
            return self._component("model", table, "model")
        where = self.document.where("model", "weights")
        try:
            self.start = weights.resolve(str(table["weights"]), self.document.folder_of("model", "weights"))
            self.header = read_header(self.start)
        except DataError as error:
            error.where = error.where or where
            raise
        _, named = self._component("model", {"model": self.header.component, **self.header.options}, "model")
        stated = {"model": self.header.component, **self.header.options, **table}
        model, found = self._component("model", stated, "model")
        if found["model"] != named["model"]:
            hint = "leave `model` out, or start without weights"
            problem = f"{str(self.start)!r} holds weights of {named['model']!r}, not of {found['model']!r}"
            raise ConfigError(problem, where=where, hint=hint)
        other = [n for n in found if n not in model.marked(AtInference) and found[n] != named[n]]
        if other:
            name = other[0]
            problem = f"{name} = {found[name]!r}, but the weights to start from have {named[name]!r}"
            raise ConfigError(problem, where=self.document.where("model", name), hint=f"leave {name} out")
        return model, found

    def _normalizer(self) -> tuple[Normalizer, Table]:
        value = self.config.normalizer or (self.header.normalizer if self.header else None)
        if value is None:
            where, hint = str(self.document.path or ""), 'normalizer = "percentile" in a table [normalizer]'
            raise ConfigError("the training has no normalizer", where=where, hint=hint)
        return self._component("normalizer", value, "normalizer")

    def _objective(
        self, objective: ObjectiveTable, target: Target, loss: Loss, heads: Mapping[str, Head], where: str
    ) -> PlannedObjective:
        if objective.head not in heads:
            raise WiringError(
                f"the model has no head {objective.head!r}", where=where, hint=near(objective.head, heads)
            )
        head = heads[objective.head]
        loss.accepts((head,), target.gives())
        needed = {name: need for name, need in target.needs().items() if not need.optional}
        for table in self.config.volume:
            have = set(table.labels) if isinstance(table.labels, dict) else {"instances"}
            if missing := needed.keys() - have:
                name = min(missing)
                problem = f"the target of head {head.name!r} needs label array {name!r}, which {table.path!r} lacks"
                raise WiringError(problem, where=where, hint=f'labels = {{ {name} = "…" }} in [[volume]]')
        return PlannedObjective(head, target, loss, objective.weight)

    def _metric(self, heads: Mapping[str, Head]) -> tuple[str, Metric] | None:
        stated = self.config.train.keep_best
        if stated == "loss":
            return None
        name, dot, metric_name = stated.partition(".")
        if not dot or name not in heads or heads[name].auxiliary:
            hint = f'keep_best = "{min(heads)}.dice", or "loss"'
            raise ConfigError(f"keep_best = {stated!r} names no head of the model", hint=hint)
        metric, _ = self._component("metric", metric_name, "train", "keep_best")
        of = f"{metric_name!r} compares {metric.compares}"
        if metric.compares != heads[name].kind:
            raise WiringError(f"{of}, and head {name!r} gives {heads[name].kind}", hint='keep_best = "loss"')
        if any(metric.halo(None)):
            raise WiringError(f"{of} with context, which validation does not give it", hint='keep_best = "loss"')
        return name, metric


def _checked_crop(stated: Shape | None, window: Window) -> Shape:
    if stated is None and "all" in window.shape:
        raise ConfigError("the model takes whole sections, so the crop must be stated", hint="crop = [1, 256, 256]")
    crop = as_shape(int(n) for n in (stated or window.shape))
    for size, context, divisor in zip(crop, window.crop, window.divisor, strict=True):
        if size % divisor or size <= 2 * context:
            near_by = as_shape(
                max(-(-n // d), -(-(2 * c + 1) // d)) * d
                for n, c, d in zip(crop, window.crop, window.divisor, strict=True)
            )
            rule = f"multiples of {_text(window.divisor)}"
            rule += f" above {_text(as_shape(2 * c for c in window.crop))}" if any(window.crop) else ""
            raise ConfigError(f"a crop of {_text(crop)} does not fit the model: {rule}", hint=f"crop = {list(near_by)}")
    return crop


def _trained_window(window: Window, crop: Shape) -> Window:
    """The window weights are used with: the crop; an axis that is "all" stays so."""
    shape: list[Axis] = ["all" if n == "all" else c for n, c in zip(window.shape, crop, strict=True)]
    overlap = [
        0 if n == "all" else v * (c - 2 * k) // (n - 2 * k)
        for n, c, k, v in zip(window.shape, crop, window.crop, window.overlap, strict=True)
    ]
    z, y, x = shape
    return replace(window, shape=(z, y, x), overlap=as_shape(overlap))


def _plain(value: Any) -> Any:
    """What JSON can hold of a planned volume."""
    if isinstance(value, Reader):  # what it reads, wherever that lies
        options = value.model_dump(mode="json", exclude={"path"})
        return {"reader": type(value).__name__, **options, "content": value.fingerprint()}
    if isinstance(value, Component):
        return value.model_dump(mode="json")
    if isinstance(value, LabelValues):
        return value.model_dump(mode="json")
    if isinstance(value, Parts):
        return {n: _plain(getattr(value, n)) for n in ("train", "validation", "test")}
    if isinstance(value, Roi):
        return [list(value.start), list(value.stop)]
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _ranges(box: Roi) -> str:
    return ", ".join(f"{axis} {a}:{b}" for axis, a, b in zip(AXES, box.start, box.stop, strict=True))
