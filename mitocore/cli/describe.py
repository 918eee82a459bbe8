"""What a component is, says and can be told."""

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from pydantic import ValidationError

from mitocore.cli.render import table
from mitocore.component import KINDS, Component
from mitocore.config import written
from mitocore.config.toml import near
from mitocore.errors import ConfigError, PluginError, WiringError
from mitocore.interfaces import (
    LocalPostProcessor,
    Metric,
    Model,
    Normalizer,
    ObjectwisePostProcessor,
    PostProcessor,
    StitchedPostProcessor,
    WholePostProcessor,
    Writer,
)
from mitocore.registry import Entry, Registry
from mitocore.specs import ArraySpec, Need
from mitocore.volumes import installed

_TABLES = {
    "reader": "[input]",
    "writer": "[output]",
    "model": "[model]",
    "normalizer": "[normalizer]",
    "sampler": "[sampler]",
    "augment": "[[augment]]",
    "postprocessor": "[[step]]",
}
"""Where a component stands in TOML; losses and targets stand inside an objective."""


def describe(kind: str | None, name: str | None, schema: bool) -> None:
    """Print one component, or all (of a kind) in one line each; of a kind, the JSON schemas too."""
    registry = installed()
    if kind is not None and kind not in KINDS:
        of_name = [f"mitocore describe {entry.kind} {kind}" for entry in registry.entries if kind == entry.name]
        hint = " or ".join(dict.fromkeys(of_name)) or near(kind, KINDS)
        raise ConfigError(f"{kind!r} is not a kind of component", where="KIND", hint=hint)
    if kind is None:
        typer.echo(table([(e.kind, e.name, e.plugin, e.summary) for e in registry.entries if e.kind in KINDS]))
    elif name is None and schema:
        typer.echo(json.dumps(schemas(registry, kind), indent=2))
    elif name is None:
        typer.echo(table([(e.name, e.plugin, e.summary) for e in registry.entries if e.kind == kind]))
    else:
        entry = registry.find(kind, name)
        found = component(entry)
        typer.echo(json.dumps(found.options(), indent=2) if schema else described(found, entry, registry))


def component(entry: Entry) -> type[Component]:
    """The class of an entry.

    Raises
    ------
    PluginError
        If it does not load, or is no component.
    """
    found = entry.load()
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise PluginError(f"{entry.target} of plugin {entry.plugin!r} is not a {entry.kind}")
    return found


def schemas(registry: Registry, kind: str) -> dict[str, dict[str, Any]]:
    """JSON schema of the options of every component of a kind that loads, by qualified name."""
    return {entry.qualified: found.options() for entry, found in loaded(registry, kind)}


def loaded(registry: Registry, kind: str) -> Iterator[tuple[Entry, type[Component]]]:
    """Every component of a kind that loads; a warning for each of the others."""
    for entry in registry.entries:
        if entry.kind == kind:
            try:
                yield entry, component(entry)
            except PluginError as error:
                typer.echo(f"warning: left out: {error.problem}", err=True)


def described(found: type[Component], entry: Entry, registry: Registry) -> str:
    """Everything there is to know of a component before it is used."""
    parts = [f"{entry.kind} {entry.qualified}  (version {registry.versions.get(entry.plugin, 'unknown')})"]
    parts.append(inspect.getdoc(found) or entry.summary)
    if options := list(_options(found)):
        parts.append("options\n" + "\n".join(options))
    if facts := [*_facts(found, entry)]:
        parts.append(table(facts))
    parts.append(pasteable(found, entry))
    return "\n\n".join(parts)


def _options(found: type[Component]) -> Iterator[str]:
    schema = found.options()
    required = schema.get("required", [])
    for name, option in schema.get("properties", {}).items():
        default = "required" if name in required else f"default {toml_value(option.get('default'))}"
        yield f"  {name}  {type_text(option, schema.get('$defs', {}))} · {default}"
        if text := found.model_fields[name].description:
            yield "\n".join(f"      {line}" for line in inspect.cleandoc(text).splitlines())


