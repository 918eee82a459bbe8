"""Networks for mitochondria: residual symmetric and residual 3-D U-Nets, and a feature pyramid."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from mitocore import Shape, Window
from mitocore_rsunet.foreign_names import of_catena, of_connectomics
from mitocore_rsunet.heads import SupervisedModel
from mitocore_rsunet.per_axis import Kernel, per_axis, product, window_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mitocore_rsunet.networks.residual import Make, MakeBlock


class RSUNet(SupervisedModel):
    """Residual symmetric U-Net with skips that join features of the same level.

    Lee, Zung, Li, Jain and Seung, "Superhuman accuracy on the SNEMI3D connectomics challenge", 2017
    (https://arxiv.org/abs/1706.00120), in the form that Xie et al. use for mitochondria (Bioinformatics Advances
    2025, vbaf021): batch norm, and skips that are concatenated, not summed. Tensors of Catena's network are
    known by name; its encoder is that of the isotropic preset.
    """

    preset: Literal["isotropic", "anisotropic"] = "isotropic"
    """"isotropic": cubic kernels and pools. "anisotropic", for thick sections: kernels within the plane at both ends
    and at full resolution, and a first pool that leaves z alone."""
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=3)] = (28, 36, 48, 64, 80, 96)
    """Feature maps of the stem, then of every level from full resolution down; their number sets the depth."""
    skips: Literal["concat", "sum"] = "concat"
    """How the decoder is joined with features of the encoder: side by side, or added as Lee et al. do."""
    catena_compat: bool = False
    """For weights of Catena's RS-UNet: the same tensors, and its skips, which join features of different places of the
    window. A voxel then depends on where the window lies; do not train with it."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance of features before its root is taken."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of a batch in the running mean and variance of batch norm; raise it to 0.1 for short trainings."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        self.check_groups(self.widths[0 if self.catena_compat else 1 :])
        self.check_levels(len(self.widths) - 2)
        if self.catena_compat and (self.preset, self.skips, self.supervised) != ("isotropic", "concat", 0):
            raise ValueError('catena_compat goes with preset = "isotropic", skips = "concat" and supervised = 0 only')
        return self

    @property
    def _pools(self) -> tuple[Shape, ...]:
        first: Shape = (2, 2, 2) if self.preset == "isotropic" else (1, 2, 2)
        return (first, *[(2, 2, 2)] * (len(self.widths) - 3))

    def window(self) -> Window:
        return window_of((128, 128, 128) if self.preset == "isotropic" else (32, 160, 160), product(self._pools))

    def build(self) -> "nn.Module":
        from mitocore_rsunet.networks.catena import CatenaUNet
        from mitocore_rsunet.networks.rsunet import ResidualSymmetricUNet

        inputs, norm = len(self.image_channels), self.norm_of(self.norm_eps, self.norm_momentum)
        if self.catena_compat:
            return self.named(CatenaUNet(inputs, self.logits(), self.widths, norm))
        deep = 3 if self.preset == "isotropic" else 1
        return self.named(
            ResidualSymmetricUNet(
                inputs,
                self.logits(),
                self.widths,
                pools=self._pools,
                kernels=[(deep, 3, 3), *[(3, 3, 3)] * (len(self.widths) - 2)],
                edge=(5 if self.preset == "isotropic" else 1, 5, 5),
                norm=norm,
                bias=self.norm == "none",  # a norm would cancel it
                sums=self.skips == "sum",
                supervised=self.supervised,
            )
        )

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {"encoder": ("net.stem.", "net.down."), "decoder": ("net.up.",), "head": ("net.head.", "net.aux.")}

    def adapt(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Tensors of Catena's RS-UNet under the names they have in `build()`."""
        return of_catena(state, biases=self.catena_compat)


_NAMES = {
    "filters": "widths",
    "isotropy": "isotropic",
    "block_type": "block",
    "act_mode": "act",
    "norm_mode": "norm",
    "pad_mode": "padding",
    "pooling_layer": "pooling",
}
_VALUES = {
    "act": {"leaky_relu": "leakyrelu", "swish": "silu", "efficient_swish": "silu"},
    "norm": {"bn": "batch", "sync_bn": "batch", "in": "instance", "gn": "group"},
}


class ResidualModel(SupervisedModel):
    """What the networks of PyTorch Connectomics share; options under its names, such as `filters`, are taken too."""

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (28, 36, 48, 64, 80)
    """Feature maps of every level, from full resolution down."""
    isotropic: tuple[bool, ...] = (False, False, False, True, True)
    """For every level whether its convolution, and the step down to it, act along z too."""
    edge: Kernel = (1, 5, 5)
    """Kernel of the first and the last convolution; 5 for isotropic voxels."""
    block: Literal["residual", "residual_se", "residual_pa", "residual_se_pa"] = "residual_se"
    """Residual block; "se": with squeeze and excitation, "pa": norm and activation before the convolutions. Squeeze and
    excitation looks at the whole window, so a voxel then depends on it."""
    act: Literal["elu", "relu", "leakyrelu", "gelu", "silu", "none"] = "elu"
    """Activation function; "leakyrelu" has a slope of 0.2."""
    padding: Literal["replicate", "zeros"] = "replicate"
    """What convolutions see beyond the window."""

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, options: Any) -> Any:
        if not isinstance(options, dict):
            return options
        found = {name: value for name, value in options.items() if name not in _NAMES}
        for name in _NAMES.keys() & options.keys():
            if _NAMES[name] in found:
                raise ValueError(f"{name} and {_NAMES[name]} are the same; write one of them")
            found[_NAMES[name]] = options[name]
        if options.get("norm_mode") == "gn":
            found.setdefault("groups", 8)
        for name, values in _VALUES.items():
            if isinstance(found.get(name), str):
                found[name] = values.get(found[name], found[name])
        return found

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if len(self.isotropic) != len(self.widths):
            problem = f"isotropic {list(self.isotropic)} and widths {list(self.widths)} do not fit"
            raise ValueError(f"{problem}; write one of true or false for every width")
        if "se" in self.block.split("_") and min(self.widths) < 4:
            raise ValueError(f"widths {list(self.widths)}: squeeze and excitation needs at least {4} feature maps")
        self.check_levels(len(self.widths) - 1)
        self.check_groups(self.widths)
        return self

    def window_for(self, *, free: bool) -> Window:
        """Window that fits the steps between levels, or any if `free`."""
        steps = [2 if deep else (1, 2, 2) for deep in self.isotropic[1:]]
        shape: Shape = (112, 112, 112) if all(self.isotropic) else (16, 224, 224)
        return window_of(shape, (1, 1, 1) if free else product(steps))

    def makers(self) -> "tuple[MakeBlock, Make, Callable[[], nn.Module]]":
        """What makes residual blocks, norms and activations."""
        from torch import nn

        from mitocore_rsunet.networks.residual import Block

        acts: dict[str, Callable[[], nn.Module]] = {
            "elu": nn.ELU,
            "relu": nn.ReLU,
            "leakyrelu": partial(nn.LeakyReLU, 0.2),
            "gelu": nn.GELU,
            "silu": nn.SiLU,
            "none": nn.Identity,
        }
        norm, act = self.norm_of(1e-5, 0.1), acts[self.act]
        kind = self.block.split("_")
        block = partial(Block, padding=self.padding, norm=norm, act=act, early="pa" in kind, excite="se" in kind)
        return block, norm, act

    def adapt(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Tensors of a network of PyTorch Connectomics 1.0 under the names they have in `build()`."""
        return of_connectomics(state)


class ResidualUNet(ResidualModel):
    """The residual 3-D U-Nets of PyTorch Connectomics: `unet_3d`, and with `plus` its `unet_plus_3d`.

    Lin et al., "PyTorch Connectomics: a scalable and flexible segmentation framework for EM connectomics", 2021
    (https://arxiv.org/abs/2112.05754), after Lee et al. 2017 (https://arxiv.org/abs/1706.00120): levels that are thick
    along z are convolved within the plane, skips are added, a level is enlarged by interpolation. As there, the
    convolutions inside the residual blocks lie within the plane at every level.
    """

    pooling: bool = False
    """Whether a level begins with a max-pool instead of a strided convolution."""
    plus: bool = False
    """Whether the deepest level sees all of the window at once (non-local block) and is added to every level. A voxel
    then depends on the whole window."""

    def window(self) -> Window:
        # levels are enlarged to the shape of those above, so any window fits, but for pools and norms of one voxel
        return self.window_for(free=not self.pooling and self.norm != "instance")

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "encoder": ("net.stem.", "net.down.", "net.deepest."),
            "decoder": ("net.up.",),
            "head": ("net.head.", "net.aux."),
        }

    def build(self) -> "nn.Module":
        from mitocore_rsunet.networks.residual import ResidualUNet3D

        block, norm, act = self.makers()
        return self.named(
            ResidualUNet3D(
                inputs=len(self.image_channels),
                outputs=self.logits(),
                widths=self.widths,
                isotropic=self.isotropic,
                edge=per_axis(self.edge),
                block=block,
                norm=norm,
                act=act,
                padding=self.padding,
                pooling=self.pooling,
                plus=self.plus,
                supervised=self.supervised,
            )
        )


class FPN(ResidualModel):
    """A feature pyramid over a residual network, PyTorch Connectomics' `fpn_3d` with its backbone `resnet`.

    Lin et al., "Feature pyramid networks for object detection", 2017 (https://arxiv.org/abs/1612.03144): features of
    every level are brought to the first width, enlarged by interpolation and added, so that the decoder is light. Here
    the convolutions of isotropic levels act along z inside the residual blocks too.
    """

    blocks: tuple[PositiveInt, ...] = (2, 2, 2, 2)
    """Residual blocks of every level but the first, which is one convolution."""

    @model_validator(mode="after")
    def _blocks_fit(self) -> Self:
        if len(self.blocks) != len(self.widths) - 1:
            problem = f"blocks {list(self.blocks)} and widths {list(self.widths)} do not fit"
            raise ValueError(f"{problem}; write one number fewer than widths")
        return self

    def window(self) -> Window:
        return self.window_for(free=self.norm != "instance")

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "encoder": ("net.down.",),
            "decoder": ("net.lateral.", "net.smooth."),
            "head": ("net.head.", "net.aux."),
        }

    def build(self) -> "nn.Module":
        from mitocore_rsunet.networks.pyramid import FeaturePyramid3D

        block, norm, act = self.makers()
        return self.named(
            FeaturePyramid3D(
                inputs=len(self.image_channels),
                outputs=self.logits(),
                widths=self.widths,
                isotropic=self.isotropic,
                blocks=self.blocks,
                edge=per_axis(self.edge),
                block=block,
                norm=norm,
                act=act,
                padding=self.padding,
                supervised=self.supervised,
            )
        )
