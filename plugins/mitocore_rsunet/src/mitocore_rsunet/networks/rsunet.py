"""The residual symmetric U-Net as a torch module."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

Kernel = tuple[int, int, int]
Norm = Callable[[int], nn.Module]


def convolution(inputs: int, outputs: int, kernel: Kernel, *, bias: bool) -> nn.Conv3d:
    """A convolution that keeps the shape."""
    z, y, x = kernel
    return nn.Conv3d(inputs, outputs, kernel, padding=(z // 2, y // 2, x // 2), bias=bias)


class ResidualBlock(nn.Module):
    """Three convolutions; what leaves the first is added to what leaves the third, before its norm.

    `bias`: whether the convolutions have one; a norm after them would cancel it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, norm: Norm, *, bias: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = convolution(inputs, outputs, kernel, bias=bias), norm(outputs)
        self.conv2, self.norm2 = convolution(outputs, outputs, kernel, bias=bias), norm(outputs)
        self.conv3, self.norm3 = convolution(outputs, outputs, kernel, bias=bias), norm(outputs)
        self.activation = nn.ELU()

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, outputs, z, y, x) of features (n, inputs, z, y, x)."""
        residual = self.activation(self.norm1(self.conv1(x)))
        features = self.activation(self.norm2(self.conv2(residual)))
        joined: Tensor = self.activation(self.norm3(self.conv3(features) + residual))
        return joined


def keep_variance(net: nn.Module, last: Sequence[nn.Module]) -> None:
    """Draw weights that keep the variance of the features (He et al. 2015, https://arxiv.org/abs/1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module in last else "relu")
        elif isinstance(module, nn.ConvTranspose3d):  # kernel = stride: a voxel is the sum of one tap per input
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_channels))
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and module.bias is not None:
            nn.init.zeros_(module.bias)


class UpBlock(nn.Module):
    """A transposed convolution to the level above, joined with features of the encoder, and a residual block.

    `sums`: they are added; else they stand side by side, so that the block takes those of both.
    """

    def __init__(self, up: nn.ConvTranspose3d, block: ResidualBlock, *, sums: bool) -> None:
        super().__init__()
        self.up, self.block, self.sums = up, block, sums

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Features in the shape of `skip`, which are the encoder's."""
        raised = self.up(x)
        features: Tensor = self.block(raised + skip if self.sums else torch.cat([raised, skip], dim=1))
        return features


class ResidualSymmetricUNet(nn.Module):
    """Logits (n, outputs, z, y, x) of images (n, inputs, z, y, x).

    Parameters
    ----------
    inputs, outputs
        Channels of the image and of the logits.
    widths
        Feature maps of the stem, then of every level from full resolution down.
    pools
        Factors (z, y, x) between neighbouring levels, one fewer than levels.
    kernels
        Of the blocks, one per level.
    edge
        Kernel of the first and the last convolution.
    norm
        Makes the norm of so many feature maps.
    bias
        Whether the convolutions of the blocks have one.
    sums
        Whether skips are added, not concatenated.
    supervised
        How many coarser levels of the decoder give logits too, in training.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        pools: Sequence[Kernel],
        kernels: Sequence[Kernel],
        edge: Kernel,
        norm: Norm,
        *,
        bias: bool,
        sums: bool,
        supervised: int,
    ) -> None:
        super().__init__()
        levels = widths[1:]
        self.stem = nn.Sequential(convolution(inputs, widths[0], edge, bias=True), nn.ELU())
        self.down = nn.ModuleList(
            ResidualBlock(above, width, kernel, norm, bias=bias)
            for above, width, kernel in zip(widths[:-1], levels, kernels, strict=True)
        )
        self.pool = nn.ModuleList(nn.MaxPool3d(pool) for pool in pools)
        self.up = nn.ModuleList(
            UpBlock(
                nn.ConvTranspose3d(below, width, pool, stride=pool),
                ResidualBlock(width if sums else 2 * width, width, kernel, norm, bias=bias),
                sums=sums,
            )
            for below, width, pool, kernel in zip(levels[1:], levels[:-1], pools, kernels[:-1], strict=True)
        )
        self.head = convolution(levels[0], outputs, edge, bias=True)
        self.aux = nn.ModuleList(nn.Conv3d(width, outputs, 1) for width in levels[1 : supervised + 1])
        keep_variance(self, [self.head, *self.aux])

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of images whose shape is a multiple of the product of `pools`; in training with deep supervision a
        tuple, the coarser levels brought to the shape of the image."""
        image = x
        x = self.down[0](self.stem(x))
        skips = []
        for pool, block in zip(self.pool, self.down[1:], strict=True):
            skips.append(x)
            x = block(pool(x))
        levels = [x]
        for up, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = up(x, skip)
            levels.append(x)
        logits: Tensor = self.head(x)
        if not self.training or not self.aux:
            return logits
        coarse = zip(self.aux, reversed(levels[:-1]), strict=False)
        return (logits, *(interpolate(aux(found), image.shape[2:], mode="trilinear") for aux, found in coarse))
