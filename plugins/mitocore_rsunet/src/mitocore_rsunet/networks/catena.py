"""The residual symmetric U-Net as Catena wires it: skips come from features of twice the resolution."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from mitocore_rsunet.networks.rsunet import Norm, ResidualBlock, UpBlock, convolution, keep_variance


class CatenaUNet(nn.Module):
    """Logits (n, outputs, z, y, x) of images (n, inputs, z, y, x).

    Every level of the decoder but the first is joined with the middle of features of the level above, cut to its shape,
    so that a voxel meets features of another place. Good for weights that were trained so, and for nothing else.

    Parameters
    ----------
    inputs, outputs
        Channels of the image and of the logits.
    widths
        Feature maps of the stem, then of every level from full resolution down.
    norm
        Makes the norm of so many feature maps.
    """

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], norm: Norm) -> None:
        super().__init__()
        cube, edge = (3, 3, 3), (5, 5, 5)
        depth = len(widths) - 2
        self.stem = nn.Sequential(convolution(inputs, widths[0], edge, bias=True), nn.ELU())
        self.down = nn.ModuleList(
            ResidualBlock(above, width, cube, norm, bias=True) for above, width in pairwise(widths)
        )
        self.pool = nn.ModuleList(nn.MaxPool3d(2) for _ in range(depth))
        self.up = nn.ModuleList()
        for level, skip in enumerate(widths[:depth]):
            below, raised = (widths[-1], widths[-2]) if level == depth - 1 else (widths[level + 1], skip)
            self.up.append(
                UpBlock(
                    nn.ConvTranspose3d(below, raised, 2, stride=2),
                    ResidualBlock(raised + skip, skip, cube, norm, bias=True),
                    sums=False,
                )
            )
        self.head = convolution(widths[0], outputs, edge, bias=True)
        keep_variance(self, [self.head])

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images whose shape is a multiple of 2 to the number of pools."""
        x = self.stem(x)
        skips = [x]
        x = self.down[0](x)
        for pool, block in zip(self.pool, self.down[1:], strict=True):
            skips.append(x)
            x = block(pool(x))
        for up, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = up(x, _middle(skip, [2 * n for n in x.shape[2:]]))
        logits: Tensor = self.head(x)
        return logits


def _middle(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The middle of features, of this shape."""
    for axis, (size, wanted) in enumerate(zip(x.shape[2:], shape, strict=True), start=2):
        x = x.narrow(axis, (size - wanted) // 2, wanted)
    return x
