"""Networks of MONAI, under its names of tensors, so that weights saved by other programs fit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from mitocore import Window
from mitocore_rsunet.foreign_names import bare
from mitocore_rsunet.heads import HeadedModel, NormedModel
from mitocore_rsunet.per_axis import Factor, Kernel, per_axis, product, window_of

if TYPE_CHECKING:
    from torch import Tensor, nn

Share = Annotated[float, Field(ge=0, lt=1)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]


def _check_strides(strides: tuple[Factor, ...], widths: tuple[int, ...]) -> None:
    if len(strides) != len(widths) - 1:
        problem = f"strides {list(strides)} and widths {list(widths)} do not fit"
        raise ValueError(f"{problem}; write one stride fewer than widths")


class MonaiModel(HeadedModel):
    """A network of MONAI."""

    def adapt(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Tensors of the bare network, as others save it, under the names they have in `build()`."""
        return bare(state)


class NormedMonaiModel(MonaiModel, NormedModel):
    """A network of MONAI whose norm is chosen by name."""

    def norm_spec(self) -> str | tuple[str, dict[str, object]]:
        """The norm as MONAI is told it."""
        specs: dict[str, dict[str, object]] = {
            "batch": {},
            "instance": {"affine": True},
            "group": {"num_groups": self.groups},
        }
        return (self.norm, specs[self.norm]) if self.norm in specs else ""


