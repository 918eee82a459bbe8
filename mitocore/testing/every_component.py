"""What every component promises, whatever its kind. Checks of the class alone take the class as well."""

import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from mitocore.component import Component, File
from mitocore.testing.checking import Check, CheckFailed, NotChecked, require
from mitocore.testing.elsewhere import digest_elsewhere, heavy_imports

_MUTABLE = (list, dict, set, bytearray)


def check_docstring(component: Component | type[Component]) -> None:
    """The class says in its own docstring what it is."""
    kind = _class_of(component)
    seen = f"{kind.__name__} has no docstring"
    require(vars(kind).get("__doc__"), seen, "write one line below `class` that says what the component is or gives")


def check_described(component: Component | type[Component]) -> None:
    """Every option says what it means: `mitocore describe` and the reference show it."""
    kind = _class_of(component)
    bare = [name for name, field in kind.model_fields.items() if not field.description]
    require(not bare, f"options without description: {', '.join(bare)}", "write a docstring below each of these fields")


def check_immutable(component: Component | type[Component]) -> None:
    """No option can be changed in place: no list, dict or set; so a component can be hashed and compared."""
    kind = _class_of(component)
    loose = [
        f"{name}: {part.__name__}"
        for name, field in kind.model_fields.items()
        for part in _types(field.annotation)
        if part in _MUTABLE
    ]
    require(
        not loose, f"options that can be changed in place: {', '.join(loose)}", "use tuples, such as tuple[int, ...]"
    )
    if isinstance(component, Component):
        try:
            hash(component)
        except TypeError as error:
            raise CheckFailed(f"it cannot be hashed: {error}", "let options be numbers, text or tuples") from error


def check_import_is_light(component: Component | type[Component]) -> None:
    """Importing the module leaves torch and what belongs to it alone: a plan is checked without them."""
    heavy = heavy_imports(importable(_class_of(component)).__module__)
    change = "import these inside the method that uses them (build, apply), or under `if TYPE_CHECKING`"
    require(not heavy, f"importing {_class_of(component).__module__} also imports {', '.join(heavy)}", change)


def check_pickles(component: Component) -> None:
    """It reaches a worker process and is the same there."""
    change = "define the class at the top of a module, and keep locks, files and functions out of its options"
    try:
        copy = pickle.loads(pickle.dumps(component))  # noqa: S301 - made on the line it is read
    except (pickle.PicklingError, TypeError, AttributeError, ImportError) as error:
        raise CheckFailed(f"it cannot be pickled: {error}", change) from error
    require(copy == component, f"unpickled it is {copy!r}", change)


def check_json(component: Component) -> None:
    """It is the same after a round trip through JSON, as headers of weights and run folders hold it."""
    change = "give the option a type that pydantic writes and reads, such as a number, text or a tuple of these"
    text = component.model_dump_json()
    try:
        copy = type(component).model_validate_json(text)
    except ValidationError as error:
        raise CheckFailed(f"its own JSON is refused: {text}: {error.errors()[0]['msg']}", change) from error
    require(copy == component, f"{text} is read as {copy!r}", change)


def check_digest(component: Component) -> None:
    """Its digest is the same in another process and another folder: a resumed run relies on it."""
    kind = type(component)
    paths = [name for name, field in kind.model_fields.items() if Path in _types(field.annotation)]
    seen = f"options that are a Path: {', '.join(paths)}"
    require(not paths, seen, "use mitocore.PathOption, which is left out of the digest")
    moved = component.model_copy(update=dict.fromkeys(kind.marked(File), "/moved/elsewhere"))
    require(moved.digest() == component.digest(), "its digest depends on a path", "do not override `digest`")
    text = component.model_dump_json()
    there = digest_elsewhere(importable(kind).__module__, kind.__qualname__, text)
    change = "let options be plain values, without sets or anything whose text holds an address in memory"
    require(there == component.digest(), f"digest {component.digest()} is {there} in a new process", change)


OF_CLASS: tuple[Check, ...] = (check_docstring, check_described, check_immutable, check_import_is_light)
"""Checks that a class can be put to without any option."""
EVERY: tuple[Check, ...] = (*OF_CLASS, check_pickles, check_json, check_digest)


def _class_of(component: Component | type[Component]) -> type[Component]:
    return component if inspect.isclass(component) else type(component)


def importable(kind: type[Component]) -> type[Component]:
    """The class, if another process can import it.

    Raises
    ------
    NotChecked
        If it cannot.
    """
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise NotChecked(f"{kind.__qualname__} of {kind.__module__!r} cannot be imported in another process")
    return kind


def _types(annotation: Any) -> Iterator[Any]:
    """The types within an annotation."""
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from _types(part)
