"""Scores of a network on parts it was not trained on: the tiles of inference, fixed and unbiased."""

import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.tiles import TileLattice
from mitocore.errors import DataError
from mitocore.geometry import Roi, as_shape
from mitocore.learn.calibration import Classes, Histogram, sums_of
from mitocore.learn.data import OpenVolume, Prepared
from mitocore.learn.encode import VALID, encoded, label_halo
from mitocore.learn.predict import Inference, Slab, rows_within, slabs
from mitocore.learn.scored import Scored
from mitocore.specs import Head, Kind
from mitocore.training import PlannedObjective, TrainingPlan

Told = Callable[[int, int], None]
"""Called with voxels done and voxels in all."""
Seen = Callable[[int, Roi, PlannedObjective, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], None]
"""Called with the number of a region, a box in its frame, an objective, and its prediction, target and weight there."""
_BOX = (32, 512, 512)
_SUMS = 2**28
"""Bytes for the sums of a strip. Fixed: the loss is a mean over slabs, so the memory of a machine must not cut them."""
_EDGE = 1e-6  # probabilities are this far from 0 and 1 before they become logits again


class Interrupted(Exception):  # noqa: N818 - not an error: whoever validates asked for it
    """The validation was stopped before its end."""


class Validation:
    """All validation (or test) parts of a training."""

    def __init__(
        self, plan: TrainingPlan, volumes: Sequence[Prepared], part: Literal["validation", "test"], device: str
    ) -> None:
        self.plan, self.part = plan, part
        self.volumes = [(v, box) for v in volumes for box in getattr(v.planned.parts, part)]
        self.settings = Inference(device, plan.train.precision, plan.train.batch)
        self.objectives = [o for o in plan.objectives if not any(head.auxiliary for head in o.heads)]
        self.losses = [objective.loss.build() for objective in self.objectives]
        self.truths: dict[str, PlannedObjective] = {}
        """By head: the objective whose target is its truth, the first that compares this head alone with one."""
        for objective in self.objectives:
            if objective.target and len(objective.heads) == 1:
                self.truths.setdefault(objective.name, objective)

    def sums(self) -> dict[str, Histogram | Classes]:
        """Empty sums of every head whose probabilities can be compared with a truth."""
        believable = (Kind.PROBABILITY, Kind.AFFINITY)
        return sums_of(o.heads[0] for o in self.truths.values() if o.target and o.target.gives().kind in believable)

    def check(self) -> None:
        """Refuse parts on which no score has a meaning.

        Raises
        ------
        DataError
            If no voxel is labelled as foreground.
        """
        for prepared, region in self.volumes:
            with closing(prepared.open()) as volume:
                if any(_foreground(volume, box, region) for box in _boxes(region)):
                    return
        paths = ", ".join(repr(prepared.planned.path) for prepared, _ in self.volumes)
        hint = "choose another split, or check label_values and the valid mask"
        raise DataError(f"the {self.part} part of {paths} holds no foreground", where="[[volume]] split", hint=hint)

    def scores(
        self,
        network: nn.Module,
        told: Told = lambda _done, _total: None,
        stopping: Callable[[], bool] = lambda: False,
        sums: Mapping[str, Histogram | Classes] | None = None,
        seen: Seen | None = None,
    ) -> dict[str, float]:
        """Loss, and the scores of the metric that says what best means, over all volumes.

        Parameters
        ----------
        sums
            By head: what probabilities and truth are added to, in the same pass.
        seen
            Shown what every head with a truth gives, in the same pass.

        Raises
        ------
        Interrupted
            If `stopping` became true.
        """
        was_training = network.training
        network.eval()
        try:
            return self._scores(network, told, stopping, sums or {}, seen)
        finally:
            network.train(was_training)

    def _scores(
        self,
        network: nn.Module,
        told: Told,
        stopping: Callable[[], bool],
        sums: Mapping[str, Histogram | Classes],
        seen: Seen | None,
    ) -> dict[str, float]:
        losses = np.zeros((len(self.objectives), 2))
        metrics = {**dict([self.plan.metric] if self.plan.metric else []), **self.plan.others}
        scored = {name: Scored(self.truths[name].heads[0], metric) for name, metric in metrics.items()}
        done, total = 0, sum(region.voxels for _, region in self.volumes)
        for place, (prepared, region) in enumerate(self.volumes):
            whole = Roi.whole(region.shape)
            with closing(prepared.open()) as volume, closing(self._slabs(network, volume, region)) as found:
                for slab in found:
                    for number, objective in enumerate(self.objectives):
                        target, weight = self._truth(objective, volume, slab.roi, region)
                        if counted := float(np.count_nonzero(weight)):
                            losses[number] += self._loss(number, objective, slab, target, weight) * counted, counted
                        if objective is not self.truths.get(objective.name):
                            continue
                        values = slab.heads[objective.name]
                        if objective.name in sums:
                            sums[objective.name].add(values, target, weight[0] > 0)
                        if seen:
                            seen(place, slab.roi, objective, values, target, weight)
                        if objective.name in scored:
                            truth = np.where(weight > 0, target, np.float32(np.nan))  # NaN: left out of the score
                            scored[objective.name].add(values, truth, slab.roi, whole, volume.voxel_size)
                    done += slab.roi.voxels
                    told(done, total)
                    if stopping():
                        raise Interrupted
        means = losses[:, 0] / np.maximum(losses[:, 1], 1)
        loss = float(sum(o.weight * m for o, m in zip(self.objectives, means, strict=True)))
        return {"loss": loss} | {name: value for one in scored.values() for name, value in one.scores().items()}

    def _slabs(self, network: nn.Module, volume: OpenVolume, region: Roi) -> Generator[Slab]:
        def read(roi: Roi) -> NDArray[np.float32]:
            box = shifted(roi, region)
            return volume.read_image(box, region)

        lattice, heads = TileLattice(region.shape, self.plan.window), self.plan.model.heads()
        channels = sum(len(head.channels) for head in heads if not head.auxiliary)
        settings = replace(self.settings, rows=rows_within(lattice, channels, _SUMS))
        seams = self.plan.folder / "scratch" / "seams"
        try:
            yield from slabs(network, heads, read, lattice, settings, seams=seams)
        finally:
            shutil.rmtree(seams, ignore_errors=True)

    def _truth(
        self, objective: PlannedObjective, volume: OpenVolume, roi: Roi, region: Roi
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        halo = label_halo(self.plan, volume.voxel_size)
        labels = volume.read_labels(shifted(roi, region).grow(halo), region)
        return encoded(objective, labels, volume.voxel_size, halo)

    @torch.inference_mode()
    def _loss(
        self,
        number: int,
        objective: PlannedObjective,
        slab: Slab,
        target: NDArray[np.float32],
        weight: NDArray[np.float32],
    ) -> float:
        logits = [_logits(head, _tensor(slab.heads[head.name])) for head in objective.heads]
        wanted = _tensor(target) if objective.target else None
        return float(self.losses[number](*logits, target=wanted, weight=_tensor(weight)))


def _tensor(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))[None]


def shifted(roi: Roi, region: Roi) -> Roi:
    """A box in the frame of `region`, in the frame of the volume."""
    start = as_shape(a + r for a, r in zip(roi.start, region.start, strict=True))
    return Roi(start, as_shape(b + r for b, r in zip(roi.stop, region.start, strict=True)))


def _logits(head: Head, values: Tensor) -> Tensor:
    """Logits whose activation gives these (blended) values."""
    if head.activation == "none":
        return values
    if head.activation == "tanh":
        return torch.atanh(values.clamp(_EDGE - 1, 1 - _EDGE))
    inside = values.clamp(_EDGE, 1 - _EDGE)
    return torch.logit(inside) if head.activation == "sigmoid" else torch.log(inside)


def _boxes(region: Roi) -> Iterator[Roi]:
    grid = BlockGrid(region, _BOX)
    return (grid.box(number) for number in range(len(grid)))


def _foreground(volume: OpenVolume, box: Roi, region: Roi) -> bool:
    labels = volume.read_labels(box, region)
    valid = labels.pop(VALID) == 1
    return any((valid & (ids > 0) & (ids != np.iinfo(ids.dtype).max)).any() for ids in labels.values())
