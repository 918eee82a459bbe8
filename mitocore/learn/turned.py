"""Tiles as networks see them: turned by each symmetry, turned back, and reduced to one result with all networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mitocore.geometry import Shape
from mitocore.specs import Head, Kind
from mitocore.symmetry import Move, Symmetry, Turns, moves, symmetries

Reduce = Literal["mean", "min", "max"]
_SPACE = (-3, -2, -1)


class Tempered(nn.Module):
    """A network whose logits are divided by the temperature of their head (Guo et al. 2017, arXiv 1706.04599)."""

    def __init__(self, network: nn.Module, temperature: Mapping[str, float]) -> None:
        super().__init__()
        self.network, self.temperature = network, dict(temperature)

    def forward(self, x: Tensor) -> Any:
        """As the network gives it, but for the heads that have a temperature."""
        found = self.network(x)
        if not isinstance(found, Mapping):  # refused where it is used
            return found
        return {name: logits / self.temperature.get(name, 1.0) for name, logits in found.items()}


def turn(values: Tensor, symmetry: Symmetry) -> Tensor:
    """(…, z, y, x) values, turned."""
    first = values.ndim - 3
    turned = values.permute(*range(first), *(first + axis for axis in symmetry.axes))
    return turned.flip([axis for axis, flip in zip(_SPACE, symmetry.flips, strict=True) if flip])


def turn_back(values: Tensor, symmetry: Symmetry) -> Tensor:
    """What `turn` gave, as it was."""
    return turn(values, symmetry.inverse)


@dataclass(frozen=True)
class Turning:
    """How often a tile is predicted, and how the results become one.

    `min` and `max` are taken voxel by voxel; of classes they no longer add up to 1.
    """

    heads: tuple[Head, ...]
    turns: Turns = "none"
    reduce: Reduce = "mean"

    def values(self, networks: Sequence[nn.Module], tiles: Tensor, predict: Callable[..., Tensor]) -> Tensor:
        """One result (n, c, z, y, x) of all networks and symmetries.

        Parameters
        ----------
        networks
            Each sees every turned tile.
        tiles
            (n, c, z, y, x), normalised.
        predict
            `predict(network, tiles)`: activated values of all heads, channel after channel.
        """
        found: list[tuple[Tensor, Tensor | None]] = []
        for symmetry in symmetries(self.turns):
            channels = [move for head in self.heads for move in _numbered(head, symmetry, self.heads)]
            mirror = [_mirror(head) for head in self.heads for _ in head.channels]
            for network in networks:
                turned = turn_back(predict(network, turn(tiles, symmetry).contiguous()), symmetry)
                found.append(_moved(turned, channels, mirror))
        if len(found) == 1:
            return found[0][0]
        return _reduced(found, self.reduce)


def _numbered(head: Head, symmetry: Symmetry, heads: Sequence[Head]) -> list[Move]:
    """The moves of a head, its channels counted over all heads."""
    first = sum(len(other.channels) for other in heads[: heads.index(head)])
    return [Move(first + move.source, move.mirrored, move.shift) for move in moves(head, symmetry)]


def _mirror(head: Head) -> float:
    """What v becomes where its direction is turned round, less -v."""
    return 1.0 if head.kind is Kind.DESCRIPTOR else 0.0


def _moved(values: Tensor, channels: Sequence[Move], mirror: Sequence[float]) -> tuple[Tensor, Tensor | None]:
    """Channels in place, and where they hold a value: everywhere unless some are shifted."""
    if all(move == Move(at) for at, move in enumerate(channels)):
        return values, None
    result = torch.zeros_like(values)
    known = torch.ones(values.shape[1:], dtype=torch.bool, device=values.device)
    for at, move in enumerate(channels):
        channel = values[:, move.source]
        if move.mirrored:
            channel = mirror[at] - channel
        if not any(move.shift):
            result[:, at] = channel
            continue
        to, start = _overlap(move.shift, values.shape[-3:])
        known[at] = False
        known[(at, *to)] = True
        result[(slice(None), at, *to)] = channel[(slice(None), *start)]
    return result, None if bool(known.all()) else known


Box = tuple[slice, slice, slice]


def _overlap(shift: Shape, shape: Sequence[int]) -> tuple[Box, Box]:
    """Voxels v for which v + shift lies inside, and those v + shift."""
    stop = [max(0, n - abs(s)) for s, n in zip(shift, shape, strict=True)]
    to = [slice(max(0, -s), max(0, -s) + n) for s, n in zip(shift, stop, strict=True)]
    start = [slice(max(0, s), max(0, s) + n) for s, n in zip(shift, stop, strict=True)]
    return (to[0], to[1], to[2]), (start[0], start[1], start[2])


def _reduced(found: Sequence[tuple[Tensor, Tensor | None]], reduce: Reduce) -> Tensor:
    """The identity comes first, so every voxel has a value."""
    total = found[0][0].clone()
    if reduce == "mean":
        count: Tensor | int = 1
        for values, known in found[1:]:
            total += values if known is None else torch.where(known, values, 0)
            count = count + (1 if known is None else known.to(total.dtype))
        return total / count
    better = torch.minimum if reduce == "min" else torch.maximum
    for values, known in found[1:]:
        total = better(total, values if known is None else torch.where(known, values, total))
    return total
