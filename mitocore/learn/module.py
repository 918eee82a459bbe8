"""What Lightning trains: the network, its losses and how gradients become steps."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mitocore.config.training import Schedule, Train
from mitocore.errors import ContractError, RunError
from mitocore.learn.device import seed
from mitocore.training import TrainingPlan


class Learner(LightningModule):  # type: ignore[misc] # lightning is not typed
    """A network and the weighted sum of its losses."""

    def __init__(self, plan: TrainingPlan, network: nn.Module) -> None:
        super().__init__()
        self.plan, self.network = plan, network
        self.losses = [objective.loss.build() for objective in plan.objectives]
        # those that are modules move to the device with the network
        self.loss_modules = nn.ModuleList(loss for loss in self.losses if isinstance(loss, nn.Module))
        self.seen: list[dict[str, Tensor]] = []
        """Losses of the forward passes since the last step."""

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch. Dropout is a function of seed, sample and rank, so a resumed training repeats it."""
        del batch_idx
        seed(self.plan.seed, int(batch["number"][0]), self.global_rank)
        logits = self.network(batch["image"])
        check_logits(logits, self.plan, batch["image"].shape)
        found = objective_losses(self.plan, self.losses, logits, batch["targets"], batch["weights"])
        total = sum((o.weight * loss for o, loss in zip(self.plan.objectives, found, strict=True)), torch.zeros(()))
        named = {"loss": total.detach()}
        if len(found) > 1:
            named |= {f"loss.{n}": loss.detach() for n, loss in zip(objective_names(self.plan), found, strict=True)}
        self.seen.append(named)
        return total

    def take_losses(self) -> dict[str, float]:
        """Mean losses of the step just taken.

        Raises
        ------
        RunError
            If they are no longer finite.
        """
        taken, self.seen = self.seen, []
        means = {name: float(torch.stack([one[name] for one in taken]).mean()) for name in taken[0]}
        if not math.isfinite(means["loss"]):
            hint = "start again with a lower learning rate, or clip = 1.0 in [train]"
            raise RunError(f"the loss became {means['loss']} at step {self.global_step}", hint=hint)
        return means

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser and learning-rate schedule, advanced at every step."""
        train = self.plan.train
        optimizer = build_optimizer(self.network, train)
        schedule = LambdaLR(optimizer, rate_factor(train.schedule, train.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def objective_names(plan: TrainingPlan) -> list[str]:
    """What the losses are called in logs: by head, numbered where a head has several."""
    heads = [objective.head.name for objective in plan.objectives]
    return [h if heads.count(h) == 1 else f"{h}.{heads[:n].count(h) + 1}" for n, h in enumerate(heads)]


def objective_losses(
    plan: TrainingPlan,
    losses: list[Callable[..., Tensor]],
    logits: Mapping[str, Tensor],
    targets: list[Tensor],
    weights: list[Tensor],
) -> list[Tensor]:
    """The loss of each objective, in float32 whatever the network's precision."""
    pairs = zip(plan.objectives, losses, targets, weights, strict=True)
    return [loss(logits[o.head.name].float(), target=target, weight=weight) for o, loss, target, weight in pairs]


def check_logits(logits: Any, plan: TrainingPlan, image: torch.Size) -> None:
    """Refuse what a network gives if it is not what its model declares."""
    space = tuple(n - 2 * c for n, c in zip(image[2:], plan.window.crop, strict=True))
    for head in (objective.head for objective in plan.objectives):
        wanted = (image[0], len(head.channels), *space)
        shape = tuple(logits[head.name].shape) if isinstance(logits, Mapping) and head.name in logits else None
        if shape != wanted:
            problem = f"{plan.component!r} gives {shape or 'nothing'} for head {head.name!r}; it declares {wanted}"
            raise ContractError(problem, hint="mend the model's forward() or heads()")


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
