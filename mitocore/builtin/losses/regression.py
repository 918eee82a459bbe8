"""Losses between numbers: distances, offsets, heat maps, shape descriptors."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mitocore.builtin.losses.counted import Activation, Mean, activated, mean_of
from mitocore.builtin.losses.pairing import OneHead
from mitocore.specs import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from mitocore.builtin.losses.counted import Compared


class Regression(OneHead):
    """Compares what a head gives at inference, after its activation, with numbers."""

    kinds: ClassVar = (Kind.PROBABILITY, Kind.AFFINITY, Kind.OFFSET, Kind.DISTANCE, Kind.DESCRIPTOR)
    activation: Activation = "none"
    """Of the head."""
    channels: Literal["mean", "sum"] = "mean"
    """Over channels; "sum" as in PyTorch Connectomics and empanada."""
    mean: Mean = "weight"
    """Divide by the sum of weights, or by the number of voxels whose weight is not 0: weights above 1 then raise the
    loss, as in PyTorch Connectomics."""

    @abstractmethod
    def terms(self, values: "Tensor", target: "Tensor") -> "Tensor":
        """What each voxel adds."""

    def comparison(self) -> "Compared":
        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            terms = self.terms(activated(logits, self.activation), target)
            terms = terms.sum(1, keepdim=True) if self.channels == "sum" else terms.mean(1, keepdim=True)
            return mean_of(terms, weight, self.mean)

        return compared


class MSE(Regression):
    """Mean squared error, averaged by weight."""

    def terms(self, values: "Tensor", target: "Tensor") -> "Tensor":
        return (values - target) ** 2


class MAE(Regression):
    """Mean absolute error, averaged by weight."""

    def terms(self, values: "Tensor", target: "Tensor") -> "Tensor":
        return (values - target).abs()


class SmoothL1(Regression):
    """Squared error below `beta` and absolute error above it (Girshick 2015), averaged by weight."""

    beta: Annotated[float, Field(gt=0)] = 1.0
    """Error at which one goes over into the other, in the unit of the target."""

    def terms(self, values: "Tensor", target: "Tensor") -> "Tensor":
        from torch.nn.functional import smooth_l1_loss

        return smooth_l1_loss(values, target, reduction="none", beta=self.beta)
