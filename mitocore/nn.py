"""Adapters that make an ordinary torch network satisfy the contract of `Model.build`."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from mitocore.errors import ContractError


class Named(nn.Module):
    """A network that gives a tensor, or several, as a network that gives a mapping from head to logits.

    Names alone name the tensors in the order in which the network gives them. Names with a number of channels cut the
    network's one tensor along its channels, in order.

    Parameters
    ----------
    net
        Its forward gives one tensor (n, c, z, y, x), or a tuple or list of them.
    *names
        One head per tensor. In evaluation mode the last ones, auxiliary heads, may be missing.
    **channels
        One head per cut of the only tensor, with its number of channels. Either these or `names`.

    Raises
    ------
    ContractError
        If neither or both of `names` and `channels` are given; in forward, if they do not fit what the network gives.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(2, 1, 4, 8, 8)
    >>> list(Named(nn.Conv3d(1, 1, 1), "foreground")(x))
    ['foreground']
    >>> heads = Named(nn.Conv3d(1, 4, 1), semantic=3, center=1)(x)
    >>> {name: tuple(logits.shape) for name, logits in heads.items()}
    {'semantic': (2, 3, 4, 8, 8), 'center': (2, 1, 4, 8, 8)}
    """

    def __init__(self, net: nn.Module, *names: str, **channels: int) -> None:
        super().__init__()
        if bool(names) == bool(channels):
            problem = f"Named was given the names {names} and the channels {channels}, and takes one of the two"
            raise ContractError(problem, hint='Named(net, "foreground") or Named(net, semantic=3, center=1)')
        self.net, self.names, self.channels = net, names or tuple(channels), tuple(channels.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits per head, for images (n, c, z, y, x)."""
        given = self.net(x)
        tensors = (given,) if isinstance(given, Tensor) else tuple(given)
        if self.channels:
            if len(tensors) != 1 or tensors[0].shape[1] != sum(self.channels):
                got = [tuple(tensor.shape) for tensor in tensors]
                wanted = ", ".join(f"{name}={n}" for name, n in zip(self.names, self.channels, strict=True))
                raise ContractError(f"the network gave {got}, which cannot be cut into the channels {wanted}")
            tensors = tensors[0].split(self.channels, dim=1)
        missing = len(self.names) - len(tensors)
        if missing < 0 or (missing and self.training):
            raise ContractError(f"the network gave {len(tensors)} tensors for the heads {', '.join(self.names)}")
        return dict(zip(self.names, tensors, strict=False))


class Planewise(nn.Module):
    """A 2-D network as a network on volumes: every plane on its own, or with the planes around it as channels.

    The planes of a volume become images of one batch. With `slices` > 1 (2.5-D) an output plane sees as many
    neighbouring planes as channels, plane after plane within each channel of the volume, and depth shrinks by
    `slices` - 1: what a `Window` with a crop of ((slices - 1) / 2, 0, 0) asks for.

    Parameters
    ----------
    net2d
        Its forward takes (n, channels * slices, y, x) and gives a tensor (n, c, y, x), or a tuple, list or mapping.
    slices
        Planes that one output plane sees; odd.

    Raises
    ------
    ContractError
        If `slices` is not a positive odd number.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(2, 1, 5, 8, 8)
    >>> tuple(Planewise(nn.Conv2d(1, 3, 1))(x).shape)
    (2, 3, 5, 8, 8)
    >>> tuple(Planewise(nn.Conv2d(5, 3, 1), slices=5)(x).shape)
    (2, 3, 1, 8, 8)
    """

    def __init__(self, net2d: nn.Module, slices: int = 1) -> None:
        super().__init__()
        if slices < 1 or slices % 2 == 0:
            raise ContractError(f"Planewise was given {slices} slices, and takes an odd number: 1, 3, 5 …")
        self.net2d, self.slices = net2d, slices

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        """Logits of the 2-D network with depth back in place: (n, c, z - slices + 1, y, x)."""
        stacks = x.unfold(2, self.slices, 1).permute(0, 2, 1, 5, 3, 4)  # n, z, channel, slice, y, x
        n, z = stacks.shape[:2]
        given = self.net2d(stacks.flatten(2, 3).flatten(0, 1))

        def unfolded(planes: Tensor) -> Tensor:
            return planes.reshape(n, z, *planes.shape[1:]).transpose(1, 2)

        return _mapped(unfolded, given)


def _mapped(
    change: Callable[[Tensor], Tensor], given: Tensor | tuple[Tensor, ...] | list[Tensor] | Mapping[str, Tensor]
) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, Mapping):
        return {name: change(tensor) for name, tensor in given.items()}
    return tuple(change(tensor) for tensor in given)
