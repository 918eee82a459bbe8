from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mitocore.errors import MitocoreError, RunError
from mitocore.learn.checkpoint import load_weights
from mitocore.learn.fit import fit
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]

MEAN = [{"head": "foreground", "target": "foreground", "loss": "bce"}]
"""A loss that is a mean over samples, so that the mean over two processes is the mean over their batches."""


def close(a: Path, b: Path) -> bool:
    one, other = load_weights(a), load_weights(b)
    return all(torch.allclose(one[name], other[name], atol=1e-5, rtol=0) for name in one)


def trained(planned: Planned, **train: Any) -> TrainingPlan:
    settings = {"steps": 2, "validate_every": 2, "optimizer": {"lr": 0.01}, **train}
    return planned(settings, model="plainnet", objective=MEAN)


def test_two_processes_equal_one_at_twice_the_batch(planned: Planned) -> None:
    one = fit(trained(planned, folder="one", batch=4))
    two = fit(trained(planned, folder="two", batch=2, devices="cpu:2"))
    assert two.steps == 2
    assert close(one.last, two.last)
    assert two.scores["validation.loss"] == pytest.approx(one.scores["validation.loss"], abs=1e-5)
    assert not torch.distributed.is_initialized()
    with pytest.raises(MitocoreError, match=r"train\.processes"):  # the global batch is another
        fit(trained(planned, folder="two", batch=2), resume=True)


@pytest.mark.slow
def test_a_team_that_was_interrupted_equals_one_that_was_not(planned: Planned) -> None:
    whole = fit(trained(planned, folder="whole", devices="cpu:2"))
    told: list[str] = []
    plan = trained(planned, folder="parts", devices="cpu:2")
    with pytest.raises(KeyboardInterrupt):
        fit(plan, progress=lambda what, *_: told.append(what), cancelled=lambda: "training" in told)
    assert told.count("training") == 1
    assert close(whole.last, fit(plan, resume=True).last)


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_ends_all_and_is_told(planned: Planned, tmp_path: Path) -> None:
    plan = planned({"folder": "two", "devices": "cpu:2", "optimizer": {"name": "sgd", "lr": 1e30}})
    with pytest.raises(RunError, match=r"became nan at step"):
        fit(plan)
    assert not (plan.folder / "best.safetensors").exists()
