import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from mitocore.errors import MitocoreError, RunError
from mitocore.learn.checkpoint import load_weights
from mitocore.learn.fit import fit
from mitocore.learn.team import Follower, Place, leading
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]

MEAN = [{"head": "foreground", "target": "foreground", "loss": "bce"}]
"""A loss that is a mean over samples, so that the mean over two processes is the mean over their batches."""


def fails(place: Place, link: Connection) -> None:
    raise RuntimeError("no such thing")


def vanishes(place: Place, link: Connection) -> None:
    os._exit(1)


def arrives(place: Place, link: Connection) -> None:
    Follower(link, Path("last.ckpt")).arrive()


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


def test_a_process_that_fails_before_the_others_meet_it_ends_all_at_once() -> None:
    with pytest.raises(RunError, match="process 1 of 2 failed: no such thing"), leading(2, fails) as (leader, _):
        leader.meet()


def test_a_process_that_is_gone_before_the_others_meet_it_ends_all_at_once() -> None:
    with pytest.raises(RunError, match="processes that train together ended"), leading(2, vanishes) as (leader, _):
        leader.meet()


@pytest.mark.slow
def test_a_script_is_not_run_again_by_the_processes_that_it_starts(tmp_path: Path) -> None:
    lines = [
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "from mitocore.learn.team import leading",
        "from test_team import arrives",
        "with leading(2, arrives) as (leader, _):",
        "    leader.meet()",
        "print('met')",
    ]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines))
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.split() == ["met"]


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
