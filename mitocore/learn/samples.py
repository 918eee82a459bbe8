"""A picture of sample crops: raw, labels, every channel that is learned, and how much a voxel counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.config.split import AXES
from mitocore.durable import replaced
from mitocore.geometry import VoxelSize
from mitocore.learn.data import Sample
from mitocore.learn.encode import VALID, cut
from mitocore.learn.looks import Look, labelled, look
from mitocore.pictures import Picture, figure, scale_bar
from mitocore.specs import Kind
from mitocore.training import TrainingPlan

_INCHES, _DPI = 1.9, 130
_ACROSS = 9  # columns that are still legible; of more arrays, each is a row
_FLAT = 4  # sections of a crop that show nothing from the side
_GAP = 0.03  # between the two sections, as a share of the width


@dataclass(frozen=True)
class _Column:
    """One array of all samples."""

    title: str
    volumes: list[NDArray[Any]]
    """(z, y, x) of each sample."""
    look: Look | None = None
    """None: labels."""


def draw(path: Path, plan: TrainingPlan, samples: Sequence[Sample]) -> None:
    """Write a PNG with the middle section of each sample, and below it, of deep crops, the one from the side (x, z).

    What is learned stands beside what it was made of, after augmentation: a flipped image over labels that stayed, a
    target with its axes exchanged or a weight of 0 everywhere is seen at once.

    Raises
    ------
    ResourceError
        If the disk is full.
    DataError
        If the file cannot be written for another reason.
    """
    raws = [cut(sample.image, plan.window.crop) for sample in samples]
    grey = _grey(raws)
    columns = [_Column("raw" if len(raws[0]) == 1 else "raw, first channel", [raw[0] for raw in raws], grey)]
    columns += [_Column(name, [s.labels[name] for s in samples]) for name in samples[0].labels if name != VALID]
    columns += _targets(plan, samples) + _weights(plan, samples)
    size = samples[0].voxel_size or VoxelSize(1, 1, 1)
    names = [_named(plan, sample) for sample in samples]
    flipped = len(columns) > _ACROSS
    down, across = (len(columns), len(samples)) if flipped else (len(samples), len(columns))
    tall = _height(raws[0].shape[-3:], size)
    made = figure(_INCHES * across + 1.1, (_INCHES * tall + 0.12) * down + 0.5, _DPI)
    grid = made.subplots(down, across, squeeze=False)
    for at, sample in enumerate(samples):
        for number, column in enumerate(columns):
            axes = grid[number, at] if flipped else grid[at, number]
            volume, own = column.volumes[at], sample.voxel_size or VoxelSize(1, 1, 1)
            _show(axes, column, volume, raws[at][0], grey, own)
            axes.set(xticks=[], yticks=[], frame_on=False)
            title, label = (names[at], column.title) if flipped else (column.title, names[at])
            if (number if flipped else at) == 0:
                axes.set_title(title, fontsize=7)
            if (at if flipped else number) == 0:
                axes.set_ylabel(label, fontsize=6.5, rotation=0, ha="right", va="center")
    if samples[0].voxel_size:
        across_voxels = raws[0].shape[-1]
        scale_bar(grid[0, 0], VoxelSize(size.z, size.x, size.x), across_voxels, raws[0].shape[-2] * size.y / size.x)
    if raws[0].shape[1] > _FLAT:
        made.supxlabel("above: the middle section (x, y); below: from the side (x, z)", fontsize=7)
    with replaced(path) as file:
        made.savefig(file, format="png")


def _targets(plan: TrainingPlan, samples: Sequence[Sample]) -> list[_Column]:
    """The channels of all targets; a target that several heads learn is shown once."""
    found: list[_Column] = []
    seen: list[object] = []
    for number, objective in enumerate(plan.objectives):
        target = objective.target
        if target is None or target in seen:
            continue
        seen.append(target)
        arrays, spec = [sample.pairs[number][0] for sample in samples], target.gives()
        of_kind = look(spec.kind, arrays)
        for channel, name in enumerate(spec.channels):
            title = objective.name if name in ("", objective.name) else f"{objective.name}\n{name}"
            found.append(_Column(_ranged(title, spec.kind, of_kind), [array[channel] for array in arrays], of_kind))
    return found


def _weights(plan: TrainingPlan, samples: Sequence[Sample]) -> list[_Column]:
    """How much voxels count, by objective; once if it is the same for all."""
    found: dict[str, list[NDArray[Any]]] = {}
    for number, objective in enumerate(plan.objectives):
        volumes = [sample.pairs[number][1][0] for sample in samples]
        if not any(all(map(np.array_equal, volumes, others)) for others in found.values()):
            found[objective.name] = volumes
    several = len(found) > 1
    columns = []
    for name, volumes in found.items():
        of_kind = look(Kind.WEIGHT, volumes)
        title = f"weight\n{name}" if several else "weight"
        values = {float(edge) for volume in volumes for edge in (volume.min(), volume.max())}
        alike = f"{title}, {values.pop():.3g} everywhere" if len(values) == 1 else ""
        columns.append(_Column(alike or _ranged(title, Kind.WEIGHT, of_kind), volumes, of_kind))
    return columns


def _ranged(title: str, kind: Kind, of_kind: Look) -> str:
    """A title with the values of the darkest and the brightest colour, where they are not 0 and 1."""
    unit = " nm" if kind is Kind.DISTANCE and of_kind.high > 1 else ""
    plain = (of_kind.low, of_kind.high) == (0.0, 1.0)
    return title if plain and kind is not Kind.WEIGHT else f"{title}, {of_kind.low:.3g} … {of_kind.high:.3g}{unit}"


def _grey(raws: Sequence[NDArray[np.float32]]) -> Look:
    """One range of grey for all samples, so that augments of the contrast are seen."""
    low, high = np.percentile(np.concatenate([raw[0].ravel() for raw in raws]), (0.5, 99.5))
    return Look("gray", float(low), max(float(high), float(low) + 1e-6))


def _named(plan: TrainingPlan, sample: Sample) -> str:
    ranges = zip(AXES, sample.roi.start, sample.roi.stop, strict=True)
    lines = [f"sample {sample.number}", *(f"{axis} {a}:{b}" for axis, a, b in ranges)]
    if len(plan.volumes) > 1:
        lines.insert(1, Path(plan.volumes[sample.volume].path.partition("::")[0]).name)
    return "\n".join(lines)


def _height(shape: Sequence[int], size: VoxelSize) -> float:
    """Of a panel whose width is 1."""
    depth, height, width = shape
    side = _GAP + depth * size.z / (width * size.x) if depth > _FLAT else 0
    return height * size.y / (width * size.x) + side


def _show(
    axes: Any, column: _Column, volume: NDArray[Any], raw: NDArray[np.float32], grey: Look, size: VoxelSize
) -> None:
    """The section in the middle, and the one from the side below it; one unit is the width of a voxel."""
    depth, height, width = volume.shape
    tall, deep = height * size.y / size.x, depth * size.z / size.x
    middle = np.s_[depth // 2], np.s_[:, height // 2]
    sections = [(middle[0], (0, tall))]
    if depth > _FLAT:
        top = tall + _GAP * width
        sections.append((middle[1], (top, top + deep)))
    for where, (top, bottom) in sections:
        picture: Picture = (
            column.look.picture(volume[where]) if column.look else labelled(grey.picture(raw[where]), volume[where])
        )
        axes.imshow(picture, extent=(0, width, bottom, top), interpolation="nearest", aspect="equal")
    axes.set(xlim=(0, width), ylim=(sections[-1][1][1], 0))
