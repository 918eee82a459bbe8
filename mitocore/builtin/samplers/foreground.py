"""Crops around chosen voxels: foreground, classes, hard negatives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from mitocore.builtin.samplers.anchors import REMEMBERED, EvenSample, Row, anchored, packed
from mitocore.builtin.samplers.chances import OfSources, fits, uniform
from mitocore.builtin.samplers.points import read_points, within
from mitocore.builtin.samplers.reading import named, no_foreground, pieces
from mitocore.component import PathOption
from mitocore.errors import DataError
from mitocore.geometry import Shape
from mitocore.interfaces import Crop, LabelledVolume, SamplerIndex

CLASSES = 256
"""More classes than this are objects."""
Share = Annotated[float, Field(ge=0, le=1)]
Samples = dict[int, EvenSample]


class Foreground(OfSources):
    """Crops that contain a foreground voxel, with some probability; the others lie anywhere.

    Every foreground voxel of a volume is equally likely to be chosen, at the faces of a region too, and its place in
    the crop is random. Of more than four million foreground voxels, an even sample of so many is remembered.
    """

    probability: Share = 0.5
    """Share of the crops that surely contain foreground."""
    label: str | None = None
    """Label array that says what is foreground: whatever is neither 0 nor "ignore". Default: any of them; with
    `per_class`, "semantic"."""
    per_class: bool | tuple[tuple[int, float], ...] = False
    """Choose the class of the voxel first: true, each class equally often; or shares, `[[1, 0.7], [2, 0.3]]`."""
    points: PathOption | None = None
    """Hard negatives: a .csv or .json file of points, such as the false positives that `mitocore evaluate` lists.
    Columns z, y, x (voxels) or z_nm, y_nm, x_nm; with several volumes also `volume`, the path of `[[volume]]`."""
    hard_share: Share = 0.25
    """Share of the crops that contain one of `points`; with `probability` at most 1."""

    @model_validator(mode="after")
    def _shares(self) -> "Foreground":
        if self.points and self.probability + self.hard_share > 1:
            total = f"{self.probability:g} + {self.hard_share:g}"
            raise ValueError(f"probability + hard_share = {total}, which is more than all crops")
        shares = self.per_class if isinstance(self.per_class, tuple) else ((1, 1.0),)
        wrong = [value for value, share in shares if value < 1 or not 0 <= share < np.inf]
        if wrong or not sum(share for _, share in shares) or len(dict(shares)) < len(shares):
            raise ValueError(f"per_class = {list(map(list, shares))}; write each class from 1 on once, with its share")
        return self

    def index(self, volumes: Sequence[LabelledVolume], shape: Shape) -> SamplerIndex:
        arrays: dict[str, Any] = {"anywhere": self.anywhere(volumes, shape)}
        if self.probability:
            arrays |= packed("foreground", self._anchors(volumes, shape))
        if self.points:
            path = Path(self.points)
            fitting = [at for at, volume in enumerate(volumes) if fits(volume.region, shape)]
            found = within(read_points(path), [volumes[at] for at in fitting], path)
            weights = [volumes[at].weight * len(voxels) for at, voxels in zip(fitting, found, strict=True)]
            rows = [Row(*row) for row in zip(fitting, weights, found, strict=True)]
            if not any(weights):
                raise DataError(f"the points of {self.points!r} lie in volumes of weight 0", where="[sampler] points")
            arrays |= packed("hard", rows)
        return SamplerIndex(tuple(v.region for v in volumes), arrays)

    def draw(self, index: SamplerIndex, shape: Shape, number: int, rng: np.random.Generator) -> Crop:
        del number
        lot = rng.random()
        if lot < self.probability:
            return anchored("foreground", index, shape, rng)
        if self.points and lot < self.probability + self.hard_share:
            return anchored("hard", index, shape, rng)
        return uniform(index, shape, rng)

    def _anchors(self, volumes: Sequence[LabelledVolume], shape: Shape) -> list[Row]:
        """Voxels per volume and class; without `per_class` there is one class, 0."""
        found: list[Samples] = []
        for volume in volumes:
            used = volume.weight and fits(volume.region, shape)
            found.append(self._foreground(volume, REMEMBERED // len(volumes)) if used else {})
        rows = []
        for value, share in self._class_shares(found):
            counts = [samples[value].count if value in samples else 0 for samples in found]
            weights = self.weights(volumes, counts) * counts
            if total := weights.sum():
                rows += [
                    Row(at, share * weights[at] / total, samples[value].kept)
                    for at, samples in enumerate(found)
                    if value in samples
                ]
        if not any(row.weight for row in rows):
            raise no_foreground(self._label)
        return rows

    @property
    def _label(self) -> str | None:
        return self.label or ("semantic" if self.per_class else None)

    def _class_shares(self, found: Sequence[Samples]) -> list[tuple[int, float]]:
        if not isinstance(self.per_class, tuple):
            return [(value, 1.0) for value in sorted({value for samples in found for value in samples})]
        there = {value for samples in found for value in samples}
        if absent := [value for value, share in self.per_class if share and value not in there]:
            present = ", ".join(map(str, sorted(there))) or "none of those named"
            problem = f"class {absent[0]} of label {self._label!r} is in no training region"
            raise DataError(problem, where="[sampler] per_class", hint=f"there is {present}")
        return list(self.per_class)

    def _foreground(self, volume: LabelledVolume, limit: int) -> Samples:
        """An even sample of the foreground of a region, by class, of at most `limit` voxels in all."""
        names = named(volume, self._label)
        found: Samples = {}
        for piece in pieces(volume, names):
            inside = piece.foreground()
            classes = piece.ids[names[0]][inside] if self.per_class else None
            voxels = _rasters(inside, piece.offset, volume.region.shape)
            values = [0] if classes is None else np.unique(classes).tolist()
            if isinstance(self.per_class, tuple):
                values = [value for value in values if value in dict(self.per_class)]
            fresh = [value for value in values if value not in found]
            if fresh and len(found) + len(fresh) > CLASSES:
                problem = f"label {self._label!r} holds more than {CLASSES} classes"
                raise DataError(problem, where="[sampler] per_class", hint="choose a label array of classes, or false")
            found |= {value: EvenSample(limit) for value in fresh}
            if fresh:
                for sample in found.values():
                    sample.trim(max(1, limit // len(found)))
            for value in values:
                found[value].add(voxels if classes is None else voxels[classes == value])
        return {value: sample for value, sample in found.items() if sample.count}


def _rasters(inside: np.ndarray[Any, np.dtype[np.bool_]], offset: Shape, shape: Shape) -> np.ndarray[Any, Any]:
    """Raster indices in a box of `shape` of the voxels that are set in a part of it."""
    rows, columns = np.divmod(np.flatnonzero(inside), inside.shape[2])
    z, y = np.divmod(rows, inside.shape[1])
    return np.asarray(((z + offset[0]) * shape[1] + y + offset[1]) * shape[2] + columns + offset[2], np.int64)
