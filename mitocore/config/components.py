"""Tables of a TOML file → components."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mitocore.component import Component, File
from mitocore.config.toml import Document, Key, translate
from mitocore.errors import ConfigError, ContractError, DataError, PluginError, together
from mitocore.registry import Entry, Registry

_EMPTY = Document({})


def build(
    kind: str,
    value: Any,
    registry: Registry,
    document: Document = _EMPTY,
    *keys: Key,
    allow: Collection[str] = (),
) -> tuple[Component, Entry]:
    """The component a value stands for: a string is one with its defaults, a table names it beside its options.

    Parameters
    ----------
    allow
        Keys of the table that belong to the engine, not to the component.

    Raises
    ------
    PluginError
        If it is unknown, ambiguous or does not load.
    ConfigError
        If an option is unknown or has a wrong value.
    """
    table = {kind: value} if isinstance(value, str) else value
    where = document.where(*keys)
    if not isinstance(table, Mapping) or not isinstance(table.get(kind), str):
        raise ConfigError(f"this names no {kind}", where=where, hint=f'{kind} = "…"; see `mitocore plugins`')
    options = {key: option for key, option in table.items() if key != kind and key not in allow}
    try:
        entry = registry.find(kind, table[kind])
        found = entry.load()
    except PluginError as error:
        error.where = error.where or where
        raise
    return configured(found, entry, options, document, *keys), entry


def configured(
    found: Any, entry: Entry, options: Mapping[str, Any], document: Document = _EMPTY, *keys: Key
) -> Component:
    """The component of an entry with these options; its files resolved against the folder of the document."""
    if not (isinstance(found, type) and issubclass(found, Component) and getattr(found, "kind", "") == entry.kind):
        raise ContractError(f"{entry.target} of plugin {entry.plugin!r} is not a {entry.kind}")
    options = dict(options)
    for name in found.marked(File) & options.keys():
        if isinstance(options[name], str) and "://" not in options[name]:
            options[name] = resolved(options[name], document.folder_of(*keys, name))
    try:
        return found.model_validate(options)
    except ValidationError as error:
        what = f"{entry.kind} {entry.name!r}"
        raise together(translate(error, found, options, document, *keys, what=what)) from error


def resolved(path: str, folder: Path) -> str:
    """A path stated in a file of `folder`; a closing "/" (a folder of slices) is kept.

    >>> resolved("data/raw/", Path("em"))
    'em/data/raw/'
    """
    return str(folder / path) + ("/" if path.endswith("/") else "")


def opened_by(
    kind: str,
    place: str,
    registry: Registry,
    document: Document = _EMPTY,
    *keys: Key,
    options: Mapping[str, Any] | None = None,
    named: str | None = None,
) -> tuple[Component, Entry]:
    """The reader or writer of ``PATH[::KEY]``, found by its suffix unless `named`.

    Raises
    ------
    DataError
        If the path to be read does not exist and no suffix tells what it should be.
    """
    path, _, key = place.partition("::")
    options = dict(options or {})
    if key:
        options["key"] = key
    # `keys` is the table; the path inside it decides which folder a relative path starts from
    base = document.folder_of(*keys, "path")
    full = path if "://" in path else resolved(path, base)
    try:
        entry = registry.find(kind, named) if named else _suffixed(kind, full, registry)
    except PluginError as error:
        if kind == "reader" and not Path(full).exists():
            raise DataError(
                f"there is no {path!r}", where=document.where(*keys, "path"), hint="check the path"
            ) from error
        error.where = document.where(*keys, "path")
        raise
    options["path"] = str(Path(full).absolute()) + ("/" if full.endswith("/") else "") if "://" not in full else full
    return configured(entry.load(), entry, options, document, *keys), entry


def _suffixed(kind: str, path: str, registry: Registry) -> Entry:
    try:
        return registry.find_for(kind, path)
    except PluginError:
        if kind == "reader" and Path(path).is_dir():
            return registry.find_for(kind, path + "/")
        raise
