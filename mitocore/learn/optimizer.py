"""How gradients become steps."""

import math
from collections.abc import Callable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from mitocore.config.optimisation import Average, Schedule, Train
from mitocore.learn.parts import Parts, rate_of


def build_optimizer(network: nn.Module, train: Train, parts: Parts) -> Optimizer:
    """The optimiser; vectors (biases, scales and shifts of norms) have no weight decay, and parts their own rates."""
    options, groups = train.optimizer, dict[tuple[float, float], list[nn.Parameter]]()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = options.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate_of(name, parts, train), decay), []).append(parameter)
    tables = [{"params": p, "lr": options.lr * rate, "weight_decay": decay} for (rate, decay), p in groups.items()]
    if options.name == "sgd":
        return SGD(tables, lr=options.lr, momentum=options.momentum, nesterov=options.momentum > 0)
    kind = AdamW if options.name == "adamw" else Adam
    return kind(tables, lr=options.lr, betas=options.betas)


def rate_factor(schedule: Schedule, steps: int, average: Average | None = None) -> Callable[[int], float]:
    """Learning rate at a step, as a share of the highest; that of a plateau falls elsewhere, by validation.

    >>> factor = rate_factor(Schedule(name="cosine", warmup=2), 10)
    >>> [round(factor(step), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    >>> factor = rate_factor(Schedule(name="multi_step", steps=(4, 6), warmup=2, warmup_from=0.1), 10)
    >>> [round(factor(step), 3) for step in (0, 1, 2, 3, 4, 5, 6)]
    [0.55, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01]
    """
    cycle = schedule.name == "one_cycle"
    warmup = schedule.warmup if schedule.warmup is not None else round(0.3 * steps) if cycle else 0
    # one cycle starts at 1/25 of the highest rate (Smith & Topin 2017, arXiv 1708.07120)
    lowest = schedule.warmup_from if schedule.warmup_from is not None else 1 / 25 if cycle else 0.0

    def factor(step: int) -> float:
        if average and average.rate and step >= average.first(steps):
            return average.rate
        if step < warmup:
            rise = (step + 1) / warmup
            return lowest + (1 - lowest) * ((1 - math.cos(math.pi * rise)) / 2 if cycle else rise)
        if schedule.name == "multi_step":
            return schedule.gamma ** sum(step >= fall for fall in schedule.steps)
        if schedule.name in ("constant", "plateau"):
            return 1.0
        done = (step - warmup) / max(steps - warmup, 1)
        return (1 + math.cos(math.pi * min(done, 1.0))) / 2

    return factor


class Plateau:
    """How far the rate has fallen because validation no longer improved; nothing happens under other schedules."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.stale, self.falls = 0, 0

    @property
    def factor(self) -> float:
        """Share of the rate that is left."""
        return self.schedule.factor**self.falls

    def validated(self, *, better: bool) -> None:
        """Count a validation.

        >>> plateau = Plateau(Schedule(name="plateau", patience=2, factor=0.5))
        >>> for better in (True, False, False, False, True):
        ...     plateau.validated(better=better)
        >>> plateau.factor
        0.5
        """
        self.stale = 0 if better else self.stale + 1
        if self.schedule.name == "plateau" and self.stale >= self.schedule.patience:
            self.stale, self.falls = 0, self.falls + 1
