"""How gradients become steps."""

import math
from collections.abc import Callable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from mitocore.config.optimisation import Schedule, Train


def build_optimizer(network: nn.Module, train: Train) -> Optimizer:
    """The optimiser; vectors (biases, scales and shifts of norms) have no weight decay."""
    options, parameters = train.optimizer, [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.name == "sgd":
        return SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=options.momentum > 0)
    return AdamW(groups, lr=options.lr) if options.name == "adamw" else Adam(groups, lr=options.lr)


def rate_factor(schedule: Schedule, steps: int) -> Callable[[int], float]:
    """Learning rate at a step, as a share of the highest.

    >>> factor = rate_factor(Schedule(name="cosine", warmup=2), 10)
    >>> [round(factor(step), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warmup = schedule.warmup
    if warmup is None:
        warmup = round(0.3 * steps) if schedule.name == "one_cycle" else 0

    def factor(step: int) -> float:
        if step < warmup:
            rise = (step + 1) / warmup
            # one cycle starts at 1/25 of the highest rate (Smith & Topin 2017, arXiv 1708.07120)
            return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * rise)) / 2 if schedule.name == "one_cycle" else rise
        if schedule.name == "constant":
            return 1.0
        done = (step - warmup) / max(steps - warmup, 1)
        return (1 + math.cos(math.pi * min(done, 1.0))) / 2

    return factor
