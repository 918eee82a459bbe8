"""Networks for mitochondria: residual symmetric and residual 3-D U-Nets, and MONAI's U-Net."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from mitocore import Shape, Window
from mitocore.geometry import as_shape
from mitocore_rsunet.heads import HeadedModel, SupervisedModel

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


class RSUNet(SupervisedModel):
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
        self.check_groups(self.widths[1:])
        if self.supervised > len(self.widths) - 2:
            raise ValueError(
                f"supervised = {self.supervised}, but the decoder has {len(self.widths) - 2} coarser levels"
            )
        return self

    @property
    def _pools(self) -> tuple[Shape, ...]:
        first: Shape = (2, 2, 2) if self.preset == "isotropic" else (1, 2, 2)
        return (first, *[(2, 2, 2)] * (len(self.widths) - 3))

    def window(self) -> Window:
        return _window((128, 128, 128) if self.preset == "isotropic" else (32, 160, 160), _product(self._pools))

    def build(self) -> "nn.Module":
        from mitocore_rsunet.networks.rsunet import ResidualSymmetricUNet

        deep = 3 if self.preset == "isotropic" else 1
        return self.named(
            ResidualSymmetricUNet(
                inputs=len(self.image_channels),
                outputs=self.logits(),
                widths=self.widths,
                pools=self._pools,
                kernels=[(deep, 3, 3), *[(3, 3, 3)] * (len(self.widths) - 2)],
                edge=(5 if self.preset == "isotropic" else 1, 5, 5),
                norm=self.norm_of(self.norm_eps, self.norm_momentum),
                supervised=self.supervised,
            )
        )

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {"encoder": ("net.stem.", "net.down."), "decoder": ("net.up.",), "head": ("net.head.", "net.aux.")}


class MonaiUNet(HeadedModel):
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
        logits = [self.logits()] if self.num_res_units else []  # MONAI's last residual unit normalises these too
        self.check_groups([*self.widths, *logits])
        return self

    def window(self) -> Window:
        return _window((128, 128, 128), _product(self.strides))

    def build(self) -> "nn.Module":
        from monai.networks.nets import UNet

        affine = {"batch": {}, "instance": {"affine": True}, "group": {"num_groups": self.groups}}
        return self.named(
            UNet(
                spatial_dims=3,
                in_channels=len(self.image_channels),
                out_channels=self.logits(),
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

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        # every level of MONAI's network holds what leads down (0), the levels below (1) and what leads up (2)
        levels = ["net.model." + "1.submodule." * level for level in range(len(self.strides))]
        return {
            "encoder": tuple(f"{level}0." for level in levels),
            "bottom": (f"{levels[-1]}1.",),
            "decoder": tuple(f"{level}2." for level in levels[1:]),
            "head": (f"{levels[0]}2.",),
        }

    def adapt(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Tensors of a bare MONAI U-Net, such as Catena saves, under the names they have in `build()`."""
        return {name if name.startswith("net.") else f"net.{name}": tensor for name, tensor in state.items()}


class ResidualUNet(SupervisedModel):
    """The residual 3-D U-Nets of PyTorch Connectomics: `unet_3d`, and with `plus` its `unet_plus_3d`.

    Lin et al., "PyTorch Connectomics: a scalable and flexible segmentation framework for EM connectomics", 2021
    (https://arxiv.org/abs/2112.05754), after Lee et al. 2017 (https://arxiv.org/abs/1706.00120): levels that are thick
    along z are convolved within the plane, skips are added, a level is enlarged by interpolation. As there, the
    convolutions inside the residual blocks lie within the plane at every level.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (28, 36, 48, 64, 80)
    """Feature maps of every level, from full resolution down."""
    isotropic: tuple[bool, ...] = (False, False, False, True, True)
    """For every level whether its convolution, and the step down to it, act along z too."""
    edge: Kernel = (1, 5, 5)
    """Kernel of the first and the last convolution; 5 for isotropic voxels."""
    block: Literal["residual", "residual_se", "residual_pa", "residual_se_pa"] = "residual_se"
    """Residual block; "se": with squeeze and excitation, "pa": norm and activation before the convolutions. Squeeze and
    excitation looks at the whole window, so a voxel then depends on it."""
    act: Literal["elu", "relu", "leakyrelu", "gelu", "silu"] = "elu"
    """Activation function."""
    padding: Literal["replicate", "zeros"] = "replicate"
    """What convolutions see beyond the window."""
    pooling: bool = False
    """Whether a level begins with a max-pool instead of a strided convolution."""
    plus: bool = False
    """Whether the deepest level sees all of the window at once (non-local block) and is added to every level."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if len(self.isotropic) != len(self.widths):
            problem = f"isotropic {list(self.isotropic)} and widths {list(self.widths)} do not fit"
            raise ValueError(f"{problem}; write one of true or false for every width")
        if self.supervised > len(self.widths) - 1:
            raise ValueError(
                f"supervised = {self.supervised}, but the decoder has {len(self.widths) - 1} coarser levels"
            )
        self.check_groups(self.widths)
        return self

    def window(self) -> Window:
        steps = [2 if deep else (1, 2, 2) for deep in self.isotropic[1:]]
        # levels are enlarged to the shape of those above, so any window fits, but for pools and norms of one voxel
        free = not self.pooling and self.norm != "instance"
        return _window(
            (112, 112, 112) if all(self.isotropic) else (16, 224, 224), (1, 1, 1) if free else _product(steps)
        )

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "encoder": ("net.stem.", "net.down.", "net.deepest."),
            "decoder": ("net.up.",),
            "head": ("net.head.", "net.aux."),
        }

    def build(self) -> "nn.Module":
        from torch import nn

        from mitocore_rsunet.networks.residual import Block, ResidualUNet3D

        acts = {"elu": nn.ELU, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}

        def act() -> nn.Module:
            return nn.LeakyReLU(0.2) if self.act == "leakyrelu" else acts[self.act]()

        norm = self.norm_of(1e-5, 0.1)

        def block(width: int) -> nn.Module:
            excite = self.block in ("residual_se", "residual_se_pa")
            return Block(width, self.padding, norm, act, early=self.block.endswith("_pa"), excite=excite)

        return self.named(
            ResidualUNet3D(
                inputs=len(self.image_channels),
                outputs=self.logits(),
                widths=self.widths,
                isotropic=self.isotropic,
                edge=_per_axis(self.edge),
                block=block,
                norm=norm,
                act=act,
                padding=self.padding,
                pooling=self.pooling,
                plus=self.plus,
                supervised=self.supervised,
            )
        )
