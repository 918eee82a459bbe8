"""The wheels at work outside the checkout: everything a user gets, and nothing of the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

TRAIN = """\
mitocore = 1
model = { model = "rsunet", preset = "anisotropic", widths = [4, 6, 8] }
normalizer = "percentile"

[[volume]]
reader = "sample"
path = ""
shape = [16, 48, 48]
labels = { instances = { reader = "sample", shape = [16, 48, 48], array = "instances" } }
split = { validation = "z:8-16" }

[[objective]]
head = "foreground"
target = "foreground"
loss = "dice_ce"

[train]
steps = 2
crop = [8, 32, 32]
batch = 1
devices = "cpu"
folder = "trained"
"""

PIPELINE = """\
mitocore = 1
[input]
path = "raw.zarr::raw"

[[step]]
name = "net"
weights = "trained/best.safetensors"

[[step]]
name = "mito"
postprocessor = "connected_components"
threshold = 0.3

[output]
path = "mito.zarr"

[run]
devices = "cpu"
workers = 0
"""


class Environment:
    """A virtual environment outside the checkout that holds our wheels and borrows all other libraries."""

    def __init__(self, folder: Path, wheels: list[Path]) -> None:
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.folder = folder
        bin_folder = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.python = bin_folder / "python"
        packages = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(packages)]
        subprocess.run([*pip, *map(str, wheels)], check=True)
        # a folder that a .pth file names comes after the wheels, and its own .pth files are not read: the editable
        # installs of this checkout, which are such files, are not seen
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)), "utf-8")

    def run(self, *arguments: str, **variables: str) -> str:
        """Standard output of the interpreter of this environment."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MITOCORE", "COV_CORE"))}
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env=clean | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def mitocore(self, *arguments: str) -> str:
        """Standard output of a command."""
        return self.run("-m", "mitocore", *arguments)


@pytest.fixture(scope="module")
def installed(built: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("outside"), [made.wheel for made in built.values()])


def test_the_packages_come_from_the_wheels(installed: Environment, distributions: list[Any]) -> None:
    for distribution in distributions:
        place = installed.run("-c", f"import {distribution.package} as p; print(p.__file__)").strip()
        assert Path(place).is_relative_to(installed.folder / "venv")
        assert not Path(place).is_relative_to(ROOT)


def test_all_plugins_are_found(installed: Environment, distributions: list[Any]) -> None:
    listed = installed.mitocore("plugins", "--json")
    groups = [d.project["entry-points"]["mitocore.v1"] for d in distributions]
    for plugin in (name for group in groups for name in group):
        assert f'"{plugin}"' in listed
    components = ("zarr", "tiff", "hdf5", "slices", "rsunet", "unet25d", "connected_components", "percentile")
    for component in components:
        assert f'"{component}"' in listed


def test_a_network_is_trained_and_a_pipeline_runs(installed: Environment) -> None:
    (installed.folder / "train.toml").write_text(TRAIN, "utf-8")
    (installed.folder / "pipeline.toml").write_text(PIPELINE, "utf-8")
    sample = "from mitocore.builtin.cells import cells; import numpy as np; np.save('raw.npy', cells((16, 48, 48)).raw)"
    installed.run("-c", sample)
    installed.mitocore("convert", "raw.npy", "raw.zarr::raw", "--voxel-size", "8 nm")
    installed.mitocore("train", "train.toml")
    installed.mitocore("run", "pipeline.toml")
    shape = installed.run(
        "-c", "import mitocore; v = mitocore.open('mito.zarr::mito.instances'); print(v.spec.shape, v.spec.kind.value)"
    )
    assert shape.split("\n")[0] == "(16, 48, 48) instance"
    record = json.loads(next((installed.folder / "runs").glob("*/record.json")).read_text("utf-8"))
    assert "rsunet" in str(record["options"])


WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning", "monai", "safetensors", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def test_without_torch_plugins_are_listed_and_pipelines_checked(installed: Environment) -> None:
    (installed.folder / "check.toml").write_text(PIPELINE.replace("trained/", "missing/"), "utf-8")
    for arguments in (["--help"], ["plugins"], ["validate", "--no-data", "check.toml"]):
        program = f"{WITHOUT_TORCH}\nsys.argv = ['mitocore', *{arguments!r}]\nfrom mitocore.cli.main import app\napp()"
        installed.run("-c", program)


def test_without_torch_an_array_is_post_processed(installed: Environment) -> None:
    program = f"""{WITHOUT_TORCH}
import numpy as np
from mitocore import Kind, Pipeline, Step
from mitocore_rsunet.instances import ConnectedComponents

probability = np.zeros((4, 16, 16), "f4")
probability[1:3, 2:6, 2:6] = probability[1:3, 9:14, 9:14] = 0.9
result = Pipeline([Step(ConnectedComponents(), name="mito")]).run(probability, kind=Kind.PROBABILITY)
print(result.arrays()["mito.instances"].max())
"""
    assert installed.run("-c", program).strip() == "2"


def test_without_torch_a_training_is_refused_with_the_remedy(installed: Environment) -> None:
    (installed.folder / "train.toml").write_text(TRAIN, "utf-8")
    program = f"""{WITHOUT_TORCH}
import mitocore
try:
    mitocore.train("train.toml", ["train.folder=other"])
except mitocore.MitocoreError as error:
    print(error)
"""
    assert 'pip install "mitocore[torch]"' in installed.run("-c", program)


INTERPRETERS = [f"python3.{minor}" for minor in (11, 12, 13, 14)]


def works(interpreter: str) -> bool:
    """Whether it can be started; the name alone may be a placeholder of a version manager."""
    found = shutil.which(interpreter)
    return bool(found) and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("wanted", [["mitocore"], ["mitocore", "mitocore-io"], None], ids=["core", "io", "all"])
def test_the_wheels_install_with_their_own_dependencies(
    interpreter: str, wanted: list[str] | None, built: dict[str, Any], tmp_path: Path
) -> None:
    if not works(interpreter):
        pytest.skip(f"needs {interpreter}, not present")
    python = tmp_path / "venv" / "bin" / "python"
    wheels = [str(made.wheel) for name, made in built.items() if wanted is None or name in wanted]
    subprocess.run([interpreter, "-m", "venv", str(tmp_path / "venv")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *wheels], check=True)
    done = subprocess.run(
        [python, "-m", "mitocore", "plugins", "--json"], cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stdout
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), "u1"))
    target = "b.npy" if wanted == ["mitocore"] else "b.zarr"
    subprocess.run([python, "-m", "mitocore", "convert", "a.npy", target], cwd=tmp_path, check=True)
