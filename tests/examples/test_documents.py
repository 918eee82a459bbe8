"""Commands, TOML and Python of the README, tutorials and how-to pages run as they stand, on small synthetic volumes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mitocore
from mitocore.builtin.cells import cells
from mitocore.conversion import convert
from mitocore.geometry import VoxelSize

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("run_document.py")
RUN = re.compile(r"^```(console|python)\n", re.MULTILINE)
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/tutorials/*.md")), *sorted(ROOT.glob("docs/how-to/*.md"))]
DOCUMENTS = [path.relative_to(ROOT).as_posix() for path in TEXTS if RUN.search(path.read_text("utf-8"))]
PIPELINE = re.compile(r"^```toml title=\"pipeline.toml\"\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), ROOT / "examples" / "README.md", *ROOT.glob("*.md")]

TRAIN = """\
mitocore = 1
model = { model = "rsunet", preset = "anisotropic", widths = [4, 6, 8] }
normalizer = "percentile"

[[volume]]
path = "raw.tif"
labels = "labels.tif"
voxel_size = 8
split = { validation = "z:0.75-1.0" }

[[objective]]
head = "foreground"
target = "foreground"
loss = "dice_ce"

[[step]]
name = "mito"
postprocessor = "connected_components"

[train]
steps = 1
crop = [8, 32, 32]
batch = 1
devices = "cpu"
folder = "trained"
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a reader of the documents has: an image, its labels, weights, and more images."""
    folder = tmp_path_factory.mktemp("documents")
    tissue = cells((20, 64, 64), seed=3, voxel_size=VoxelSize(8, 16, 16))
    for name, array in (("raw", tissue.raw), ("labels", tissue.instances.astype("u2"))):
        np.save(folder / f"{name}.npy", array)
        convert(folder / f"{name}.npy", folder / f"{name}.tif", voxel_size=8)
    (folder / "raw").mkdir()
    for name, roi in (("a", "0:10,:,:"), ("b", "10:20,:,:")):
        convert(folder / "raw.tif", folder / "raw" / f"{name}.tif", roi=roi)
    (folder / "train.toml").write_text(TRAIN, "utf-8")
    weights = mitocore.train(folder / "train.toml").best
    (folder / "runs" / "train").mkdir(parents=True)
    for target in ("best.safetensors", "runs/train/best.safetensors"):
        shutil.copy(weights, folder / target)
    shutil.rmtree(folder / "trained")
    return folder


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_of_a_document_runs(document: str, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    if document.startswith("docs/how-to"):  # these go on from the pipeline of the README
        (folder / "pipeline.toml").write_text(PIPELINE.findall((ROOT / "README.md").read_text("utf-8"))[0], "utf-8")
    environment = {**os.environ, "MITOCORE_HOME": str(tmp_path / "home")}
    command = [sys.executable, str(RUNNER), str(ROOT / document)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert gone == []
