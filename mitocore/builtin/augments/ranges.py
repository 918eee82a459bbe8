"""Options that several augments have: a probability, and ranges to draw from."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

T = TypeVar("T", bound=float)

Probability = Annotated[float, Field(ge=0, le=1)]
"""Share of the crops that are changed."""


def ordered(limits: tuple[T, T]) -> tuple[T, T]:
    """A range, unless it is turned round."""
    if limits[0] > limits[1]:
        raise ValueError(f"{list(limits)} is not [smallest, largest]")
    return limits


Limits = Annotated[tuple[float, float], AfterValidator(ordered)]
"""Smallest and largest value."""
Factors = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(ordered)]
"""Smallest and largest factor."""
Amounts = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], AfterValidator(ordered)]
"""Smallest and largest value, neither of them negative."""
