"""Losses between logits and probabilities of independent channels. torch and MONAI are imported in `build`."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mitocore.errors import WiringError
from mitocore.interfaces import Loss
from mitocore.specs import ArraySpec, Head, Kind

if TYPE_CHECKING:
    from torch import Tensor

    Compared = Callable[..., Tensor]


class _Binary(Loss):
    """Compares one head of independent probabilities with as many target channels."""

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        where = f"[[objective]] {', '.join(head.name for head in heads)}"
        if len(heads) != 1:
            raise WiringError(f"this loss compares one head, not {len(heads)}", where=where, hint='head = "…"')
        (head,) = heads
        if head.kind is not Kind.PROBABILITY or head.activation != "sigmoid":
            problem = f"this loss compares probabilities after a sigmoid, not {head.kind} after {head.activation!r}"
            raise WiringError(problem, where=where, hint="choose a loss for this kind of head")
        if target is None or target.kind is not Kind.PROBABILITY:
            got = f"a target of kind {target.kind}" if target else "no target"
            problem = f"this loss needs a target of kind probability, not {got}"
            raise WiringError(problem, where=where, hint='target = "foreground"')
        if len(target.channels) != len(head.channels):
            problem = f"head and target have {len(head.channels)} and {len(target.channels)} channels"
            raise WiringError(problem, where=where, hint="choose a target with the channels of the head")

    @abstractmethod
    def build(self) -> "Compared": ...


class BCE(_Binary):
    """Binary cross-entropy, averaged by weight over voxels and channels."""

    pos_weight: Annotated[float, Field(gt=0)] = 1.0
    """How much more a foreground voxel counts than a background voxel."""

    def build(self) -> "Compared":
        return _bce(self.pos_weight)


class Dice(_Binary):
    """1 - Dice of probabilities and target (Milletari et al. 2016), by MONAI; the mean over channels.

    Weights and targets between 0 and 1 count in part (semimetric form, Wang et al. 2023).
    """

    smooth: Annotated[float, Field(gt=0)] = 1.0
    """Voxels added to intersection and sum, so that a crop without foreground has a gradient."""
    batch: bool = True
    """Whether the crops of a batch are taken as one volume, so that crops with little foreground do not dominate."""

    def build(self) -> "Compared":
        return _dice(self.smooth, batch=self.batch)


class DiceCE(Dice):
    """Binary cross-entropy plus 1 - Dice, equally weighted; Catena's DiceCE with pos_weight = 5."""

    pos_weight: Annotated[float, Field(gt=0)] = 1.0
    """How much more a foreground voxel counts than a background voxel in the cross-entropy."""

    def build(self) -> "Compared":
        bce, dice = _bce(self.pos_weight), _dice(self.smooth, batch=self.batch)

        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            return bce(logits, target=target, weight=weight) + dice(logits, target=target, weight=weight)

        return compared


def _bce(pos_weight: float) -> "Compared":
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
        logits, weight = logits.float(), weight.float().expand_as(target)
        positive = torch.tensor(pos_weight, device=logits.device)
        total = binary_cross_entropy_with_logits(logits, target, weight, reduction="sum", pos_weight=positive)
        mass = weight.sum()
        return total / torch.where(mass > 0, mass, 1)

    return compared


def _dice(smooth: float, *, batch: bool) -> "Compared":
    from monai.losses import MaskedDiceLoss

    loss = MaskedDiceLoss(sigmoid=True, soft_label=True, batch=batch, smooth_nr=smooth, smooth_dr=smooth)

    def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
        result: Tensor = loss(logits.float(), target, weight.float())
        return result

    return compared
