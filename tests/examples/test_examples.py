"""The files of examples/, as they stand, on small synthetic volumes."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import mitocore
from mitocore import batch
from mitocore.builtin.cells import cells
from mitocore.config import toml
from mitocore.conversion import convert
from mitocore.geometry import VoxelSize

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"mito": VoxelSize(5, 5, 5), "mito_sstem": VoxelSize(50, 4.6, 4.6)}


def test_every_example_is_tested() -> None:
    tested = {f"{what}_{name}.toml" for name in SIZES for what in ("train", "segment")}
    plain = {path.name for path in EXAMPLES.glob("*.toml") if path.name.startswith(("train_", "segment_"))}
    assert plain == tested | {"segment_many.toml"}  # the others are recipes, see test_recipes.py
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"thresholds.py"}


def test_the_table_of_examples_names_every_file() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    files = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".toml", ".py")]
    assert [name for name in files if f"`{name}`" not in text] == []


@pytest.fixture(scope="module", params=SIZES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a training, and a folder with an image, its labels, and `best.safetensors` of that training."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    coarse = VoxelSize(SIZES[name].z, 16, 16)  # more than one mitochondrion in few voxels
    tissue = cells((20, 64, 64), seed=3, voxel_size=coarse)
    for file, array in (("raw", tissue.raw), ("mito", (tissue.instances > 0).astype("u1"))):
        np.save(folder / f"{file}.npy", array)
        convert(folder / f"{file}.npy", folder / f"{file}.tif")
    result = mitocore.train(
        EXAMPLES / f"train_{name}.toml",
        [
            f"volume.path={folder}/raw.tif",
            f"volume.labels={folder}/mito.tif",
            f"volume.voxel_size={list(SIZES[name].edges)}",
            f"train.folder={folder}/trained",
            "train.steps=2",
            "train.crop=[8, 32, 32]",
            "train.batch=1",
            "train.validate_every=2",
            "train.devices=cpu",
        ],
    )
    assert 0 <= result.scores["validation.foreground.dice"] <= 1
    result.best.rename(folder / "best.safetensors")
    return name, folder


only_mito = pytest.mark.parametrize("trained", ["mito"], indirect=True)


def test_an_example_trains_segments_and_scores_a_users_own_volume(trained: tuple[str, Path]) -> None:
    name, folder = trained
    plan = mitocore.load(
        EXAMPLES / f"segment_{name}.toml",
        [
            f"input.path={folder}/raw.tif",
            f"input.voxel_size={list(SIZES[name].edges)}",
            f"net.weights={folder}/best.safetensors",
            f"output.path={folder}/mito.zarr",
            f"run.folder={folder}/run",
            "run.devices=cpu",
            "run.workers=0",
        ],
    )
    result = plan.run()
    assert result["mito.instances"].spec.shape == (20, 64, 64)
    assert result["mito.instances"].spec.voxel_size == SIZES[name]
    assert result["net.foreground"].spec.kind == "probability"

    place = f"{folder}/mito.zarr::mito.instances"
    scores = mitocore.evaluate(place, f"{folder}/mito.tif", ["voxel"], roi="17:20,:,:")
    assert 0 <= scores["voxel"]["dice"] <= 1


def test_weights_of_a_training_recommend_what_its_example_writes_down(trained: tuple[str, Path]) -> None:
    name, folder = trained
    result = mitocore.segment(
        f"{folder}/raw.tif",
        folder / "best.safetensors",
        voxel_size=SIZES[name],
        settings=["run.devices=cpu"],
        roi="0:8,0:32,0:32",
    )
    assert result["mito.instances"].spec.shape == (8, 32, 32)


@only_mito
def test_the_example_of_many_volumes_segments_each(trained: tuple[str, Path]) -> None:
    _, folder = trained
    (folder / "many").mkdir()
    for stem, roi in (("one", "0:8,0:32,0:32"), ("two", "8:16,:,0:32")):
        convert(folder / "raw.tif", folder / "many" / f"{stem}.tif", roi=roi)
    settings = [
        f"input.path={folder}/many/*.tif",
        "input.voxel_size=5",
        f"net.weights={folder}/best.safetensors",
        f"output.path={folder}/segmented/{{stem}}.zarr",
        f"run.folder={folder}/runs",
        "run.devices=cpu",
        "run.workers=0",
    ]
    many = batch.batch_of(toml.read(EXAMPLES / "segment_many.toml", settings))
    assert many
    assert [outcome.status for outcome in batch.run(many)] == ["done", "done"]
    assert [path.name for path in sorted((folder / "segmented").iterdir())] == ["one.zarr", "two.zarr"]
    assert many.summary.read_text("utf-8").count("\n") == 3


@only_mito
def test_the_example_of_thresholds_prints_a_line_for_each(
    trained: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = trained
    words = [f"{folder}/raw.tif", f"{folder}/best.safetensors", "--voxel-size", "5nm", "--truth", f"{folder}/mito.tif"]
    monkeypatch.setattr(sys, "argv", ["thresholds.py", *words, "--thresholds", "0.4", "0.6"])
    runpy.run_path(str(EXAMPLES / "thresholds.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0.40", "0.60"]
    assert all("Dice" in line for line in lines)


@pytest.mark.parametrize("name", SIZES)
def test_an_example_pipeline_is_accepted_before_there_are_weights(name: str) -> None:
    plan = mitocore.load(EXAMPLES / f"segment_{name}.toml", data=False)
    assert "planned without data" in str(plan)
