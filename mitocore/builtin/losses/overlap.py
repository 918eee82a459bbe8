"""Losses that compare volumes: how much of prediction and truth lies on each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mitocore.builtin.losses.counted import activated
from mitocore.builtin.losses.entropy import Chosen
from mitocore.builtin.losses.pairing import OneHead, place
from mitocore.errors import WiringError
from mitocore.specs import ArraySpec, Head

if TYPE_CHECKING:
    from torch import Tensor

    from mitocore.builtin.losses.counted import Compared

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Overlap(OneHead):
    """A loss that sums over voxels before it compares; the mean over channels."""

    activation: Chosen = "sigmoid"
    """Of the head."""
    background: bool = True
    """Whether the first class of a softmax counts like the others."""
    smooth: Positive = 1.0
    """Voxels added to intersection and sum, so that a crop without foreground has a gradient."""
    batch: bool = True
    """Whether the crops of a batch are taken as one volume, so that crops with little foreground do not dominate."""

    def chosen(self, logits: "Tensor", target: "Tensor") -> "tuple[Tensor, Tensor]":
        """Probabilities and target of the channels that count."""
        probability = activated(logits, self.activation)
        first = 1 if self.activation == "softmax" and not self.background else 0
        return probability[:, first:], target[:, first:]


class Dice(Overlap):
    """1 - Dice of probabilities and target (Milletari et al. 2016), by MONAI.

    Weights and targets between 0 and 1 count in part (semimetric form, Wang et al. 2023).
    """

    power: Literal[1, 2] = 1
    """Of the probabilities in the denominator: 1 sums them, 2 their squares."""

    def comparison(self) -> "Compared":
        from monai.losses import MaskedDiceLoss

        loss = MaskedDiceLoss(
            soft_label=True,
            squared_pred=self.power == 2,
            batch=self.batch,
            smooth_nr=self.smooth,
            smooth_dr=self.smooth,
        )

        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            # MONAI multiplies both sides by its mask before it squares them
            mask = weight.sqrt() if self.power == 2 else weight
            result: Tensor = loss(*self.chosen(logits, target), mask)
            return result

        return compared


class GeneralizedDice(Overlap):
    """Generalised Dice (Sudre et al. 2017), by MONAI: classes count by 1 / volume², so that small ones are heard."""

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        super().accepts(heads, target)
        if len(heads[0].channels) < 2 + (self.activation == "softmax" and not self.background):
            problem = f"head {heads[0].name!r} has no two classes that could be weighed against each other"
            raise WiringError(problem, where=place(heads), hint='loss = "dice"')

    def comparison(self) -> "Compared":
        from monai.losses import GeneralizedDiceLoss, MaskedLoss

        loss = MaskedLoss(
            GeneralizedDiceLoss(soft_label=True, batch=self.batch, smooth_nr=self.smooth, smooth_dr=self.smooth)
        )

        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            result: Tensor = loss(*self.chosen(logits, target), weight)
            return result

        return compared


class Tversky(Overlap):
    """1 - Tversky index (Salehi et al. 2017), by MONAI: false positives and false negatives count differently."""

    alpha: Share = 0.3
    """Weight of false positives."""
    beta: Share = 0.7
    """Weight of false negatives."""
    gamma: Annotated[float, Field(ge=1)] = 1.0
    """The loss of a channel is taken to the power of 1 / gamma."""

    def comparison(self) -> "Compared":
        from monai.losses import MaskedLoss, TverskyLoss

        loss = MaskedLoss(
            TverskyLoss(
                alpha=self.alpha,
                beta=self.beta,
                soft_label=True,
                batch=self.batch,
                smooth_nr=self.smooth,
                smooth_dr=self.smooth,
                reduction="none",
            )
        )

        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            result: Tensor = _root(loss(*self.chosen(logits, target), weight), self.gamma).mean()
            return result

        return compared


class FocalTversky(Tversky):
    """(1 - Tversky index)^(1 / gamma) (Abraham & Khan 2019): what is nearly right keeps a gradient."""

    gamma: Annotated[float, Field(ge=1)] = 4 / 3
    """The loss of a channel is taken to the power of 1 / gamma."""


class WeightedSoftDice(OneHead):
    """1 - Dice of values from -1 to 1, foreground and background weighed; WSDice of PyTorch Connectomics, per crop.

    With p and t from -1 to 1 and w the weight of the class: 1 - (2 Σ w²pt + smooth) / (Σ w²p² + Σ w²t² + smooth).
    """

    foreground: Positive = 0.85
    """Weight w of foreground voxels."""
    background: Positive = 0.15
    """Weight w of background voxels."""
    smooth: Positive = 100.0
    """Added to numerator and denominator."""

    def comparison(self) -> "Compared":
        import torch

        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            factor = weight * (target * (self.foreground - self.background) + self.background) ** 2
            signed, truth = 2 * torch.sigmoid(logits) - 1, 2 * target - 1
            crop = (1, 2, 3, 4)
            both = (factor * signed * truth).sum(crop)
            sums = (factor * (signed**2 + truth**2)).sum(crop)
            return (1 - (2 * both + self.smooth) / (sums + self.smooth)).mean()

        return compared


def _root(values: "Tensor", gamma: float) -> "Tensor":
    """values^(1 / gamma), with a gradient of 0, not infinity, at 0."""
    import torch

    if gamma == 1:
        return values
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1) ** (1 / gamma), 0)
