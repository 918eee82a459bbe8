"""Small arrays of every kind, as a step may be given them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from mitocore.blockwise.arrays import settle
from mitocore.geometry import Shape
from mitocore.specs import ArraySpec, Kind


def smooth(shape: tuple[int, ...], rng: np.random.Generator, sigma: float = 1.5) -> NDArray[np.float32]:
    """Hills and valleys from 0 to 1."""
    values = gaussian_filter(rng.standard_normal(shape), sigma)
    return np.asarray((values - values.min()) / max(float(np.ptp(values)), 1e-6), np.float32)


def instances(shape: Shape, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Some objects (z, y, x) whose ids are in no order and need more than 32 bits; 0 is background."""
    found, count = label(smooth(shape, rng) > 0.55)
    ids = np.concatenate([[0], 1 + rng.permutation(count)]).astype(np.uint64)
    if count:
        ids[1] = 2**40
    return np.asarray(ids[found], np.uint64)


def array_of(spec: ArraySpec, shape: Shape, rng: np.random.Generator) -> NDArray[Any]:
    """An array (c, z, y, x) of this kind, with values as they leave a step.

    >>> rng = np.random.default_rng(0)
    >>> array_of(ArraySpec(Kind.MASK), (2, 3, 4), rng).dtype, array_of(ArraySpec(Kind.INSTANCE), (2, 3, 4), rng).shape
    (dtype('bool'), (1, 2, 3, 4))
    """
    channels = range(len(spec.channels))
    if spec.kind is Kind.INSTANCE:
        return np.stack([instances(shape, rng) for _ in channels])
    values = np.stack([smooth(shape, rng) for _ in channels])
    if spec.kind is Kind.MASK:
        return values > 0.55
    if spec.kind is Kind.SEMANTIC:
        return np.digitize(values, [0.5, 0.65]).astype(np.uint16)
    if spec.kind is Kind.IMAGE:
        values = 255 * values
    elif spec.kind is Kind.OFFSET:
        values = 6 * values - 3
    elif spec.kind is Kind.DISTANCE:
        values = 400 * values - 200
    elif spec.kind is Kind.EMBEDDING:
        values = 2 * values - 1
    return settle(values.astype(np.float32), spec)
