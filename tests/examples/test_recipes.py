"""The recipes of other programs in examples/: each trains, segments and is scored as it stands, on small volumes.

Volumes lie where a recipe expects its data; what makes it small is stated beside it.
"""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr

import mitocore
from mitocore.builtin.cells import Cells, cells
from mitocore.cli.main import app
from mitocore.conversion import convert
from mitocore.geometry import VoxelSize
from mitocore.header import read_header

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def tissue() -> Cells:
    return cells((24, 48, 48), seed=3, voxel_size=VoxelSize(16, 24, 24))


def _catena(folder: Path, tissue: Cells) -> None:
    for part in ("train", "test"):
        store = zarr.open_group(folder / "cubes" / part / "cube.zarr", mode="w", zarr_format=2)
        store.create_array("volumes/raw", data=tissue.raw)
        store.create_array("volumes/labels/mito_ids", data=tissue.instances)


def _lucchi(folder: Path, tissue: Cells) -> None:
    for name, array in (("img/{}_im", tissue.raw), ("label/{}_label", (tissue.instances > 0).astype("u1"))):
        np.save(folder / "array.npy", array)
        for part in ("train", "test"):
            path = folder / f"{name.format(part)}.tif"
            path.parent.mkdir(exist_ok=True)
            convert(folder / "array.npy", path)


def _mitoem(folder: Path, tissue: Cells) -> None:
    for name, array in (("im", tissue.raw), ("mito", tissue.instances.astype("u1"))):
        np.save(folder / "array.npy", array)
        convert(folder / "array.npy", f"{folder / name}/", writer="slices")
        depth, height, width = array.shape
        stated = {
            "image": [f"{name}/z{z:05}.png" for z in range(depth)],
            "dtype": "uint8",
            "ndim": 1,
            "depth": depth,
            "height": height,
            "width": width,
            "n_rows": 1,
            "n_columns": 1,
            "tile_size": [height, width],
            "tile_st": [0, 0],
            "tile_ratio": 1,
        }
        for part in ("train", "val", "test"):
            (folder / f"{name}_{part}.json").write_text(json.dumps(stated), "utf-8")


def _tomogram(folder: Path, tissue: Cells) -> None:
    store = zarr.open_group(folder / "tomogram.zarr", mode="w")
    for name, array in (("raw", tissue.raw.astype("f4")), ("membrane", tissue.boundary.astype("u1"))):
        store.create_array(name, data=array, attributes={"resolution": [8, 8, 8], "offset": [0, 0, 0]})


@dataclass(frozen=True)
class Recipe:
    """Where a recipe finds its data, what makes it small, and the heads it trains."""

    data: Callable[[Path, Cells], None]
    small: tuple[str, ...]
    heads: tuple[str, ...] = ("foreground",)
    segments: str = ""
    """The pipeline that goes with it."""


