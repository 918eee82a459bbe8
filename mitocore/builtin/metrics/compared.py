"""What metrics of voxels and of objects have in common.

A voxel whose truth is the maximum of its integer dtype, or NaN, is left out. A ratio of nothing to nothing is 1: where
there was nothing to find and nothing was found, nothing is wrong.
"""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.errors import WiringError
from mitocore.interfaces import Block

Thresholds = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)]


def compared(block: Block) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Prediction, truth (c, z, y, x) and which voxels count, over `block.write`."""
    predicted, truth = block.crop(block["predicted"]), block.crop(block["truth"])
    if predicted.shape != truth.shape:
        raise WiringError(
            f"a prediction of {len(predicted)} channels cannot be compared with a truth of {len(truth)}",
            hint="choose one channel, such as net.foreground:mito in a step, prediction.h5::main:0 in a command",
        )
    if truth.dtype.kind == "f":
        return predicted, truth, ~np.isnan(truth)
    if truth.dtype.kind == "b":
        return predicted, truth, np.ones(truth.shape, bool)
    return predicted, truth, truth != np.iinfo(truth.dtype).max


def ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Part over whole; nothing of nothing is 1."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    share: NDArray[np.float64] = np.divide(part, whole, out=np.ones_like(part), where=whole != 0)
    return share


def suffix(threshold: float) -> str:
    """Of the name of a score at a threshold.

    >>> suffix(0.75)
    '_75'
    """
    return f"_{100 * threshold:g}"