class MonaiUNet(NormedMonaiModel):
    """The U-Net of MONAI, with the settings of Catena's mitochondria pipeline as defaults.

    Kerfoot et al., "Left-ventricle quantification using residual U-Net", 2019
    (https://doi.org/10.1007/978-3-030-12029-0_40).
    """

    widths: Widths = (28, 36, 48, 64, 80)
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
    dropout: Share = 0.1
    """Share of features left out in training."""
    bias: bool = True
    """Whether convolutions have a bias."""
    adn_ordering: Literal["NDA", "NAD", "DNA", "DAN", "ADN", "AND"] = "NDA"
    """Order of activation (A), dropout (D) and norm (N) after a convolution."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        _check_strides(self.strides, self.widths)
        logits = [self.logits()] if self.num_res_units else []  # MONAI's last residual unit normalises these too
        self.check_groups([*self.widths, *logits])
        return self

    def window(self) -> Window:
        return window_of((128, 128, 128), product(self.strides))

    def build(self) -> "nn.Module":
        from monai.networks.nets import UNet

        return self.named(
            UNet(
                spatial_dims=3,
                in_channels=len(self.image_channels),
                out_channels=self.logits(),
                channels=self.widths,
                strides=[per_axis(stride) for stride in self.strides],
                kernel_size=per_axis(self.kernel_size),
                up_kernel_size=per_axis(self.up_kernel_size),
                num_res_units=self.num_res_units,
                act=self.act,
                norm=self.norm_spec(),
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


class MonaiBasicUNet(NormedMonaiModel):
    """MONAI's BasicUNet: five levels, two convolutions each, full resolution included.

    Falk et al., "U-Net: deep learning for cell counting, detection, and morphometry", 2019
    (https://doi.org/10.1038/s41592-018-0261-2). For voxels about as long as wide. Its norm, "instance" unless stated,
    looks at the whole window.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=6, max_length=6)] = (32, 32, 64, 128, 256, 32)
    """Feature maps of the five levels, from full resolution down, then those before the head (MONAI's `features`)."""
    norm: Literal["batch", "instance", "group", "none"] = "instance"
    """Normalisation of features. With "batch" and "none" a voxel depends on its surroundings alone."""
    act: Literal["leakyrelu", "relu", "prelu", "elu", "gelu", "swish", "mish"] = "leakyrelu"
    """Activation function; "leakyrelu" has a slope of 0.1."""
    dropout: Share = 0.0
    """Share of features left out in training."""
    bias: bool = True
    """Whether convolutions have a bias."""
    upsample: Literal["deconv", "nontrainable", "pixelshuffle"] = "deconv"
    """How a level is enlarged: by a transposed convolution, by interpolation, or by features laid side by side."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        self.check_groups(self.widths)
        return self

    def window(self) -> Window:
        return window_of((96, 96, 96), (16, 16, 16))

    def build(self) -> "nn.Module":
        from monai.networks.nets import BasicUNet

        act = ("leakyrelu", {"negative_slope": 0.1, "inplace": True}) if self.act == "leakyrelu" else self.act
        return self.named(
            BasicUNet(
                spatial_dims=3,
                in_channels=len(self.image_channels),
                out_channels=self.logits(),
                features=self.widths,
                act=act,
                norm=self.norm_spec(),
                bias=self.bias,
                dropout=self.dropout,
                upsample=self.upsample,
            )
        )

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {"encoder": ("net.conv_0.", "net.down_"), "decoder": ("net.upcat_",), "head": ("net.final_conv.",)}


class MonaiAttentionUNet(MonaiModel):
    """MONAI's AttentionUnet: skips are weighed, voxel by voxel, by what the level below says of them.

    Oktay et al., "Attention U-Net: learning where to look for the pancreas", 2018 (https://arxiv.org/abs/1804.03999).
    Attention looks at one place at a time; but of its norms, batch norm otherwise, those where a skip is joined are
    instance norms, which look at the whole window: a voxel depends on it.
    """

    widths: Widths = (16, 32, 64, 128, 256)
    """Feature maps of every level, from full resolution down (MONAI's `channels`)."""
    strides: tuple[Factor, ...] = (2, 2, 2, 2)
    """Factor between neighbouring levels, one fewer than widths; [1, 2, 2] leaves z alone."""
    kernel_size: Kernel = 3
    """Kernel of the encoder; odd."""
    up_kernel_size: Kernel = 3
    """Kernel of the decoder; odd."""
    dropout: Share = 0.0
    """Share of features left out in training."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        _check_strides(self.strides, self.widths)
        return self

    def window(self) -> Window:
        return window_of((96, 96, 96), product(self.strides))

    def build(self) -> "nn.Module":
        from monai.networks.nets import AttentionUnet

        return self.named(
            AttentionUnet(
                spatial_dims=3,
                in_channels=len(self.image_channels),
                out_channels=self.logits(),
                channels=self.widths,
                strides=[per_axis(stride) for stride in self.strides],
                kernel_size=per_axis(self.kernel_size),
                up_kernel_size=per_axis(self.up_kernel_size),
                dropout=self.dropout,
            )
        )

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        # every level holds what leads down (submodule.0), the levels below (submodule.1) and what joins both
        levels = ["net.model.1." + "submodule.1." * level for level in range(len(self.strides))]
        downs = [f"{level}submodule.0." for level in levels[:-1]]
        return {
            "encoder": ("net.model.0.", *downs),
            "bottom": (f"{levels[-1]}submodule.",),
            "decoder": tuple(f"{level}{part}." for level in levels for part in ("attention", "upconv", "merge")),
            "head": ("net.model.2.",),
        }


class MonaiSwinUNETR(NormedMonaiModel):
    """MONAI's SwinUNETR: an encoder of shifted-window attention, a decoder of convolutions.

    Hatamizadeh et al., "Swin UNETR: Swin transformers for semantic segmentation of brain tumors in MRI images", 2022
    (https://arxiv.org/abs/2201.01266). Wants many labels, or weights that were trained before. Attention has its own
    grid within the window, and norms look at all of it: a voxel depends on where the window lies, which overlap hides.
    """

    feature_size: Annotated[PositiveInt, Field(multiple_of=12)] = 24
    """Features of the first level; a multiple of 12. Each of the four stages doubles them."""
    norm: Literal["batch", "instance", "group", "none"] = "instance"
    """Normalisation of the features of convolutions; attention has layer norm."""
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=4, max_length=4)] = (2, 2, 2, 2)
    """Attention layers of each of the four stages."""
    num_heads: Annotated[tuple[PositiveInt, ...], Field(min_length=4, max_length=4)] = (3, 6, 12, 24)
    """Attention heads of each of the four stages; each number divides the features of its stage."""
    attention_window: Factor = 7
    """Voxels of a stage, along each axis, that look at each other (MONAI's `window_size`)."""
    dropout: Share = 0.0
    """Share of features left out in training."""
    attention_dropout: Share = 0.0
    """Share of attention left out in training."""
    path_dropout: Share = 0.0
    """Share of attention layers skipped in training, for a whole crop."""
    v2: bool = False
    """Whether a residual convolution comes before each stage (He et al. 2023, SwinUNETR-V2)."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        stages = [self.feature_size * 2**stage for stage in range(4)]
        if any(features % heads for features, heads in zip(stages, self.num_heads, strict=True)):
            raise ValueError(f"num_heads {list(self.num_heads)} do not divide the features of the stages, {stages}")
        self.check_groups(stages)
        return self

    def window(self) -> Window:
        return window_of((96, 96, 96), (32, 32, 32))

    def build(self) -> "nn.Module":
        from monai.networks.nets import SwinUNETR

        return self.named(
            SwinUNETR(
                in_channels=len(self.image_channels),
                out_channels=self.logits(),
                feature_size=self.feature_size,
                # the instance norm of published weights learns no scale
                norm_name="instance" if self.norm == "instance" else self.norm_spec(),
                depths=self.depths,
                num_heads=self.num_heads,
                window_size=per_axis(self.attention_window),
                drop_rate=self.dropout,
                attn_drop_rate=self.attention_dropout,
                dropout_path_rate=self.path_dropout,
                use_v2=self.v2,
            )
        )

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {"encoder": ("net.swinViT.", "net.encoder"), "decoder": ("net.decoder",), "head": ("net.out.",)}


class MonaiSegResNet(NormedMonaiModel):
    """MONAI's SegResNet: a deep residual encoder, a light decoder whose skips are added.

    Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", 2018
    (https://arxiv.org/abs/1810.11654), without the autoencoder. For voxels about as long as wide. Its norm, "group"
    unless stated, looks at the whole window.
    """

    width: PositiveInt = 16
    """Feature maps at full resolution; each level doubles them (MONAI's `init_filters`)."""
    norm: Literal["batch", "instance", "group", "none"] = "group"
    """Normalisation of features. With "batch" and "none" a voxel depends on its surroundings alone."""
    groups: PositiveInt = 8
    """Groups of feature maps if norm = "group"; divides the width."""
    blocks_down: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (1, 2, 2, 4)
    """Residual blocks of every level of the encoder, from full resolution down; their number sets the depth."""
    blocks_up: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 1, 1)
    """Residual blocks of every level of the decoder, one number fewer."""
    act: Literal["relu", "leakyrelu", "prelu", "elu", "gelu", "swish", "mish"] = "relu"
    """Activation function."""
    dropout: Share = 0.0
    """Share of features left out in training, after the first convolution."""
    upsample: Literal["nontrainable", "deconv", "pixelshuffle"] = "nontrainable"
    """How a level is enlarged: by interpolation, by a transposed convolution, or by features laid side by side."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            problem = f"blocks_up {list(self.blocks_up)} and blocks_down {list(self.blocks_down)} do not fit"
            raise ValueError(f"{problem}; write one number fewer in blocks_up")
        self.check_groups([self.width])
        return self

    def window(self) -> Window:
        return window_of((128, 128, 128), product([2] * len(self.blocks_up)))

    def build(self) -> "nn.Module":
        from monai.networks.nets import SegResNet

        return self.named(
            SegResNet(
                spatial_dims=3,
                init_filters=self.width,
                in_channels=len(self.image_channels),
                out_channels=self.logits(),
                dropout_prob=self.dropout or None,
                act=self.act,
                norm=self.norm_spec(),
                blocks_down=self.blocks_down,
                blocks_up=self.blocks_up,
                upsample_mode=self.upsample,
            )
        )

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "encoder": ("net.convInit.", "net.down_layers."),
            "decoder": ("net.up_layers.", "net.up_samples."),
            "head": ("net.conv_final.",),
        }