CUBE, BRICK = "train.crop=[16, 16, 16]", "train.crop=[16, 32, 32]"
SLAB = ("train.crop=[5, 33, 33]", "model.widths=[4, 4, 4, 4, 4]", "train.accumulate=1")
GRID = ("sampler.stride=[8, 16, 16]", "sampler.fraction=1.0", "sampler.minimum=1", BRICK)
RECIPES = {
    "catena_monai_unet": Recipe(_catena, ("model.widths=[4, 4, 4, 4, 4]", *GRID)),
    "catena_rsunet": Recipe(_catena, ("model.widths=[4, 4, 4, 4, 4, 4]", *GRID)),
    "lucchi_semantic": Recipe(
        _lucchi, ("model.widths=[4, 4, 4, 4, 4]", "train.accumulate=1", CUBE), segments="lucchi_segment"
    ),
    "mitoem_a": Recipe(_mitoem, SLAB, ("affinity",)),
    "mitoem_ac": Recipe(_mitoem, SLAB, ("affinity", "boundary")),
    "mitoem_bc": Recipe(_mitoem, SLAB, ("foreground", "boundary"), "mitoem_segment"),
    "mitoem_bcd": Recipe(_mitoem, SLAB, ("foreground", "boundary", "distance")),
    "mitoem_mutex": Recipe(_mitoem, SLAB, ("affinity",)),
    "lsd_affinities": Recipe(_catena, ("model.widths=[4, 4, 4, 4]", CUBE), ("affinity", "descriptors")),
    "cryoet_membrane": Recipe(_tomogram, ("model.widths=[8, 8, 8, 8, 8]", "train.crop=[7, 32, 32]"), ("membrane",)),
}
TURNED = "net.predict.tta=none"  # tested elsewhere, and most of the time
PIPELINES = {  # a network of two steps is sure of nothing: thresholds at which it finds something
    "lucchi_segment": (
        "net.predict.window=[16, 32, 32]",
        "net.predict.overlap=[4, 4, 4]",
        TURNED,
        "mask.threshold=0.4",
    ),
    "mitoem_segment": (
        "net.predict.window=[5, 33, 33]",
        "net.predict.overlap=[2, 8, 8]",
        TURNED,
        *("mito.seed_threshold=0.4", "mito.boundary_threshold=0.9", "mito.threshold=0.4", "mito.min_size=1"),
    ),
    "catena_instances": (),
}
SHORT = (
    "train.steps=2",
    "train.validate_every=2",
    "train.checkpoint_every=2",
    "train.batch=1",
    "train.devices=cpu",
    "train.pictures=false",  # tested elsewhere, and half of the time
)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_its_weights_do_what_it_recommends(name: str, tissue: Cells, tmp_path: Path) -> None:
    recipe, file = RECIPES[name], tmp_path / f"{name}.toml"
    shutil.copy(EXAMPLES / file.name, file)
    recipe.data(tmp_path, tissue)

    result = mitocore.train(file, [*recipe.small, *SHORT])

    assert np.isfinite(list(result.scores.values())).all()
    header = read_header(result.best)
    assert tuple(head.name for head in header.heads) == recipe.heads
    if header.pipeline:
        shape = (8, 40, 40)
        raw = tissue.raw[tuple(slice(n) for n in shape)]
        found = mitocore.segment(raw, result.best, voxel_size=header.voxel_size, settings=["run.devices=cpu"])
        last = header.pipeline[-1]["name"]
        assert found[f"{last}.instances"].spec.shape == shape
    if recipe.segments:
        _segmented_and_scored(recipe, tmp_path)


def _segmented_and_scored(recipe: Recipe, folder: Path) -> None:
    """Run the commands in the comment of the pipeline that goes with a recipe."""
    file = folder / f"{recipe.segments}.toml"
    shutil.copy(EXAMPLES / file.name, file)
    small = [*PIPELINES[recipe.segments], "run.devices=cpu", "run.workers=0"]
    ran = set()
    for words in _commands(file):
        if words[1] != "train":
            _command(
                [*words, *(w for setting in small for w in ("--set", setting))] if words[1] == "run" else words, folder
            )
            ran.add(words[1])
    assert ran >= {"run", "evaluate"}


def _commands(file: Path) -> list[list[str]]:
    """Commands in the comment at the head of a recipe."""
    head = file.read_text("utf-8").partition("mitocore = 1")[0]
    return [shlex.split(line) for line in re.findall(r"^#   (mitocore .*)$", head, re.MULTILINE)]


def _command(words: list[str], folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            app()
    assert not end.value.code, words


def test_instances_of_a_prediction_of_catena_are_those_of_its_mask(tissue: Cells, tmp_path: Path) -> None:
    _catena(tmp_path, tissue)
    store = zarr.open_group(tmp_path / "results" / "mito.zarr", mode="w")
    store.create_array("net.foreground", data=0.9 * (tissue.semantic > 0).astype("f4"))
    file = tmp_path / "catena_instances.toml"
    shutil.copy(EXAMPLES / file.name, file)
    run, score = _commands(file)

    _command([*run, "--set", "mito.min_size=8"], tmp_path)
    _command([*score, "--metric", "voxel", "--output", "scores.csv"], tmp_path)

    assert "iou,1.0" in (tmp_path / "scores.csv").read_text("utf-8")


def test_every_example_that_is_neither_a_plain_training_nor_a_pipeline_is_a_recipe() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.toml")}
    assert {name for name in names if not name.startswith(("train_", "segment_"))} == {*RECIPES, *PIPELINES}
    assert {recipe.segments for recipe in RECIPES.values()} - {""} < set(PIPELINES)


def test_every_recipe_says_which_program_it_follows() -> None:
    for name in (*RECIPES, *PIPELINES):
        assert "https://github.com/" in (EXAMPLES / f"{name}.toml").read_text("utf-8").partition("mitocore = 1")[0]
