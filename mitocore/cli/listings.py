"""What the commands that list and keep things do: plugins, demos, weights."""

import difflib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from mitocore import weights as store
from mitocore.cli.describe import toml_value
from mitocore.cli.render import table
from mitocore.config import toml
from mitocore.config.components import build
from mitocore.errors import ConfigError, PluginError
from mitocore.geometry import VoxelSize
from mitocore.header import WeightsHeader, read_header
from mitocore.interfaces import Model
from mitocore.registry import Entry, Registry
from mitocore.volumes import installed


def plugins(name: str | None, as_json: bool) -> None:
    """Print one line per component, of all plugins, one plugin or one name, and one per broken plugin."""
    registry = installed()
    entries, broken = _wanted(registry, name, registry.entries)
    if as_json:
        components = [_row(entry, registry) for entry in entries]
        typer.echo(json.dumps({"components": components, "broken": broken}, indent=2))
        return
    rows = [tuple(_row(entry, registry).values()) for entry in entries]
    typer.echo(table([("plugin", "version", "kind", "name", "summary"), *rows]))
    for plugin, reason in broken.items():
        typer.echo(f"{plugin} is broken: {reason}")


def _row(entry: Entry, registry: Registry) -> dict[str, str]:
    version = registry.versions.get(entry.plugin, "")
    names = {"plugin": entry.plugin, "version": version, "kind": entry.kind, "name": entry.name}
    return {**names, "summary": entry.summary}


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def check_plugins(name: str | None, as_json: bool) -> None:
    """Put the components of all plugins, of one plugin, or of one name, to the checks of their kinds.

    Raises
    ------
    PluginError
        If a check fails, a plugin is broken, or nothing has this name.
    """
    from mitocore.testing import checks

    registry, found, failed = installed(), [], 0
    entries, broken = _wanted(registry, name, [entry for entry in registry.entries if entry.kind != "demo"])
    for entry in entries:
        findings = checks.run_entry(entry)
        failed += sum(finding.passed is False for finding in findings)
        found.append({"component": entry.qualified, "kind": entry.kind, "findings": [asdict(one) for one in findings]})
        if not as_json:
            typer.echo(f"{entry.kind} {entry.qualified}")
            rows = [(f"  {one.check}", _RESULTS[one.passed], " ".join(one.message.split())) for one in findings]
            typer.echo(table(rows) + "\n")
    if as_json:
        typer.echo(json.dumps({"components": found, "broken": broken}, indent=2))
    else:
        for plugin, reason in broken.items():
            typer.echo(f"{plugin} is broken: {reason}")
    if failed or broken:
        what = ["1 check failed" if failed == 1 else f"{failed} checks failed"] * bool(failed) + [
            f"plugin {plugin!r} is broken" for plugin in broken
        ]
        hint = "each line above says what to change; in tests, inherit from the classes of mitocore.testing"
        raise PluginError("; ".join(what), hint=hint)


_RESULTS = {True: "ok", False: "failed", None: "not run"}


