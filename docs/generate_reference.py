"""Parts of the reference that are read from the code: components, keys of the TOML files, commands, checks, exit codes.

A hook of mkdocs. A page says where a part goes: ``{{ components }}``, ``{{ commands }}``, ``{{ checks }}``,
``{{ exit_codes }}``, or ``{{ options module:Class }}`` for the keys of one table.
"""

import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mitocore.component import KINDS
from mitocore.registry import Entry, discover

_PART = re.compile(r"^\{\{ (\w+)(?: (\S+))? \}\}$", re.MULTILINE)
_OF_TYPER = ("help", "install_completion", "show_completion")
_WORDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "dict": "table"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts into a page."""
    parts = {
        "components": components,
        "options": options,
        "commands": commands,
        "checks": checks,
        "exit_codes": exit_codes,
    }
    return _PART.sub(lambda found: "\n".join(parts[found[1]](*filter(None, [found[2]]))), markdown)


def components() -> Iterator[str]:
    """One section per kind, one entry per component of the installed plugins."""
    registry = discover()
    if registry.broken:
        raise SystemExit(f"plugins that do not load: {registry.broken}")
    for kind in KINDS:
        yield f"## {kind}\n"
        for entry in sorted((e for e in registry.entries if e.kind == kind), key=lambda e: e.qualified):
            yield from _component(entry)


def _component(entry: Entry) -> Iterator[str]:
    component = entry.load()
    suffixes = ", ".join(f"`{suffix}`" for suffix in entry.suffixes)
    yield f"### {entry.name} {{ #{entry.kind}-{entry.name} }}\n"
    yield f"Plugin `{entry.plugin}`" + (f", for paths that end in {suffixes}." if suffixes else ".") + "\n"
    yield f"{inspect.getdoc(component)}\n"
    yield from _table(component)


def options(target: str) -> Iterator[str]:
    """The keys of one table of a TOML file."""
    module, _, name = target.partition(":")
    yield from _table(getattr(importlib.import_module(module), name))


def _table(model: type[BaseModel]) -> Iterator[str]:
    if not model.model_fields:
        yield "No options.\n"
        return
    yield "| option | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {_cell(_type(field.annotation))} | {_default(field)} | {_cell(field.description)} |"
    yield ""


def _type(annotation: Any) -> str:
    """A type as a person would write it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value!r}`".replace("'", '"') for value in arguments)
    if origin is tuple:
        return f"[{', '.join('…' if inner is Ellipsis else _type(inner) for inner in arguments)}]"
    if arguments and origin is not dict:
        return " or ".join(dict.fromkeys(_type(inner) for inner in arguments if inner is not type(None)))
    plain = getattr(origin or annotation, "__name__", str(annotation))
    is_table = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return "table" if is_table else _WORDS.get(plain, plain)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    value = str(field.default).lower() if isinstance(field.default, bool) else repr(field.default).replace("'", '"')
    return f"`{_cell(value)}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    import typer

    from mitocore.cli.main import app

    yield from _command("mitocore", typer.main.get_command(app), "##", groups=False)
    for name, command in sorted(typer.main.get_command(app).commands.items()):  # type: ignore[attr-defined]
        yield from _command(f"mitocore {name}", command, "##")


def _command(name: str, command: Any, level: str, *, groups: bool = True) -> Iterator[str]:
    yield f"{level} {name}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    for inner, sub in sorted(getattr(command, "commands", {}).items()) if groups else ():
        yield from _command(f"{name} {inner}", sub, f"{level}#")
    shown = [p for p in command.params if p.name not in _OF_TYPER and not getattr(p, "hidden", False)]
    if shown:
        yield "| argument or option | meaning |"
        yield "|---|---|"
        yield from (f"| {_words(p)} | {_cell(getattr(p, 'help', ''))} |" for p in shown)
        yield ""


def _words(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{(parameter.metavar or parameter.name).upper()}`" + (" …" if parameter.nargs == -1 else "")
    words = ", ".join(f"`{word}`" for word in [*parameter.opts, *parameter.secondary_opts])
    return words if parameter.is_flag or parameter.count else f"{words} {_cell(parameter.metavar)}".rstrip()


def checks() -> Iterator[str]:
    """The named checks of the conformance kit: of every component, then by kind."""
    from mitocore.testing.checks import TESTS
    from mitocore.testing.every_component import EVERY
    from mitocore.testing.pipelines import CHECKS

    by_kind = {suite.__name__: suite.checks for suite in TESTS.values()}
    for heading, named in {"Every component": EVERY, **by_kind, "PipelineTests": CHECKS}.items():
        yield f"## {heading}\n"
        yield "| check | promise |"
        yield "|---|---|"
        for check in named:
            promise = (inspect.getdoc(check) or "").partition("\n\n")[0]
            yield f"| `{check.__name__}` | {_cell(promise)} |"
        yield ""


def exit_codes() -> Iterator[str]:
    """The families of errors and their exit codes."""
    from mitocore import errors

    found = [f for f in vars(errors).values() if isinstance(f, type) and issubclass(f, errors.MitocoreError)]
    for family in sorted(found, key=lambda family: family.exit_code):
        if family is not errors.MitocoreError:
            yield f"| {family.exit_code} | `{family.__name__}` | {_cell(inspect.getdoc(family))} |"
