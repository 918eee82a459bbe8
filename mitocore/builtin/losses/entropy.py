"""Losses that judge each voxel by the probability of the truth there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mitocore.builtin.losses.balance import Balance, balanced
from mitocore.builtin.losses.counted import Mean, mean_of
from mitocore.builtin.losses.pairing import OneHead, place
from mitocore.errors import WiringError
from mitocore.specs import ArraySpec, Head

if TYPE_CHECKING:
    from torch import Tensor

    from mitocore.builtin.losses.counted import Compared

Chosen = Literal["sigmoid", "softmax"]
Positive = Annotated[float, Field(gt=0)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]


class BCE(OneHead):
    """Binary cross-entropy of probabilities or affinities, averaged by weight over voxels and channels."""

    pos_weight: Positive = 1.0
    """How much more a foreground voxel counts than a background voxel."""
    balance: Balance = "none"
    """"crop": foreground and background of a crop count alike, at most 19 to 1; "crop_grown": with the foreground
    grown by one voxel in the plane."""
    label_smoothing: Smoothing = 0.0
    """The target is pulled by this share towards 0.5."""
    mean: Mean = "weight"
    """Divide by the sum of weights, or by the number of voxels whose weight is not 0: weights above 1 then raise the
    loss, as in PyTorch Connectomics."""

    def comparison(self) -> "Compared":
        return binary(self.pos_weight, self.balance, self.label_smoothing, self.mean)


class CrossEntropy(OneHead):
    """Cross-entropy of classes that exclude each other (softmax), averaged by weight over voxels."""

    activation: Literal["softmax"] = "softmax"
    """Of the head."""
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """How much a voxel of each class counts, one number per channel; empty: all alike."""
    label_smoothing: Smoothing = 0.0
    """The target is pulled by this share towards equal probabilities."""
    mean: Mean = "weight"
    """Divide by the sum of weights, or by the number of voxels whose weight is not 0."""

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        super().accepts(heads, target)
        check_classes(self.class_weights, heads[0])

    def comparison(self) -> "Compared":
        return classes(self.class_weights, self.label_smoothing, self.mean)


class Focal(OneHead):
    """Focal loss (Lin et al. 2017), by MONAI: what is right already counts little; averaged by weight."""

    activation: Chosen = "sigmoid"
    """Of the head."""
    gamma: Annotated[float, Field(ge=1)] = 2.0
    """How much less what is right counts: by (1 - probability of the truth) to this power."""
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Weight of foreground; background has 1 - alpha (softmax: the first class is background). None: both 1."""
    balance: Balance = "none"
    """"crop": foreground and background of a crop count alike, at most 19 to 1; "crop_grown": with the foreground
    grown by one voxel in the plane. For heads with a sigmoid."""
    mean: Mean = "weight"
    """Divide by the sum of weights, or by the number of voxels whose weight is not 0."""

    def check_head(self, head: Head, where: str) -> None:
        super().check_head(head, where)
        if self.balance != "none" and self.activation == "softmax":
            problem = f"balance = {self.balance!r} weighs foreground against background, not classes of a softmax"
            raise WiringError(problem, where=where, hint='balance = "none"')

    def comparison(self) -> "Compared":
        from monai.losses import FocalLoss

        softmax = self.activation == "softmax"
        loss = FocalLoss(gamma=self.gamma, alpha=self.alpha, use_softmax=softmax, reduction="none")

        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            terms = loss(logits, target)
            if softmax:
                terms = terms.sum(1, keepdim=True)
            return mean_of(terms, balanced(target, weight, self.balance), self.mean)

        return compared


class TopKCrossEntropy(OneHead):
    """Mean cross-entropy of the worst voxels of the batch (bootstrapped, Wu et al. 2016; Panoptic-DeepLab, empanada).

    Voxels are ranked by cross-entropy times weight, all crops and, with a sigmoid, all channels together.
    """

    activation: Chosen = "sigmoid"
    """Of the head."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the voxels that count which are the worst; at least one voxel."""
    label_smoothing: Smoothing = 0.0
    """The target is pulled by this share towards equal probabilities."""

    def comparison(self) -> "Compared":
        softmax = self.activation == "softmax"
        terms_of = _class_terms((), self.label_smoothing) if softmax else _binary_terms(1.0, self.label_smoothing)

        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            terms = terms_of(logits, target)
            weight = weight.expand_as(terms).flatten()
            weighed = terms.flatten() * weight
            number = max(1, int(int((weight > 0).sum()) * self.share))
            worst = weighed.masked_fill(weight == 0, -1).topk(number).indices
            return mean_of(terms.flatten()[worst], weight[worst])

        return compared


def check_classes(class_weights: Sequence[float], head: Head) -> None:
    """Refuse weights of other classes than the head has.

    Raises
    ------
    WiringError
        If there are more or fewer than channels.
    """
    if class_weights and len(class_weights) != len(head.channels):
        problem = f"class_weights has {len(class_weights)} numbers, and head {head.name!r} {len(head.channels)} classes"
        hint = f"one number for each of {', '.join(head.channels)}"
        raise WiringError(problem, where=place((head,)), hint=hint)


def binary(
    pos_weight: float = 1.0, balance: Balance = "none", smoothing: float = 0.0, mean: Mean = "weight"
) -> "Compared":
    """Mean binary cross-entropy."""
    terms = _binary_terms(pos_weight, smoothing)

    def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
        return mean_of(terms(logits, target), balanced(target, weight, balance), mean)

    return compared


def classes(class_weights: Sequence[float] = (), smoothing: float = 0.0, mean: Mean = "weight") -> "Compared":
    """Mean cross-entropy of classes that exclude each other."""
    terms = _class_terms(class_weights, smoothing)

    def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
        return mean_of(terms(logits, target), weight, mean)

    return compared


def _binary_terms(pos_weight: float, smoothing: float) -> "Compared":
    from torch.nn.functional import binary_cross_entropy_with_logits

    def terms(logits: "Tensor", target: "Tensor") -> "Tensor":
        target = target * (1 - smoothing) + smoothing / 2
        positive = logits.new_tensor(pos_weight)
        return binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=positive)

    return terms


def _class_terms(class_weights: Sequence[float], smoothing: float) -> "Compared":
    from torch.nn.functional import cross_entropy

    def terms(logits: "Tensor", target: "Tensor") -> "Tensor":
        weights = logits.new_tensor(class_weights) if class_weights else None
        found = cross_entropy(logits, target, weights, reduction="none", label_smoothing=smoothing)
        return found.unsqueeze(1)

    return terms