def _wanted(registry: Registry, name: str | None, entries: list[Entry]) -> tuple[list[Entry], dict[str, str]]:
    """Those of a plugin or of a name, and broken plugins with the original error."""
    broken = {plugin: _reason(error) for plugin, error in registry.broken.items() if name in (None, plugin)}
    if name is None:
        return entries, broken
    plugins_, names = {entry.plugin for entry in entries}, {entry.name for entry in entries}
    chosen = [e for e in entries if e.plugin == name] or [e for e in entries if name in (e.name, e.qualified)]
    if not chosen and not broken:
        near = difflib.get_close_matches(name, sorted(plugins_ | names), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"plugins: {', '.join(sorted(plugins_))}"
        raise PluginError(f"no plugin and no component is called {name!r}", hint=hint)
    return chosen, broken


def demos() -> None:
    """Print the demos of the installed plugins."""
    found = [entry for entry in installed().entries if entry.kind == "demo"]
    typer.echo(table([(entry.name, entry.plugin, entry.summary) for entry in found]) if found else "no demos")


def add_weights(
    file: Path,
    name: str,
    model: str | None,
    settings: Sequence[str],
    normalizer: str | None,
    voxel_size: VoxelSize | None,
) -> None:
    """Keep weights under a name; a state dict of another program becomes a weights file first."""
    if model is None:
        if settings or normalizer or voxel_size:
            raise ConfigError(
                f"{str(file)!r} is taken to describe itself",
                where="--set, --normalizer, --voxel-size",
                hint="--model NAME",
            )
        known = store.add(file, name)
    else:
        from mitocore.learn import checkpoint

        component, header = foreign_header(model, settings, normalizer, voxel_size)
        with TemporaryDirectory(prefix="mitocore-") as temporary:
            converted = Path(temporary) / f"{name}.safetensors"
            checkpoint.convert(file, converted, component, header)
            known = store.add(converted, name, source=str(file.absolute()))
    typer.echo(f"{known.name}  {known.path}")


def foreign_header(
    model: str, settings: Sequence[str], normalizer: str | None, voxel_size: VoxelSize | None
) -> tuple[Model, WeightsHeader]:
    """A model, and the header of weights that do not describe themselves."""
    registry = installed()
    options = toml.override(toml.Document({"model": {}}), [f"model.{text}" for text in settings]).data["model"]
    component, entry = build("model", {**options, "model": model}, registry)
    if normalizer is None:
        raise ConfigError(
            "nothing says how intensities were normalised in training",
            where="--normalizer",
            hint="--normalizer percentile",
        )
    prepared, prepared_entry = build("normalizer", _component(normalizer), registry)
    if not isinstance(component, Model):
        raise ConfigError(f"{model!r} is not a model", where="--model", hint="mitocore describe model")
    header = WeightsHeader(
        component=entry.qualified,
        options=component.model_dump(mode="json"),
        channels=component.channels(),
        heads=component.heads(),
        window=component.window(),
        voxel_size=voxel_size,
        normalizer={"normalizer": prepared_entry.qualified, **prepared.model_dump(mode="json")},
    )
    return component, header


def _component(text: str) -> Any:
    """A name, or a table in TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def weights(as_json: bool) -> None:
    """Print the weights that have a name."""
    found = [(known, read_header(known.path)) for known in store.listed()]
    if as_json:
        rows = [{"name": k.name, "path": str(k.path), "component": h.component, "sha256": k.sha256} for k, h in found]
        typer.echo(json.dumps(rows, indent=2))
    elif found:
        typer.echo(table([(k.name, h.component, _size(h), h.description) for k, h in found]))
    else:
        typer.echo("no weights yet: mitocore weights add FILE --name NAME", err=True)


def weights_info(text: str, as_json: bool) -> None:
    """Print the header of weights."""
    header = read_header(store.resolve(text, Path()))
    if as_json:
        typer.echo(header.model_dump_json(indent=2))
        return
    heads = [f"{head.name} ({head.kind}: {', '.join(head.channels)})" for head in header.heads]
    rows = [
        ("model", header.component),
        *([("about", header.description)] if header.description else []),
        ("options", toml_value(header.options)),
        ("takes", f"{', '.join(header.channels)} at {_size(header)}"),
        ("gives", ", ".join(heads)),
        ("window", f"{header.window.shape}, overlap {header.window.overlap}"),
        ("normalizer", toml_value(header.normalizer)),
        *(("then", toml_value(step)) for step in header.pipeline),
        *(("threshold", f"{head} {value:g}") for head, value in header.thresholds.items()),
        *(("temperature", f"{head} {value:g}") for head, value in header.temperature.items()),
        *(("score", f"{name} {value:.4f}") for name, value in header.scores.items()),
        *(("made by", f"{name} {value}") for name, value in header.versions.items()),
        *((name, str(value)) for name, value in header.provenance.items()),
    ]
    typer.echo(table(rows))


def _size(header: WeightsHeader) -> str:
    sizes = header.voxel_size
    if sizes is None:
        return "unknown voxel size"
    return " to ".join(map(str, sizes)) if isinstance(sizes, tuple) else str(sizes)


def remove_weights(name: str) -> None:
    """Forget weights."""
    store.remove(name)
    typer.echo(f"removed {name}", err=True)
