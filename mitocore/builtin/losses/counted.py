"""What all losses share: voxels of weight 0 are out before anything is computed, and sums are float32."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from mitocore.interfaces import Loss

if TYPE_CHECKING:
    from torch import Tensor

    Compared = Callable[..., Tensor]

Mean = Literal["weight", "voxels"]
Activation = Literal["sigmoid", "softmax", "tanh", "none"]


class CountedLoss(Loss):
    """A loss that sees logits and targets of 0 wherever the weight is 0, so that nothing can leak from there."""

    @abstractmethod
    def comparison(self) -> "Compared":
        """f(*logits, target=…, weight=…) → scalar, in float32 outside of autocast; it weighs voxels itself."""

    def build(self) -> "Compared":
        return counted(self.comparison())


def counted(compared: "Compared") -> "Compared":
    """The same, of float32, without autocast, with voxels of weight 0 replaced by 0."""
    import torch

    def alone(*logits: "Tensor", target: "Tensor | None", weight: "Tensor") -> "Tensor":
        with torch.autocast(weight.device.type, enabled=False):
            hidden = weight == 0
            # masked, not multiplied: 0 times infinity would be NaN
            seen = [values.float().masked_fill(hidden, 0) for values in logits]
            truth = None if target is None else target.float().masked_fill(hidden, 0)
            return compared(*seen, target=truth, weight=weight.float())

    return alone


def mean_of(terms: "Tensor", weight: "Tensor", mean: Mean = "weight") -> "Tensor":
    """Mean of `terms` (n, c, z, y, x) by `weight`, which broadcasts; 0 where nothing counts.

    >>> import torch
    >>> terms, weight = torch.tensor([1.0, 3.0, 9.0]), torch.tensor([1.0, 2.0, 0.0])
    >>> float(mean_of(terms, weight)), float(mean_of(terms, weight, "voxels"))
    (2.3333332538604736, 3.5)
    """
    import torch

    weight = weight.expand_as(terms)
    mass = weight.sum() if mean == "weight" else (weight > 0).sum()
    return (terms * weight).sum() / torch.where(mass > 0, mass, 1)


def activated(logits: "Tensor", activation: Activation) -> "Tensor":
    """What a head gives at inference."""
    import torch

    if activation == "softmax":
        return torch.softmax(logits, 1)
    if activation == "none":
        return logits
    return torch.sigmoid(logits) if activation == "sigmoid" else torch.tanh(logits)
