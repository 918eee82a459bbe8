"""Inputs that are a mask, or a probability that a threshold makes one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore import ArraySpec, Kind, WiringError


def above(values: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """A mask as it is; of a probability, what is above a threshold.

    >>> above(np.array([0.5, 0.6]), 0.5), above(np.array([True, False]), 0.5)
    (array([False,  True]), array([ True, False]))
    """
    return values if values.dtype == np.bool_ else np.asarray(values > threshold)


def check_threshold(threshold: float | None, given: ArraySpec) -> None:
    """Refuse a threshold that is stated for a mask.

    Raises
    ------
    WiringError
        Naming it.
    """
    if threshold is not None and given.kind == Kind.MASK:
        problem = f"threshold = {threshold:g} does not apply to a mask"
        raise WiringError(problem, hint="leave threshold out, or wire a probability to the input 'mask'")
