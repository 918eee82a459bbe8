"""Every installed component explains itself: what `mitocore describe` and the reference show."""

import inspect

import pytest
from pydantic import BaseModel

import mitocore
from mitocore.component import Component
from mitocore.config.pipeline import OutputTable, PredictTable, RunTable
from mitocore.config.training import Training
from mitocore.registry import Entry, discover

ENTRIES = [entry for entry in discover().entries if entry.kind != "demo"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.qualified}")
def test_a_component_and_all_its_options_are_described(entry: Entry) -> None:
    component = entry.load()
    assert issubclass(component, Component)
    assert component.kind == entry.kind
    assert entry.summary
    assert inspect.getdoc(component)
    assert [name for name, field in component.model_fields.items() if not field.description] == []


def tables(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A table of the grammar, and the tables inside it."""
    found = {model}
    for field in model.model_fields.values():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in found:
                found |= tables(part)
    return found


@pytest.mark.parametrize(
    "table",
    sorted({RunTable, PredictTable, OutputTable} | tables(Training), key=lambda table: table.__name__),
    ids=lambda table: table.__name__,
)
def test_every_key_of_the_toml_grammar_is_described(table: type[BaseModel]) -> None:
    assert [name for name, field in table.model_fields.items() if not field.description] == []


def test_every_public_name_has_a_docstring() -> None:
    constants = {"LINK", "Labels", "Shape", "Stats", "VoxelSizeOption", "PathOption"}
    assert [n for n in mitocore.__all__ if n not in constants and not inspect.getdoc(getattr(mitocore, n))] == []


def test_the_version_is_the_same_in_metadata_and_package() -> None:
    assert set(discover().versions.values()) == {mitocore.__version__}
