"""What is left to do of a training that was not refused."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mitocore.config.optimisation import Train
from mitocore.config.split import AXES
from mitocore.config.volumes import PlannedVolume
from mitocore.geometry import Roi, Shape, VoxelSize
from mitocore.header import WeightsHeader
from mitocore.interfaces import Augment, Loss, Metric, Model, Normalizer, Sampler, Target
from mitocore.specs import Head, Window

Table = dict[str, Any]


@dataclass(frozen=True)
class PlannedObjective:
    """One term of the loss."""

    heads: tuple[Head, ...]
    """One; or several that the loss relates to each other."""
    target: Target | None
    """None: the loss only relates heads."""
    loss: Loss
    weight: float
    weight_maps: tuple[Target, ...] = ()
    """How much a voxel counts is their product, and 0 where labels are unknown."""
    auxiliary: tuple[tuple[Head, float], ...] = ()
    """Further heads compared with the same target (deep supervision), each with its factor."""

    @property
    def name(self) -> str:
        """The heads, as logs call them."""
        return "+".join(head.name for head in self.heads)

    @property
    def encoders(self) -> tuple[Target, ...]:
        """Target and weight maps: whatever reads labels."""
        return (*((self.target,) if self.target else ()), *self.weight_maps)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label arrays it reads."""
        return tuple(dict.fromkeys(name for encoder in self.encoders for name in encoder.needs()))


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
    """In voxels of the size that is trained at."""
    train: Train
    folder: Path
    metric: tuple[str, Metric] | None = None
    """Head and metric that say what best means; None: the validation loss."""
    others: Mapping[str, Metric] = field(default_factory=dict)
    """What the other heads are scored with, for people to see."""
    start: Path | None = None
    """Weights to start from."""
    initial: Path | None = None
    """A file of which the tensors that fit are the first weights."""
    skipped: tuple[str, ...] = ()
    """Volumes left out because they have no labels, and what is wrong with these."""
    pipeline: tuple[Table, ...] = ()
    """Recommended post-processing, for the header."""
    description: str = ""
    """What the weights are for."""
    tables: Table = field(default_factory=dict)
    """All settings that decide the result, defaults included, as they would stand in TOML."""

    @property
    def voxel_size(self) -> VoxelSize | tuple[VoxelSize, VoxelSize] | None:
        """Of the volumes: one, (smallest, largest), or unknown."""
        if self.train.voxel_size:
            return self.train.voxel_size
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
            description=self.description,
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
        start += f", first tensors of {self.initial}" if self.initial else ""
        rows = [
            f"{self.component}{start}",
            f"  {train.steps} steps of {train.batch * train.accumulate} crops of {dimensions(self.crop)} voxels",
            f"  {train.optimizer.name}, learning rate {train.optimizer.lr:g}, {train.schedule.name}, {train.precision}",
            f"  normalizer {self.tables['normalizer']['normalizer']}, sampler {self.tables['sampler']['sampler']}",
        ]
        rows += [f"  augment {table['augment']}" for table in self.tables["augment"]]
        rows += [
            f"  objective {', '.join(o['heads'])}: {_named(o)}, weight {o['weight']:g}"
            for o in self.tables["objective"]
        ]
        for volume in self.volumes:
            size = volume.spec.voxel_size or "voxel size unknown"
            rows.append(f"  volume {volume.path}: {dimensions(volume.spec.shape)} voxels, {size}")
            if volume.resampling:
                source = volume.original
                rows.append(f"    resampled from {dimensions(source.shape)} voxels, {source.voxel_size}")
            parts = volume.parts
            held = {"train": parts.train, "validation": parts.validation, "test": parts.test}
            named = [(name, box) for name, boxes in held.items() for box in boxes]
            rows += [f"    {name:<10} {_ranges(box):<32} {box.voxels:>14,} voxels" for name, box in named]
        rows += [f"  left out: {volume}" for volume in self.skipped]
        best = f"{train.keep_best}, every {train.validate_every} steps"
        return "\n".join([*rows, f"  best by {best}", f"  folder {self.folder}"])


def _named(objective: Table) -> str:
    """Names of heads, target, loss and weight maps."""
    target = [objective["target"]["target"]] if objective["target"] else []
    terms = [*target, objective["loss"]["loss"], *(weight_map["target"] for weight_map in objective["weight_map"])]
    return f"{', '.join(objective['heads'])}: {', '.join(terms)}"


def dimensions(shape: Shape) -> str:
    """As people write it.

    >>> dimensions((16, 128, 128))
    '16 x 128 x 128'
    """
    return " x ".join(map(str, shape))


def _ranges(box: Roi) -> str:
    return ", ".join(f"{axis} {a}:{b}" for axis, a, b in zip(AXES, box.start, box.stop, strict=True))
