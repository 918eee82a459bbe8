"""Describing components: enough to use each of them, in text and for machines."""

import json
import tomllib

import pytest

from mitocore.cli.describe import component, pasteable
from mitocore.component import KINDS
from mitocore.volumes import installed

COMPONENTS = [entry for entry in installed().entries if entry.kind in KINDS]


@pytest.mark.parametrize("entry", COMPONENTS, ids=lambda entry: f"{entry.kind} {entry.qualified}")
def test_every_component_can_be_described_and_pasted(entry, succeeds):
    text = succeeds("describe", entry.kind, entry.qualified)
    found = component(entry)
    assert text.startswith(f"{entry.kind} {entry.qualified}  (version ")
    assert all(f"  {name}  " in text for name in found.model_fields)
    if entry.kind == "metric":
        assert f"--metric {entry.name}" in text
    else:
        pasted = tomllib.loads(pasteable(found, entry).replace("# ", "").replace(" = …", ' = "…"'))
        assert entry.qualified in json.dumps(pasted)


def test_pasted_options_are_those_of_the_component():
    entry = installed().find("postprocessor", "size_filter")
    (table,) = tomllib.loads(pasteable(component(entry), entry))["step"]
    del table["postprocessor"]
    assert component(entry).model_validate(table) == component(entry)()


def test_a_postprocessor_says_what_it_needs_gives_and_sees(succeeds):
    text = succeeds("describe", "postprocessor", "connected_components")
    assert "scope  stitched" in text
    assert "needs  mask (mask or probability, channels 1)" in text
    assert "gives  instances (instance)" in text
    assert "connectivity  6 | 18 | 26 · default 26" in text
    assert "local, halo (1, 1, 1)" in succeeds("describe", "postprocessor", "median")


def test_a_model_says_its_window_and_heads(succeeds):
    text = succeeds("describe", "model", "rsunet")
    assert "takes  image in windows of" in text
    assert "foreground (probability: foreground)" in text


def test_schemas_are_printed_for_editors(succeeds):
    one = json.loads(succeeds("describe", "postprocessor", "size_filter", "--schema"))
    assert "min_size" in one["properties"]
    every = json.loads(succeeds("describe", "postprocessor", "--schema"))
    assert every["rsunet/size_filter"] == one
    assert set(every) == {entry.qualified for entry in COMPONENTS if entry.kind == "postprocessor"}


def test_a_kind_alone_lists_its_components_and_nothing_lists_all(succeeds):
    assert "rsunet" in succeeds("describe", "model")
    assert len(succeeds("describe").splitlines()) == len(COMPONENTS)


def test_what_there_is_not_is_answered_with_the_nearest(refused):
    assert "did you mean 'model'?" in refused(3, "describe", "modl", "rsunet")
    assert "did you mean 'rsunet'?" in refused(4, "describe", "model", "rsunett")


def test_plugins_are_listed_for_people_and_for_machines(succeeds):
    assert succeeds("plugins").splitlines()[0].split() == ["plugin", "version", "kind", "name", "summary"]
    listed = json.loads(succeeds("plugins", "--json"))
    assert {"plugin", "version", "kind", "name", "summary"} == set(listed["components"][0])
    assert listed["broken"] == {}


def test_demos_are_listed(succeeds):
    assert succeeds("demo", "--list").split()[:2] == ["mito", "rsunet"]


def test_an_unknown_demo_is_answered_with_the_nearest(refused):
    assert "did you mean 'mito'?" in refused(4, "demo", "mitoo")
