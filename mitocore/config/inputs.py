"""Which volumes a pipeline names: one, a list, all that match a pattern, or all in a folder."""

import logging
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from glob import escape, glob
from pathlib import Path
from typing import Any

from mitocore.config import toml
from mitocore.config.components import opened_by, resolved
from mitocore.errors import ConfigError, DataError, MitocoreError, PluginError
from mitocore.interfaces import Reader
from mitocore.registry import Entry, Registry
from mitocore.specs import VolumeSpec

log = logging.getLogger(__name__)

STEM = "{stem}"
"""Stands for the name of the input, without its suffix, in the path of the output and of the run folder."""
NAME = "{name}"
"""Stands for the name of a saved array, in the path of the output."""


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
    return replace(
        document,
        data=data,
        overridden=document.overridden | {("input", "path")},
        flags={**document.flags, ("input", "path"): "INPUT"},
    )


def of_first(document: toml.Document) -> toml.Document:
    """The pipeline for the first place of a list, without a look at what is there."""
    table = document.data.get("input")
    if not isinstance(table, dict) or not isinstance(table.get("path"), list) or not table["path"]:
        return document
    return replace(document, data={**document.data, "input": {**table, "path": table["path"][0]}})


def inputs_of(document: toml.Document, registry: Registry) -> tuple[Input, ...] | None:
    """The volumes of a batch in the order of their places; None: the pipeline names one volume.

    It is a batch if ``path`` of the input is a list, or if the path of the output holds ``{stem}``; then each match of
    a pattern such as ``raw/*.tif`` is a volume, and so is each file in a folder, unless the folder itself is a volume:
    a store, or slices. Without ``{stem}``, a pattern names the slices of one volume, where its reader takes slices.

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


def check_placeholders(document: toml.Document) -> None:
    """Refuse words in braces in the path of the output that stand for nothing.

    Raises
    ------
    ConfigError
        If there is one, and it does not come from the name of the input.
    """
    source, target = (document.data.get(name) for name in ("input", "output"))
    path = str(target.get("path", "")) if isinstance(target, dict) else ""
    given = str(source.get("path", "")) if isinstance(source, dict) else ""
    for word in re.findall(r"\{[^{}]*\}", path):
        if word not in (STEM, NAME) and word not in given:
            where = document.where("output", "path")
            raise ConfigError(
                f"{word!r} in {path!r} stands for nothing", where=where, hint=toml.near(word, (STEM, NAME))
            )


def _places(document: toml.Document, registry: Registry) -> list[str] | None:
    """``PATH[::KEY]`` of each input; None: one volume, of the whole of what is stated."""
    check_placeholders(document)
    table, output = (document.data.get(name) for name in ("input", "output"))
    stated = table.get("path") if isinstance(table, dict) else None
    templated = isinstance(output, dict) and STEM in str(output.get("path", ""))
    where = document.where("input", "path")
    if isinstance(stated, str):
        pattern = _is_pattern(stated, document)
        if not templated and (not pattern or _takes_slices(stated, table, registry)):
            return None
        places = _named(stated, document, registry)
    elif isinstance(stated, list):
        if not stated or not all(isinstance(place, str) for place in stated):
            raise ConfigError("path names no volumes", where=where, hint='path = ["a.tif", "b.tif"], or "raw/*.tif"')
        places = [place for one in stated for place in _named(one, document, registry)]
    elif templated and isinstance(table, dict):
        raise ConfigError(f"the input has no path that gives {STEM!r} a name", where=where, hint='path = "raw/*.tif"')
    else:
        return None
    if not templated:
        problem = f"{len(places)} input{'s' * (len(places) > 1)} cannot share one output"
        hint = 'path = "segmented/{stem}.zarr" in [output], or -o "segmented/{stem}.zarr"'
        raise ConfigError(problem, where=document.where("output", "path"), hint=hint)
    return places


def _named(place: str, document: toml.Document, registry: Registry) -> list[str]:
    """The volumes that a place stands for: matches of a pattern, what a folder holds, or just this."""
    if _is_pattern(place, document):
        return _matches(place, document, registry)
    return _held(place, document, registry) or [place]


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
    return [path + colons + key for path in _without_own(readable, document, registry)]


def _held(place: str, document: toml.Document, registry: Registry) -> list[str]:
    """The volumes in a folder that is none itself."""
    path, colons, key = place.partition("::")
    table, folder = document.data["input"], _base(document) / path
    if "://" in path or not folder.is_dir():
        return []
    try:
        named = registry.find("reader", table["reader"]) if table.get("reader") else None
    except PluginError:  # refused when it is planned
        return []
    whole = named or _reader(folder, registry)  # what would read it as one volume
    if whole and any(suffix.endswith("/") and suffix != "/" for suffix in whole.suffixes):
        return []
    inside = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    slices = [] if named or not whole else [child for child in inside if child.is_file() and _is_slice(child, whole)]

    def header(child: Path) -> VolumeSpec | None:
        return _header(str(child) + colons + key, table, registry)

    spec = next((spec for child in slices if (spec := header(child))), None)
    if slices and (spec is None or spec.shape[0] * len(spec.channels) == 1):
        return []
    known = {child: named or _reader(child, registry) for child in inside if not (named and child.is_dir())}
    opened = {child for child, entry in known.items() if entry and header(child)}
    readers = [known[child] for child in opened]
    # a broken file is a volume like the others of its format, and told of; a folder that does not open is none
    volumes = [child for child in known if child in opened or (child.is_file() and known[child] in readers)]
    names = [f"{path.rstrip('/')}/{child.name}{'/' * _is_plain_folder(child, registry)}" for child in volumes]
    return [name + colons + key for name in _without_own(names, document, registry)]


def _is_slice(path: Path, reader: Entry) -> bool:
    """Whether the reader of a folder takes a file in it as a slice."""
    return any(path.name.lower().endswith(suffix.lstrip("*")) for suffix in reader.suffixes if suffix != "/")


def _is_plain_folder(path: Path, registry: Registry) -> bool:
    """Whether only the slash at its end tells what reads it."""
    try:
        registry.find_for("reader", str(path))
    except PluginError:
        return path.is_dir()
    return False


def _header(place: str, table: dict[str, Any], registry: Registry) -> VolumeSpec | None:
    """The header of a volume; None: it does not open. Wrong options are refused when it is planned."""
    options = {key: value for key, value in table.items() if key not in ("path", "reader", "kind")}
    for stated in (options, {}):
        try:
            reader, _ = opened_by("reader", place, registry, options=stated, named=table.get("reader"))
            if isinstance(reader, Reader):
                with reader.open() as volume:
                    return volume.spec
        except ConfigError:
            continue
        except MitocoreError:
            break
    return None


def _without_own(paths: Sequence[str], document: toml.Document, registry: Registry) -> list[str]:
    """Paths of inputs, without what the pipeline itself writes for one of them."""
    template = str(document.data.get("output", {}).get("path", ""))
    target = Path(resolved(template, document.folder_of("output", "path"))).absolute()
    absolute = {path: (_base(document) / path).absolute() for path in paths}
    own: set[Path] = set()
    for path in paths:
        output = Path(str(target).replace(STEM, stem_of(path, registry)))
        own |= set(output.parent.glob(escape(output.name).replace(NAME, "*"))) if NAME in output.name else {output}
    left = [path for path in paths if not template or absolute[path] not in own]
    if paths and not left:
        problem = f"the output {template!r} would be written over the inputs"
        raise ConfigError(problem, where=document.where("output", "path"), hint="another folder or suffix")
    return left


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
