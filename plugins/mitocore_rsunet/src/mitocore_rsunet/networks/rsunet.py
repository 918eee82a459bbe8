"""The residual symmetric U-Net as a torch module."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

Kernel = tuple[int, int, int]
Norm = Callable[[int], nn.Module]


def _convolution(inputs: int, outputs: int, kernel: Kernel, *, bias: bool) -> nn.Conv3d:
    z, y, x = kernel
    return nn.Conv3d(inputs, outputs, kernel, padding=(z // 2, y // 2, x // 2), bias=bias)


class ResidualBlock(nn.Module):
    """Three convolutions; what leaves the first is added to what leaves the third, before its norm.

    The convolutions have no bias, because the norm after each would cancel it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(inputs, outputs, kernel, bias=False), norm(outputs)
        self.conv2, self.norm2 = _convolution(outputs, outputs, kernel, bias=False), norm(outputs)
        self.conv3, self.norm3 = _convolution(outputs, outputs, kernel, bias=False), norm(outputs)
        self.activation = nn.ELU()

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, outputs, z, y, x) of features (n, inputs, z, y, x)."""
        residual = self.activation(self.norm1(self.conv1(x)))
        features = self.activation(self.norm2(self.conv2(residual)))
        joined: Tensor = self.activation(self.norm3(self.conv3(features) + residual))
        return joined


class UpBlock(nn.Module):
    """A transposed convolution to the level above, joined with that level's own features, and a residual block."""

    def __init__(self, inputs: int, outputs: int, pool: Kernel, kernel: Kernel, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(inputs, outputs, pool, stride=pool)
        self.block = ResidualBlock(2 * outputs, outputs, kernel, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Features (n, outputs, …) in the shape of `skip`, the encoder's features of the same level."""
        features: Tensor = self.block(torch.cat([self.up(x), skip], dim=1))
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
        supervised: int = 0,
    ) -> None:
        super().__init__()
        levels = widths[1:]
        self.stem = nn.Sequential(_convolution(inputs, widths[0], edge, bias=True), nn.ELU())
        self.down = nn.ModuleList(
            ResidualBlock(above, width, kernel, norm)
            for above, width, kernel in zip(widths[:-1], levels, kernels, strict=True)
        )
        self.pool = nn.ModuleList(nn.MaxPool3d(pool) for pool in pools)
        self.up = nn.ModuleList(
            UpBlock(below, width, pool, kernel, norm)
            for below, width, pool, kernel in zip(levels[1:], levels[:-1], pools, kernels[:-1], strict=True)
        )
        self.head = _convolution(levels[0], outputs, edge, bias=True)
        self.aux = nn.ModuleList(nn.Conv3d(width, outputs, 1) for width in levels[1 : supervised + 1])
        self._initialise()

    def _initialise(self) -> None:
        """Draw weights that keep the variance of the features (He et al. 2015, https://arxiv.org/abs/1502.01852)."""
        last = [self.head, *self.aux]
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module in last else "relu")
            elif isinstance(module, nn.ConvTranspose3d):  # kernel = stride: a voxel is the sum of one tap per input
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_channels))
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and module.bias is not None:
                nn.init.zeros_(module.bias)

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
