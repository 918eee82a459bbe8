import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mitocore import Model
from mitocore.config import toml
from mitocore.registry import discover
from mitocore.training import plan_training

NAMES = {"unet25d", "unet3d"}


def entries():
    return [entry for entry in discover().entries if entry.plugin == "cryoet"]


def test_the_plugin_declares_its_models():
    assert {(entry.kind, entry.name) for entry in entries()} == {("model", name) for name in NAMES}
    assert all(entry.summary for entry in entries())


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_components_are_described_and_survive_json_and_pickle(entry):
    component = entry.load()()
    assert isinstance(component, Model)
    assert type(component).model_validate_json(component.model_dump_json()) == component
    assert pickle.loads(pickle.dumps(component)) == component
    assert type(component).__doc__
    assert all(field.description for field in type(component).model_fields.values())


def test_components_are_imported_without_torch():
    code = (
        "import sys, mitocore_cryoet.plugin, mitocore_cryoet.models as m;"
        "m.UNet25D().window(), m.UNet3D().heads();"
        "sys.exit(sorted({'torch', 'monai', 'lightning'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_training_of_the_readme_is_accepted(tmp_path):
    readme = Path(__file__).parents[1] / "README.md"
    (block,) = re.findall(r"^```toml\n(.*?)^```$", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "train.toml").write_text(block, "utf-8")
    plan = plan_training(toml.read(tmp_path / "train.toml"), discover(), data=False)
    assert plan.crop == (7, 256, 256)
