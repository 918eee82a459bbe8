"""A newcomer's path: plugins of third parties, begun, changed, checked, built, installed as wheels and used."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

LOCAL = """\
mitocore = 1

[input]
path = "probability.npy"
kind = "probability"

[[step]]
name = "clean"
postprocessor = "despeckle"
threshold = 0.4
invert = true

[output]
path = "clean.zarr"

[run]
workers = 0
"""

TRAIN = """\
mitocore = 1
model = { model = "tinynet", width = 4, bias = false }
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

PREDICT = """\
mitocore = 1

[input]
reader = "sample"
path = ""
shape = [16, 48, 48]

[[step]]
name = "net"
weights = "trained/best.safetensors"

[[step]]
name = "mask"
postprocessor = "despeckle"

[output]
path = "tiny.zarr"
save = ["net.foreground", "mask.mask"]

[run]
devices = "cpu"
workers = 0
"""

WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(["torch", "lightning", "monai", "safetensors", "tensorboard"]))
from mitocore.cli.main import app
app()
"""


class Newcomer:
    """A folder and an environment that holds the core, the formats and what is installed later; other libraries are
    borrowed, the editable installs of the checkout are not seen."""

    def __init__(self, folder: Path, wheels: list[Path]) -> None:
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.folder = folder
        self.interpreter = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        where = ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        self.packages = Path(self.python(*where).strip())
        self.install(*wheels)
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)), "utf-8")

    def python(self, *arguments: str, folder: Path | None = None) -> str:
        """Standard output of an interpreter that sees nothing of the checkout."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MITOCORE", "COV_CORE"))}
        done = subprocess.run(
            [str(self.interpreter), *arguments],
            cwd=folder or self.folder,
            env=clean | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def mitocore(self, *arguments: str) -> str:
        """Standard output of a command."""
        return self.python("-m", "mitocore", *arguments)

    def install(self, *wheels: Path) -> None:
        """Install wheels as they are, without an index."""
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
        subprocess.run([*pip, str(self.packages), *map(str, wheels)], check=True)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace what stands in a file exactly once."""
        path = self.folder / file
        text = path.read_text("utf-8")
        assert text.count(old) == 1, old
        path.write_text(text.replace(old, new), "utf-8")

    def build(self, project: str) -> Path:
        """The wheel of a project."""
        command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", project]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (wheel,) = (self.folder / project / "dist").glob("*.whl")
        return wheel


@pytest.fixture(scope="module")
def newcomer(built: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    wheels = [built[name].wheel for name in ("mitocore", "mitocore-io")]
    return Newcomer(tmp_path_factory.mktemp("newcomer"), wheels)


@pytest.fixture(scope="module")
def despeckle(newcomer: Newcomer) -> str:
    """The folder of a plugin with one post-processor, changed and installed from its wheel."""
    newcomer.mitocore("new-plugin", "despeckle", "--kind", "postprocessor")
    source = "mitocore-despeckle/src/mitocore_despeckle/postprocessor.py"
    option = '    invert: bool = False\n    """Whether inside and outside are exchanged."""\n\n'
    newcomer.edit(source, "    def needs(self)", f"{option}    def needs(self)")
    newcomer.edit(
        source, "(inside & (count >= self.neighbours))", "((inside & (count >= self.neighbours)) ^ self.invert)"
    )
    newcomer.install(newcomer.build("mitocore-despeckle"))
    return "mitocore-despeckle"


def test_the_wheel_of_a_new_plugin_holds_all_of_it(despeckle: str, newcomer: Newcomer) -> None:
    installed = newcomer.packages / "mitocore_despeckle"
    files = {path.name for path in installed.iterdir() if path.is_file()}
    assert files == {"__init__.py", "py.typed", "plugin.py", "postprocessor.py"}
    place = newcomer.python("-c", "import mitocore_despeckle as p; print(p.__file__)").strip()
    assert Path(place).is_relative_to(newcomer.folder / "venv")


def test_an_installed_plugin_is_listed_and_described(despeckle: str, newcomer: Newcomer) -> None:
    assert "despeckle" in newcomer.mitocore("plugins", "--json")
    described = newcomer.mitocore("describe", "postprocessor", "despeckle")
    assert "neighbours" in described
    assert "invert" in described


def test_an_installed_plugin_passes_the_checks(despeckle: str, newcomer: Newcomer) -> None:
    told = newcomer.mitocore("plugins", "despeckle", "--check")
    assert re.search(r"check_block_invariance +ok", told)


def test_the_tests_of_a_new_plugin_pass_where_it_is_installed(despeckle: str, newcomer: Newcomer) -> None:
    told = newcomer.python("-m", "pytest", "-q", "-W", "error", folder=newcomer.folder / despeckle)
    assert "passed" in told


def test_a_pipeline_uses_an_installed_plugin_without_torch(despeckle: str, newcomer: Newcomer) -> None:
    (newcomer.folder / "local.toml").write_text(LOCAL, "utf-8")
    array = "import numpy as np; a = np.zeros((4, 9, 9), 'f4'); a[1, 4, 4:6] = a[2, 7, 7] = 0.45"
    newcomer.python("-c", f"{array}; np.save('probability.npy', a)")
    newcomer.python("-c", WITHOUT_TORCH, "run", "local.toml")
    show = "import mitocore, numpy as np; v = mitocore.open('clean.zarr::clean.mask')"
    found = newcomer.python("-c", f"{show}; print(np.argwhere(~v.read(mitocore.Roi.whole(v.spec.shape))[0]).tolist())")
    assert json.loads(found) == [[1, 4, 4], [1, 4, 5]]


@pytest.mark.slow
def test_a_network_of_an_installed_plugin_is_trained_and_used(despeckle: str, newcomer: Newcomer) -> None:
    newcomer.mitocore("new-plugin", "tinynet", "--kind", "model")
    source = "mitocore-tinynet/src/mitocore_tinynet/model.py"
    option = '    bias: bool = True\n    """Whether the last convolution adds a constant."""\n\n'
    newcomer.edit(source, "width: PositiveInt = 8", "width: PositiveInt = 6")
    newcomer.edit(source, "    def window(self)", f"{option}    def window(self)")
    newcomer.edit(source, "nn.Conv3d(self.width, 1, ", "nn.Conv3d(self.width, 1, bias=self.bias, ")
    newcomer.install(newcomer.build("mitocore-tinynet"))
    newcomer.mitocore("plugins", "tinynet", "--check")
    (newcomer.folder / "train.toml").write_text(TRAIN, "utf-8")
    (newcomer.folder / "predict.toml").write_text(PREDICT, "utf-8")
    newcomer.mitocore("train", "train.toml")
    newcomer.mitocore("run", "predict.toml")
    record = json.loads(next((newcomer.folder / "runs").glob("predict*/record.json")).read_text("utf-8"))
    assert "tinynet" in json.dumps(record)
    show = "import mitocore; v = mitocore.open('tiny.zarr::mask.mask'); print(v.spec.shape, v.spec.kind.value)"
    assert newcomer.python("-c", show).strip() == "(16, 48, 48) mask"
