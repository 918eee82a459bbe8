import pickle
import subprocess
import sys

import pytest

from mitocore import LocalPostProcessor, Model, StitchedPostProcessor
from mitocore.registry import discover

NAMES = {
    ("model", "rsunet"),
    ("model", "residual_unet"),
    ("model", "fpn"),
    ("model", "monai_unet"),
    ("model", "monai_basic_unet"),
    ("model", "monai_attention_unet"),
    ("model", "monai_swin_unetr"),
    ("model", "monai_segresnet"),
    ("postprocessor", "connected_components"),
    ("postprocessor", "size_filter"),
    ("postprocessor", "fill_holes"),
}


def entries():
    return [entry for entry in discover().entries if (entry.kind, entry.name) in NAMES and entry.plugin == "rsunet"]


def test_the_plugin_declares_its_components():
    assert {(entry.kind, entry.name) for entry in entries()} == NAMES
    assert all(entry.summary for entry in entries())


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_components_are_frozen_described_and_survive_json_and_pickle(entry):
    component = entry.load()()
    assert isinstance(component, Model | StitchedPostProcessor | LocalPostProcessor)
    assert type(component).model_validate_json(component.model_dump_json()) == component
    assert pickle.loads(pickle.dumps(component)) == component
    assert hash(component) == hash(entry.load()())
    assert type(component).__doc__
    assert all(field.description for field in type(component).model_fields.values())


def test_components_are_imported_without_torch():
    code = (
        "import sys, mitocore_rsunet.plugin, mitocore_rsunet.instances;"
        "import mitocore_rsunet.models as m, mitocore_rsunet.monai_models as n;"
        "m.RSUNet().window(), n.MonaiSwinUNETR().heads();"
        "sys.exit(sorted({'torch', 'monai', 'lightning'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
