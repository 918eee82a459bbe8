"""A feature pyramid over a residual backbone as a torch module."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from mitocore_rsunet.networks.residual import (
    ONE,
    PLANE,
    Kernel,
    Make,
    MakeBlock,
    Padding,
    layer,
    orthogonal,
    resized,
)


class FeaturePyramid3D(nn.Module):
    """Logits (n, outputs, z, y, x) of images (n, inputs, z, y, x) of any shape, from features of all levels.

    Lin et al., "Feature pyramid networks for object detection", 2017 (https://arxiv.org/abs/1612.03144): the features
    of every level are brought to one width, and from the deepest up each is enlarged, smoothed and added to the next.

    Parameters
    ----------
    inputs, outputs
        Channels of the image and of the logits.
    widths
        Feature maps of every level, from full resolution down; the pyramid has the first of them everywhere.
    isotropic
        For every level whether its convolutions, and the step down to it, act along z too.
    blocks
        Residual blocks of every level but the first.
    edge
        Kernel of the first and the last convolution.
    block
        Makes a residual block of inputs, outputs, kernel and stride.
    norm, act
        Make norms and activations.
    padding
        "replicate" or "zeros".
    supervised
        How many coarser levels of the pyramid give logits too, in training.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        isotropic: Sequence[bool],
        blocks: Sequence[int],
        edge: Kernel,
        block: MakeBlock,
        norm: Make,
        act: Callable[[], nn.Module],
        padding: Padding,
        *,
        supervised: int,
    ) -> None:
        super().__init__()
        kernels: list[Kernel] = [(3, 3, 3) if deep else PLANE for deep in isotropic]
        self.down = nn.ModuleList([layer(inputs, widths[0], edge, padding, norm, act)])
        for level, count in enumerate(blocks, start=1):
            step: Kernel = (2, 2, 2) if isotropic[level] else (1, 2, 2)
            first = block(widths[level - 1], widths[level], kernels[level], step)
            more = (block(widths[level], widths[level], kernels[level], ONE) for _ in range(count - 1))
            self.down.append(nn.Sequential(first, *more))
        narrow = widths[0]
        self.lateral = nn.ModuleList(layer(width, narrow, ONE, padding, norm, act) for width in widths)
        self.smooth = nn.ModuleList(layer(narrow, narrow, kernel, padding, norm, act) for kernel in kernels)
        z, y, x = edge
        self.head = nn.Conv3d(narrow, outputs, edge, padding=(z // 2, y // 2, x // 2), padding_mode=padding)
        self.aux = nn.ModuleList(nn.Conv3d(narrow, outputs, 1) for _ in range(supervised))
        orthogonal(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits; in training with deep supervision a tuple, the coarser levels brought to the shape of the image."""
        image, features = x, []
        for down, lateral in zip(self.down, self.lateral, strict=True):
            x = down(x)
            features.append(lateral(x))
        levels = [features.pop()]
        for smooth, found in zip(reversed(self.smooth[1:]), reversed(features), strict=True):
            levels.append(smooth(resized(levels[-1], found)) + found)
        logits: Tensor = self.head(self.smooth[0](levels[-1]))
        if not self.training or not self.aux:
            return logits
        coarse = levels[-2 : -2 - len(self.aux) : -1]
        return (logits, *(resized(aux(found), image) for aux, found in zip(self.aux, coarse, strict=True)))
