"""Losses at points that a network chose itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mitocore.builtin.losses.counted import counted
from mitocore.builtin.losses.entropy import Chosen, Smoothing, binary, classes
from mitocore.builtin.losses.pairing import OneHead, check_target, place
from mitocore.errors import ContractError, WiringError
from mitocore.specs import ArraySpec, Head

if TYPE_CHECKING:
    from torch import Tensor

    from mitocore.builtin.losses.counted import Compared

PLACES = (("z", "y", "x"), ("y", "x"))
"""Channels of a head that says where points are, in 0 … 1 of the crop's extent; ("y", "x") in a single plane."""


class PointRend(OneHead):
    """Cross-entropy at the points of PointRend (Kirillov et al. 2020), with the truth of the voxel each lies in.

    `heads` are two auxiliary heads: logits of the points (n, c, 1, 1, P), and their places (n, 3 or 2, 1, 1, P), which
    get no gradient.
    """

    activation: Chosen = "sigmoid"
    """Of the head of logits."""
    label_smoothing: Smoothing = 0.0
    """The target is pulled by this share towards equal probabilities."""

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        where = place(heads)
        if len(heads) != 2 or not all(head.auxiliary for head in heads):
            got = [head.name for head in heads]
            problem = f"this loss compares two auxiliary heads, logits of points and their places, not {got}"
            raise WiringError(problem, where=where, hint='heads = ["points", "places"] of a model with PointRend')
        points, places = heads
        self.check_head(points, where)
        if places.channels not in PLACES or places.activation != "none":
            problem = f"head {places.name!r} gives {list(places.channels)} after {places.activation!r}, not places"
            raise WiringError(problem, where=where, hint="a head with the channels z, y, x, or y, x, as it is")
        check_target(points, target, where)

    def comparison(self) -> "Compared":
        if self.activation == "softmax":
            return classes(smoothing=self.label_smoothing)
        return binary(smoothing=self.label_smoothing)

    def build(self) -> "Compared":
        compared = counted(self.comparison())

        def sampled(points: "Tensor", places: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            voxels = _voxels(places, weight)
            return compared(points, target=_taken(target, voxels), weight=_taken(weight, voxels))

        return sampled


def _voxels(places: "Tensor", weight: "Tensor") -> "Tensor":
    """Flat index (n, 1, 1, P) of the voxel that each place lies in."""
    import torch

    space = weight.shape[2:]
    if places.shape[1] == 2 and space[0] != 1:
        problem = f"places of points have y and x, and the crop has {space[0]} planes"
        raise ContractError(problem, hint="give places as z, y, x")
    index = torch.zeros((), dtype=torch.long, device=places.device)
    for axis, size in enumerate(space[3 - places.shape[1] :]):
        along = (places[:, axis].detach().float() * size).long().clamp(0, size - 1)
        index = index * size + along
    return index


def _taken(values: "Tensor", voxels: "Tensor") -> "Tensor":
    """Values (n, c, 1, 1, P) at flat indices."""
    flat = values.flatten(2)
    index = voxels.flatten(1).unsqueeze(1).expand(-1, flat.shape[1], -1)
    return flat.gather(2, index)[:, :, None, None]
