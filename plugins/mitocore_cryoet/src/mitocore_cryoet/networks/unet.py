"""The U-Net as a torch module, on planes or on volumes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["none", "group", "instance", "batch"]
Dimensions = Literal[2, 3]


class Layers:
    """The layers that differ between planes and volumes, and between norms."""

    def __init__(self, dimensions: Dimensions, norm: Norm, groups: int) -> None:
        flat = dimensions == 2
        self.convolution: type[nn.Conv2d | nn.Conv3d] = nn.Conv2d if flat else nn.Conv3d
        self.up: type[nn.ConvTranspose2d | nn.ConvTranspose3d] = nn.ConvTranspose2d if flat else nn.ConvTranspose3d
        self.pool: type[nn.MaxPool2d | nn.MaxPool3d] = nn.MaxPool2d if flat else nn.MaxPool3d
        self.dropout: type[nn.Dropout2d | nn.Dropout3d] = nn.Dropout2d if flat else nn.Dropout3d
        instance = nn.InstanceNorm2d if flat else nn.InstanceNorm3d
        batch = nn.BatchNorm2d if flat else nn.BatchNorm3d
        made: dict[Norm, Callable[[int], nn.Module]] = {
            "none": lambda _: nn.Identity(),
            "group": lambda width: nn.GroupNorm(groups, width),
            "instance": lambda width: instance(width, affine=True),
            "batch": batch,
        }
        self.norm = made[norm]
        self.bias = norm in ("none", "group")
        """Other norms take a bias away again: each map on its own has mean 0."""


class Block(nn.Module):
    """Two convolutions; with `residual`, added to what they were made from."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        self.conv1 = layers.convolution(inputs, outputs, 3, padding=1, bias=layers.bias)
        self.conv2 = layers.convolution(outputs, outputs, 3, padding=1, bias=layers.bias)
        self.norm1, self.norm2, self.act = layers.norm(outputs), layers.norm(outputs), nn.ReLU()
        self.around = layers.convolution(inputs, outputs, 1, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, outputs, …) of features (n, inputs, …)."""
        found = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        result: Tensor = self.act(found if self.around is None else found + self.around(x))
        return result


class Up(nn.Module):
    """A transposed convolution to the level above, joined with that level's own features, and a block."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        self.up = layers.up(inputs, outputs, 2, stride=2)
        self.block = Block(layers, 2 * outputs, outputs, residual=residual)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Features (n, outputs, …) in the shape of `skip`."""
        result: Tensor = self.block(torch.cat([self.up(x), skip], dim=1))
        return result


class UNet(nn.Module):
    """Logits by head of images (n, inputs, …) of two or three dimensions, all multiples of 2 per pool.

    Ronneberger, Fischer and Brox 2015 (https://arxiv.org/abs/1505.04597), with padded convolutions.

    Parameters
    ----------
    layers
        What it is made of.
    inputs
        Channels of the image.
    heads
        Channels of each head.
    widths
        Feature maps of every level, from full resolution down; the last is the bottom.
    dropout
        Share of the feature maps of the bottom that are left out in training.
    residual
        Whether blocks add what they were made from.
    """

    def __init__(
        self,
        layers: Layers,
        inputs: int,
        heads: Mapping[str, int],
        widths: Sequence[int],
        dropout: float,
        *,
        residual: bool,
    ) -> None:
        super().__init__()
        *levels, bottom = widths
        self.down = nn.ModuleList(
            Block(layers, above, width, residual=residual)
            for above, width in zip([inputs, *levels[:-1]], levels, strict=True)
        )
        self.pool = layers.pool(2)
        self.bottom = nn.Sequential(Block(layers, levels[-1], bottom, residual=residual), layers.dropout(dropout))
        self.up = nn.ModuleList(
            Up(layers, below, width, residual=residual)
            for below, width in zip([*levels[1:], bottom], levels, strict=True)
        )
        self.head = nn.ModuleDict({name: layers.convolution(levels[0], n, 1) for name, n in heads.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits (n, channels of the head, …) by head."""
        skips = []
        for block in self.down:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.bottom(x)
        for up, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = up(x, skip)
        return {name: convolution(x) for name, convolution in self.head.items()}
