"""One step of a training whose heads are compared, supervised deeply, related to each other and asked at points."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mitocore import ArraySpec, Head, Kind, Model, Target, VoxelSize, Window
from mitocore.errors import WiringError
from mitocore.learn.module import Learner, objective_losses
from mitocore.registry import Registry
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


class ManyHeads(Model):
    """A convolution per head; points are drawn at random."""

    points: int = 20
    """Points per crop."""

    def window(self) -> Window:
        return Window((4, 16, 16))

    def heads(self) -> tuple[Head, ...]:
        return (
            Head("semantic", ("background", "object"), "softmax"),
            Head("semantic_aux1", ("background", "object"), "softmax", auxiliary=True),
            Head("semantic_aux2", ("background", "object"), "softmax", auxiliary=True),
            Head("foreground", ("foreground",)),
            Head("boundary", ("boundary",)),
            Head("distance", ("distance",), "tanh", Kind.DISTANCE),
            Head("points", ("foreground",), auxiliary=True),
            Head("places", ("z", "y", "x"), "none", Kind.OFFSET, auxiliary=True),
        )

    def build(self) -> Any:
        from torch import nn

        widths = {head.name: len(head.channels) for head in self.heads() if head.name != "places"}
        points = self.points

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.convolutions = nn.ModuleDict({name: nn.Conv3d(1, n, 1) for name, n in widths.items()})

            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                given = {name: convolution(x) for name, convolution in self.convolutions.items()}
                given["points"] = given["points"].flatten(2)[:, :, None, None, :points]
                return {**given, "places": torch.rand((len(x), 3, 1, 1, points), device=x.device)}

        return Network()


class OneHot(Target):
    """Background and objects, one channel each."""

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.PROBABILITY, ("background", "object"))

    def encode(self, labels: Any, voxel_size: VoxelSize | None) -> Any:
        inside = labels["instances"] > 0
        return np.stack([~inside, inside]).astype(np.float32)


class Side(Target):
    """1 inside objects, -1 outside."""

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.DISTANCE, ("distance",))

    def encode(self, labels: Any, voxel_size: VoxelSize | None) -> Any:
        return np.where(labels["instances"] > 0, 1, -1).astype(np.float32)[None]


SEMANTIC = {"head": "semantic", "target": "one_hot", "loss": "cross_entropy", "weight": 2.0, "auxiliary": [0.5, 0.25]}
OBJECTIVES = [
    SEMANTIC,
    {"head": "foreground", "target": "foreground", "loss": {"loss": "bce_dice", "balance": "crop"}},
    {"head": "boundary", "target": "near", "loss": "top_k_cross_entropy"},
    {"head": "distance", "target": "side", "loss": {"loss": "mse", "activation": "tanh"}, "weight": 5.0},
    {"heads": ["foreground", "boundary"], "loss": "foreground_boundary", "weight": 0.1},
    {"heads": ["boundary", "distance"], "loss": "boundary_distance", "weight": 0.1},
    {"heads": ["points", "places"], "target": "foreground", "loss": "point_rend"},
]


@pytest.fixture
def many(registry: Registry, planned: Planned) -> Planned:
    for kind, name, target in (
        ("model", "many", "ManyHeads"),
        ("target", "one_hot", "OneHot"),
        ("target", "side", "Side"),
    ):
        registry.add(kind, name, f"test_objectives_of_many_heads:{target}")
    return lambda **more: planned(model="many", **{"objective": OBJECTIVES, **more})


def batch(plan: TrainingPlan) -> dict[str, Any]:
    """Random labels of two crops, the first plane hidden."""
    rng = np.random.default_rng(0)
    labels = {"instances": (rng.random((2, 4, 16, 16)) < 0.4).astype(np.uint64)}
    weight = torch.ones((2, 1, 4, 16, 16))
    weight[:, :, 0] = 0
    targets = []
    for objective in plan.objectives:
        if objective.target is None:
            targets.append(torch.zeros((2, 0, 4, 16, 16)))
            continue
        crops = [objective.target.encode({"instances": ids}, None) for ids in labels["instances"]]
        targets.append(torch.from_numpy(np.stack(crops)))
    image = torch.tensor(rng.normal(size=(2, 1, 4, 16, 16)), dtype=torch.float32)
    return {"number": torch.arange(2), "image": image, "targets": targets, "weights": [weight] * len(plan.objectives)}


def test_a_step_adds_up_all_objectives_and_teaches_every_head(many: Planned) -> None:
    plan = many()
    learner = Learner(plan, plan.model.build())
    total = learner.training_step(batch(plan), 0)
    total.backward()
    for name, parameter in learner.network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name  # noqa: PT018 - one fact per tensor
    means = learner.take_losses()
    named = {"semantic": 2, "foreground": 1, "boundary": 1, "distance": 5, "foreground+boundary": 0.1}
    named |= {"boundary+distance": 0.1, "points+places": 1}
    assert means["loss"] == pytest.approx(sum(f * means[f"loss.{name}"] for name, f in named.items()), rel=1e-5)


@torch.no_grad()
def test_auxiliary_heads_add_the_same_loss_with_their_factors(many: Planned) -> None:
    plan = many()
    losses = [objective.loss.build() for objective in plan.objectives]
    given = batch(plan)
    logits = plan.model.build()(given["image"])
    found = objective_losses(plan, losses, logits, given["targets"], given["weights"])[0]
    alone = [
        losses[0](logits[name], target=given["targets"][0], weight=given["weights"][0])
        for name in ("semantic", "semantic_aux1", "semantic_aux2")
    ]
    assert float(found) == pytest.approx(float(alone[0] + 0.5 * alone[1] + 0.25 * alone[2]), rel=1e-6)
    evaluated = {name: values for name, values in logits.items() if not name.startswith("semantic_aux")}
    found = objective_losses(plan, losses, evaluated, given["targets"], given["weights"])[0]
    assert float(found) == pytest.approx(float(alone[0]), rel=1e-6)


def test_hidden_voxels_teach_no_head(many: Planned) -> None:
    plan = many()
    given = batch(plan)
    given["weights"] = [torch.zeros_like(weight) for weight in given["weights"]]
    learner = Learner(plan, plan.model.build())
    learner.training_step(given, 0).backward()
    assert not any(p.grad is not None and p.grad.any() for p in learner.network.parameters())


def test_a_loss_for_another_activation_is_refused_before_the_training(many: Planned) -> None:
    wrong = [{**SEMANTIC, "loss": "dice"}, *OBJECTIVES[1:]]
    with pytest.raises(WiringError, match="'semantic' ends in 'softmax'") as caught:
        many(objective=wrong)
    assert 'activation = "softmax"' in str(caught.value)
