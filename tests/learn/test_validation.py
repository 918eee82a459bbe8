from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mitocore.blockwise import passes
from mitocore.errors import WiringError
from mitocore.learn.data import Prepared
from mitocore.learn.fit import fit
from mitocore.learn.validation import Validation
from mitocore.registry import Registry
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


class Oracle(torch.nn.Module):
    """Predicts foreground where the image is bright."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"foreground": (x - 0.5) * 1000}


def validation(plan: TrainingPlan, part: Any = "validation") -> Validation:
    prepared = []
    for volume in plan.volumes:
        with volume.image.open() as image:
            prepared.append(Prepared(volume, plan.normalizer, passes.fit(plan.normalizer, image)))
    return Validation(plan, prepared, part, "cpu")


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


def test_validation_reads_nothing_beyond_its_part(planned: Planned, tmp_path: Path) -> None:
    def loss() -> float:
        objective = [{"head": "foreground", "target": "near", "loss": "bce"}]  # reads labels one voxel further
        model = {"model": "tinynet", "context": 2, "dropout": 0.0}  # and the network two sections
        plan = planned({"crop": [8, 16, 16]}, model=model, objective=objective, normalizer="dtype_range")
        torch.manual_seed(0)
        return validation(plan).scores(plan.model.build())["loss"]

    before = loss()
    for name in ("raw.npy", "truth.npy"):
        array = np.load(tmp_path / name)
        array[:16] = array[:16].max() - array[:16]
        np.save(tmp_path / name, array)
    assert loss() == before


def test_the_loss_of_a_slab_is_that_of_the_logits(planned: Planned) -> None:
    objective = [{"head": "foreground", "target": "foreground", "loss": "bce"}]
    plan = planned({"crop": [8, 32, 32]}, model={"model": "tinynet", "dropout": 0.0}, objective=objective)
    torch.manual_seed(0)
    network = plan.model.build()
    found = validation(plan).scores(network)["loss"]
    with plan.volumes[0].image.open() as image, plan.volumes[0].labels["instances"].reader.open() as labels:
        stats = passes.fit(plan.normalizer, image)
        (box,) = plan.volumes[0].parts.validation
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
    found = {
        f"validation.{head}.{score}" for head in ("foreground", "boundary") for score in ("dice_at_threshold", "ece")
    }
    others = {"validation.foreground.dice"}
    assert result.scores.keys() == {"validation.loss", "validation.boundary.iou", *others, *found}
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


class Perfect(torch.nn.Module):
    """Knows the class of a voxel from its brightness: 0, 1/4 or 1/2 of the range; with one class taken for another."""

    def __init__(self, mistaken: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.mistaken = mistaken

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        classes = (x * 255 / 60).round()
        classes[classes == self.mistaken[0]] = self.mistaken[1]
        wanted = classes / 4 - 0.25
        return {
            "semantic": torch.cat([(classes == c) * 20.0 for c in range(3)], dim=1),
            "affinity": torch.cat([((classes > c) * 40.0 - 20) for c in range(2)], dim=1),
            "distance": torch.atanh(wanted),
            "vector": wanted.repeat(1, 3, 1, 1, 1),
        }


@pytest.fixture
def every_kind(planned: Planned, tables: dict[str, Any], registry: Registry, tmp_path: Path) -> Planned:
    """Plans a training of one head of every kind, on balls with a rim; `keep_best` is to be given."""
    registry.add("model", "manyheads", "many_heads:ManyHeads")
    registry.add("target", "truth", "many_heads:Truth")
    registry.add("loss", "squared", "many_heads:Squared")
    truth = np.load(tmp_path / "truth.npy")
    classes = np.where(truth > 0, 1, 0)
    classes[:, 20:] *= 2
    np.save(tmp_path / "classes.npy", classes.astype(np.uint16))
    np.save(tmp_path / "raw.npy", (classes * 60).astype(np.uint8))
    names = ("semantic", "affinity", "distance", "vector")
    objectives = [
        {"head": name, "target": {"target": "truth", "head": name}, "loss": "squared", "weight": 1e-9} for name in names
    ]
    relation = {"heads": ["distance", "vector"], "loss": "squared", "weight": 1.0}
    volume = {**tables["volume"][0], "labels": {"semantic": "classes.npy"}, "label_values": {"foreground": "any"}}

    def plan(keep_best: str, **more: Any) -> TrainingPlan:
        normalizer = {"normalizer": "dtype_range", "mean": 0.0, "std": 1.0}
        stated = {"model": "manyheads", "normalizer": normalizer, "objective": [*objectives, relation], **more}
        return planned({"keep_best": keep_best}, volume=[volume], **stated)

    return plan


@pytest.mark.parametrize(
    ("keep_best", "best"),
    [("semantic.dice", 1), ("affinity.dice", 1), ("distance.mae", 0), ("vector.mse", 0), ("semantic.mae", 0)],
)
def test_heads_of_every_kind_are_scored_against_the_truth_of_their_target(
    every_kind: Planned, keep_best: str, best: float
) -> None:
    found = validation(every_kind(keep_best))
    perfect, wrong = found.scores(Perfect()), found.scores(Perfect((2, 1)))
    assert next(name for name in perfect if name != "loss") == keep_best
    assert perfect[keep_best] == pytest.approx(best, abs=1e-4)
    assert abs(wrong[keep_best] - best) > 1e-3


def test_classes_and_affinities_are_scored_one_by_one_and_background_is_not_in_the_mean(every_kind: Planned) -> None:
    found = validation(every_kind("semantic.dice")).scores(Perfect((2, 0)))
    assert found["semantic.ball.dice"] == 1
    assert found["semantic.rim.dice"] == 0
    assert found["semantic.dice"] == 0.5
    assert 0 < found["semantic.background.dice"] < 1
    assert validation(every_kind("affinity.iou")).scores(Perfect((2, 1)))["affinity.y-1.iou"] == 0


def test_a_loss_that_only_relates_heads_is_validated_too(every_kind: Planned, tmp_path: Path) -> None:
    scores = validation(every_kind("loss")).scores(Perfect())
    assert {scores.pop(f"{head}.dice") for head in ("affinity", "semantic")} == {1.0}
    assert scores["distance.mae"] == 0  # every head that has a target is scored, whatever best means
    classes = np.load(tmp_path / "classes.npy")[16:] / 4 - 0.25
    wanted = (np.mean(np.arctanh(classes) ** 2) + np.mean(classes**2)) / 2
    assert scores["loss"] == pytest.approx(wanted, rel=1e-4)


def test_a_metric_of_a_head_without_a_truth_of_its_own_is_refused(every_kind: Planned) -> None:
    relation = [{"heads": ["semantic", "affinity", "distance", "vector"], "loss": "squared"}]
    with pytest.raises(WiringError, match="no objective compares head 'distance' alone with a target"):
        every_kind("distance.mae", objective=relation)


def test_volumes_of_other_shapes_and_voxel_sizes_are_scored_as_one(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    found, true, both = 0, 0, 0
    volumes = []
    for number, (shape, size) in enumerate([((9, 40, 21), [40, 8, 8]), ((24, 18, 33), [10, 10, 10])]):
        rng = np.random.default_rng(number)
        truth, bright = rng.random(shape) < 0.3, rng.random(shape) < 0.4
        np.save(tmp_path / f"raw{number}.npy", bright.astype(np.uint8) * 255)
        np.save(tmp_path / f"truth{number}.npy", truth.astype(np.uint8))
        names = {"path": f"raw{number}.npy", "labels": f"truth{number}.npy", "voxel_size": size}
        volumes.append({**names, "split": {"validation": "all"}})
        found, true, both = found + bright.sum(), true + truth.sum(), both + (bright & truth).sum()
    trained = {**tables["volume"][0], "split": {}}
    plan = planned({"keep_best": "foreground.dice"}, volume=[*volumes, trained], normalizer="minmax")
    assert validation(plan).scores(Oracle())["foreground.dice"] == 2 * both / (found + true)


def test_every_validation_sees_every_voxel_of_its_part_and_no_random_number(planned: Planned, tmp_path: Path) -> None:
    plan = planned({"keep_best": "foreground.dice"}, model={"model": "tinynet", "dropout": 0.5})
    network = plan.model.build()
    torch.manual_seed(1)
    first = validation(plan).scores(network)
    torch.manual_seed(2)
    assert validation(plan).scores(network) == first
    truth = np.load(tmp_path / "truth.npy") > 0
    for place in ((16, 0, 0), (23, 31, 31), (19, 13, 15)):
        raw = truth.copy()
        raw[place] ^= True
        np.save(tmp_path / "raw.npy", raw.astype(np.uint8) * 255)
        plan = planned({"keep_best": "foreground.dice"}, normalizer="minmax")
        assert validation(plan).scores(Oracle())["foreground.dice"] < 1
