from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mitocore.blockwise import passes
from mitocore.learn.data import Prepared
from mitocore.learn.fit import fit
from mitocore.learn.validation import Validation
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


class Oracle(torch.nn.Module):
    """Predicts foreground where the image is bright."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"foreground": (x - 0.5) * 1000}


def validation(plan: TrainingPlan, part: Any = "validation") -> Validation:
    with plan.volumes[0].image.open() as image:
        stats = passes.fit(plan.normalizer, image)
    return Validation(plan, [Prepared(plan.volumes[0], plan.normalizer, stats)], part, "cpu")


def test_a_perfect_prediction_has_the_best_scores(planned: Planned, tmp_path: Path) -> None:
    np.save(tmp_path / "raw.npy", (np.load(tmp_path / "truth.npy") > 0).astype(np.uint8) * 255)
    scores = validation(planned({"keep_best": "foreground.dice"})).scores(Oracle())
    assert scores["foreground.dice"] == 1
    assert scores["loss"] < 1e-3


def test_ignored_voxels_do_not_count(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> None:
    truth = np.load(tmp_path / "truth.npy")
    np.save(tmp_path / "raw.npy", (truth > 0).astype(np.uint8) * 255)
    truth[16:, :8] = 9  # wrong, but ignored
    np.save(tmp_path / "truth.npy", truth)
    volume = {**tables["volume"][0], "label_values": {"ignore": [9]}}
    plan = planned({"keep_best": "foreground.dice"}, volume=[volume])
    assert validation(plan).scores(Oracle())["foreground.dice"] == 1


def test_the_loss_of_a_slab_is_that_of_the_logits(planned: Planned) -> None:
    objective = [{"head": "foreground", "target": "foreground", "loss": "bce"}]
    plan = planned({"crop": [8, 32, 32]}, model={"model": "tinynet", "dropout": 0.0}, objective=objective)
    torch.manual_seed(0)
    network = plan.model.build()
    found = validation(plan).scores(network)["loss"]
    with plan.volumes[0].image.open() as image, plan.volumes[0].labels["instances"].open() as labels:
        stats = passes.fit(plan.normalizer, image)
        box = plan.volumes[0].parts.validation
        assert box is not None
        raw = plan.normalizer.apply(image.read(box), stats)
        target = torch.from_numpy((labels.read(box) > 0).astype(np.float32))[None]
    logits = network.eval()(torch.from_numpy(raw)[None])["foreground"]
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, target).item()
    assert found == pytest.approx(wanted, rel=1e-5)


def test_validation_leaves_the_network_in_training_mode(planned: Planned) -> None:
    network = planned().model.build()
    validation(planned()).scores(network)
    assert network.training


def test_a_normaliser_that_is_not_voxelwise_is_computed_once_and_used_by_both(planned: Planned) -> None:
    plan = planned({"steps": 2, "validate_every": 1}, normalizer="plane_mean", augment=[])
    assert fit(plan).steps == 2
    assert list(plan.folder.glob("scratch/normalised.0.*/*.npy"))


def test_a_network_with_two_heads_and_context_trains_and_validates(planned: Planned) -> None:
    model = {"model": "tinynet", "context": 1, "two": True}
    objectives = [
        {"head": "foreground", "target": "foreground", "loss": "bce"},
        {"head": "foreground", "target": "foreground", "loss": "dice", "weight": 0.5},
        {"head": "boundary", "target": "near", "loss": {"loss": "bce", "pos_weight": 2.0}},
    ]
    train = {"steps": 2, "validate_every": 2, "keep_best": "boundary.iou", "precision": "bf16", "clip": 1.0}
    plan = planned(train, model=model, objective=objectives)
    result = fit(plan)
    assert result.scores.keys() == {"validation.loss", "validation.boundary.iou"}
    columns = next(plan.folder.glob("logs/*/metrics.csv")).read_text().splitlines()[0].split(",")
    assert {"train.loss", "train.loss.foreground.1", "train.loss.foreground.2", "train.loss.boundary"} < set(columns)


def test_a_large_section_is_validated_in_strips_with_the_same_scores(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned({"keep_best": "foreground.dice"}, model={"model": "tinynet", "dropout": 0.0})
    torch.manual_seed(0)
    network, told = plan.model.build(), []
    whole = validation(plan).scores(network)
    monkeypatch.setattr("mitocore.learn.validation._SUMS", 1)
    cut = validation(plan).scores(network, lambda done, _: told.append(done))
    assert cut["foreground.dice"] == whole["foreground.dice"]
    assert min(told) < 4 * 32 * 32  # less than one whole section of slabs at a time
    assert not (plan.folder / "scratch" / "seams").exists()
