"""Networks for membranes in electron tomograms: a U-Net on neighbouring slices, and its twin in three dimensions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from mitocore import Head, Kind, Model, Window

if TYPE_CHECKING:
    from torch import nn

    from mitocore_cryoet.networks.unet import Dimensions, UNet

Name = Literal["membrane", "boundary", "distance", "semantic"]


def _odd(slices: int) -> int:
    if slices % 2 == 0:
        raise ValueError(f"{slices} slices have no middle; write an odd number, such as {slices - 1}")
    return slices


class TomogramUNet(Model):
    """A U-Net whose heads, widths and norm are chosen."""

    image_channels: Annotated[tuple[str, ...], Field(min_length=1)] = ("image",)
    """Names of the input channels."""
    outputs: Name | Annotated[tuple[Name, ...], Field(min_length=1)] = "membrane"
    """Heads by name, one or several. "membrane" and "boundary" are probabilities, "distance" is squashed by tanh,
    "semantic" is one of `classes`."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)] = ("background", "membrane")
    """Of the head "semantic": names of the classes, background first."""
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (32, 64, 128, 256, 512)
    """Feature maps of every level, from full resolution down; each level but the last is pooled by 2."""
    norm: Literal["none", "group", "instance", "batch"] = "group"
    """Normalisation of features. "group" and "instance" look at the whole window; with "none" a training needs
    many times the steps."""
    groups: PositiveInt = 8
    """Groups of feature maps if norm = "group"; divides every width."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the feature maps at the bottom that is left out in training."""
    residual: bool = False
    """Whether every block adds what it was made from (He et al. 2016)."""

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if self.norm == "group" and any(width % self.groups for width in self.widths):
            raise ValueError(f"groups = {self.groups} does not divide all widths: {list(self.widths)}")
        names = [self.outputs] if isinstance(self.outputs, str) else list(self.outputs)
        if len(set(names)) < len(names):
            raise ValueError(f"outputs = {names} names a head twice")
        return self

    @property
    def factor(self) -> int:
        """Pixels of the plane that become one at the bottom."""
        return int(2 ** (len(self.widths) - 1))

    def channels(self) -> tuple[str, ...]:
        return self.image_channels

    def heads(self) -> tuple[Head, ...]:
        names = (self.outputs,) if isinstance(self.outputs, str) else self.outputs
        return tuple(self._head(name) for name in names)

    def _head(self, name: str) -> Head:
        if name == "semantic":
            return Head(name, self.classes, "softmax")
        if name == "distance":
            return Head(name, (name,), "tanh", Kind.DISTANCE)
        return Head(name, (name,))

    def fitted(self, size: int) -> int:
        """The window's edge: the size, or the next multiple of what a deeper network pools."""
        return -(-size // self.factor) * self.factor

    def unet(self, dimensions: "Dimensions", inputs: int) -> "UNet":
        """The network for planes or volumes of so many channels."""
        from mitocore_cryoet.networks.unet import Layers, UNet

        return UNet(
            Layers(dimensions, self.norm, self.groups),
            inputs,
            {head.name: len(head.channels) for head in self.heads()},
            self.widths,
            self.dropout,
            residual=self.residual,
        )


class UNet25D(TomogramUNet):
    """A U-Net that segments one slice and sees those around it as channels (2.5-D).

    With `norm = "none"` and `dropout = 0` it is the network of CryoET-Membrane-Seg, of 7,761,249 parameters
    (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597).
    """

    slices: Annotated[int, Field(ge=1, le=15), AfterValidator(_odd)] = 7
    """Slices that one output slice sees, itself in the middle; odd. 1: plain 2-D."""

    def window(self) -> Window:
        edge = self.fitted(256)
        around = (self.slices - 1) // 2
        return Window(
            (self.slices, edge, edge), (around, 0, 0), (0, edge // 2, edge // 2), (1, self.factor, self.factor)
        )

    def build(self) -> "nn.Module":
        from mitocore import nn

        return nn.Planewise(self.unet(2, self.slices * len(self.image_channels)), self.slices)

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "encoder": ("net2d.down.",),
            "bottom": ("net2d.bottom.",),
            "decoder": ("net2d.up.",),
            "head": ("net2d.head.",),
        }


class UNet3D(TomogramUNet):
    """The U-Net of `unet25d` with cubic kernels and pools: it sees as far along z as in the plane.

    Çiçek et al. 2016 (https://arxiv.org/abs/1606.06650).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (16, 32, 64, 128, 256)
    """Feature maps of every level, from full resolution down; each level but the last is pooled by 2."""

    def window(self) -> Window:
        edge = self.fitted(128)
        return Window((edge,) * 3, overlap=(edge // 4,) * 3, divisor=(self.factor,) * 3)

    def build(self) -> "nn.Module":
        return self.unet(3, len(self.image_channels))

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {"encoder": ("down.",), "bottom": ("bottom.",), "decoder": ("up.",), "head": ("head.",)}
