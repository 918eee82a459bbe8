"""What Lightning trains: the network, its losses and how gradients become steps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mitocore.errors import ContractError, RunError
from mitocore.learn.average import Averaged
from mitocore.learn.device import seed
from mitocore.learn.optimizer import Plateau, build_optimizer, rate_factor
from mitocore.learn.parts import Freezing, parts_of
from mitocore.training import TrainingPlan


@dataclass(frozen=True)
class Taken:
    """What one process says of a step it took."""

    losses: Mapping[str, float]
    broken: str = ""
    """What is no longer finite; empty: nothing."""
    crops: str = ""
    """Where it was found."""


class Learner(LightningModule):  # type: ignore[misc] # lightning is not typed
    """A network and the weighted sum of its losses.

    Parameters
    ----------
    located
        Says in words where the samples of these numbers lie.
    gathered
        What all processes that train together say of a step, given what this one says.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        network: nn.Module,
        *,
        located: Callable[[Sequence[int]], str] = lambda numbers: f"samples {', '.join(map(str, numbers))}",
        gathered: Callable[[Taken], list[Taken]] = lambda taken: [taken],
    ) -> None:
        super().__init__()
        self.plan, self.network, self.located, self.gathered = plan, network, located, gathered
        self.losses = [objective.loss.build() for objective in plan.objectives]
        # those that are modules move to the device with the network
        self.loss_modules = nn.ModuleList(loss for loss in self.losses if isinstance(loss, nn.Module))
        train = plan.train
        self.average = Averaged(network, train.average, train.steps) if train.average else None
        self.parts = parts_of(network, plan.model)
        self.freezing = Freezing(network, self.parts, train)
        self.plateau = Plateau(train.schedule)
        # a function, not a module: the names of the tensors stay as they are
        self.forward_pass = torch.compile(network.forward) if train.compile else network.__call__
        self.seen: list[tuple[dict[str, Tensor], list[int]]] = []
        """Losses and sample numbers of the forward passes since the last step."""
        self.gradient: Tensor | None = None
        """Norm of the gradient of the last step."""

    def evaluated(self) -> nn.Module:
        """The network that is validated and saved: the average of the weights if there is one, else the weights."""
        averaged = self.average.network if self.average else None
        return self.network if averaged is None else averaged

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch. Dropout is a function of seed, sample and rank, so a resumed training repeats it."""
        del batch_idx
        numbers = [int(number) for number in batch["number"]]
        seed(self.plan.seed, numbers[0], self.global_rank)
        self.freezing.hold(self.global_step)
        logits = self.forward_pass(batch["image"])
        check_logits(logits, self.plan, batch["image"].shape)
        found = objective_losses(self.plan, self.losses, logits, batch["targets"], batch["weights"])
        total = sum((o.weight * loss for o, loss in zip(self.plan.objectives, found, strict=True)), torch.zeros(()))
        named = {"loss": total.detach()}
        if len(found) > 1:
            named |= {f"loss.{n}": loss.detach() for n, loss in zip(objective_names(self.plan), found, strict=True)}
        self.seen.append((named, numbers))
        return total

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, dataloader_idx: int) -> Any:
        """All but the numbers, which would make the CPU wait for the device."""
        voxels = {name: value for name, value in batch.items() if name != "number"}
        return {**super().transfer_batch_to_device(voxels, device, dataloader_idx), "number": batch["number"]}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Remember how large the gradient is; that of float16 may overflow, and its step is left out then."""
        if self.plan.train.precision != "float16":
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self.gradient = get_total_norm(gradients)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, and let the average follow."""
        super().optimizer_step(*arguments, **named)
        if self.average:
            self.average.follow(self.network, self.global_step + 1)  # Lightning counts the step later

    def take_losses(self) -> dict[str, float]:
        """Mean losses of the step just taken, over all processes.

        Raises
        ------
        RunError
            If they or the gradient are no longer finite.
        """
        everyone = self.report()
        if bad := next((taken for taken in everyone if taken.broken), None):
            raise _diverged(f"{bad.broken} at step {self.global_step}", where=f"crops {bad.crops}")
        return {name: sum(taken.losses[name] for taken in everyone) / len(everyone) for name in everyone[0].losses}

    def report(self) -> list[Taken]:
        """What all processes say of the step just taken; a process that follows says it to the one that leads."""
        return self.gathered(self._taken())

    def _taken(self) -> Taken:
        seen, self.seen = self.seen, []
        means = {name: float(torch.stack([losses[name] for losses, _ in seen]).mean()) for name in seen[0][0]}
        if not math.isfinite(means["loss"]):
            numbers = next(numbers for losses, numbers in seen if not math.isfinite(losses["loss"]))
            return Taken(means, f"the loss became {means['loss']}", self.located(numbers))
        if self.gradient is not None and not math.isfinite(self.gradient):
            numbers = [number for _, numbers in seen for number in numbers]
            return Taken(means, f"the gradient became {float(self.gradient)}", self.located(numbers))
        return Taken(means)

    def check_validated(self, loss: float) -> None:
        """Refuse weights whose validation loss is not finite, before they are saved.

        Raises
        ------
        RunError
            If it is not.
        """
        if not math.isfinite(loss):
            raise _diverged(f"the validation loss became {loss} at step {self.global_step}")

    def validated(self, *, better: bool) -> None:
        """Tell the learning rate whether the validation that just ended was the best so far."""
        self.plateau.validated(better=better)

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser and learning-rate schedule, advanced at every step."""
        train = self.plan.train
        optimizer = build_optimizer(self.network, train, self.parts)
        factor = rate_factor(train.schedule, train.steps, train.average)
        schedule = LambdaLR(optimizer, lambda step: factor(step) * self.plateau.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the tensors do not say."""
        checkpoint["training"] = self.plan.digest
        checkpoint["plateau"] = {"stale": self.plateau.stale, "falls": self.plateau.falls}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.plateau.stale, self.plateau.falls = (checkpoint["plateau"][key] for key in ("stale", "falls"))


def _diverged(what: str, where: str = "") -> RunError:
    """The error about numbers that are no longer finite; nothing is saved after it."""
    look = "look at these voxels; " if where else ""
    hint = f"{look}train again with a lower learning rate, or with clip = 1.0 in [train]"
    return RunError(what, where=where, hint=hint)


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
