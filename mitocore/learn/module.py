"""What Lightning trains: the network, its losses and how gradients become steps."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from mitocore.errors import ContractError, RunError
from mitocore.learn.device import seed
from mitocore.learn.optimizer import build_optimizer, rate_factor
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
    names = [objective.name for objective in plan.objectives]
    return [h if names.count(h) == 1 else f"{h}.{names[:n].count(h) + 1}" for n, h in enumerate(names)]


def objective_losses(
    plan: TrainingPlan,
    losses: list[Callable[..., Tensor]],
    logits: Mapping[str, Tensor],
    targets: list[Tensor],
    weights: list[Tensor],
) -> list[Tensor]:
    """The loss of each objective, in float32 whatever the network's precision; auxiliary heads that are there count."""
    found = []
    for objective, loss, encoded, weight in zip(plan.objectives, losses, targets, weights, strict=True):
        target = encoded if objective.target else None
        total = loss(*(logits[head.name].float() for head in objective.heads), target=target, weight=weight)
        for head, factor in objective.auxiliary:
            if head.name in logits:
                total = total + factor * loss(logits[head.name].float(), target=target, weight=weight)
        found.append(total)
    return found


def check_logits(logits: Any, plan: TrainingPlan, image: torch.Size) -> None:
    """Refuse what a network gives if it is not what its model declares.

    An auxiliary head that an objective names itself, such as points and their places, may have any space.
    """
    space = tuple(n - 2 * c for n, c in zip(image[2:], plan.window.crop, strict=True))
    named = {head.name: head for o in plan.objectives for head in (*o.heads, *(head for head, _ in o.auxiliary))}
    free = {head.name for o in plan.objectives for head in o.heads if head.auxiliary}
    for head in named.values():
        wanted = (image[0], len(head.channels), *space)
        shape = tuple(logits[head.name].shape) if isinstance(logits, Mapping) and head.name in logits else None
        if shape is None or shape[: 2 if head.name in free else None] != wanted[: 2 if head.name in free else None]:
            problem = f"{plan.component!r} gives {shape or 'nothing'} for head {head.name!r}; it declares {wanted}"
            raise ContractError(problem, hint="mend the model's forward() or heads()")
