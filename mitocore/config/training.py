"""What `train.toml` may say."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mitocore.config.labelled import SplitTable, VolumeTable
from mitocore.config.optimisation import Train
from mitocore.config.table import ComponentTable, Table


class ObjectiveTable(Table):
    """One term of the loss: what heads should predict, and how the difference is measured."""

    head: str | None = None
    """Name of a head of the model."""
    heads: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Instead of `head`: several, for losses that relate heads to each other."""
    target: ComponentTable | None = None
    """What the head should predict; left out for losses that only relate heads."""
    weight_map: tuple[ComponentTable, ...] = ()
    """Targets of the kind "weight"; how much a voxel counts is their product."""
    loss: ComponentTable
    """How prediction and target are compared."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Factor of this loss in the sum."""
    auxiliary: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Deep supervision (Lee et al. 2015, arXiv 1409.5185): factors of the same loss on the auxiliary heads
    `<head>_aux1`, `<head>_aux2` … of the model."""

    @field_validator("weight_map", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | dict) else value

    @model_validator(mode="after")
    def _head_or_heads(self) -> "ObjectiveTable":
        if (self.head is None) == (self.heads is None):
            raise ValueError('an objective names one head, head = "…", or several, heads = ["…", "…"]')
        if self.heads and self.auxiliary:
            raise ValueError("auxiliary is for an objective of one head")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The heads, in the order in which the loss takes them."""
        return self.heads or (self.head or "",)


class Training(Table):
    """A whole `train.toml`."""

    mitocore: Literal[1]
    """Version of this grammar."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed gives the same weights on the same machine."""
    description: str = ""
    """What the weights are for; travels in their header."""
    model: ComponentTable
    """The network and its options; `weights` names a file to start from."""
    normalizer: ComponentTable | None = None
    """How intensities become network input; left out: that of the weights to start from."""
    step: tuple[dict[str, Any], ...] = ()
    """Recommended post-processing, written into the header of the weights."""
    volume: Annotated[tuple[VolumeTable, ...], Field(min_length=1)]
    """Labelled volumes."""
    split: SplitTable | None = None
    """How all volumes together are divided; left out: each as its own `split` says."""
    sampler: ComponentTable = "foreground"
    """Where crops are cut."""
    augment: tuple[ComponentTable, ...] = ()
    """What changes image and labels together, in this order."""
    objective: Annotated[tuple[ObjectiveTable, ...], Field(min_length=1)]
    """What is learned; the losses are added up."""
    train: Train = Train()
    """How long, on what, and with which steps."""
