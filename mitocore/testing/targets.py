"""What targets promise."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import Target
from mitocore.specs import DESCRIPTORS, Kind
from mitocore.testing.checking import (
    Check,
    CheckFailed,
    NotChecked,
    config_error_allowed,
    require,
    require_equal,
    undisturbed,
    unmodified,
)
from mitocore.testing.examples import instances
from mitocore.testing.suite import ComponentTests

SHAPE = (12, 20, 24)
EDGES = VoxelSize(16.0, 8.0, 8.0)
_FARTHEST = 24  # voxels of a halo that lie inside the labels of `check_halo`; they would be large otherwise
_DTYPES = {Kind.INSTANCE: "uint64", Kind.SEMANTIC: "uint16", Kind.MASK: "bool"}


def labels_of(target: Target, seed: int = 0, shape: Shape = SHAPE) -> dict[str, NDArray[Any]]:
    """Label arrays (z, y, x) that satisfy `needs`, those that are optional too, all of one tissue.

    Some voxels are to be ignored, at a corner and in the middle.
    """
    ids = instances(shape, np.random.default_rng(seed))
    ids = np.unique(ids, return_inverse=True)[1].reshape(shape).astype(np.uint64)
    labels = {}
    for name, need in target.needs().items():
        kind = next((kind for kind in need.kinds if kind in _DTYPES), None)
        if kind is None:
            raise NotChecked(f"no example of {name!r}, which is none of instances, classes and mask")
        array = (ids if kind is Kind.INSTANCE else ids % 3).astype(_DTYPES[kind])
        if kind is not Kind.MASK:
            z, y, x = (n // 2 for n in shape)
            array[:2, :3, :4] = array[z : z + 2, y : y + 3, x : x + 4] = np.iinfo(array.dtype).max
        labels[name] = array
    return labels


class _Watched(Mapping[str, NDArray[Any]]):
    """Labels that note which of them are asked for."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.arrays:
            change = "name every label array that `encode` reads in `needs`"
            raise CheckFailed(f"encode reads {name!r}, which `needs` does not name", change)
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def check_result(target: Target) -> None:
    """The result is float32 (c, z, y, x) with the channels and the range that `gives` declares."""
    labels, spec = labels_of(target), target.gives()
    with undisturbed(), unmodified(labels, "encode"):
        found = target.encode(labels, EDGES)
    expected = (len(spec.channels), *SHAPE)
    if spec.kind is Kind.AFFINITY:
        seen = f"{len(spec.channels)} affinities with {len(spec.offsets)} offsets"
        require(len(spec.offsets) == len(spec.channels), seen, "state one offset (z, y, x) per channel in `gives`")
    if spec.kind is Kind.DESCRIPTOR:
        change = "name them as mitocore.specs.DESCRIPTORS does"
        require(set(spec.channels) <= set(DESCRIPTORS), f"descriptors called {spec.channels}", change)
    seen = f"encode gives {found.dtype} of shape {found.shape}, not float32 of {expected}"
    require(found.dtype == np.float32 and found.shape == expected, seen, "mend `encode`, or the channels in `gives`")
    require(np.isfinite(found).all(), "encode gives values that are not finite", "give ignored voxels a finite value")
    low, high = float(found.min()), float(found.max())
    if spec.kind in (Kind.PROBABILITY, Kind.AFFINITY, Kind.DESCRIPTOR, Kind.MASK):
        require(low >= 0 and high <= 1, f"a {spec.kind} from {low:g} to {high:g}", "keep it within 0 and 1")
    elif spec.kind is Kind.WEIGHT:
        require(low >= 0, f"a weight of {low:g}", "let no weight be negative")


def check_needs(target: Target) -> None:
    """`encode` reads only the label arrays that `needs` names, and does without those that are optional."""
    labels = labels_of(target)
    target.encode(_Watched(labels), EDGES)
    required = {name: array for name, array in labels.items() if not target.needs()[name].optional}
    if len(required) < len(labels):
        try:
            target.encode(required, EDGES)
        except KeyError as error:
            seen = f"encode raises KeyError: {error} without the label arrays that are optional"
            raise CheckFailed(seen, "look whether the array is there, or leave optional=True out of `needs`") from error


