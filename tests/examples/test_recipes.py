"""The recipes of other programs in examples/: each trains as it stands, on small volumes where it expects its data."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr

import mitocore
from mitocore.builtin.cells import Cells, cells
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
        for part in ("train", "val"):
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


CUBE, BRICK = "train.crop=[16, 16, 16]", "train.crop=[16, 32, 32]"
SLAB = ("train.crop=[5, 33, 33]", "model.widths=[4, 4, 4, 4, 4]", "train.accumulate=1")
GRID = ("sampler.stride=[8, 16, 16]", "sampler.fraction=1.0", "sampler.minimum=1", BRICK)
RECIPES = {
    "catena_monai_unet": Recipe(_catena, ("model.widths=[4, 4, 4, 4, 4]", *GRID)),
    "catena_rsunet": Recipe(_catena, ("model.widths=[4, 4, 4, 4, 4, 4]", *GRID)),
    "lucchi_semantic": Recipe(_lucchi, ("model.widths=[4, 4, 4, 4, 4]", "train.accumulate=1", CUBE)),
    "mitoem_a": Recipe(_mitoem, SLAB, ("affinity",)),
    "mitoem_ac": Recipe(_mitoem, SLAB, ("affinity", "boundary")),
    "mitoem_bc": Recipe(_mitoem, SLAB, ("foreground", "boundary")),
    "mitoem_bcd": Recipe(_mitoem, SLAB, ("foreground", "boundary", "distance")),
    "cryoet_membrane": Recipe(_tomogram, ("model.widths=[8, 8, 8, 8, 8]", "train.crop=[7, 32, 32]"), ("membrane",)),
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


def test_every_example_that_is_neither_a_plain_training_nor_a_pipeline_is_a_recipe() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.toml")}
    assert {name for name in names if not name.startswith(("train_", "segment_"))} == set(RECIPES)


def test_every_recipe_says_which_program_it_follows() -> None:
    for name in RECIPES:
        assert "https://github.com/" in (EXAMPLES / f"{name}.toml").read_text("utf-8").partition("mitocore = 1")[0]
