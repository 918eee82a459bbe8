"""The files of examples/, as they stand, on small synthetic volumes."""

from pathlib import Path

import numpy as np
import pytest

import mitocore
from mitocore.builtin.cells import cells
from mitocore.conversion import convert
from mitocore.geometry import VoxelSize

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"mito": VoxelSize(5, 5, 5), "mito_sstem": VoxelSize(50, 4.6, 4.6)}


def test_every_example_is_tested() -> None:
    tested = {f"{what}_{name}.toml" for name in SIZES for what in ("train", "segment")}
    assert {path.name for path in EXAMPLES.glob("*.toml")} == tested


def test_the_table_of_examples_names_every_file() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.toml") if f"`{path.name}`" not in text] == []


@pytest.mark.parametrize("name", SIZES)
def test_an_example_trains_segments_and_scores_a_users_own_volume(name: str, tmp_path: Path) -> None:
    coarse = VoxelSize(SIZES[name].z, 16, 16)  # more than one mitochondrion in few voxels
    tissue = cells((20, 64, 64), seed=3, voxel_size=coarse)
    edges = list(SIZES[name].edges)
    for file, array in (("raw", tissue.raw), ("mito", (tissue.instances > 0).astype("u1"))):
        np.save(tmp_path / f"{file}.npy", array)
        convert(tmp_path / f"{file}.npy", tmp_path / f"{file}.tif")

    trained = mitocore.train(
        EXAMPLES / f"train_{name}.toml",
        [
            f"volume.path={tmp_path}/raw.tif",
            f"volume.labels={tmp_path}/mito.tif",
            f"volume.voxel_size={edges}",
            f"train.folder={tmp_path}/trained",
            "train.steps=2",
            "train.crop=[8, 32, 32]",
            "train.batch=1",
            "train.validate_every=2",
            "train.devices=cpu",
        ],
    )
    assert trained.best.exists()
    assert 0 <= trained.scores["validation.foreground.dice"] <= 1

    plan = mitocore.load(
        EXAMPLES / f"segment_{name}.toml",
        [
            f"input.path={tmp_path}/raw.tif",
            f"input.voxel_size={edges}",
            f"net.weights={trained.best}",
            f"output.path={tmp_path}/mito.zarr",
            f"run.folder={tmp_path}/run",
            "run.devices=cpu",
            "run.workers=0",
        ],
    )
    result = plan.run()
    assert result["mito.instances"].spec.shape == (20, 64, 64)
    assert result["mito.instances"].spec.voxel_size == SIZES[name]
    assert result["net.foreground"].spec.kind == "probability"

    place = f"{tmp_path}/mito.zarr::mito.instances"
    scores = mitocore.evaluate(place, f"{tmp_path}/mito.tif", ["voxel"], roi="17:20,:,:")
    assert 0 <= scores["voxel"]["dice"] <= 1


@pytest.mark.parametrize("name", SIZES)
def test_an_example_pipeline_is_accepted_before_there_are_weights(name: str) -> None:
    plan = mitocore.load(EXAMPLES / f"segment_{name}.toml", data=False)
    assert "planned without data" in str(plan)
