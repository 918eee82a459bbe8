"""Tables written as TOML."""

import json
import re
from collections.abc import Mapping
from typing import Any


def document(data: Mapping[str, Any]) -> str:
    r"""The text of a whole file: its keys, then a table for each table, as deep as one; what is deeper stands inline.

    >>> print(document({"mitocore": 1, "step": [{"name": "net", "predict": {"batch": 2}}], "run": {"workers": 0}}))
    mitocore = 1
    <BLANKLINE>
    [[step]]
    name = "net"
    predict = { batch = 2 }
    <BLANKLINE>
    [run]
    workers = 0
    """
    parts = ["\n".join(entry(k, v) for k, v in data.items() if v is not None and not _tables(v))]
    for name, held in data.items():
        for one in _tables(held):
            heading = f"[{_key(name)}]" if isinstance(held, Mapping) else f"[[{_key(name)}]]"
            parts.append("\n".join([heading, *(entry(k, v) for k, v in one.items() if v is not None)]))
    return "\n\n".join(part for part in parts if part)


def _tables(held: Any) -> list[Mapping[str, Any]]:
    if isinstance(held, Mapping):
        return [held]
    many = isinstance(held, list | tuple) and held and all(isinstance(one, Mapping) for one in held)
    return list(held) if many else []


def entry(key: str, held: Any) -> str:
    """One line.

    >>> entry("low", 1.5), entry("a b", [True])
    ('low = 1.5', '"a b" = [true]')
    """
    return f"{_key(key)} = {value(held)}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def value(held: Any) -> str:
    """A value in one line; keys of inner tables without a value are left out, for TOML has no word for none.

    >>> value([1, "a", True, {"lr": 0.1, "none": None}, float("inf")])
    '[1, "a", true, { lr = 0.1 }, inf]'
    """
    if isinstance(held, Mapping):
        inner = ", ".join(entry(key, one) for key, one in held.items() if one is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(held, list | tuple):
        return f"[{', '.join(map(value, held))}]"
    if isinstance(held, float):
        return repr(held)
    return json.dumps(held, ensure_ascii=False).replace("\x7f", "\\u007f")
