import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitocore.config.toml import Document, read
from mitocore.errors import ConfigError, DataError, MitocoreError, PluginError, WiringError
from mitocore.geometry import Roi
from mitocore.registry import Registry
from mitocore.training import TrainingPlan, plan_training

Planned = Callable[..., TrainingPlan]
SEMANTIC = {"target": "foreground", "label": "semantic"}


def test_a_plan_prints_what_will_happen(planned: Planned) -> None:
    text = str(planned())
    assert "tiny/tinynet" in text
    assert "8 steps of 2 crops of 4 x 16 x 16 voxels" in text
    assert "train      z 0:15, y 0:32, x 0:32" in text
    assert "validation z 16:24" in text
    assert "builtin/dice_ce" in text


def test_a_plan_is_equal_to_itself_and_its_digest_ignores_speed(planned: Planned) -> None:
    assert planned().digest == planned({"workers": 3, "folder": "elsewhere"}).digest
    assert planned().digest != planned({"steps": 9}).digest


def test_unknown_components_and_options_are_reported_together(planned: Planned) -> None:
    with pytest.raises(MitocoreError) as error:
        planned(
            model={"model": "tinynet", "widht": 8},
            sampler="foregrund",
            augment=["flip_rotat"],
            objective=[{"head": "foreground", "target": "foreground", "loss": "dice_cee"}],
            step=[{"postprocessor": "treshold"}],
        )
    found = [error.value, *error.value.others]
    hints = " ".join(finding.hint for finding in found)
    assert len(found) == 5
    for right in ("width", "foreground", "flip_rotate", "dice_ce", "threshold"):
        assert f"did you mean {right!r}?" in hints


def test_an_unknown_key_is_quoted_with_its_line(tmp_path: Path, registry: Registry) -> None:
    path = tmp_path / "train.toml"
    path.write_text('mitocore = 1\nmodel = "tinynet"\n[train]\nstepz = 3\n')
    with pytest.raises(ConfigError) as error:
        plan_training(read(path), registry)
    found = [error.value, *error.value.others]
    (wrong,) = [finding for finding in found if "stepz" in finding.problem]
    assert "train.toml:4" in wrong.where
    assert wrong.hint == "did you mean 'steps'?"


