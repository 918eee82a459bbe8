"""One tensor of all heads, cut into them."""

from collections.abc import Mapping

from torch import Tensor, nn


class Cut(nn.Module):
    """A network that gives a mapping from head to logits.

    Parameters
    ----------
    net
        Gives a tensor (n, c, z, y, x), or in training a tuple: the tensor at full resolution, then those of coarser
        levels in the same space, whose heads are called `<head>_aux1`, `<head>_aux2` …
    channels
        Number of channels by head, in the order in which the tensors hold them.
    """

    def __init__(self, net: nn.Module, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.net, self.channels = net, dict(channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits by head, of images (n, c, z, y, x)."""
        given = self.net(x)
        levels = (given,) if isinstance(given, Tensor) else tuple(given)
        found: dict[str, Tensor] = {}
        for level, tensor in enumerate(levels):
            ending = f"_aux{level}" if level else ""
            parts = tensor.split(list(self.channels.values()), dim=1)
            found |= {f"{name}{ending}": part for name, part in zip(self.channels, parts, strict=True)}
        return found