def check_relabelling(target: Target) -> None:
    """Other ids of the same instances give the same target."""
    labels = labels_of(target)
    change = "compare ids with each other and with 0, not with numbers"
    for name, need in target.needs().items():
        if Kind.INSTANCE not in need.kinds:
            continue
        ids, top = labels[name], np.iinfo(np.uint64).max
        counted = ids != top
        table = np.concatenate([[0], 1000 + np.random.default_rng(1).permutation(int(ids[counted].max()))])
        other = np.where(counted, table.astype(np.uint64)[np.where(counted, ids, 0)], top)
        found = target.encode({**labels, name: other}, EDGES)
        require_equal(found, target.encode(labels, EDGES), f"after other ids in {name!r}", change)


def check_halo(target: Target) -> None:
    """A crop with `halo`, encoded, is the same as what is cropped of the encoded whole.

    Of a target that is not `local`, as far as all objects lie within crop and halo.
    """
    halo = target.halo(EDGES)
    seen = f"halo gives {halo!r} for voxels of {EDGES}"
    require(len(halo) == 3 and min(halo) >= 0, seen, "give three numbers of voxels, z, y, x")
    shape = as_shape(n + 2 * min(h, _FARTHEST) for n, h in zip(SHAPE, halo, strict=True))
    labels = labels_of(target, shape=shape)
    expected = target.encode(labels, EDGES)
    change = "enlarge `halo` to the farthest voxel that `encode` looks at"
    if target.local():
        change += ", or let `local` say that objects matter as a whole"
    inset = as_shape((n - m) // 2 for n, m in zip(shape, SHAPE, strict=True))
    for corner, length in (((3, 6, 7), (5, 7, 8)), ((0, 9, 0), (4, 6, 9)), ((7, 0, 12), (5, 9, 12))):
        start = as_shape(np.add(corner, inset))
        stop = as_shape(np.add(start, length))
        low = [max(0, a - h) for a, h in zip(start, halo, strict=True)]
        high = [min(n, b + h) for n, b, h in zip(shape, stop, halo, strict=True)]
        read = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        given = labels
        if not target.local():
            given = {name: _within(array, read) for name, array in labels.items()}
            expected = target.encode(given, EDGES)
        crop = {name: np.ascontiguousarray(array[read]) for name, array in given.items()}
        inner = tuple(slice(a - lo, b - lo) for a, b, lo in zip(start, stop, low, strict=True))
        found = target.encode(crop, EDGES)[(slice(None), *inner)]
        whole = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        require_equal(found, expected[(slice(None), *whole)], f"a crop at {start} with halo {halo}", change)


def _within(ids: NDArray[Any], read: tuple[slice, ...]) -> NDArray[Any]:
    """The objects that do not go on outside of a box."""
    outside = np.ones(ids.shape, bool)
    outside[read] = False
    cut = np.isin(ids, np.unique(ids[outside]))
    return np.where(cut, ids.dtype.type(0), ids)


def check_ignored(target: Target) -> None:
    """Voxels to ignore, the maximum of the labels' dtype, are no object."""
    labels = labels_of(target)
    box = (slice(4, 8), slice(5, 12), slice(6, 14))
    change = "compare labels with np.iinfo(dtype).max first: these voxels are neither object nor background"

    def encoded(values: Mapping[str, int]) -> NDArray[Any]:
        filled = {name: array.copy() for name, array in labels.items()}
        for name, value in values.items():
            filled[name][box] = value
        return target.encode(filled, EDGES)

    kinds = {name: array.dtype for name, array in labels.items() if array.dtype.kind == "u"}
    if not kinds:
        return
    found = encoded({name: np.iinfo(dtype).max for name, dtype in kinds.items()})
    if np.array_equal(found, encoded(dict.fromkeys(kinds, 0))):
        return
    for number in (1, 2):  # classes, or objects that lie elsewhere too
        like = encoded({name: number if dtype == np.uint16 else 10_000 + number for name, dtype in kinds.items()})
        require(not np.array_equal(found, like), "voxels to ignore are encoded as an object is", change)


def check_unknown_voxel_size(target: Target) -> None:
    """Where the voxel size is not known, there is a result, or a ConfigError that says what is missing."""
    with config_error_allowed("labels of unknown voxel size"):
        target.halo(None)
        target.encode(labels_of(target), None)


CHECKS: tuple[Check, ...] = (
    check_result,
    check_needs,
    check_relabelling,
    check_halo,
    check_ignored,
    check_unknown_voxel_size,
)


class TargetTests(ComponentTests):
    """Tests of a target. Set `component`."""

    checks: ClassVar[tuple[Check, ...]] = CHECKS