def type_text(option: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The type of an option, as JSON schema has it, in words.

    >>> type_text({"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 1}, {"type": "null"}]}, {})
    'number (>= 0, < 1) or none'
    >>> type_text({"type": "array", "prefixItems": [{"type": "integer"}] * 3, "minItems": 3, "maxItems": 3}, {})
    '[integer, integer, integer]'
    """
    if "$ref" in option:
        return type_text(definitions.get(option["$ref"].rpartition("/")[2], {}), definitions)
    if inner := option.get("anyOf") or option.get("allOf"):
        return " or ".join(dict.fromkeys(type_text(one, definitions) for one in inner))
    if "enum" in option or "const" in option:
        return " | ".join(json.dumps(value) for value in option.get("enum", [option.get("const")]))
    if "prefixItems" in option:
        return f"[{', '.join(type_text(item, definitions) for item in option['prefixItems'])}]"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {option[key]}" for key, sign in bounds.items() if key in option)
    name = {"null": "none", "array": "list"}.get(option.get("type", ""), option.get("type", "any"))
    if name == "list" and option.get("items"):
        name = f"list of {type_text(option['items'], definitions)}"
    return f"{name} ({limits})" if limits else str(name)


def _facts(found: type[Component], entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.suffixes:
        yield "suffixes", " ".join(entry.suffixes)
    if issubclass(found, Writer):
        yield "stores", ", ".join(found.dtypes)
    if issubclass(found, Normalizer):
        yield "scope", "voxelwise" if found.voxelwise else "a pass of its own"
    if issubclass(found, Metric):
        yield "compares", found.compares
    made = _with_defaults(found)
    if isinstance(made, Model):
        window = made.window()
        yield "takes", f"{', '.join(made.channels())} in windows of {window.shape}, overlap {window.overlap}"
        yield from (("gives", f"{head.name} ({head.kind}: {', '.join(head.channels)})") for head in made.heads())
    if isinstance(made, PostProcessor):
        yield "scope", _scope(made)
        yield from (("needs", f"{name} ({_needed(need)})") for name, need in made.needs().items())
        yield from (("gives", text) for text in _given(made))


def _scope(made: PostProcessor) -> str:
    if isinstance(made, LocalPostProcessor):
        return f"local, halo {made.halo()}"
    scopes = {"stitched": StitchedPostProcessor, "objectwise": ObjectwisePostProcessor, "whole": WholePostProcessor}
    return next((name for name, scope in scopes.items() if isinstance(made, scope)), "none")


def _with_defaults(found: type[Component]) -> Component | None:
    if inspect.isabstract(found):
        return None
    try:
        return found()
    except ValidationError:
        return None


def _needed(need: Need) -> str:
    channels = f", channels {need.channels}" if need.channels else ""
    return " or ".join(sorted(need.kinds)) + channels + (", optional" if need.optional else "")


def _given(made: PostProcessor) -> list[str]:
    for choice in range(max((len(need.kinds) for need in made.needs().values()), default=1)):
        specs = {}
        for name, need in made.needs().items():
            kinds = sorted(need.kinds)
            channels = need.channels if isinstance(need.channels, tuple) else ("",) * (need.channels or 1)
            specs[name] = ArraySpec(kinds[min(choice, len(kinds) - 1)], channels)
        try:
            return [f"{name} ({spec.kind})" for name, spec in made.gives(specs).items()]
        except WiringError:
            continue
    return []


def pasteable(found: type[Component], entry: Entry) -> str:
    """The component as it stands in TOML, every option stated; unset ones as comments."""
    if entry.kind == "metric":
        return f"mitocore evaluate PREDICTION TRUTH --metric {entry.name}"
    options = found.options().get("properties", {})
    required = found.options().get("required", [])
    stated = {name: option["default"] for name, option in options.items() if option.get("default") is not None}
    if entry.kind in ("loss", "target"):
        inner = ", ".join(
            f"{key} = {toml_value(value)}" for key, value in {entry.kind: entry.qualified, **stated}.items()
        )
        return f'[[objective]]\nhead = "…"\n{entry.kind} = {{ {inner} }}'
    lines = [_TABLES[entry.kind], f"{entry.kind} = {toml_value(entry.qualified)}"]
    for name in options:
        if name in stated:
            lines.append(f"{name} = {toml_value(stated[name])}")
        else:
            lines.append(f'{name} = "…"' if name in required else f"# {name} = …")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """A value as TOML; none as a word.

    >>> toml_value([1, "a", True, {"lr": 0.1}])
    '[1, "a", true, { lr = 0.1 }]'
    """
    return "none" if value is None else written.value(value)
