import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mitocore.errors import ResourceError
from mitocore.learn.checkpoint import load_weights
from mitocore.learn.fit import fit
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]
RECIPES: list[dict[str, Any]] = [
    {
        "optimizer": {"name": "adam", "lr": 0.01},
        "schedule": {"name": "multi_step", "steps": [3, 6], "warmup": 2, "warmup_from": 0.1},
        "average": {"kind": "ema", "decay": 0.5},
        "clip": 0.1,
    },
    {
        "optimizer": {"name": "sgd", "lr": 1e-12},  # validation does not improve, so the rate falls
        "schedule": {"name": "plateau", "patience": 2, "factor": 0.1},
        "average": {"kind": "swa", "start": 2, "every": 2},
        "accumulate": 2,
    },
    {
        "schedule": {"name": "cosine", "warmup": 3},
        "freeze": ["0", "1"],
        "unfreeze": [{"step": 3, "parts": ["1"]}, {"step": 6, "parts": ["0"]}],
        "rates": {"0": 0.1},
    },
]


def rows(folder: Path, column: str) -> dict[int, float]:
    found = {}
    for table in sorted(folder.glob("logs/*/metrics.csv")):
        with table.open() as file:
            found |= {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}
    return found


def same(a: Path, b: Path) -> bool:
    one, other = load_weights(a), load_weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_schedule_and_average_is_resumed_exactly(recipe: dict[str, Any], planned: Planned) -> None:
    train = {"steps": 8, "validate_every": 1, "batch": 1, **recipe}
    whole, parts = (planned({**train, "folder": folder}) for folder in ("whole", "parts"))
    first, seen = fit(whole), list[int]()

    def progress(what: str, done: int, total: int, numbers: Any) -> None:
        seen.extend([done] if what == "training" else [])

    with pytest.raises(KeyboardInterrupt):
        fit(parts, progress=progress, cancelled=lambda: bool(seen) and seen[-1] >= 5)
    second = fit(parts, resume=True)
    assert same(first.last, second.last)
    assert same(first.best, second.best)
    assert first.scores == second.scores
    assert rows(whole.folder, "rate") == rows(parts.folder, "rate")


def test_the_rate_falls_when_validation_no_longer_improves(planned: Planned) -> None:
    plan = planned({**RECIPES[1], "average": None, "steps": 8, "validate_every": 1}, model="plainnet")
    fit(plan)
    rates = list(rows(plan.folder, "rate").values())
    assert rates[0] == pytest.approx(1e-12)
    assert min(rates) < 0.11e-12
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("average", "counting"),
    [({"kind": "ema", "decay": 0.75}, None), ({"kind": "swa", "start": 2, "every": 2}, (2, 4, 6))],
)
def test_the_average_is_what_is_saved(
    average: dict[str, Any], counting: tuple[int, ...] | None, planned: Planned
) -> None:
    common = {"steps": 6, "validate_every": 1, "checkpoint_every": 1, "optimizer": {"lr": 0.05}}
    plain = planned({**common, "folder": "plain"})
    fit(plain)
    each = [load_weights(path) for path in sorted(plain.folder.glob("weights-*.safetensors"))]
    assert len(each) == 6
    averaged = load_weights(fit(planned({**common, "folder": "averaged", "average": average})).last)
    for name, values in averaged.items():
        if counting is None:
            wanted = each[0][name]
            for one in each[1:]:
                wanted = 0.75 * wanted + 0.25 * one[name]
        else:
            wanted = sum(each[step - 1][name] for step in counting) / len(counting)
        if values.is_floating_point():  # statistics of the norm too
            assert torch.allclose(values, torch.as_tensor(wanted), atol=1e-6), name
        else:
            assert values == 6


def test_what_the_device_cannot_compute_is_refused_before_anything_is_written(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ResourceError, match="float16"):
        fit(planned({"precision": "float16"}))

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no C++ compiler was found\nlong trace")

    monkeypatch.setattr("torch.compile", broken)
    with pytest.raises(ResourceError, match="cannot compile for cpu here: no C") as error:
        fit(planned({"compile": True}))
    assert "compile = false" in error.value.hint
    assert not (planned().folder / "training.json").exists()


@pytest.mark.slow
def test_a_compiled_network_gives_weights_of_the_same_names_and_nearly_the_same_values(planned: Planned) -> None:
    train = {"steps": 2, "validate_every": 2}
    plain = load_weights(fit(planned({**train, "folder": "plain"}, model="plainnet")).last)
    compiled = load_weights(fit(planned({**train, "folder": "compiled", "compile": True}, model="plainnet")).last)
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-4) for name in plain)
