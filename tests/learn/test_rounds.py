"""What is kept of a training while it goes on."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from mitocore.header import read_header
from mitocore.learn.checkpoint import load_weights
from mitocore.learn.fit import fit
from mitocore.learn.validation import Validation
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


def scored(monkeypatch: pytest.MonkeyPatch, name: str, values: Sequence[float]) -> None:
    """Let the rounds of a training find these scores."""
    left = iter(values)

    def scores(self: Validation, *arguments: Any, **options: Any) -> dict[str, float]:
        return {"loss": 0.0} if "sums" in options else {"loss": 1.0, name: next(left)}

    monkeypatch.setattr(Validation, "scores", scores)


def test_training_on_after_the_best_validation_does_not_change_the_best_weights(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, "loss", [0.1, 0.3, 0.2])
    plan = planned({"steps": 6, "validate_every": 2, "checkpoint_every": 2})
    result = fit(plan)
    best, kept, last = (load_weights(p) for p in (result.best, plan.folder / "weights-000002.safetensors", result.last))
    assert all(torch.equal(best[name], kept[name]) for name in best)
    assert not all(torch.equal(best[name], last[name]) for name in best)
    assert read_header(result.best).provenance["step"] == 2


def test_numbered_weights_are_kept_at_their_interval_and_are_whole(planned: Planned) -> None:
    plan = planned({"steps": 8, "validate_every": 8, "checkpoint_every": 3})
    result = fit(plan)
    kept = sorted(plan.folder.glob("weights-*"))
    assert [path.name for path in kept] == ["weights-000003.safetensors", "weights-000006.safetensors"]
    assert [read_header(path).provenance["step"] for path in kept] == [3, 6]
    assert load_weights(kept[0]).keys() == load_weights(result.last).keys()
    assert not list(plan.folder.glob("*.tmp"))


def test_no_numbered_weights_are_written_unless_they_are_asked_for(planned: Planned) -> None:
    plan = planned({"steps": 2})
    fit(plan)
    assert not list(plan.folder.glob("weights-*"))


@pytest.mark.parametrize(("metric", "step"), [("mae", 4), ("dice", 2)])
def test_the_best_of_an_error_is_the_smallest_and_of_a_score_the_largest(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, metric: str, step: int
) -> None:
    scored(monkeypatch, f"foreground.{metric}", [0.5, 0.1, 0.3])
    result = fit(planned({"steps": 6, "validate_every": 2, "keep_best": f"foreground.{metric}"}))
    assert read_header(result.best).provenance["step"] == step


def test_training_stops_early_by_what_best_means(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, "foreground.mae", [0.5, 0.4, 0.6, 0.4, 0.1])
    train = {"steps": 10, "validate_every": 2, "keep_best": "foreground.mae", "stop_after": 2}
    assert fit(planned(train)).steps == 8
