"""The mean of the weights over many steps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mitocore.config.optimisation import Average

Tensors = tuple[Tensor, ...] | list[Tensor]


class Averaged(nn.Module):
    """A copy of a network that follows its weights and buffers, exponentially (EMA) or as a plain mean (SWA).

    It is a module so that it travels with the learner: to its device, and into checkpoints.
    """

    def __init__(self, network: nn.Module, options: Average, steps: int) -> None:
        super().__init__()
        self.start = options.first(steps)
        self.every = 1 if options.kind == "ema" else options.every
        self.model = AveragedModel(network, multi_avg_fn=_follower(options), use_buffers=True)
        self.model.requires_grad_(requires_grad=False)

    @property
    def network(self) -> nn.Module | None:
        """The average; None before the first step that counts."""
        return self.model.module if int(self.model.n_averaged) else None

    def follow(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step `step`, counted from 1, if it counts."""
        if step >= self.start and (step - self.start) % self.every == 0:
            self.model.update_parameters(network)


def _follower(options: Average) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    @torch.no_grad()
    def follow(averages: Tensors, weights: Tensors, taken: Tensor | int) -> None:
        share = 1 - options.decay if options.kind == "ema" else 1 / (int(taken) + 1)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, share)
        else:  # counters of batch norms: a mean of them says nothing
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)

    return follow
