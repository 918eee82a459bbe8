"""JSON schema of a whole pipeline.toml, for editors that complete and check while one types."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer
from pydantic import BaseModel

from mitocore.cli.describe import loaded
from mitocore.config.pipeline import OutputTable, PredictTable, RunTable
from mitocore.registry import Entry, Registry
from mitocore.specs import Kind
from mitocore.volumes import installed

Schema = dict[str, Any]


def print_schema() -> None:
    """Print the schema of pipeline.toml with the installed plugins."""
    typer.echo(json.dumps(pipeline_schema(installed()), indent=2, ensure_ascii=False))


def pipeline_schema(registry: Registry) -> Schema:
    """Draft 7, which editors of TOML know: what each table may hold, by the component it names."""
    shared: Schema = {}
    predict, run = (_referred(table, table.__name__, shared) for table in (PredictTable, RunTable))
    run["properties"]["memory"]["anyOf"].append({"type": "string", "pattern": "[0-9] ?[kKmMgGtT]?i?[bB]$"})  # "16 GB"
    name = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "description": "Default: that of the component."}
    inputs = {"type": "object", "additionalProperties": {"type": "string"}, "description": 'need = "step.array".'}
    step = {"name": name, "inputs": inputs, "storage": {"enum": ["float32", "float16", "uint8"]}}
    one = {"type": "string", "description": "A name of `mitocore weights list`, or a file."}
    several = {"type": "array", "items": one, "minItems": 1, "description": "An ensemble."}
    weights = {"anyOf": [one, several]}
    network = {**step, "weights": weights, "predict": predict}
    place = {"type": "string", "description": "PATH[::KEY], a pattern, or a folder of volumes."}
    source = {
        "path": {"anyOf": [place, {"type": "array", "items": place, "minItems": 1}]},
        "kind": {"enum": list(Kind), "description": "What the input holds, where the file does not say: an image."},
    }
    target = _referred(OutputTable, "OutputTable", shared)["properties"]
    steps = [
        *_choices("postprocessor", registry, step, (), shared, unnamed=False),
        *_choices("model", registry, network, ("weights",), shared, optional=True),
    ]
    tables = {
        "mitocore": {"const": 1, "description": "Version of the format."},
        "input": {"oneOf": list(_choices("reader", registry, source, (), shared))},
        "step": {"type": "array", "items": {"oneOf": steps}},
        "output": {"oneOf": list(_choices("writer", registry, target, ("path",), shared))},
        "run": run,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "pipeline.toml of mitocore",
        **_table(tables, ["mitocore", "step"]),
        "definitions": shared,
    }


def _choices(
    kind: str,
    registry: Registry,
    words: Schema,
    required: Sequence[str],
    shared: Schema,
    *,
    unnamed: bool = True,
    optional: bool = False,
) -> Iterator[Schema]:
    """A table for each component of a kind; last, with `unnamed`, one whose component follows from a file.

    Parameters
    ----------
    words
        Keys that belong to the engine; they stand for options of the same name.
    optional
        Whether a file knows all options, so that none must be stated.
    """
    everything: Schema = {}
    for entry, found in loaded(registry, kind):
        schema = _referred(found, f"{kind}.{entry.qualified}", shared)
        own = {key: option for key, option in schema["properties"].items() if key not in words}
        everything |= {key: {} for key in own}
        needed = [key for key in schema.get("required", []) if not optional]
        heading = {kind: {"enum": _names(entry, registry), "description": entry.summary}}
        yield _table({**heading, **words, **own}, [kind, *required, *needed])
    if unnamed:
        stated = required or ("path",)
        yield {**_table({**everything, **words}, stated), "description": f"The {kind} follows from the file."}


def _table(properties: Schema, required: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(dict.fromkeys(required)),
        "additionalProperties": False,
    }


def _names(entry: Entry, registry: Registry) -> list[str]:
    """Names that mean this component alone: a bare one must not be that of another plugin's, too."""
    alone = sum((e.kind, e.name) == (entry.kind, entry.name) for e in registry.entries) == 1
    return [entry.name, entry.qualified] if alone else [entry.qualified]


def _referred(model: type[BaseModel], name: str, shared: Schema) -> Schema:
    """The schema of a model in draft 7; what it refers to goes to `shared` under names of its own."""
    prefix = name.replace("/", ".")
    schema: Schema = _draft_7(model.model_json_schema(ref_template=f"#/definitions/{prefix}.{{model}}"))
    shared |= {f"{prefix}.{inner}": found for inner, found in schema.pop("$defs", {}).items()}
    return schema


def _draft_7(schema: Any) -> Any:
    """Tuples as draft 7 writes them; titles, which only repeat the names, left out."""
    if isinstance(schema, list):
        return [_draft_7(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    renamed = {"items" if key == "prefixItems" else key: value for key, value in schema.items()}
    found = {}
    for key, value in renamed.items():
        if key in ("properties", "$defs"):  # what stands here are names, not words of JSON schema
            found[key] = {name: _draft_7(option) for name, option in value.items()}
        elif key != "title" and not (key == "default" and value is None):
            found[key] = _draft_7(value)
    return found
