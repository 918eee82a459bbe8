"""TOML files that know their lines, so that an error can quote file, line and key."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mitocore.errors import ConfigError, DataError, MitocoreError, together

Key = str | int
M = TypeVar("M", bound=BaseModel)

_PART = r"""(?:"[^"]+"|'[^']+'|[A-Za-z0-9_\-]+)"""
_HEADER = re.compile(r"^\s*(\[\[|\[)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_ENTRY = re.compile(rf"^\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")


@dataclass(frozen=True)
class Document:
    """A parsed TOML file, or tables made by a program (then without path and lines)."""

    data: dict[str, Any]
    path: Path | None = None
    lines: Mapping[tuple[Key, ...], int] = field(default_factory=dict)
    overridden: frozenset[tuple[Key, ...]] = frozenset()
    """Keys stated on the command line; relative paths in them start from the current folder."""
    flags: Mapping[tuple[Key, ...], str] = field(default_factory=dict)
    """Arguments of a command that stand for keys, such as "--save"; a key of "--set" needs none."""

    @property
    def folder(self) -> Path:
        """Where relative paths start: the folder of the file, else the current one."""
        return self.path.parent if self.path else Path()

    def folder_of(self, *keys: Key) -> Path:
        """Where a relative path stated at this key starts."""
        stated = any(keys[:n] in self.overridden for n in range(1, len(keys) + 1))
        return Path() if stated else self.folder

    def where(self, *keys: Key) -> str:
        """File, line and table of a key, as in ``pipeline.toml:19 [[step]] 'mito'``, or the argument it comes from."""
        if keys in self.flags:
            return self.flags[keys]
        known = [keys[:n] for n in range(len(keys), 0, -1) if keys[:n] in self.lines]
        line = f":{self.lines[known[0]]}" if known else ""
        file = f"{self.path}{line}" if self.path else ""
        given = next((k for k in self.overridden if k == keys[: len(k)]), None)
        return " ".join(part for part in ("--set" if given else file, self._table(keys)) if part)

    def _table(self, keys: tuple[Key, ...]) -> str:
        if not keys:
            return ""
        if len(keys) > 1 and isinstance(keys[1], int):
            entries = self.data.get(str(keys[0]), [])
            entry = entries[keys[1]] if keys[1] < len(entries) else {}
            name = entry.get("name") if isinstance(entry, dict) else None
            return f"[[{keys[0]}]]" + (f" {name!r}" if name else f" number {keys[1] + 1}")
        return f"[{keys[0]}]" if isinstance(self.data.get(str(keys[0])), dict) else ""


def read(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Parse a TOML file and apply ``TABLE.KEY=VALUE`` overrides.

    Raises
    ------
    DataError
        If the file is missing.
    ConfigError
        If it is not TOML, or an override names nothing that can be set.
    """
    try:
        text = path.read_text("utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise DataError(
            f"{str(path)!r} cannot be read: {error.strerror}", hint="give the path of a .toml file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not text in UTF-8", hint="give the path of a .toml file") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"this is not TOML: {error}", where=str(path)) from error
    return override(Document(data, path, locate(text)), overrides)


def locate(text: str) -> dict[tuple[Key, ...], int]:
    r"""Line of every table and key of a TOML text.

    >>> locate("a = 1\n[[step]]\nname = 'net'\n")
    {('a',): 1, ('step', 0): 2, ('step', 0, 'name'): 3}
    """
    lines: dict[tuple[Key, ...], int] = {}
    counts: dict[tuple[Key, ...], int] = {}
    table: tuple[Key, ...] = ()
    begun = ""  # a statement that is not whole yet: its further lines are neither keys nor tables
    for number, line in enumerate(text.split("\n"), 1):
        if begun:
            begun = _unfinished(f"{begun}\n{line}")
        elif header := _HEADER.match(line):
            table = _anchored(header[2], counts)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif entry := _ENTRY.match(line):
            lines.setdefault((*table, *_parts(entry[1])), number)
            begun = _unfinished(line)
    return lines


def _unfinished(statement: str) -> str:
    """The statement, if its value goes on in the next line."""
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return statement
    return ""


def _parts(name: str) -> list[str]:
    """The parts of a dotted key, without quotes."""
    return [part.strip("\"'") for part in re.findall(_PART, name)]


def _anchored(name: str, counts: Mapping[tuple[Key, ...], int]) -> tuple[Key, ...]:
    """The key path of a table name; a sub-table of an array of tables belongs to its last entry."""
    path: tuple[Key, ...] = ()
    parts = _parts(name)
    for place, part in enumerate(parts):
        path = (*path, part)
        if path in counts and place < len(parts) - 1:
            path = (*path, counts[path])
    return path


def override(document: Document, overrides: Sequence[str]) -> Document:
    """The document with ``TABLE.KEY=VALUE`` or ``STEP.OPTION=VALUE`` applied, in order."""
    data, changed = deepcopy(document.data), set(document.overridden)
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not all(part.strip() for part in name.split(".")):
            raise ConfigError(f"{text!r} sets nothing", where="--set", hint="--set TABLE.KEY=VALUE")
        path = _resolve(data, name.strip())
        target: Any = data
        for key in path[:-1]:
            if isinstance(target, dict):
                target = target.setdefault(key, {})
            else:
                target = target[key] if isinstance(target, list) and isinstance(key, int) else None
        if not isinstance(target, dict):
            raise ConfigError(
                f"{name!r} is inside a value, not a table", where="--set", hint=f"set {path[0]} as a whole"
            )
        target[path[-1]] = _value(value.strip())
        changed.add(path)
    return replace(document, data=data, overridden=frozenset(changed))


def _resolve(data: dict[str, Any], name: str) -> tuple[Key, ...]:
    first, *rest = name.split(".")
    if not rest:
        return (first,)
    found = data.get(first)
    if isinstance(found, list):
        if rest[0].isdigit() and len(rest) > 1 and int(rest[0]) < len(found):
            return (first, int(rest[0]), *rest[1:])
        if len(found) == 1:
            return (first, 0, *rest)
        raise ConfigError(
            f"there are {len(found)} tables [[{first}]]",
            where=f"--set {name}",
            hint=f"{first}.0.{rest[0]}=… is the first",
        )
    named = [step_name(step) if isinstance(step, dict) else "" for step in _list(data.get("step"))]
    steps = [n for n, step in enumerate(named) if step == first]
    if steps and not isinstance(found, dict):
        return ("step", steps[0], *rest)
    if not isinstance(found, dict) and first not in TABLES:
        known = [*data, *filter(None, named)]
        raise ConfigError(f"no table or step is called {first!r}", where=f"--set {name}", hint=near(first, known))
    return (first, *rest)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


TABLES = ("input", "output", "run", "train", "model", "normalizer", "sampler")
"""Tables that --set may add to a file that leaves them out."""


def step_name(table: Mapping[str, Any]) -> str:
    """Name of a step: its `name`, else that of its component."""
    component = table.get("postprocessor") or table.get("model") or ""
    return str(table.get("name") or str(component).rpartition("/")[2])


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def near(word: str, known: Iterable[str]) -> str:
    """A hint: the nearest of the known words, or all of them."""
    words = list(dict.fromkeys(map(str, known)))
    close = difflib.get_close_matches(word, words, 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(words) or 'none'}"


SCHEMA = "mitocore describe --schema"
"""Prints what every table may hold."""


def parse(model: type[M], data: Any, document: Document, *keys: Key, what: str = "", hint: str = SCHEMA) -> M:
    """A pydantic model of a table; every error quotes file, line and key.

    Parameters
    ----------
    hint
        What tells the values that are allowed.

    Raises
    ------
    ConfigError
        With all findings of the table.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise together(translate(error, model, data, document, *keys, what=what, hint=hint)) from error


def translate(
    error: ValidationError,
    model: type[BaseModel],
    data: Any,
    document: Document,
    *keys: Key,
    what: str = "",
    hint: str = SCHEMA,
) -> list[MitocoreError]:
    """The findings of pydantic about `data` as errors for people, in the order of their lines."""
    subject = what or document.where(*keys).rpartition(" ")[2] or "the file"
    findings: dict[tuple[Key, ...], MitocoreError] = {}
    details = error.errors()
    places = [_place(found, data) for found in details]
    for found, place in zip(details, places, strict=True):
        if _is_said_within(found, place, places):
            continue
        name = ".".join(map(str, place))
        where = document.where(*keys, *place)
        if found["type"] == "extra_forbidden":
            known = _fields(model, place[:-1])
            finding = ConfigError(f"{subject} has no option {name!r}", where=where, hint=near(str(place[-1]), known))
        elif found["type"] == "missing" and not isinstance(found["input"], Sequence):
            finding = ConfigError(f"{subject} needs {name!r}", where=where, hint=_MISSING.get(name, f"{place[-1]} = …"))
        elif found["type"] in _LISTS and isinstance(found["input"], Mapping):
            finding = ConfigError(f"[{name}] stands for one of several", where=where, hint=f"write [[{name}]]")
        else:
            message = _in_words(found)
            value = "" if found["type"] == "value_error" and not name else f"{name} = {_short(found['input'])}: "
            before = findings[place].problem if place in findings else ""
            problem = f"{before}, or {message.removeprefix('this takes ')}" if before else f"{value}{message}"
            finding = ConfigError(problem, where=where, hint=_MISSING.get(name, hint))
        findings[place] = finding
    return [findings[place] for place in sorted(findings, key=lambda place: document.lines.get((*keys, *place), 0))]


_MISSING = {"mitocore": "mitocore = 1"}
"""What to type where it is known to the letter."""
_LISTS = ("list_type", "tuple_type")
_WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(_LISTS, "a list in square brackets"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "a table"),
    "string_type": "text in quotes",
    "literal_error": "{expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "too_long": "{max_length} values, not {actual_length}",
    "too_short": "at least {min_length} values, not {actual_length}",
    "missing": "more values",
}
"""What a value may be, by the word of pydantic for what is wrong with it."""


def _is_said_within(found: ErrorDetails, place: tuple[Key, ...], places: Sequence[tuple[Key, ...]]) -> bool:
    """Whether it only follows from what was found further inside: a list without its wrong values is too short, and a
    table that is wrong is no text either, where either may stand."""
    if found["type"] not in ("too_short", "string_type") or not isinstance(found["input"], Sequence | Mapping):
        return False
    return any(len(inner) > len(place) and inner[: len(place)] == place for inner in places)


def _in_words(found: ErrorDetails) -> str:
    if words := _WORDS.get(found["type"]):
        return f"this takes {words.format(**found.get('ctx', {}))}"
    message = found["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:]


def _place(found: ErrorDetails, data: Any) -> tuple[Key, ...]:
    """Where in `data` pydantic found something, without the marks of the branches of a union."""
    place: tuple[Key, ...] = ()
    for key in found["loc"]:
        indexed = isinstance(data, list | tuple) and isinstance(key, int) and key < len(data)
        if indexed or (isinstance(data, Mapping) and key in data):
            data = data[key]
        elif found["type"] != "missing" or key != found["loc"][-1]:
            continue
        place = (*place, key)
    if found["type"] == "missing" and isinstance(place[-1], int):  # one value of several in brackets
        return place[:-1]
    return place


def _fields(model: type[BaseModel], place: tuple[Key, ...]) -> list[str]:
    inner: Any = model
    for key in place:
        if isinstance(key, int):  # one of several
            inner = next((kind for kind in get_args(inner) if hasattr(kind, "model_fields")), None)
            continue
        field_info = getattr(inner, "model_fields", {}).get(key)
        inner = field_info.annotation if field_info else None
    several = [
        kind for kind in get_args(inner) if hasattr(kind, "model_fields")
    ]  # a table or nothing, or one of several
    return list(getattr(several[0] if len(several) == 1 else inner, "model_fields", {}))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
