"""The metric that says what best means, over the slabs of a validation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import settle
from mitocore.geometry import Roi, VoxelSize
from mitocore.interfaces import Block, Metric
from mitocore.specs import ArraySpec, Head, Kind


class Scored:
    """Scores of one head, summed up over slabs.

    Classes and affinities are scored channel by channel, under the name of each, and their mean under that of the head.
    Of classes that exclude each other, the most likely one is what was predicted; the first is background, which is
    nearly always right and does not count in the mean.
    """

    def __init__(self, head: Head, metric: Metric) -> None:
        self.head, self.metric = head, metric
        self._separate = len(head.channels) > 1 and head.kind in (Kind.PROBABILITY, Kind.AFFINITY)
        self._decided = head.activation == "softmax" and metric.compares is Kind.PROBABILITY
        self._partials: list[Any] = []

    def add(
        self,
        values: NDArray[np.float32],
        truth: NDArray[np.float32],
        roi: Roi,
        volume: Roi,
        voxel_size: VoxelSize | None,
    ) -> None:
        """Count a slab (c, z, y, x); a truth of NaN is left out."""
        predicted = settle(values, ArraySpec(self.head.kind, self.head.channels, self.head.offsets))
        if self._decided:
            classes = np.arange(len(predicted))[:, None, None, None]
            predicted = (predicted.argmax(axis=0) == classes).astype(np.float32)
        parts = [slice(c, c + 1) for c in range(len(predicted))] if self._separate else [slice(None)]
        found = [
            self.metric.partial(
                Block(roi, roi, {"predicted": predicted[part], "truth": truth[part]}, volume, voxel_size)
            )
            for part in parts
        ]
        before = self._partials
        self._partials = [a + b for a, b in zip(before, found, strict=True)] if before else found

    def scores(self) -> dict[str, float]:
        """HEAD.SCORE, the headline first; then HEAD.CHANNEL.SCORE if channels are scored one by one."""
        name, totals = self.head.name, [self.metric.total(partial) for partial in self._partials]
        if not self._separate:
            return {f"{name}.{score}": value for score, value in totals[0].items()}
        each = dict(zip(self.head.channels, totals, strict=True))
        counted = totals[1:] if self.head.activation == "softmax" else totals
        means = {f"{name}.{score}": float(np.mean([one[score] for one in counted])) for score in totals[0]}
        return means | {f"{name}.{channel}.{s}": value for channel, one in each.items() for s, value in one.items()}
