"""Networks for mitochondria: residual symmetric U-Net and MONAI's U-Net."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from mitocore import Head, Model, Shape, Window
from mitocore.geometry import as_shape

if TYPE_CHECKING:
    from torch import Tensor, nn

Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
Factor = PositiveInt | Triple
"""The same along every axis, or one number each for (z, y, x)."""


def _odd(kernel: Factor) -> Factor:
    if any(size % 2 == 0 for size in _per_axis(kernel)):
        raise ValueError(f"kernel {kernel} has an even size; write odd ones, such as 3 or [1, 3, 3]")
    return kernel


Kernel = Annotated[Factor, AfterValidator(_odd)]


def _per_axis(factor: Factor) -> Shape:
    return as_shape([factor] * 3 if isinstance(factor, int) else factor)


def _product(factors: Sequence[Factor]) -> Shape:
    return as_shape(math.prod(axis) for axis in zip((1, 1, 1), *map(_per_axis, factors), strict=True))


def _window(shape: Shape, divisor: Shape) -> Window:
    """Window of about this shape that fits the divisor; neighbours share a quarter of it."""
    fitting = as_shape(math.ceil(n / d) * d for n, d in zip(shape, divisor, strict=True))
    return Window(fitting, overlap=as_shape(n // 4 for n in fitting), divisor=divisor)


class _MitochondriaModel(Model):
    """What the networks of this plugin share: image channels in, foreground and boundary out."""

    image_channels: Annotated[tuple[str, ...], Field(min_length=1)] = ("image",)
    """Names of the input channels."""
    outputs: Literal["foreground", "bc"] = "foreground"
    """Heads: "foreground", or "bc" for foreground and boundary (contour)."""
    norm: Literal["batch", "instance", "group"] = "batch"
    """Normalisation of features. Only "batch" lets a voxel depend on its surroundings alone, not on the window."""
    groups: PositiveInt = 4
    """Groups of feature maps if norm = "group"; divides every width."""

    def channels(self) -> tuple[str, ...]:
        return self.image_channels

    def heads(self) -> tuple[Head, ...]:
        names = ("foreground",) if self.outputs == "foreground" else ("foreground", "boundary")
        return tuple(Head(name, channels=(name,)) for name in names)

    def _named(self, net: "nn.Module") -> "nn.Module":
        from mitocore.nn import Named

        return Named(net, **{head.name: len(head.channels) for head in self.heads()})

    def _check_groups(self, widths: Sequence[int]) -> None:
        """Refuse groups that cannot be made of the features which the network normalises."""
        if self.norm == "group" and any(width % self.groups for width in widths):
            raise ValueError(f"groups = {self.groups} does not divide all features that are normalised: {list(widths)}")


class RSUNet(_MitochondriaModel):
    """Residual symmetric U-Net with skips that join features of the same level.

    Lee, Zung, Li, Jain and Seung, "Superhuman accuracy on the SNEMI3D connectomics challenge", 2017
    (https://arxiv.org/abs/1706.00120), in the form that Xie et al. use for mitochondria (Bioinformatics Advances
    2025, vbaf021): batch norm, and skips that are concatenated, not summed.
    """

    preset: Literal["isotropic", "anisotropic"] = "isotropic"
    """"isotropic": cubic kernels and pools. "anisotropic", for thick sections: kernels within the plane at both ends
    and at full resolution, and a first pool that leaves z alone."""
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=3)] = (28, 36, 48, 64, 80, 96)
    """Feature maps of the stem, then of every level from full resolution down; their number sets the depth."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance of features before its root is taken."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of a batch in the running mean and variance of batch norm; raise it to 0.1 for short trainings."""

    @model_validator(mode="after")
    def _norm_fits(self) -> Self:
        self._check_groups(self.widths[1:])
        return self

    @property
    def _pools(self) -> tuple[Shape, ...]:
        first: Shape = (2, 2, 2) if self.preset == "isotropic" else (1, 2, 2)
        return (first, *[(2, 2, 2)] * (len(self.widths) - 3))

    def window(self) -> Window:
        return _window((128, 128, 128) if self.preset == "isotropic" else (32, 160, 160), _product(self._pools))

    def build(self) -> "nn.Module":
        from torch import nn

        from mitocore_rsunet.networks.rsunet import ResidualSymmetricUNet

        def norm(width: int) -> nn.Module:
            if self.norm == "batch":
                return nn.BatchNorm3d(width, self.norm_eps, self.norm_momentum)
            if self.norm == "instance":
                return nn.InstanceNorm3d(width, self.norm_eps, affine=True)
            return nn.GroupNorm(self.groups, width, self.norm_eps)

        deep = 3 if self.preset == "isotropic" else 1
        return self._named(
            ResidualSymmetricUNet(
                inputs=len(self.image_channels),
                outputs=sum(len(head.channels) for head in self.heads()),
                widths=self.widths,
                pools=self._pools,
                kernels=[(deep, 3, 3), *[(3, 3, 3)] * (len(self.widths) - 2)],
                edge=(5 if self.preset == "isotropic" else 1, 5, 5),
                norm=norm,
            )
        )


class MonaiUNet(_MitochondriaModel):
    """The U-Net of MONAI, with the settings of Catena's mitochondria pipeline as defaults.

    Kerfoot et al., "Left-ventricle quantification using residual U-Net", 2019
    (https://doi.org/10.1007/978-3-030-12029-0_40).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (28, 36, 48, 64, 80)
    """Feature maps of every level, from the first down (MONAI's `channels`)."""
    strides: tuple[Factor, ...] = (2, 2, 2, 2)
    """Factor between neighbouring levels, one fewer than widths; [1, 2, 2] leaves z alone."""
    kernel_size: Kernel = 3
    """Kernel of the encoder; odd."""
    up_kernel_size: Kernel = 3
    """Kernel of the decoder; odd."""
    num_res_units: Annotated[int, Field(ge=0)] = 0
    """Convolutions per residual unit; 0: plain convolutions."""
    act: Literal["prelu", "relu", "leakyrelu", "elu", "gelu", "swish", "mish"] = "prelu"
    """Activation function."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of features left out in training."""
    bias: bool = True
    """Whether convolutions have a bias."""
    adn_ordering: Literal["NDA", "NAD", "DNA", "DAN", "ADN", "AND"] = "NDA"
    """Order of activation (A), dropout (D) and norm (N) after a convolution."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if len(self.strides) != len(self.widths) - 1:
            problem = f"strides {list(self.strides)} and widths {list(self.widths)} do not fit"
            raise ValueError(f"{problem}; write one stride fewer than widths")
        logits = [len(self.heads())] if self.num_res_units else []  # MONAI's last residual unit normalises these too
        self._check_groups([*self.widths, *logits])
        return self

    def window(self) -> Window:
        return _window((128, 128, 128), _product(self.strides))

    def build(self) -> "nn.Module":
        from monai.networks.nets import UNet

        affine = {"batch": {}, "instance": {"affine": True}, "group": {"num_groups": self.groups}}
        return self._named(
            UNet(
                spatial_dims=3,
                in_channels=len(self.image_channels),
                out_channels=sum(len(head.channels) for head in self.heads()),
                channels=self.widths,
                strides=[_per_axis(stride) for stride in self.strides],
                kernel_size=_per_axis(self.kernel_size),
                up_kernel_size=_per_axis(self.up_kernel_size),
                num_res_units=self.num_res_units,
                act=self.act,
                norm=(self.norm, affine[self.norm]),
                dropout=self.dropout,
                bias=self.bias,
                adn_ordering=self.adn_ordering,
            )
        )

    def adapt(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Tensors of a bare MONAI U-Net, such as Catena saves, under the names they have in `build()`."""
        return {name if name.startswith("net.") else f"net.{name}": tensor for name, tensor in state.items()}
