from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mitocore.config.optimisation import Average, Optimizer, Schedule, Train
from mitocore.errors import ContractError, ResourceError
from mitocore.learn import device
from mitocore.learn.module import Learner, rate_factor
from mitocore.learn.optimizer import build_optimizer
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_norms_and_biases_have_no_weight_decay(name: str, planned: Planned) -> None:
    network = planned().model.build()
    options = Optimizer.model_validate({"name": name, "weight_decay": 0.1, "betas": (0.8, 0.9), "momentum": 0.7})
    optimizer = build_optimizer(network, Train(optimizer=options), {})
    decayed, free = optimizer.param_groups
    assert {p.ndim for p in decayed["params"]} == {5}
    assert {p.ndim for p in free["params"]} == {1}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0)
    assert type(optimizer).__name__.lower() == name
    assert optimizer.defaults.get("betas", (0.8, 0.9)) == (0.8, 0.9)
    assert optimizer.defaults.get("momentum", 0.7) == 0.7


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(["constant", "cosine", "one_cycle"]), st.none() | st.integers(0, 60), st.integers(1, 100))
def test_the_rate_stays_between_nothing_and_its_highest(name: str, warmup: int | None, steps: int) -> None:
    factor = rate_factor(Schedule.model_validate({"name": name, "warmup": warmup}), steps)
    rates = [factor(step) for step in range(steps + 1)]
    assert all(0 <= rate <= 1 + 1e-9 for rate in rates)
    if (warmup or 0) < steps and name != "constant":
        assert rates[-1] == pytest.approx(0, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1), st.integers(2, 20), st.sampled_from(["constant", "cosine", "multi_step", "plateau"]))
def test_a_warm_up_rises_in_a_line_to_the_highest_rate(lowest: float, warmup: int, name: str) -> None:
    table = {"name": name, "warmup": warmup, "warmup_from": lowest, **({"steps": [50]} if name == "multi_step" else {})}
    factor = rate_factor(Schedule.model_validate(table), 60)
    rises = np.diff([lowest, *(factor(step) for step in range(warmup))])
    assert rises == pytest.approx((1 - lowest) / warmup)
    assert factor(warmup - 1) == pytest.approx(1)


def test_a_rate_that_follows_swa_is_constant_from_its_start() -> None:
    average = Average(kind="swa", start=6, rate=0.05)
    factor = rate_factor(Schedule(name="cosine"), 10, average)
    assert [factor(step) for step in (6, 9)] == [0.05, 0.05]
    assert factor(5) > 0.05


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"schedule": {"name": "multi_step"}}, "increasing steps"),
        ({"schedule": {"name": "multi_step", "steps": [8, 6]}}, "increasing steps"),
        ({"schedule": {"name": "cosine", "patience": 3}}, "patience is an option of 'plateau', not of 'cosine'"),
        ({"average": {"kind": "ema", "every": 3}}, "every is an option of 'swa', not of 'ema'"),
        ({"unfreeze": [{"step": 5, "parts": ["encoder"]}]}, "unfreeze names 'encoder', which freeze does not"),
        ({"devices": "gpu"}, "devices are"),
        ({"devices": "cuda:1,1"}, "a device is named twice"),
    ],
)
def test_options_that_would_do_nothing_are_refused(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Train.model_validate(table)


def test_a_network_that_gives_other_heads_than_declared_is_named(planned: Planned) -> None:
    learner = Learner(planned(), torch.nn.Conv3d(1, 1, 1))
    batch = {"number": torch.tensor([0]), "image": torch.zeros(1, 1, 4, 16, 16), "targets": [], "weights": []}
    with pytest.raises(ContractError, match="'tiny/tinynet' gives nothing for head 'foreground'"):
        learner.training_step(batch, 0)


def test_a_device_that_is_not_there_is_refused_and_those_there_are_listed() -> None:
    with pytest.raises(ResourceError, match="no device 'cuda:99'") as error:
        device.chosen("cuda:99")
    assert "cpu" in error.value.hint


def test_equal_counters_give_equal_random_numbers() -> None:
    with device.isolated("cpu"):
        device.seed(1, 2, 0)
        one = torch.rand(3)
        device.seed(1, 2, 0)
        assert torch.equal(one, torch.rand(3))
        device.seed(1, 3, 0)
        assert not torch.equal(one, torch.rand(3))
