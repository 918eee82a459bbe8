"""The built-ins as a plugin: every declaration loads, every option is described."""

import pickle
import subprocess
import sys

import pytest

from mitocore.builtin import plugin
from mitocore.registry import Registry

_REQUIRED = {
    "npy": {"path": "a.npy"},
    "semantic": {"classes": ("background", "mitochondrion")},
    "class_weights": {"factors": (1.0, 5.0)},
}


def declared():
    registry = Registry()
    plugin.mitocore_register(registry=registry)
    return registry.entries


@pytest.mark.parametrize("entry", declared(), ids=lambda e: f"{e.kind}-{e.name}")
def test_components_load_and_keep_the_rules_of_configurations(entry):
    cls = entry.load()
    component = cls(**_REQUIRED.get(entry.name, {}))
    assert cls.kind == entry.kind
    assert cls.__doc__
    assert entry.summary
    assert cls.model_validate_json(component.model_dump_json()) == component
    assert pickle.loads(pickle.dumps(component)) == component
    assert hash(component) == hash(component.model_copy())
    assert all(option.get("description") for option in cls.options().get("properties", {}).values())


def test_npy_is_found_by_suffix():
    registry = Registry()
    plugin.mitocore_register(registry=registry)
    assert registry.find_for("reader", "a.npy").name == "npy"
    assert registry.find_for("writer", "a.npy").name == "npy"


def test_no_component_imports_torch_before_it_is_built():
    code = (
        "import sys; from mitocore.registry import Registry; from mitocore.builtin import plugin\n"
        "r = Registry(); plugin.mitocore_register(registry=r); [e.load() for e in r.entries]\n"
        "print([m for m in ('torch', 'monai', 'lightning') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
