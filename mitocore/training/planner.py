"""How a training is refused before a voxel is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from mitocore import weights
from mitocore.component import File
from mitocore.config.components import build
from mitocore.config.labelled import VolumeTable
from mitocore.config.partition import Stated, divided
from mitocore.config.places import Place, places_of
from mitocore.config.table import ComponentTable
from mitocore.config.toml import Document, Key, parse
from mitocore.config.training import Training
from mitocore.config.volumes import PlannedVolume, Unlabelled, opened
from mitocore.errors import ConfigError, DataError, MitocoreError, WiringError, together
from mitocore.interfaces import Metric, Normalizer
from mitocore.registry import Registry
from mitocore.specs import Head, Kind
from mitocore.training import objectives, parts, start
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
    hint = f"mend it, then: mitocore validate {document.path or 'train.toml'}"
    config = parse(Training, document.data, document, what="the training", hint=hint)
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
        self.skipped: list[str] = []
        self.metric: tuple[str, Metric] | None = None

    def build_components(self, findings: _Findings) -> None:
        config = self.config
        begun: start.Start | None = None
        with findings.gather():
            begun = self.start = start.started(config.model, self._component, self.document)
            self.model, self.tables["model"] = self.start.model, self.start.table
            if named := self.model.parts():
                with findings.gather(self.document.where("train")):
                    parts.check_parts(config.train, named)
            size = self.start.voxel_size(config.train.voxel_size, self.document.where("train", "voxel_size"))
            train = config.train.model_copy(update={"voxel_size": size})
            self.config = config = config.model_copy(update={"train": train})
        with findings.gather():
            if begun or config.normalizer:  # else it may be that of weights that cannot be read
                self.normalizer, self.tables["normalizer"] = self._normalizer(begun)
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
        for number, compared in enumerate(self.compared):
            where = self.document.where("objective", number)
            with findings.gather(where):
                self.objectives.append(objectives.wired(compared, heads, where))
                for volume in self.config.volume:
                    objectives.check_labels(self.objectives[-1], volume, where)
        trained = {name for objective in self.config.objective for name in objective.names}
        if untrained := [name for name, head in heads.items() if not head.auxiliary and name not in trained]:
            hint = f'[[objective]] with head = "{untrained[0]}", or a model without it'
            findings.append(WiringError(f"no objective trains head {untrained[0]!r} of the model", hint=hint))
        with findings.gather(self.document.where("train", "keep_best")):
            self.metric = self._metric(heads)
        with findings.gather(self.document.where("train", "crop")):
            self.crop = checked_crop(self.config.train.crop, self.start.window)

    def open_volumes(self, findings: _Findings) -> None:
        stated: list[Stated] = []
        for number, table in enumerate(self.config.volume):
            places: tuple[Place, ...] = ()
            with findings.gather(self.document.where("volume", number)):
                places = places_of(table, number, self.registry, self.document)
            for place in places:
                with findings.gather(self.document.where("volume", number)):
                    if volume := self._opened(table, number, place):
                        stated.append(Stated(volume, table, number))
        findings.stop()
        window = self.start.window
        with findings.gather():
            self.volumes = divided(stated, self.config.split, window, self.crop, self.document)
        findings.stop()
        for number, objective in enumerate(self.objectives):
            with findings.gather(self.document.where("objective", number)):
                for encoder, size in product(objective.encoders, {volume.spec.voxel_size for volume in self.volumes}):
                    encoder.halo(size)  # where a length needs a voxel size that is not known, it says so
        boxes = {
            "training": any(volume.parts.train for volume in self.volumes),
            "validation": any(volume.parts.validation for volume in self.volumes),
        }
        where, hint = self.document.where("volume", 0), 'split = { validation = "z:0.85-1.0" }'
        empty = [part for part, found in boxes.items() if not found]
        gap = self.config.volume[0].split.gap
        if "training" in empty and gap not in ("auto", 0):
            hint = f"smaller parts for validation and test, or a smaller gap around them; it is {gap!r}"
        findings += [ConfigError(f"no volume has a part for {part}", where=where, hint=hint) for part in empty]
        self.tables["volume"] = [volume.table for volume in self.volumes]

    def _opened(self, table: VolumeTable, number: int, place: Place) -> PlannedVolume | None:
        """One volume, not divided yet; None: it has no labels and may be left out."""
        channels, size = self.model.channels(), self.config.train.voxel_size
        try:
            volume = opened(table, number, place, channels, size, self.registry, self.document)
        except Unlabelled as error:
            if table.skip_unlabelled:
                self.skipped.append(f"{place.path}: {error.problem}")
                return None
            if not place.alone:
                problem = error.problem if place.path in error.problem else f"{place.path!r}: {error.problem}"
                hint = f"{error.hint}; " if error.hint else ""
                hint += "skip_unlabelled = true leaves such volumes out"
                raise DataError(problem, where=error.where, hint=hint) from error
            raise
        self.start.check_volume(volume.path, volume.spec.voxel_size)
        return volume

    def finished(self) -> TrainingPlan:
        train = self.config.train
        settings = train.model_dump(mode="json", exclude={"devices", "workers", "folder", "pictures"})
        self.tables["train"] = {**settings, "crop": list(self.crop)}
        if self.start.weights:
            self.tables["weights"] = weights.sha256(self.start.weights)
        if self.start.initial:
            self.tables["initial"] = weights.sha256(self.start.initial)
        if train.processes > 1:
            self.tables["train"]["processes"] = train.processes
        stem = self.document.path.stem if self.document.path else "train"
        folder = self.document.folder_of("train", "folder") / (train.folder or f"runs/{stem}")
        return TrainingPlan(
            seed=self.config.seed,
            model=self.model,
            component=self.tables["model"]["model"],
            window=trained_window(self.start.window, self.crop),
            crop=self.crop,
            normalizer=self.normalizer,
            sampler=self.sampler,
            augments=self.augments,
            objectives=tuple(self.objectives),
            volumes=tuple(self.volumes),
            skipped=tuple(self.skipped),
            train=train,
            folder=folder,
            metric=self.metric,
            others=self._others(),
            start=self.start.weights,
            initial=self.start.initial,
            description=self.config.description,
            pipeline=self.config.step,
            tables=self.tables,
        )

    def _component(self, kind: str, value: ComponentTable, *keys: Key) -> tuple[Any, Table]:
        component, entry = build(kind, value, self.registry, self.document, *keys, allow=("weights", "initial"))
        for name in sorted(component.marked(File)):
            if (path := getattr(component, name)) and Path(path).is_file():
                place = " ".join(map(str, (*keys, name)))
                self.tables.setdefault("files", {})[place] = {"content": weights.sha256(Path(path))}
        return component, {kind: entry.qualified, **component.model_dump(mode="json")}

    def _normalizer(self, begun: start.Start | None) -> tuple[Normalizer, Table]:
        value = self.config.normalizer or (begun.header.normalizer if begun and begun.header else None)
        if value is None:
            where, hint = str(self.document.path or ""), 'normalizer = "percentile" in a table [normalizer]'
            raise ConfigError("the training has no normalizer", where=where, hint=hint)
        normalizer, table = self._component("normalizer", value, "normalizer")
        if begun:
            start.check_normalizer(begun, table, self._component, self.document.where("normalizer"))
        return normalizer, table

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
        if heads[name].kind not in (metric.compares, *metric.also):
            raise WiringError(f"{of}, and head {name!r} gives {heads[name].kind}", hint='keep_best = "loss"')
        if any(metric.halo(None)):
            raise WiringError(f"{of} with context, which validation does not give it", hint='keep_best = "loss"')
        wired = len(self.objectives) == len(self.compared)  # else what is missing has been said
        if wired and not any(objective.target and objective.name == name for objective in self.objectives):
            problem = f"keep_best = {stated!r}, but no objective compares head {name!r} alone with a target"
            raise WiringError(problem, hint='keep_best = "loss"')
        return name, metric

    def _others(self) -> dict[str, Metric]:
        """Dice of what is or is not there, the mean absolute error of numbers: for heads that keep_best leaves out."""
        found: dict[str, Metric] = {}
        for objective in self.objectives:
            if objective.target and len(objective.heads) == 1 and not objective.heads[0].auxiliary:
                chances = objective.heads[0].kind in (Kind.PROBABILITY, Kind.AFFINITY)
                binary = chances and objective.heads[0].activation != "none"
                metric, _ = build("metric", "builtin/dice" if binary else "builtin/mae", self.registry)
                if isinstance(metric, Metric) and objective.heads[0].kind in (metric.compares, *metric.also):
                    found[objective.name] = metric
        return {name: metric for name, metric in found.items() if not self.metric or name != self.metric[0]}
