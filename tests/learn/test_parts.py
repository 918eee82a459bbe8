from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mitocore.config.optimisation import Train
from mitocore.errors import ConfigError
from mitocore.learn import device
from mitocore.learn.checkpoint import load_weights
from mitocore.learn.fit import fit
from mitocore.learn.module import Learner
from mitocore.learn.optimizer import build_optimizer
from mitocore.learn.parts import Freezing, parts_of
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]
ENCODER = {
    "net.0.weight",
    "net.0.bias",
    "net.1.weight",
    "net.1.bias",
    "net.1.running_mean",
    "net.1.running_var",
    "net.1.num_batches_tracked",
}


def moved(planned: Planned, **train: Any) -> set[str]:
    """Names of the tensors that differ between the network as built and after 3 steps."""
    settings = {"steps": 3, "validate_every": 1, "optimizer": {"lr": 0.05, "weight_decay": 0.5}, **train}
    plan = planned(settings, model="partednet")
    result = load_weights(fit(plan).last)
    with device.isolated("cpu"):
        device.seed(plan.seed)
        start = plan.model.build().state_dict()
    assert start.keys() == result.keys()
    return {name for name in start if not torch.equal(start[name], result[name])}


def test_exactly_the_named_tensors_freeze(planned: Planned) -> None:
    head = {"net.4.weight", "net.4.bias"}
    assert moved(planned, freeze=["encoder"]) == head
    learner = Learner(plan := planned({"freeze": ["encoder"]}, model="partednet"), plan.model.build())
    frozen = {name for name, p in learner.network.named_parameters() if not p.requires_grad}
    assert frozen == {name for name in ENCODER if name.endswith(("weight", "bias"))}


def test_an_average_of_frozen_tensors_does_not_move_either(planned: Planned) -> None:
    assert moved(planned, freeze=["encoder"], average={"kind": "ema", "decay": 0.9}) == {"net.4.weight", "net.4.bias"}


def test_a_part_that_thaws_moves_from_its_step_on(planned: Planned) -> None:
    thaws = [{"step": 2, "parts": ["encoder"]}]
    assert moved(planned, freeze=["encoder"], unfreeze=thaws) >= ENCODER
    never = [{"step": 3, "parts": ["encoder"]}]
    assert moved(planned, folder="never", freeze=["encoder"], unfreeze=never) == {"net.4.weight", "net.4.bias"}


def test_the_parts_of_a_model_that_names_none_are_the_children_of_its_network(planned: Planned) -> None:
    model = planned().model
    parts = parts_of(model.build(), model)
    assert {name: sorted(tensors) for name, tensors in parts.items() if name != "1"} == {
        "0": ["net.0.bias", "net.0.weight"],
        "4": ["net.4.bias", "net.4.weight"],
    }
    assert list(parts) == ["0", "1", "4"]  # layers without tensors are no parts


def test_parts_have_rates_of_their_own_and_layers_decay_towards_the_input(planned: Planned) -> None:
    model = planned().model
    network = model.build()
    train = Train.model_validate({"optimizer": {"lr": 1.0}, "rates": {"1": 0.1}, "rate_decay": 0.5})
    optimizer = build_optimizer(network, train, parts_of(network, model))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == pytest.approx(
        {
            "net.0.weight": 0.25,
            "net.0.bias": 0.25,
            "net.1.weight": 0.05,
            "net.1.bias": 0.05,
            "net.4.weight": 1.0,
            "net.4.bias": 1.0,
        }
    )


def test_unknown_parts_are_refused_with_those_there_are(planned: Planned) -> None:
    with pytest.raises(ConfigError, match="freeze names 'encodr'") as error:
        planned({"freeze": ["encodr"]}, model="partednet")  # the model names its parts: no network is built
    assert error.value.hint == "its parts are encoder, head"
    plan = planned({"rates": {"stem": 0.1}})
    with pytest.raises(ConfigError, match="rates names 'stem'") as error:
        fit(plan)
    assert error.value.hint == "its parts are 0, 1, 4"


def test_freezing_everything_is_refused() -> None:
    network = nn.Sequential(nn.Conv3d(1, 1, 1))
    with pytest.raises(ConfigError, match="nothing to train"):
        Freezing(network, {"all": frozenset({"0.weight", "0.bias"})}, Train(freeze=("all",)))
