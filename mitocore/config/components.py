"""Tables of a TOML file → components."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
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
        raise ConfigError(
            f"this names no {kind}", where=where, hint=f'{kind} = "…"; `mitocore describe {kind}` lists them'
        )
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
        what, hint = f"{entry.kind} {entry.name!r}", f"mitocore describe {entry.kind} {entry.name}"
        raise together(translate(error, found, options, document, *keys, what=what, hint=hint)) from error


def resolved(path: str, folder: Path) -> str:
    """A path stated in a file of `folder`; a closing "/" (a folder of slices) is kept.

    >>> resolved("data/raw/", Path("em"))
    'em/data/raw/'
    """
    return str(folder / path) + ("/" if path.endswith("/") else "")


def check_exists(place: str, folder: Path = Path(), *, where: str = "") -> None:
    """Refuse ``PATH[::KEY]`` of a file or folder that is not there; addresses and patterns pass.

    Raises
    ------
    DataError
        With the nearest name there is.
    """
    if _is_missing(place, folder):
        raise DataError(f"{place.partition('::')[0]!r} does not exist", where=where, hint=_nearest(place, folder))


@contextmanager
def nearest_hinted(*places: str, folder: Path = Path()) -> Iterator[None]:
    """Errors about files and folders that are not there get the nearest name there is as their hint."""
    try:
        yield
    except DataError as error:
        for place in (place for place in places if _is_missing(place, folder)):
            for finding in (error, *error.others):
                if isinstance(finding, DataError) and Path(place.partition("::")[0]).name in finding.problem:
                    finding.hint = _nearest(place, folder)
        raise


def _is_missing(place: str, folder: Path) -> bool:
    path = place.partition("::")[0]
    return "://" not in path and not any(sign in path for sign in "*?[") and not (folder / path).exists()


def _nearest(place: str, folder: Path) -> str:
    """What to type instead of the path of something that is not there."""
    stated = place.partition("::")[0]
    path = folder / stated
    part = path.with_name(path.name + ".part")
    if part.exists():
        return f"{part.name} is there: resume the run that writes it"
    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r} either"
    close = difflib.get_close_matches(path.name, sorted(child.name for child in path.parent.iterdir()), 1)
    return f"did you mean {str(Path(stated).with_name(close[0]))!r}?" if close else f"ls {path.parent}"


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
        if kind == "reader":
            check_exists(path, base, where=document.where(*keys, "path"))
        error.where = document.where(*keys, "path")
        raise
    component = entry.load()
    if key and "key" not in component.model_fields:
        problem = f"{Path(path).name!r} has no arrays with names"
        raise DataError(problem, where=document.where(*keys, "path"), hint=f"leave ::{key} out")
    options["path"] = str(Path(full).absolute()) + ("/" if full.endswith("/") else "") if "://" not in full else full
    return configured(component, entry, options, document, *keys), entry


def _suffixed(kind: str, path: str, registry: Registry) -> Entry:
    try:
        return registry.find_for(kind, path)
    except PluginError:
        if kind == "reader" and Path(path).is_dir():
            return registry.find_for(kind, path + "/")
        raise
