"""Options that are one number for all axes or one for each of (z, y, x), and windows that fit them."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, PositiveInt

from mitocore import Shape, Window
from mitocore.geometry import as_shape

Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
Factor = PositiveInt | Triple
"""The same along every axis, or one number each for (z, y, x)."""


def _odd(kernel: Factor) -> Factor:
    if any(size % 2 == 0 for size in per_axis(kernel)):
        raise ValueError(f"kernel {kernel} has an even size; write odd ones, such as 3 or [1, 3, 3]")
    return kernel


Kernel = Annotated[Factor, AfterValidator(_odd)]
"""A factor of odd numbers."""


def per_axis(factor: Factor) -> Shape:
    """One number each for (z, y, x)."""
    return as_shape([factor] * 3 if isinstance(factor, int) else factor)


def product(factors: Sequence[Factor]) -> Shape:
    """What all factors make together, along each axis."""
    return as_shape(math.prod(axis) for axis in zip((1, 1, 1), *map(per_axis, factors), strict=True))


def window_of(shape: Shape, divisor: Shape) -> Window:
    """Window of about this shape that fits the divisor; neighbours share a quarter of it."""
    fitting = as_shape(math.ceil(n / d) * d for n, d in zip(shape, divisor, strict=True))
    return Window(fitting, overlap=as_shape(n // 4 for n in fitting), divisor=divisor)
