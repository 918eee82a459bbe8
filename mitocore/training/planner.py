"""How a training is refused before a voxel is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mitocore import weights
from mitocore.component import Component
from mitocore.config.components import build
from mitocore.config.labelled import LabelValues
from mitocore.config.split import Parts
from mitocore.config.table import ComponentTable
from mitocore.config.toml import Document, Key, parse
from mitocore.config.training import Training
from mitocore.config.volumes import PlannedVolume, plan_volume
from mitocore.errors import ConfigError, MitocoreError, WiringError, together
from mitocore.geometry import Roi
from mitocore.interfaces import Metric, Normalizer, Reader
from mitocore.registry import Registry
from mitocore.specs import Head
from mitocore.training import objectives, start
from mitocore.training.plan import PlannedObjective, Table, TrainingPlan
from mitocore.training.window import checked_crop, trained_window


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
        self.objectives: list[PlannedObjective] = []
        self.volumes: list[PlannedVolume] = []
        self.metric: tuple[str, Metric] | None = None

    def build_components(self, findings: _Findings) -> None:
        config = self.config
        with findings.gather():
            self.start = start.started(config.model, self._component, self.document)
            self.model, self.tables["model"] = self.start.model, self.start.table
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
        self.compared: list[objectives.Compared] = []
        for number, objective in enumerate(config.objective):
            with findings.gather():
                self.compared.append(objectives.built(objective, number, self._component))
        self.tables["objective"] = [compared.table for compared in self.compared]
        for number, step in enumerate(config.step):
            with findings.gather():
                build("postprocessor", step, self.registry, self.document, "step", number, allow=("name", "inputs"))

    def wire(self, findings: _Findings) -> None:
        heads = {head.name: head for head in self.model.heads()}
        have = {
            table.path: set(table.labels) if isinstance(table.labels, dict) else {"instances"}
            for table in self.config.volume
        }
        for number, compared in enumerate(self.compared):
            where = self.document.where("objective", number)
            with findings.gather(where):
                self.objectives.append(objectives.wired(compared, heads, where))
                objectives.check_labels(self.objectives[-1], have, where)
        trained = {name for objective in self.config.objective for name in objective.names}
        if untrained := [name for name, head in heads.items() if not head.auxiliary and name not in trained]:
            hint = f'[[objective]] with head = "{untrained[0]}", or a model without it'
            findings.append(WiringError(f"no objective trains head {untrained[0]!r} of the model", hint=hint))
        with findings.gather(self.document.where("train", "keep_best")):
            self.metric = self._metric(heads)
        with findings.gather(self.document.where("train", "crop")):
            self.crop = checked_crop(self.config.train.crop, self.model.window())

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
        if self.start.weights:
            self.tables["weights"] = weights.sha256(self.start.weights)
        stem = self.document.path.stem if self.document.path else "train"
        folder = self.document.folder_of("train", "folder") / (train.folder or f"runs/{stem}")
        return TrainingPlan(
            seed=self.config.seed,
            model=self.model,
            component=self.tables["model"]["model"],
            window=trained_window(self.model.window(), self.crop),
            crop=self.crop,
            normalizer=self.normalizer,
            sampler=self.sampler,
            augments=self.augments,
            objectives=tuple(self.objectives),
            volumes=tuple(self.volumes),
            train=train,
            folder=folder,
            metric=self.metric,
            start=self.start.weights,
            description=self.config.description,
            pipeline=self.config.step,
            tables=self.tables,
        )

    def _component(self, kind: str, value: ComponentTable, *keys: Key) -> tuple[Any, Table]:
        component, entry = build(kind, value, self.registry, self.document, *keys, allow=("weights",))
        return component, {kind: entry.qualified, **component.model_dump(mode="json")}

    def _normalizer(self) -> tuple[Normalizer, Table]:
        value = self.config.normalizer or (self.start.header.normalizer if self.start.header else None)
        if value is None:
            where, hint = str(self.document.path or ""), 'normalizer = "percentile" in a table [normalizer]'
            raise ConfigError("the training has no normalizer", where=where, hint=hint)
        return self._component("normalizer", value, "normalizer")

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
