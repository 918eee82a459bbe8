"""The residual U-Nets of PyTorch Connectomics as torch modules (Lin et al. 2021, https://arxiv.org/abs/2112.05754)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

Kernel = tuple[int, int, int]
Padding = Literal["replicate", "zeros"]
Make = Callable[[int], nn.Module]
"""Makes a norm of so many feature maps."""
PLANE: Kernel = (1, 3, 3)


def convolution(inputs: int, outputs: int, kernel: Kernel, padding: Padding, stride: Kernel = (1, 1, 1)) -> nn.Conv3d:
    """A convolution that keeps the shape but for its stride; without bias, as a norm follows."""
    z, y, x = kernel
    around = (z // 2, y // 2, x // 2)
    return nn.Conv3d(inputs, outputs, kernel, stride, around, bias=False, padding_mode=padding)


class SqueezeExcite(nn.Module):
    """Weighs feature maps by what they hold on the whole (Hu et al. 2018, https://arxiv.org/abs/1709.01507)."""

    def __init__(self, width: int, act: Callable[[], nn.Module], ratio: int = 4) -> None:
        super().__init__()
        squeezed = width // ratio
        self.weigh = nn.Sequential(
            nn.Linear(width, squeezed, bias=False), act(), nn.Linear(squeezed, width, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width, z, y, x), scaled."""
        scale: Tensor = self.weigh(x.mean(dim=(2, 3, 4)))
        return x * scale[:, :, None, None, None]


class Block(nn.Module):
    """Two convolutions within the plane, added to what they were made from.

    `early`: norm and activation stand before each convolution (He et al. 2016, https://arxiv.org/abs/1603.05027).
    """

    def __init__(
        self, width: int, padding: Padding, norm: Make, act: Callable[[], nn.Module], *, early: bool, excite: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            made = convolution(width, width, PLANE, padding)
            if early:
                layers += [norm(width), act(), made]
            else:
                layers += [made, norm(width), *(() if last else (act(),))]
        self.layers = nn.Sequential(*layers)
        self.excite = SqueezeExcite(width, act) if excite else nn.Identity()
        self.act = nn.Identity() if early else act()

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width, z, y, x) of the same shape."""
        joined: Tensor = self.act(x + self.excite(self.layers(x)))
        return joined


class NonLocal(nn.Module):
    """Adds to every voxel what voxels like it hold (Wang et al. 2018, https://arxiv.org/abs/1711.07971).

    Memory grows with the square of the voxels, so it belongs where there are few.
    """

    def __init__(self, width: int, norm: Make) -> None:
        super().__init__()
        inner = max(width // 2, 1)
        self.value, self.query, self.key = (nn.Conv3d(width, inner, 1) for _ in range(3))
        self.out, self.norm = nn.Conv3d(inner, width, 1), norm(width)
        for parameter in self.norm.parameters():  # begins as the identity
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width, z, y, x) of the same shape."""
        value, query, key = (made(x).flatten(2) for made in (self.value, self.query, self.key))
        alike = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (n, voxels, voxels)
        found = (alike @ value.transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
        result: Tensor = x + self.norm(self.out(found))
        return result


class Up(nn.Module):
    """One level of the decoder: the level below enlarged, added to the encoder's features, and a block."""

    def __init__(self, before: nn.Module, block: nn.Module, spread: nn.Module | None) -> None:
        super().__init__()
        self.before, self.block, self.spread = before, block, spread

    def forward(self, x: Tensor, skip: Tensor, deepest: Tensor) -> Tensor:
        """Features in the space of `skip`; those of the deepest level are added where they are asked for."""
        x = _resized(self.before(x), skip) + skip
        if self.spread is not None:
            x = x + _resized(self.spread(deepest), x)
        found: Tensor = self.block(x)
        return found


class ResidualUNet3D(nn.Module):
    """Logits (n, outputs, z, y, x) of images (n, inputs, z, y, x) of any shape; skips are added.

    Parameters
    ----------
    inputs, outputs
        Channels of the image and of the logits.
    widths
        Feature maps of every level, from full resolution down.
    isotropic
        For every level whether its convolution, and the step down to it, act along z too.
    edge
        Kernel of the first and the last convolution.
    block
        Makes the residual block of so many feature maps.
    norm, act
        Make norms and activations.
    padding
        "replicate" or "zeros".
    pooling
        Whether a level begins with a max-pool instead of a strided convolution.
    plus
        Whether the deepest level gets a non-local block, and is added to every level of the decoder.
    supervised
        How many coarser levels of the decoder give logits too, in training.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        isotropic: Sequence[bool],
        edge: Kernel,
        block: Callable[[int], nn.Module],
        norm: Make,
        act: Callable[[], nn.Module],
        padding: Padding,
        *,
        pooling: bool,
        plus: bool,
        supervised: int,
    ) -> None:
        super().__init__()

        def layer(inner: int, outer: int, kernel: Kernel, stride: Kernel = (1, 1, 1)) -> nn.Sequential:
            return nn.Sequential(convolution(inner, outer, kernel, padding, stride), norm(outer), act())

        kernels: list[Kernel] = [(3, 3, 3) if deep else PLANE for deep in isotropic]
        self.stem = layer(inputs, widths[0], edge)
        self.down = nn.ModuleList()
        for level, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            step: Kernel = (1, 1, 1) if not level else (2, 2, 2) if isotropic[level] else (1, 2, 2)
            pool = nn.MaxPool3d(step, step) if pooling and level else nn.Identity()
            stride: Kernel = (1, 1, 1) if pooling else step
            above = widths[max(level - 1, 0)]
            self.down.append(nn.Sequential(pool, layer(above, width, kernel, stride), block(width)))
        self.up = nn.ModuleList(
            Up(layer(below, width, kernel), block(width), layer(widths[-1], width, (1, 1, 1)) if plus else None)
            for below, width, kernel in zip(widths[1:], widths[:-1], kernels[1:], strict=True)
        )
        self.deepest = NonLocal(widths[-1], norm) if plus else nn.Identity()
        z, y, x = edge
        around = (z // 2, y // 2, x // 2)
        self.head = nn.Conv3d(widths[0], outputs, edge, padding=around, padding_mode=padding)
        self.aux = nn.ModuleList(nn.Conv3d(width, outputs, 1) for width in widths[1 : supervised + 1])
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.orthogonal_(module.weight)  # Saxe et al. 2014, https://arxiv.org/abs/1312.6120

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits; in training with deep supervision a tuple, the coarser levels brought to the shape of the image."""
        image, skips = x, []
        x = self.stem(x)
        for down in self.down:
            x = down(x)
            skips.append(x)
        deepest = x = self.deepest(skips.pop())
        levels = [x]
        for up, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = up(x, skip, deepest)
            levels.append(x)
        logits: Tensor = self.head(x)
        if not self.training or not self.aux:
            return logits
        coarse = levels[-2 : -2 - len(self.aux) : -1]
        return (logits, *(_resized(aux(found), image) for aux, found in zip(self.aux, coarse, strict=True)))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """Features brought to the space of others, corner on corner."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return interpolate(x, like.shape[2:], mode="trilinear", align_corners=True)
