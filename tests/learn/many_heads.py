"""A model with a head of every kind, with targets that follow from the class of each voxel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mitocore import ArraySpec, Head, Kind, Loss, Model, Need, Target, VoxelSize, Window

OFFSETS = ((-1, 0, 0), (0, -1, 0))
HEADS = {
    "semantic": Head("semantic", ("background", "ball", "rim"), "softmax"),
    "affinity": Head("affinity", ("z-1", "y-1"), "sigmoid", Kind.AFFINITY, OFFSETS),
    "distance": Head("distance", ("distance",), "tanh", Kind.DISTANCE),
    "vector": Head("vector", ("z", "y", "x"), "none", Kind.OFFSET),
}


class ManyHeads(Model):
    """A 1 x 1 x 1 convolution for all heads."""

    def window(self) -> Window:
        return Window((4, 16, 16), overlap=(0, 4, 4))

    def heads(self) -> tuple[Head, ...]:
        return (*HEADS.values(), Head("semantic_aux1", HEADS["semantic"].channels, "softmax", auxiliary=True))

    def build(self) -> Any:
        from torch import nn

        from mitocore.nn import Named

        sizes = {head.name: len(head.channels) for head in self.heads()}
        return Named(nn.Conv3d(1, sum(sizes.values()), 1), **sizes)


class Truth(Target):
    """What a head should say of voxels of a class: 0 background, 1 ball, 2 rim."""

    head: str
    """Name of the head."""

    def needs(self) -> Mapping[str, Need]:
        return {"semantic": Need((Kind.SEMANTIC,))}

    def gives(self) -> ArraySpec:
        head = HEADS[self.head]
        return ArraySpec(head.kind, head.channels, head.offsets)

    def encode(self, labels: Any, voxel_size: VoxelSize | None) -> Any:
        classes = labels["semantic"].astype(np.float32)
        channels = np.arange(len(HEADS[self.head].channels))[:, None, None, None]
        if self.head == "semantic":
            return (classes == channels).astype(np.float32)
        if self.head == "affinity":
            return (classes > channels).astype(np.float32)
        return np.broadcast_to(classes / 4 - 0.25, (len(channels), *classes.shape)).astype(np.float32)


class Squared(Loss):
    """Mean square of the difference of logits and target; without a target, of the logits of all heads."""

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        pass

    def build(self) -> Any:
        def loss(*logits: Any, target: Any, weight: Any) -> Any:
            wanted = 0 if target is None else target
            squares = [((one - wanted) ** 2 * weight).mean() / weight.mean().clamp(min=1e-6) for one in logits]
            return sum(squares) / len(squares)

        return loss
