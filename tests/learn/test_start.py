import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mitocore.errors import ConfigError, DataError
from mitocore.geometry import VoxelSize
from mitocore.learn.checkpoint import load_weights, save_weights, update_header
from mitocore.learn.fit import fit
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


@pytest.fixture
def ours(planned: Planned, tmp_path: Path) -> Path:
    """Weights with a header, untrained."""
    plan, path = planned(), tmp_path / "ours.safetensors"
    torch.manual_seed(4)
    save_weights(path, plan.model.build().state_dict(), plan.header())
    return path


def test_a_finetune_keeps_window_normaliser_heads_and_voxel_size(planned: Planned, tables: Any, ours: Path) -> None:
    size = VoxelSize(30, 8, 8)
    window = planned({"crop": [2, 8, 8]}).window
    update_header(ours, voxel_size=size, window=window, normalizer={"normalizer": "builtin/zscore"})
    tables["normalizer"] = None
    tables["volume"][0]["voxel_size"] = [28, 8.2, 8]
    plan = planned(model={"weights": str(ours)})
    assert plan.crop == (2, 8, 8)
    assert plan.tables["normalizer"]["normalizer"] == "builtin/zscore"
    assert [head.name for head in plan.model.heads()] == ["foreground"]
    assert plan.train.voxel_size == size


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"normalizer": "minmax"},
            "normalizer = 'builtin/minmax', but the weights to start from have 'builtin/zscore'",
        ),
        ({"train": {"voxel_size": [30, 4, 4]}}, r"voxel_size = \[30\.0, 4\.0, 4\.0\], but the weights"),
        ({"more": {"width": 9}}, "width = 9, but the weights to start from have 4"),
        ({"more": {"initial": "ours.safetensors"}}, "states both weights and initial"),
    ],
)
def test_a_finetune_refuses_what_contradicts_its_weights(
    changed: dict[str, Any], message: str, planned: Planned, ours: Path
) -> None:
    update_header(ours, voxel_size=VoxelSize(30, 8, 8))
    changes = dict(changed)
    model = {"weights": str(ours), **changes.pop("more", {})}
    with pytest.raises(ConfigError, match=message):
        planned(changes.pop("train", None), model=model, **changes)


def test_a_volume_of_other_voxels_than_a_range_of_weights_is_refused(planned: Planned, tables: Any, ours: Path) -> None:
    update_header(ours, voxel_size=(VoxelSize(8, 8, 8), VoxelSize(16, 16, 16)))
    for size, fits in ((9, True), (18, True), (19, False), (6, False)):
        tables["volume"][0]["voxel_size"] = size
        if fits:
            planned(model={"weights": str(ours)})
        else:
            with pytest.raises(ConfigError, match="the weights to start from were trained at 8"):
                planned(model={"weights": str(ours)})


@pytest.mark.parametrize("form", ["ours", "bare", "wrapped", "renamed"])
def test_first_tensors_come_from_any_file(form: str, planned: Planned, ours: Path, tmp_path: Path) -> None:
    state, path = load_weights(ours), ours
    if form != "ours":
        path = tmp_path / {"bare": "a.pth", "wrapped": "a.ckpt", "renamed": "a.pth.tar"}[form]
        torch.save(
            {
                "bare": state,
                "wrapped": {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}},
                "renamed": {"model_state_dict": {k.replace("net.0.", "stem."): v for k, v in state.items()}},
            }[form],
            path,
        )
    told: list[Any] = []
    train = {"steps": 1, "optimizer": {"name": "sgd", "lr": 1e-12}}
    plan = planned(train, model={"model": "tinynet", "initial": str(path)})
    result = load_weights(fit(plan, progress=lambda *told_now: told.append(told_now)).last)
    assert all(
        torch.allclose(result[name], state[name], atol=1e-6)
        for name in state
        if "running" not in name and "num" not in name
    )
    report = json.loads((plan.folder / "initial.json").read_text())
    assert len(report["matched"]) == len(state)
    assert report["missing"] == report["mismatched"] == report["unknown"] == []
    assert [one[1:3] for one in told if one[0] == "initial"] == [(len(state), len(state))]


def test_what_does_not_fit_is_reported_and_left_as_it_was_built(planned: Planned, ours: Path) -> None:
    model = {"model": "tinynet", "two": True, "initial": str(ours)}
    objective = [{"head": h, "target": "foreground", "loss": "dice_ce"} for h in ("foreground", "boundary")]
    plan = planned({"steps": 1}, model=model, objective=objective)
    fit(plan)
    report = json.loads((plan.folder / "initial.json").read_text())
    assert report["mismatched"] == ["net.4.weight", "net.4.bias"]
    assert "net.0.weight" in report["matched"]


def test_a_file_that_shares_one_name_by_chance_is_refused(planned: Planned, ours: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    state = load_weights(ours)
    torch.save({"net.4.bias": state["net.4.bias"], "down.weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match="only 1 of the"):
        fit(planned(model={"model": "tinynet", "initial": str(path)}))


def test_a_file_of_which_nothing_fits_is_refused(planned: Planned, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"down.weight": torch.zeros(3), "net.1.num_batches_tracked": torch.tensor(5)}, path)
    plan = planned(model={"model": "tinynet", "initial": str(path)})
    with pytest.raises(DataError, match=r"no tensor of .* has the name and shape") as error:
        fit(plan)
    assert "down.weight" in error.value.hint
    assert "net.0.weight" in error.value.hint


def test_objects_are_never_unpickled_from_an_initial_file(planned: Planned, tmp_path: Path) -> None:
    path = tmp_path / "objects.ckpt"
    torch.save({"state_dict": {"a": np.random.default_rng(0)}}, path)
    with pytest.raises(DataError, match="holds Python objects, which are never loaded"):
        fit(planned(model={"model": "tinynet", "initial": str(path)}))


def test_an_initial_file_that_is_not_there_is_refused_when_planned(planned: Planned) -> None:
    with pytest.raises(DataError, match="there is no weights file"):
        planned(model={"model": "tinynet", "initial": "nowhere.pth"})
