"""From the paths of a `[[volume]]` to the files of each of its volumes."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from mitocore.config.components import resolved
from mitocore.config.inputs import STEM, stem_of
from mitocore.config.labelled import LabelTable, VolumeTable
from mitocore.config.table import ComponentTable
from mitocore.config.toml import Document, Key
from mitocore.errors import ConfigError, DataError, PluginError
from mitocore.registry import Registry

PATH = "{path}"
"""Stands for the file of the image, without its key, in the paths of labels and mask."""


@dataclass(frozen=True)
class Place:
    """One volume of a `[[volume]]` table, as paths."""

    path: str
    """The image, as the file states it."""
    image: str
    """`PATH[::KEY]`, absolute."""
    labels: dict[str, LabelTable]
    """By name; their paths are absolute."""
    valid: ComponentTable | None
    """Its path is absolute."""
    alone: bool
    """Whether the table stands for this volume only."""


def places_of(table: VolumeTable, number: int, registry: Registry, document: Document) -> tuple[Place, ...]:
    """The volumes that `[[volume]]` number `number` stands for, each once, numbers in names in their natural order.

    A pattern or a folder stands for several volumes if the labels say which belong to which, by `{path}` or `{stem}`;
    without that, it is the slices of one volume if its reader takes slices.

    Raises
    ------
    DataError
        If nothing matches a pattern, or a folder holds no volume.
    ConfigError
        If several volumes would have the same labels.
    """
    keys: tuple[Key, ...] = ("volume", number)
    where = document.where(*keys, "path")
    base = document.folder_of(*keys, "path")
    named = [text for text in (*(a.path for a in table.arrays.values()), _path_of(table.valid)) if text]
    templated = any(word in text for word in (PATH, STEM) for text in named)
    found: dict[str, str] = {}  # absolute place: as stated
    several = not isinstance(table.path, str)
    for stated in table.paths:
        matches = _matches(stated, base, table.reader, registry, where, templated=templated)
        several = several or matches is not None
        for place in [stated] if matches is None else matches:
            found.setdefault(_absolute(place, base), place)
    made = [_place(table, keys, place, image, registry, document, alone=not several) for image, place in found.items()]
    others = {text for place in made for text in _files(place) if text != place.image}
    volumes = tuple(place for place in made if place.image not in others)
    shared = Counter(text for place in volumes for text in {array.path for array in place.labels.values()})
    if twice := next((text for text, times in shared.items() if times > 1), None):
        problem = f"{shared[twice]} volumes would have the same labels, {twice!r}"
        hint = f'labels = "{PATH}::KEY", or "labels/{STEM}.tif", names those of each'
        raise ConfigError(problem, where=document.where(*keys, "labels"), hint=hint)
    return volumes


def _matches(
    stated: str, base: Path, reader: str | None, registry: Registry, where: str, *, templated: bool
) -> list[str] | None:
    """The volumes that a pattern or folder stands for; None: it is one volume."""
    path, colons, key = stated.partition("::")
    if "://" in path:
        return None
    full = base / path
    if _is_pattern(path) and not full.exists():
        if not templated and _takes_slices(path, reader, registry):
            return None
        matches = [match for match in glob(path, root_dir=base, recursive=True) if reader or _is_read(match, registry)]  # noqa: PTH207 - absolute patterns too
        if not matches:
            raise DataError(f"nothing that can be read matches {path!r}", where=where, hint=_nearest(path, base))
    elif full.is_dir() and not reader and not _is_read(path.rstrip("/"), registry):
        if not templated and _holds_slices(full, registry):
            return None
        children = [child.name for child in full.iterdir() if not child.name.startswith(".")]
        matches = [f"{path.rstrip('/')}/{name}" for name in children if _is_read(name, registry)]
        if not matches:
            return None  # a store that only its content tells: refused when it is opened, if it is none
    else:
        return None
    return [match + colons + key for match in sorted(matches, key=_natural)]


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in names count as numbers: 9 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _is_pattern(path: str) -> bool:
    return bool(re.search(r"[*?\[]", path))


def _is_read(path: str, registry: Registry) -> bool:
    """Whether a suffix tells what reads a file or store."""
    try:
        registry.find_for("reader", path)
    except PluginError:
        return False
    return True


def _takes_slices(path: str, reader: str | None, registry: Registry) -> bool:
    try:
        entry = registry.find("reader", reader) if reader else registry.find_for("reader", path)
    except PluginError:
        return False
    return any(suffix == "/" or "*" in suffix for suffix in entry.suffixes)


def _holds_slices(folder: Path, registry: Registry) -> bool:
    """Whether a folder is one volume to the reader of slices: no store lies in it."""
    stores = (child for child in folder.iterdir() if child.is_dir() and _is_read(child.name, registry))
    return next(stores, None) is None and _takes_slices(f"{folder}/", None, registry)


def _nearest(pattern: str, base: Path) -> str:
    """What to type instead of a pattern that matches nothing."""
    folder, parts = base, list[str]()
    for part in Path(pattern).parts:
        names = sorted(child.name for child in folder.iterdir()) if folder.is_dir() else []
        if _is_pattern(part):
            close = difflib.get_close_matches(part, names, 3, 0.3) or names[:3]
            return f"there are {', '.join(close)} in {str(folder)!r}" if close else f"ls {folder}"
        if part not in names and not (folder / part).exists():
            close = difflib.get_close_matches(part, names, 1)
            nearest = str(Path(*parts, *close, *Path(pattern).parts[len(parts) + 1 :]))
            return f"did you mean {nearest!r}?" if close else f"there is no folder {str(folder / part)!r}"
        folder, parts = folder / part, [*parts, part]
    return f"ls {base}"


def _path_of(place: ComponentTable | None) -> str:
    return str(place.get("path", "")) if isinstance(place, dict) else place or ""


def _absolute(place: str, base: Path) -> str:
    path, colons, key = place.partition("::")
    if not path or "://" in path:  # "": a reader that reads no file
        return place
    return resolved(path, base.absolute()) + colons + key


def _place(
    table: VolumeTable,
    keys: tuple[Key, ...],
    path: str,
    image: str,
    registry: Registry,
    document: Document,
    *,
    alone: bool,
) -> Place:
    def filled(text: str, *inner: Key) -> str:
        text = text.replace(PATH, image.partition("::")[0]).replace(STEM, stem_of(image, registry))
        return _absolute(text, document.folder_of(*keys, *inner))

    inner = (lambda name: ("labels", name, "path")) if isinstance(table.labels, dict) else (lambda _name: ("labels",))
    labels = {
        name: array.model_copy(update={"path": filled(array.path, *inner(name))})
        for name, array in table.arrays.items()
    }
    valid = table.valid
    if valid is not None:
        text = filled(_path_of(valid), "valid")
        valid = {**valid, "path": text} if isinstance(valid, dict) else text
    return Place(path, image, labels, valid, alone)


def _files(place: Place) -> Iterator[str]:
    """Labels and mask: what a pattern may match beside the images."""
    yield from (array.path for array in place.labels.values())
    if place.valid:
        yield _path_of(place.valid)
