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
ONE: Kernel = (1, 1, 1)
PLANE: Kernel = (1, 3, 3)
MakeBlock = Callable[[int, int, Kernel, Kernel], nn.Module]
"""Makes a residual block of inputs, outputs, kernel and stride."""


def convolution(inputs: int, outputs: int, kernel: Kernel, padding: Padding, stride: Kernel = ONE) -> nn.Conv3d:
    """A convolution that keeps the shape but for its stride; without bias, as a norm follows."""
    z, y, x = kernel
    around = (z // 2, y // 2, x // 2)
    return nn.Conv3d(inputs, outputs, kernel, stride, around, bias=False, padding_mode=padding)


def layer(
    inputs: int,
    outputs: int,
    kernel: Kernel,
    padding: Padding,
    norm: Make,
    act: Callable[[], nn.Module],
    stride: Kernel = ONE,
) -> nn.Sequential:
    """A convolution, its norm and an activation."""
    return nn.Sequential(convolution(inputs, outputs, kernel, padding, stride), norm(outputs), act())


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
    """Two convolutions, added to what they were made from, which is projected where the shape differs.

    `early`: norm and activation stand before each convolution (He et al. 2016, https://arxiv.org/abs/1603.05027).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Kernel,
        stride: Kernel,
        padding: Padding,
        norm: Make,
        act: Callable[[], nn.Module],
        *,
        early: bool,
        excite: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            made = convolution(outputs if last else inputs, outputs, kernel, padding, ONE if last else stride)
            if early:
                layers += [norm(outputs if last else inputs), act(), made]
            else:
                layers += [made, norm(outputs), *(() if last else (act(),))]
        self.layers = nn.Sequential(*layers)
        self.excite = SqueezeExcite(outputs, act) if excite else nn.Identity()
        same = inputs == outputs and stride == ONE
        projection = (convolution(inputs, outputs, ONE, padding, stride), norm(outputs))
        self.project = nn.Identity() if same else nn.Sequential(*projection)
        self.act = nn.Identity() if early else act()

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, outputs, …) of features (n, inputs, z, y, x), as many times smaller as the stride says."""
        joined: Tensor = self.act(self.project(x) + self.excite(self.layers(x)))
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
        for parameter in self.norm.parameters():  # with a norm it begins as the identity
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

    def __init__(self, before: nn.Module, block: nn.Module, spread: nn.Module | None, *, corners: bool) -> None:
        super().__init__()
        self.before, self.block, self.spread, self.corners = before, block, spread, corners

    def forward(self, x: Tensor, skip: Tensor, deepest: Tensor) -> Tensor:
        """Features in the space of `skip`; those of the deepest level are added where they are asked for."""
        x = resized(self.before(x), skip, corners=self.corners) + skip
        if self.spread is not None:
            x = x + resized(self.spread(deepest), x, corners=self.corners)
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
        Makes a residual block of inputs, outputs, kernel and stride.
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
        block: MakeBlock,
        norm: Make,
        act: Callable[[], nn.Module],
        padding: Padding,
        *,
        pooling: bool,
        plus: bool,
        supervised: int,
    ) -> None:
        super().__init__()

        self.corners = corners = not pooling  # a stride keeps the corner voxels where they are, a pool keeps the faces
        kernels: list[Kernel] = [(3, 3, 3) if deep else PLANE for deep in isotropic]

        def spread(width: int) -> nn.Sequential:
            # PyTorch Connectomics pads here though the kernel is of one voxel; without, its weights give something else
            made = nn.Conv3d(widths[-1], width, 1, padding=1, bias=False, padding_mode=padding)
            return nn.Sequential(made, norm(width), act())

        self.stem = layer(inputs, widths[0], edge, padding, norm, act)
        self.down = nn.ModuleList()
        for level, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            step: Kernel = ONE if not level else (2, 2, 2) if isotropic[level] else (1, 2, 2)
            pool = nn.MaxPool3d(step, step) if pooling and level else nn.Identity()
            stride: Kernel = ONE if pooling else step
            above = widths[max(level - 1, 0)]
            down = layer(above, width, kernel, padding, norm, act, stride)
            self.down.append(nn.Sequential(pool, down, block(width, width, PLANE, ONE)))
        self.up = nn.ModuleList(
            Up(
                layer(below, width, kernel, padding, norm, act),
                block(width, width, PLANE, ONE),
                spread(width) if plus else None,
                corners=corners,
            )
            for below, width, kernel in zip(widths[1:], widths[:-1], kernels[1:], strict=True)
        )
        self.deepest = NonLocal(widths[-1], norm) if plus else nn.Identity()
        z, y, x = edge
        around = (z // 2, y // 2, x // 2)
        self.head = nn.Conv3d(widths[0], outputs, edge, padding=around, padding_mode=padding)
        self.aux = nn.ModuleList(nn.Conv3d(width, outputs, 1) for width in widths[1 : supervised + 1])
        orthogonal(self)

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
        return (
            logits,
            *(resized(aux(found), image, corners=self.corners) for aux, found in zip(self.aux, coarse, strict=True)),
        )


def orthogonal(net: nn.Module) -> None:
    """Draw orthogonal weights (Saxe et al. 2014, https://arxiv.org/abs/1312.6120)."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.orthogonal_(module.weight)


def resized(x: Tensor, like: Tensor, *, corners: bool = True) -> Tensor:
    """Features brought to the space of others, corner on corner or face on face."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return interpolate(x, like.shape[2:], mode="trilinear", align_corners=corners)
