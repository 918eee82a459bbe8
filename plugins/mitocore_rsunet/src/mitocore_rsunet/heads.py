"""What the networks of this plugin share: heads by name, the cut of one tensor into them, and the norm of features."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from mitocore import DESCRIPTORS, Head, Kind, Model, Shape
from mitocore.specs import channel_of

if TYPE_CHECKING:
    from torch import nn

Name = Literal["foreground", "boundary", "affinity", "distance", "semantic", "center", "offset", "descriptors", "bins"]
Preset = Literal["a", "ac", "bc", "bcd"]
_PRESETS: dict[str, tuple[Name, ...]] = {
    "a": ("affinity",),
    "ac": ("affinity", "boundary"),
    "bc": ("foreground", "boundary"),
    "bcd": ("foreground", "boundary", "distance"),
}


class HeadedModel(Model):
    """A network whose heads are chosen by name."""

    image_channels: Annotated[tuple[str, ...], Field(min_length=1)] = ("image",)
    """Names of the input channels."""
    outputs: Name | Preset | Annotated[tuple[Name, ...], Field(min_length=1)] = "foreground"
    """Heads by name, one or several; or a preset of PyTorch Connectomics: "a" (affinity), "ac" (affinity, boundary),
    "bc" (foreground, boundary), "bcd" (foreground, boundary, distance). "distance" is squashed by tanh, "center" and
    "offset" are regressed, "bins" are classes of a quantised distance."""
    offsets: Annotated[tuple[Shape, ...], Field(min_length=1)] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    """Of the head "affinity": steps (z, y, x) in voxels, as the target states them; its sign is the side."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)] = ("background", "mitochondrion")
    """Of the head "semantic": names of the classes, background first."""
    bins: PositiveInt = 11
    """Of the head "bins": number of classes."""
    flat: bool = False
    """Whether "offset" lies within the plane (y, x), as for targets of single slices."""

    def channels(self) -> tuple[str, ...]:
        return self.image_channels

    def heads(self) -> tuple[Head, ...]:
        names = _PRESETS.get(self.outputs, (self.outputs,)) if isinstance(self.outputs, str) else self.outputs
        return tuple(self._head(name) for name in names)

    def _head(self, name: str) -> Head:
        axes = ("y", "x") if self.flat else ("z", "y", "x")
        if name == "affinity":
            return Head(name, tuple(map(channel_of, self.offsets)), kind=Kind.AFFINITY, offsets=self.offsets)
        if name == "distance":
            return Head(name, (name,), "tanh", Kind.DISTANCE)
        if name == "semantic":
            return Head(name, self.classes, "softmax")
        if name == "bins":
            return Head(name, tuple(f"bin_{number}" for number in range(self.bins)), "softmax")
        if name == "center":
            return Head(name, (name,), "none")
        if name == "offset":
            return Head(name, axes, "none", Kind.OFFSET)
        if name == "descriptors":
            return Head(name, DESCRIPTORS, "sigmoid", Kind.DESCRIPTOR)
        return Head(name, (name,))

    def logits(self) -> int:
        """Channels of all heads together, auxiliary ones not counted."""
        return sum(len(head.channels) for head in self.heads() if not head.auxiliary)

    def named(self, net: "nn.Module") -> "nn.Module":
        """The network with its tensors cut into heads: the first at full resolution, the others are auxiliary."""
        from mitocore_rsunet.networks.cut import Cut

        return Cut(net, {head.name: len(head.channels) for head in self.heads() if not head.auxiliary})


class NormedModel(HeadedModel):
    """A network whose norm is chosen by name."""

    norm: Literal["batch", "instance", "group", "none"] = "batch"
    """Normalisation of features. "instance" and "group" look at the whole window, so a voxel then depends on it; with
    "batch" and "none" it depends on its surroundings alone, as far as the norm decides that."""
    groups: PositiveInt = 4
    """Groups of feature maps if norm = "group"; divides every width."""

    def check_groups(self, widths: Sequence[int]) -> None:
        """Refuse groups that cannot be made of the features which the network normalises."""
        if self.norm == "group" and any(width % self.groups for width in widths):
            raise ValueError(f"groups = {self.groups} does not divide all features that are normalised: {list(widths)}")

    def norm_of(self, eps: float, momentum: float) -> "Callable[[int], nn.Module]":
        """Makes the norm of so many feature maps."""
        from torch import nn

        def made(width: int) -> nn.Module:
            if self.norm == "batch":
                return nn.BatchNorm3d(width, eps, momentum)
            if self.norm == "instance":
                return nn.InstanceNorm3d(width, eps, affine=True)
            if self.norm == "group":
                return nn.GroupNorm(self.groups, width, eps)
            return nn.Identity()

        return made


class SupervisedModel(NormedModel):
    """A network that may predict its heads from coarser levels too."""

    supervised: Annotated[int, Field(ge=0)] = 0
    """Deep supervision: so many coarser levels of the decoder predict every head too, as auxiliary heads
    `<head>_aux1` (the finest of them) …, which only training computes."""

    def check_levels(self, coarser: int) -> None:
        """Refuse to supervise more coarser levels than the decoder has."""
        if self.supervised > coarser:
            raise ValueError(f"supervised = {self.supervised}, but the decoder has {coarser} coarser levels")

    def heads(self) -> tuple[Head, ...]:
        main = super().heads()
        return main + tuple(
            Head(f"{head.name}_aux{level}", head.channels, head.activation, head.kind, head.offsets, auxiliary=True)
            for level in range(1, self.supervised + 1)
            for head in main
        )
