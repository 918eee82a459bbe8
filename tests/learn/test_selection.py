"""What follows the last step: calibration, thresholds, and one look at the test part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mitocore
from mitocore import recommended
from mitocore.config.toml import Document
from mitocore.geometry import Roi
from mitocore.header import read_header
from mitocore.learn import selection
from mitocore.learn.checkpoint import trained
from mitocore.learn.fit import TrainingResult, fit
from mitocore.learn.turned import Tempered
from mitocore.learn.validation import Validation
from mitocore.training import TrainingPlan, plan_training
from mitocore.volumes import installed

Planned = Callable[..., TrainingPlan]
SPLIT = {"validation": "z:12-18", "test": "z:19-24", "gap": 1}


@pytest.fixture
def finished(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> tuple[TrainingPlan, TrainingResult]:
    """A training on labels of which one in ten is wrong: whoever is sure of a voxel is too sure."""
    truth = np.load(tmp_path / "truth.npy") > 0
    wrong = np.random.default_rng(0).random(truth.shape) < 0.1
    np.save(tmp_path / "truth.npy", (truth ^ wrong).astype(np.uint8))
    plan = planned(
        {"steps": 40, "validate_every": 20, "optimizer": {"lr": 0.03}, "keep_best": "foreground.dice"},
        volume=[{**tables["volume"][0], "split": SPLIT}],
        model={"model": "tinynet", "dropout": 0.0, "width": 8},
        objective=[{"head": "foreground", "target": "foreground", "loss": "dice"}],
    )
    return plan, fit(plan)


def seen(plan: TrainingPlan, part: Any, temperature: dict[str, float]) -> Any:
    """Sums of the best weights, predicted at a temperature as inference does it."""
    from mitocore.blockwise import passes
    from mitocore.learn.data import Prepared

    with plan.volumes[0].image.open() as image:
        prepared = Prepared(plan.volumes[0], plan.normalizer, passes.fit(plan.normalizer, image))
    validation = Validation(plan, [prepared], part, "cpu")
    sums = validation.sums()
    validation.scores(Tempered(trained(plan.model, plan.folder / "best.safetensors"), temperature), sums=sums)
    return sums["foreground"]


def test_the_best_weights_say_threshold_temperature_and_what_they_are_worth(
    finished: tuple[TrainingPlan, TrainingResult],
) -> None:
    plan, result = finished
    header = read_header(result.best)
    scores = ("loss", "foreground.dice", "foreground.dice_at_threshold", "foreground.ece")
    assert set(result.scores) == {f"{part}.{score}" for part in ("validation", "test") for score in scores}
    assert header.scores == result.scores == json.loads((plan.folder / "scores.json").read_text())
    assert header.provenance["steps"] == 40
    assert 0.01 <= header.thresholds["foreground"] <= 0.99
    assert result.scores["validation.foreground.dice_at_threshold"] >= result.scores["validation.foreground.dice"]
    table = json.loads((plan.folder / "calibration.json").read_text())["foreground"]
    assert table["temperature"] == header.temperature.get("foreground")
    assert table["after"]["nll"] < table["before"]["nll"]
    assert sum(row[2] for row in table["after"]["rows"]) == 6 * 32 * 32
    assert (plan.folder / "reliability.png").read_bytes()[:4] == b"\x89PNG"


def test_the_threshold_is_that_of_probabilities_at_the_temperature_of_inference(
    finished: tuple[TrainingPlan, TrainingResult],
) -> None:
    plan, result = finished
    header = read_header(result.best)
    assert header.temperature
    swept = seen(plan, "validation", header.temperature)
    best = max(swept.dice(threshold, 1.0) for threshold in np.linspace(0.05, 0.95, 91))
    assert swept.dice(header.thresholds["foreground"], 1.0) > best - 0.005
    for part in ("validation", "test"):
        found = seen(plan, part, header.temperature)
        dice = found.dice(header.thresholds["foreground"], 1.0)
        assert dice == pytest.approx(result.scores[f"{part}.foreground.dice_at_threshold"], abs=0.01)
        assert found.reliability(1.0).ece == pytest.approx(result.scores[f"{part}.foreground.ece"], abs=0.01)


def test_the_test_part_is_looked_at_once_even_if_the_training_is_resumed(
    planned: Planned, tables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[str] = []
    original = Validation.scores

    def scores(self: Validation, *arguments: Any, **options: Any) -> dict[str, float]:
        parts.append(self.part)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Validation, "scores", scores)
    plan = planned({"steps": 4, "validate_every": 2}, volume=[{**tables["volume"][0], "split": SPLIT}])
    first = fit(plan)
    before = first.best.read_bytes()
    second = fit(plan, resume=True)
    assert parts == ["validation", "validation", "validation", "test"]  # two rounds, the calibration, the end
    assert second.scores == first.scores
    assert second.best.read_bytes() == before


def test_all_numbers_are_in_the_weights_before_a_picture_is_drawn(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def draw(path: Path, heads: Any) -> None:
        assert read_header(path.with_name("best.safetensors")).thresholds.keys() == heads.keys()
        drawn.append(path)

    monkeypatch.setattr(selection, "draw", draw)
    plan = planned({"steps": 2})
    fit(plan)
    assert drawn == [plan.folder / "reliability.png"]


def test_segment_uses_the_threshold_that_training_found(
    tables: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mitocore_rsunet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mitocore.learn.calibration.CANDIDATES", (0.05, 0.45))  # not the default of the step
    step = {"name": "mask", "postprocessor": "threshold"}
    train = {
        **tables["train"],
        "steps": 6,
        "crop": [8, 16, 16],
        "keep_best": "foreground.dice",
        "optimizer": {"lr": 0.01},
    }
    model = {"model": "rsunet", "widths": [4, 4, 6]}
    data = {**tables, "model": model, "step": [step], "train": train, "description": "bright balls"}
    result = fit(plan_training(Document(data, tmp_path / "train.toml"), installed()))
    header = read_header(result.best)
    assert header.description == "bright balls"
    threshold = header.thresholds["foreground"]
    assert 0.05 <= threshold <= 0.45
    assert recommended.steps(result.best)[1] == {**step, "threshold": threshold}
    image = np.load(tmp_path / "raw.npy")
    settings = ["net.storage=float32", "output.save=['all']"]
    with mitocore.segment(image, result.best, output="{name}.npy", settings=settings) as found:
        mask, probability = (found[name].read(Roi.whole(image.shape)) for name in ("mask.mask", "net.foreground"))
    assert np.array_equal(mask > 0, probability > threshold)
    assert 0 < np.count_nonzero(mask) < mask.size
