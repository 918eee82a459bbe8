"""Which volumes a pipeline names: one, a list, or all that match a pattern."""

import logging
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any

from mitocore.config import toml
from mitocore.config.components import resolved
from mitocore.errors import ConfigError, DataError, PluginError
from mitocore.registry import Entry, Registry

log = logging.getLogger(__name__)

STEM = "{stem}"
"""Stands for the name of the input, without its suffix, in the path of the output and of the run folder."""


@dataclass(frozen=True)
class Input:
    """One volume of a batch."""

    place: str
    """``PATH[::KEY]``."""
    stem: str
    """Its name without folder, suffix and key."""
    document: toml.Document
    """The pipeline for this volume alone."""
    folder: Path
    """Its run folder."""


def with_inputs(document: toml.Document, places: Sequence[str]) -> toml.Document:
    """The pipeline with other inputs; their paths start from the current folder, as those of ``--set`` do."""
    if not places:
        return document
    data = deepcopy(document.data)
    table = data.setdefault("input", {})
    if isinstance(table, dict):  # else it is refused when it is planned
        table["path"] = places[0] if len(places) == 1 else list(places)
    return replace(document, data=data, overridden=document.overridden | {("input", "path")})


def of_first(document: toml.Document) -> toml.Document:
    """The pipeline for the first place of a list, without a look at what is there."""
    table = document.data.get("input")
    if not isinstance(table, dict) or not isinstance(table.get("path"), list) or not table["path"]:
        return document
    return replace(document, data={**document.data, "input": {**table, "path": table["path"][0]}})


def inputs_of(document: toml.Document, registry: Registry) -> tuple[Input, ...] | None:
    """The volumes of a batch in the order of their places; None: the pipeline names one volume.

    It is a batch if ``path`` of the input is a list, or if the path of the output holds ``{stem}``; then each match of
    a pattern such as ``raw/*.tif`` is a volume, while a folder is one volume always. Without ``{stem}``, a pattern
    names the slices of one volume, where its reader takes slices.

    Raises
    ------
    ConfigError
        If the output does not say ``{stem}``, or two inputs would write to one place.
    DataError
        If nothing matches a pattern.
    """
    places = _places(document, registry)
    if places is None:
        return None
    named = [(place, stem_of(place, registry)) for place in sorted(places)]
    seen: dict[str, str] = {}
    for place, stem in named:
        if stem in seen:
            problem = f"{seen[stem]!r} and {place!r} would write to one place: both are called {stem!r}"
            raise ConfigError(problem, where=document.where("input", "path"), hint="rename one, or run it by itself")
        seen[stem] = place
    folders = folders_of(document)
    return tuple(_alone(document, place, stem, folders) for place, stem in named)


def stem_of(place: str, registry: Registry) -> str:
    """The name of a volume without folder, suffix and key.

    >>> from mitocore.registry import discover
    >>> registry = discover()
    >>> stem_of("raw/cell_1.ome.tif", registry), stem_of("raw/em.zarr::s0", registry), stem_of("raw/b.1/", registry)
    ('cell_1', 'em', 'b.1')
    """
    path = place.partition("::")[0]
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    known = {suffix.strip("/") for entry in registry.entries if entry.kind == "reader" for suffix in entry.suffixes}
    fits = [suffix for suffix in known if suffix.startswith(".") and name.lower().endswith(suffix) and name != suffix]
    if fits:
        return name[: -max(map(len, fits))]
    return name if path.endswith("/") else Path(name).stem


