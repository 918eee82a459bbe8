"""Cross-entropy and Dice together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mitocore.builtin.losses.balance import Balance
from mitocore.builtin.losses.counted import Mean
from mitocore.builtin.losses.entropy import Positive, Smoothing, binary, check_classes, classes
from mitocore.builtin.losses.overlap import Dice
from mitocore.builtin.losses.pairing import place
from mitocore.errors import WiringError
from mitocore.specs import ArraySpec, Head

if TYPE_CHECKING:
    from torch import Tensor

    from mitocore.builtin.losses.counted import Compared


class DiceCE(Dice):
    """Cross-entropy plus 1 - Dice, equally weighted; Catena's DiceCE with pos_weight = 5."""

    pos_weight: Positive = 1.0
    """How much more a foreground voxel counts than a background voxel in the cross-entropy (sigmoid)."""
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """How much a voxel of each class counts in the cross-entropy (softmax), one number per channel.
    Empty: all alike."""
    balance: Balance = "none"
    """"crop": foreground and background of a crop count alike in the cross-entropy, at most 19 to 1; "crop_grown":
    with the foreground grown by one voxel in the plane (sigmoid)."""
    label_smoothing: Smoothing = 0.0
    """The target of the cross-entropy is pulled by this share towards equal probabilities."""
    mean: Mean = "weight"
    """Divide the cross-entropy by the sum of weights, or by the number of voxels whose weight is not 0."""

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        super().accepts(heads, target)
        check_classes(self.class_weights, heads[0])
        strange = ("class_weights",) if self.activation == "sigmoid" else ("pos_weight", "balance")
        for name in strange:
            if getattr(self, name) != type(self).model_fields[name].default:
                problem = f"{name} = {getattr(self, name)!r} does not apply to a head with a {self.activation}"
                hint = "pos_weight or balance" if name == "class_weights" else "class_weights = [1.0, …]"
                raise WiringError(problem, where=place(heads), hint=hint)

    def parts(self) -> "tuple[Compared, Compared]":
        """Cross-entropy and Dice."""
        if self.activation == "softmax":
            return classes(self.class_weights, self.label_smoothing, self.mean), super().comparison()
        return binary(self.pos_weight, self.balance, self.label_smoothing, self.mean), super().comparison()

    def comparison(self) -> "Compared":
        return _sum(*self.parts(), 1.0, 1.0)


class BCEDice(DiceCE):
    """share * cross-entropy + (1 - share) * (1 - Dice); with the defaults the loss of CryoET-Membrane-Seg."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of the cross-entropy; Dice has the rest."""
    batch: bool = False
    """Whether the crops of a batch are taken as one volume for Dice, so that those with little foreground do not
    dominate."""

    def comparison(self) -> "Compared":
        return _sum(*self.parts(), self.share, 1 - self.share)


def _sum(one: "Compared", other: "Compared", of_one: float, of_other: float) -> "Compared":
    def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
        first = one(logits, target=target, weight=weight)
        return of_one * first + of_other * other(logits, target=target, weight=weight)

    return compared