@pytest.mark.parametrize(
    ("change", "family", "problem", "hint"),
    [
        ({"path": "gone.npy"}, DataError, r"gone\.npy", ""),
        ({"labels": "gone.npy"}, DataError, r"gone\.npy", ""),
        ({"labels": "small.npy"}, DataError, r"has \(4, 8, 8\) voxels, the image \(24, 32, 32\)", "same box"),
        ({"labels": "float.npy"}, DataError, "holds float32; labels are integers", "convert"),
        ({"labels": {"valid": "truth.npy"}}, ConfigError, "cannot be called 'valid'", ""),
        (
            {"labels": {"instances": "truth.npy", "more": "truth.npy"}, "label_values": {"foreground": [1]}},
            ConfigError,
            "is for one label array",
            "",
        ),
        ({"labels": ""}, ConfigError, "names no labels", ""),
        ({"path": []}, ConfigError, "names no volume", ""),
        ({"classes": ["background", "mito"]}, ConfigError, "there is none: labels", ""),
        ({"labels": {"semantic": "truth.npy"}, "classes": ["a"]}, ConfigError, "two different names", ""),
        ({"region": "0:8"}, ConfigError, "is not a box", ""),
        ({"region": "0:8,:,0:99"}, ConfigError, "empty or leaves the volume", "region = "),
        ({"annotated": ["0:8,:,40:50"]}, ConfigError, "empty or leaves the volume", "annotated = ["),
        ({"annotated": ["17:20,:,:"]}, ConfigError, "no crop in the training part", "annotated"),
        ({"split": {"validation": ["0:4,:,:", "2:6,:,:"]}}, ConfigError, "overlap", ""),
        ({"split": {"validation": "z:0-4"}, "region": "8:24,:,:"}, ConfigError, "empty or leaves the 16 voxels", ""),
        ({"path": "colour.npy"}, DataError, "has 3 channels; the model takes image", ""),
        ({"lables": "truth.npy"}, ConfigError, "has no option 'lables'", "'labels'"),
        ({"labl_values": {}}, ConfigError, "has no option 'labl_values'", "'label_values'"),
        ({"vxel_size": 5}, ConfigError, "'vxel_size'", "'voxel_size'"),
        ({"split": {"validation": "z:20-30"}}, ConfigError, "leaves the 24 voxels along z", ""),
        ({"split": {"validation": "z:8-12", "test": "z:10-14"}}, ConfigError, "overlap", ""),
        ({"split": {"validation": "z:8-12", "test": "y:30-32"}}, ConfigError, "overlap|different axes", ""),
        ({"split": {"validation": "z:20-24", "gap": "15 nm"}}, ConfigError, "needs the voxel size", "gap"),
        ({"split": {"validation": "z:3-24"}}, ConfigError, "a crop of", "crop = [3, 16, 16]"),
        ({"split": {}}, ConfigError, "no volume has a part for validation", "split"),
        ({"split": {"validation": "all"}}, ConfigError, "no volume has a part for training", "split"),
        ({"split": {"validation": "z:16-24", "gap": 16}}, ConfigError, "no volume has a part for training", "it is 16"),
        ({"split": {"validate": "z:16-24"}}, ConfigError, "has no option 'volume.0.split.validate'", "'validation'"),
    ],
)
def test_volumes_that_do_not_fit_are_refused(
    change: dict[str, Any],
    family: type[MitocoreError],
    problem: str,
    hint: str,
    planned: Planned,
    tables: dict[str, Any],
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "small.npy", np.zeros((4, 8, 8), np.uint8))
    np.save(tmp_path / "float.npy", np.zeros((24, 32, 32), np.float32))
    np.save(tmp_path / "colour.npy", np.zeros((3, 24, 32, 32), np.uint8))
    with pytest.raises(family, match=problem) as error:
        planned(volume=[{**tables["volume"][0], **change}])
    assert hint in error.value.hint
    assert "[[volume]]" in error.value.where
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("change", "family", "problem"),
    [
        ({"objective": [{"head": "foregroun", "target": "foreground", "loss": "bce"}]}, WiringError, "no head"),
        ({"model": {"model": "tinynet", "two": True}}, WiringError, "no objective trains head 'boundary'"),
        ({"train": {"keep_best": "boundary.dice"}}, ConfigError, "names no head"),
        ({"train": {"keep_best": "foreground"}}, ConfigError, "names no head"),
        ({"train": {"keep_best": "foreground.dise"}}, PluginError, "no metric is called 'dise'"),
        ({"train": {"keep_best": "foreground.instance"}}, WiringError, "compares instance"),
        ({"train": {"crop": [4, 15, 16]}}, ConfigError, "a crop of 4 x 15 x 16 does not fit"),
        ({"train": {"crop": [4, 64, 64]}}, ConfigError, "does not fit the"),
        ({"train": {"optimizer": {"name": "adamm"}}}, ConfigError, "optimizer.name = 'adamm'"),
        ({"train": {"devices": "cuda:99", "steps": 0}}, ConfigError, "steps = 0"),
        ({"normalizer": None}, ConfigError, "has no normalizer"),
        (
            {
                "objective": [
                    {"head": "foreground", "target": {"target": "foreground", "label": "semantic"}, "loss": "bce"}
                ]
            },
            WiringError,
            "needs label array 'semantic'",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    change: dict[str, Any], family: type[MitocoreError], problem: str, planned: Planned
) -> None:
    with pytest.raises(family, match=problem) as error:
        planned(**change)
    assert len(str(error.value).splitlines()) <= 3


def test_the_hint_for_a_crop_that_does_not_fit_may_be_typed(planned: Planned) -> None:
    with pytest.raises(ConfigError) as error:
        planned({"crop": [3, 15, 17]}, model={"model": "tinynet", "context": 2})
    assert error.value.hint == "crop = [5, 16, 18]"
    planned({"crop": [5, 16, 18]}, model={"model": "tinynet", "context": 2})


def test_the_gap_is_as_deep_as_the_context_of_the_network(planned: Planned, tables: dict[str, Any]) -> None:
    volume = {**tables["volume"][0], "split": {"validation": "z:16-24"}}
    plan = planned(model={"model": "tinynet", "context": 2}, volume=[volume])
    assert plan.volumes[0].parts.train == (Roi((0, 0, 0), (14, 32, 32)),)


def test_a_gap_may_be_a_length(planned: Planned, tables: dict[str, Any]) -> None:
    volume = {**tables["volume"][0], "voxel_size": 5, "split": {"validation": "z:16-24", "gap": "15 nm"}}
    plan = planned(volume=[volume])
    assert plan.volumes[0].parts.train == (Roi((0, 0, 0), (13, 32, 32)),)
    assert str(plan.voxel_size) == "5 x 5 x 5 nm"


def test_whole_volumes_may_be_for_validation(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> None:
    path = {"path": "raw.npy", "labels": "truth.npy"}
    np.save(tmp_path / "other.npy", np.load(tmp_path / "raw.npy"))
    plan = planned(volume=[path, {**path, "path": "other.npy", "split": {"validation": "all"}}])
    assert plan.volumes[1].parts.train == ()
    assert plan.voxel_size is None


def test_the_trained_window_scales_the_overlap_with_the_crop(planned: Planned) -> None:
    window = planned({"crop": [4, 32, 24]}).window
    assert (window.shape, window.overlap) == ((4, 32, 24), (0, 8, 6))


def test_weights_of_another_model_are_refused(planned: Planned, tmp_path: Path) -> None:
    header = planned().header()
    other = header.model_copy(update={"options": {**header.options, "width": 6}})
    beside = tmp_path / "w.safetensors.header.json"
    (tmp_path / "w.safetensors").write_bytes(b"")
    beside.write_text(other.model_dump_json())
    with pytest.raises(ConfigError, match="width = 4, but the weights to start from have 6"):
        planned(model={"model": "tinynet", "width": 4, "weights": "w.safetensors"})
    assert planned(model={"weights": "w.safetensors"}).model.model_dump()["width"] == 6
    with pytest.raises(DataError, match=r"no weights file '.*gone\.safetensors'") as error:
        planned(model={"weights": "gone.safetensors"})
    assert "[model]" in error.value.where


def test_paths_on_the_command_line_start_from_the_current_folder(
    tables: dict[str, Any], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toml").mkdir()
    monkeypatch.chdir(tmp_path)
    paths = frozenset({("volume", 0, "path"), ("volume", 0, "labels")})
    document = Document(tables, tmp_path / "toml" / "train.toml", overridden=paths)
    plan = plan_training(document, registry)
    assert plan.volumes[0].image.path == str(tmp_path / "raw.npy")
    assert plan.folder == tmp_path / "toml" / "run"


def test_planning_does_not_import_torch() -> None:
    code = "import sys, mitocore.training; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