def _places(document: toml.Document, registry: Registry) -> list[str] | None:
    """``PATH[::KEY]`` of each input; None: one volume, of the whole of what is stated."""
    table, output = (document.data.get(name) for name in ("input", "output"))
    stated = table.get("path") if isinstance(table, dict) else None
    templated = isinstance(output, dict) and STEM in str(output.get("path", ""))
    where = document.where("input", "path")
    if isinstance(stated, str):
        pattern = _is_pattern(stated, document)
        if not templated and (not pattern or _takes_slices(stated, table, registry)):
            return None
        places = _matches(stated, document, registry) if pattern else [stated]
    elif isinstance(stated, list):
        if not stated or not all(isinstance(place, str) for place in stated):
            raise ConfigError("path names no volumes", where=where, hint='path = ["a.tif", "b.tif"], or "raw/*.tif"')
        many = [_matches(p, document, registry) if _is_pattern(p, document) else [p] for p in stated]
        places = [place for found in many for place in found]
    elif templated and isinstance(table, dict):
        raise ConfigError(f"the input has no path that gives {STEM!r} a name", where=where, hint='path = "raw/*.tif"')
    else:
        return None
    if not templated:
        problem = f"{len(places)} input{'s' * (len(places) > 1)} cannot share one output"
        raise ConfigError(problem, where=document.where("output", "path"), hint='path = "segmented/{stem}.zarr"')
    return places


def _base(document: toml.Document) -> Path:
    return document.folder_of("input", "path")


def _is_pattern(place: str, document: toml.Document) -> bool:
    path = place.partition("::")[0]
    return bool(re.search(r"[*?\[]", path)) and "://" not in path and not (_base(document) / path).exists()


def _takes_slices(place: str, table: Any, registry: Registry) -> bool:
    """Whether the reader of a pattern takes it as the slices of one volume."""
    try:
        named = table.get("reader")
        path = place.partition("::")[0]
        entry = registry.find("reader", named) if named else registry.find_for("reader", path)
    except PluginError:
        return False
    return any(suffix == "/" or "*" in suffix for suffix in entry.suffixes)


def _matches(place: str, document: toml.Document, registry: Registry) -> list[str]:
    """What matches a pattern and can be read, but for what this batch itself writes."""
    pattern, colons, key = place.partition("::")
    base, where = _base(document), document.where("input", "path")
    found = sorted(glob(pattern, root_dir=base, recursive=True))  # noqa: PTH207 - absolute patterns too
    if not found:
        raise DataError(f"nothing matches {pattern!r}", where=where, hint=f"ls {base / pattern}")
    named = document.data["input"].get("reader")
    readable = [path for path in found if named or _reader(base / path, registry)]
    if not readable:
        raise DataError(
            f"{pattern!r} matches {found[0]!r}, which no reader is known for", where=where, hint='reader = "…"'
        )
    if left_out := len(found) - len(readable):
        log.warning("%d matches of %r that no reader is known for are left out", left_out, pattern)
    template = str(document.data.get("output", {}).get("path", ""))
    target = Path(resolved(template, document.folder_of("output", "path"))).absolute()
    own = {Path(str(target).replace(STEM, stem_of(path, registry))) for path in readable}
    return [path + colons + key for path in readable if (base / path).absolute() not in own]


def _reader(path: Path, registry: Registry) -> Entry | None:
    for text in (str(path), f"{path}/") if path.is_dir() else (str(path),):
        try:
            return registry.find_for("reader", text)
        except PluginError:
            continue
    return None


def folders_of(document: toml.Document) -> str:
    """The run folder of each input, with `{stem}` where its name goes."""
    run = document.data.get("run")
    stated = run.get("folder") if isinstance(run, dict) else None
    name = document.path.stem if document.path else "pipeline"
    folder = str((document.folder_of("run", "folder") / (stated or f"runs/{name}")).absolute())
    return folder if STEM in folder else f"{folder}/{STEM}"


def _alone(document: toml.Document, place: str, stem: str, folders: str) -> Input:
    data, folder = deepcopy(document.data), folders.replace(STEM, stem)
    data["input"]["path"] = place
    data["output"]["path"] = data["output"]["path"].replace(STEM, stem)
    data["run"] = {**data.get("run", {}), "folder": folder}
    return Input(place, stem, replace(document, data=data), Path(folder))
