"""Other values of a component's options, found by trying."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError

from mitocore.component import Component

C = TypeVar("C", bound=Component)
_TRIED = (3, 7, 25, 1, 0, 0.25, 0.75, 2.5, True, False)


def validated(component: C, options: Mapping[str, Any]) -> C:
    """The component with other options, checked as any are.

    >>> from mitocore.builtin.postprocess import Threshold
    >>> validated(Threshold(), {"threshold": 0.25})
    Threshold(threshold=0.25)
    """
    return type(component).model_validate({**dict(component), **options})


def changed(component: C, option: str) -> Iterator[C]:
    """Up to three components that differ in this option alone.

    >>> from mitocore.builtin.augments.flips import FlipRotate
    >>> [other.rotate for other in changed(FlipRotate(), "rotate")]
    [False]
    """
    info = type(component).model_fields[option]
    choices = [value for part in (info.annotation, *get_args(info.annotation)) for value in _choices(part)]
    found: list[C] = []
    for value in (*choices, *_TRIED):
        try:
            other = validated(component, {option: value})
        except ValidationError:
            continue
        if other != component and other not in found and len(found) < 3:
            found.append(other)
            yield other


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()
