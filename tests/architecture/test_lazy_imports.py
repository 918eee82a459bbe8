"""What light commands must not import: the libraries that take seconds, or that a machine may lack."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "torch",
    "lightning",
    "monai",
    "zarr",
    "skimage",
    "tifffile",
    "h5py",
    "matplotlib",
    "tensorboard",
    "numba",
    "mwatershed",
    "waterz",
}

PIPELINE = """\
mitocore = 1
[input]
path = "raw.{suffix}"
voxel_size = 8

[[step]]
name = "net"
model = "rsunet"
weights = "best.safetensors"

[[step]]
name = "mito"
postprocessor = "connected_components"
min_size = 100

[output]
path = "mito.{suffix}"
"""


def imported_by(statement: str, folder: Path) -> set[str]:
    """Heavy libraries in `sys.modules` after a statement, in a fresh interpreter."""
    program = f"import sys, json\n{statement}\njson.dump(sorted(sys.modules), open('modules.json', 'w'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(json.loads((folder / "modules.json").read_text("utf-8")))


def command(*arguments: str) -> str:
    return f"""
from mitocore.cli.main import app
sys.argv = ["mitocore", *{list(arguments)!r}]
try:
    app()
except SystemExit as end:
    if end.code:
        raise RuntimeError(f"exit {{end.code}}")
"""


def test_importing_mitocore_is_light(tmp_path: Path) -> None:
    assert imported_by("import mitocore; mitocore.Roi; mitocore.Model; mitocore.load", tmp_path) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["plugins", "--json"], ["run", "--help"]], ids=" ".join)
def test_a_light_command_imports_no_heavy_library(arguments: list[str], tmp_path: Path) -> None:
    assert imported_by(command(*arguments), tmp_path) == set()


def test_a_pipeline_is_checked_without_data_and_without_torch(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(suffix="npy"), "utf-8")
    assert imported_by(command("validate", "--no-data", "pipeline.toml"), tmp_path) == set()


def test_a_checked_pipeline_imports_no_format_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(suffix="zarr"), "utf-8")
    assert imported_by(command("validate", "--no-data", "pipeline.toml"), tmp_path) <= {"zarr"}


def test_describing_a_network_does_not_import_torch(tmp_path: Path) -> None:
    assert imported_by(command("describe", "model", "rsunet"), tmp_path) == set()
