"""Labels as samplers read them: in boxes that fit into memory, each voxel once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import DataError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import LabelledVolume

BOX: Shape = (32, 512, 512)
PLANES = 4
"""Of a box that are worked on at a time: numbers of voxels take more memory than the labels themselves."""


@dataclass(frozen=True)
class Piece:
    """Some planes of the labels of a volume."""

    offset: Shape
    """Of its first voxel in the region."""
    ids: dict[str, NDArray[Any]]
    """Label arrays (z, y, x) by name."""
    valid: NDArray[np.bool_] | None
    """Where voxels count; None: everywhere."""

    def foreground(self) -> NDArray[np.bool_]:
        """Where any of the arrays holds an object, and the voxel counts."""
        inside: NDArray[np.bool_] = np.logical_or.reduce([counted(ids) & (ids > 0) for ids in self.ids.values()])
        return inside if self.valid is None else inside & self.valid

    def known(self, name: str) -> NDArray[np.bool_]:
        """Where an array is not "ignore", and the voxel counts."""
        return counted(self.ids[name]) if self.valid is None else counted(self.ids[name]) & self.valid


def counted(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Where ids are not "ignore"; a mask of bool has no such value."""
    if ids.dtype.kind == "b":
        return np.ones(ids.shape, bool)
    known: NDArray[np.bool_] = ids != np.iinfo(ids.dtype).max
    return known


def pieces(volume: LabelledVolume, names: Sequence[str]) -> Iterator[Piece]:
    """The region of a volume, piece by piece."""
    for box in boxes(volume.region):
        arrays = {name: volume.labels[name].read(box)[0] for name in names}
        valid = volume.valid.read(box)[0] != 0 if volume.valid else None
        z, y, x = (a - b for a, b in zip(box.start, volume.region.start, strict=True))
        for at in range(0, box.shape[0], PLANES):
            planes = slice(at, at + PLANES)
            part = {name: array[planes].copy() for name, array in arrays.items()}
            yield Piece((z + at, y, x), part, valid if valid is None else valid[planes].copy())
        del arrays, valid  # copies and this: whoever still holds a piece holds no box while the next is read


def boxes(region: Roi) -> Iterator[Roi]:
    """The region in boxes that fit into memory, cut at multiples of their size in the volume."""
    axes = zip(region.start, region.stop, BOX, strict=True)
    for start in product(*(range(a // n * n, b, n) for a, b, n in axes)):
        yield Roi(as_shape(start), as_shape(np.add(start, BOX))).clip(region)


def named(volume: LabelledVolume, label: str | None) -> tuple[str, ...]:
    """The label array of this name; no name: all of them.

    Raises
    ------
    DataError
        If the volume has no such array.
    """
    if label is not None and label not in volume.labels:
        have = ", ".join(volume.labels) or "none"
        raise DataError(f"a volume has no label {label!r}", where="[sampler]", hint=f"labels: {have}")
    return tuple(volume.labels) if label is None else (label,)


def no_foreground(label: str | None) -> DataError:
    """What to say of labels that are empty."""
    what = f"label {label!r}" if label else "the labels"
    hint = 'check the labels and the split, or sampler = "uniform"'
    return DataError(f"{what} of the training regions hold no foreground", where="[sampler]", hint=hint)
