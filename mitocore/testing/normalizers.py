"""What normalisers promise."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.grid import BlockGrid
from mitocore.errors import DataError
from mitocore.geometry import Roi, Shape, VoxelSize
from mitocore.interfaces import Normalizer, Stats
from mitocore.specs import VolumeSpec
from mitocore.testing.checking import (
    Check,
    CheckFailed,
    config_error_allowed,
    peak,
    refused,
    require,
    require_equal,
    unmodified,
)
from mitocore.testing.examples import smooth
from mitocore.testing.suite import ComponentTests

SHAPE = (12, 40, 36)
_BLOCK = (5, 16, 13)
_DTYPES = ("uint8", "uint16", "int16", "float32")


class _Boxes:
    """Boxes that may be iterated again and are made anew each time."""

    def __init__(self, box: Callable[[int], NDArray[Any]], order: list[int]) -> None:
        self.box, self.order = box, order

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return map(self.box, self.order)


def _image(dtype: str) -> NDArray[Any]:
    rng = np.random.default_rng(5)
    values = 255 * (0.7 * smooth((1, *SHAPE), rng) + 0.3 * rng.random((1, *SHAPE)))
    if dtype == "float32":
        values[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    return values.astype(dtype)


def _spec(array: NDArray[Any]) -> VolumeSpec:
    z, y, x = array.shape[1:]
    return VolumeSpec((z, y, x), array.dtype.name, voxel_size=VoxelSize(40.0, 8.0, 8.0))


def _images(normalizer: Normalizer) -> list[NDArray[Any]]:
    """Those that the normaliser accepts; it may refuse all dtypes but one."""
    found, said = [], ""
    for dtype in _DTYPES:
        array = _image(dtype)
        try:
            _fitted(normalizer, array)
        except DataError as error:
            said = str(error)
        else:
            found.append(array)
    require(found, f"images of {', '.join(_DTYPES)} are refused: {said}", "accept at least one of these")
    return found


def _fitted(normalizer: Normalizer, array: NDArray[Any], *, backwards: bool = False, block: Shape = _BLOCK) -> Stats:
    grid = BlockGrid(Roi.whole(_spec(array).shape), block)
    order = list(range(len(grid)))
    boxes = _Boxes(lambda n: array[(slice(None), *grid.box(n).slices)], order[::-1] if backwards else order)
    return normalizer.fit(boxes, _spec(array))


def check_result(normalizer: Normalizer) -> None:
    """The result is float32 of the same shape and finite, for every dtype; the raw voxels stay as they are."""
    for array in _images(normalizer):
        dtype = array.dtype.name
        stats = _fitted(normalizer, array)
        with unmodified({"values": array}, "apply"):
            found = normalizer.apply(array, stats)
        seen = f"{dtype} {array.shape} becomes {found.dtype} {found.shape}"
        require(found.dtype == np.float32 and found.shape == array.shape, seen, "return float32 (c, z, y, x)")
        change = "let voxels that are not finite become the centre of the range, and divide by no 0"
        require(np.isfinite(found).all(), f"{dtype} becomes values that are not finite", change)
        require(np.ptp(found) > 0, f"{dtype} becomes the same value everywhere", "keep the differences of intensity")


def check_order(normalizer: Normalizer) -> None:
    """Statistics do not depend on the order of the boxes."""
    for array in _images(normalizer):
        dtype = array.dtype.name
        one, other = _fitted(normalizer, array), _fitted(normalizer, array, backwards=True)
        change = "gather sums, counts or extremes over all boxes, not what is in the first or the last"
        require(_same(one, other), f"{dtype} boxes in order give {dict(one)}, backwards {dict(other)}", change)


def check_partition(normalizer: Normalizer) -> None:
    """Statistics do not depend on how the volume is cut into boxes."""
    for array in _images(normalizer):
        one = _fitted(normalizer, array)
        for block in ((3, 7, 36), SHAPE):
            other = _fitted(normalizer, array, block=block)
            change = "gather sums, counts or extremes of voxels (in float64), not means of boxes"
            seen = f"{array.dtype} boxes of {_BLOCK} give {dict(one)}, of {block} {dict(other)}"
            require(_same(one, other), seen, change)


def _same(one: Stats, other: Stats) -> bool:
    return one.keys() == other.keys() and all(np.allclose(one[n], other[n], rtol=1e-6, atol=1e-9) for n in one)


def check_padding(normalizer: Normalizer) -> None:
    """Constant padding, a frame of zeros around the tissue, changes little of how the tissue is normalised."""
    for array in _images(normalizer):
        tissue = (np.nan_to_num(array, posinf=0, neginf=0).astype(float) / 4 + 60).astype(array.dtype)
        framed = np.pad(tissue, ((0, 0), (2, 2), (9, 9), (9, 9)))
        expected = normalizer.apply(tissue, _fitted(normalizer, tissue))
        found = normalizer.apply(tissue, _fitted(normalizer, framed))
        apart, span = float(np.abs(found - expected).max()), float(np.ptp(expected))
        seen = f"{array.dtype} tissue in a frame of zeros is normalised otherwise: by {apart:.2g} of {span:.2g}"
        require(apart < 0.05 * span, seen, "leave out the one level that padding consists of, such as 0, in `fit`")


def check_dtype(normalizer: Normalizer) -> None:
    """Equal numbers in uint8 and uint16 are normalised alike: what counts are intensities, not the type of the file."""
    small = _image("uint8")
    try:
        one, other = (normalizer.apply(a, _fitted(normalizer, a)) for a in (small, small.astype(np.uint16)))
    except DataError:  # it takes one of the two alone
        return
    seen = f"equal numbers in uint8 and uint16 differ by {float(np.abs(one - other).max()):.2g} when normalised"
    change = (
        "compute in float64; or, if the range of the dtype is meant, say so in the tests: "
        "expected_failures = {'check_dtype': 'why'}"
    )
    require(np.allclose(one, other, rtol=1e-4, atol=1e-4), seen, change)


def check_stats_json(normalizer: Normalizer) -> None:
    """Statistics survive JSON: they are written into run folders, with others beside them."""
    array = _images(normalizer)[-1]
    stats = _fitted(normalizer, array)
    change = "return numbers or tuples of numbers of Python: float(value)"
    try:
        back = json.loads(json.dumps(dict(stats)))
    except TypeError as error:
        raise CheckFailed(f"statistics {dict(stats)} are no JSON: {error}", change) from error
    expected = normalizer.apply(array, stats)
    require_equal(normalizer.apply(array, back), expected, "applied after a round trip through JSON", change)
    found = normalizer.apply(array, {**back, "not_finite": 3.0})
    require_equal(found, expected, "applied with a number that the engine adds", "look statistics up by their names")


def check_bounded_memory(normalizer: Normalizer) -> None:
    """`fit` holds one box at a time: sixteen times the boxes take no more memory."""
    peaks, dtype = [], _images(normalizer)[0].dtype
    for count in (8, 8, 128):  # the first call also pays for what is imported or kept

        def box(number: int) -> NDArray[Any]:
            return np.random.default_rng(number).integers(1, 250, (1, 16, 64, 64)).astype(dtype)

        spec = VolumeSpec((16 * count, 64, 64), dtype.name)
        boxes = _Boxes(box, list(range(count)))
        peaks.append(peak(partial(normalizer.fit, boxes, spec)))
    seen = f"fit takes {peaks[1] / 2**20:.1f} MiB for 8 boxes and {peaks[2] / 2**20:.1f} MiB for 128"
    require(peaks[2] < peaks[1] + 2**20, seen, "gather counts box by box instead of keeping the boxes")


def check_nothing_varies(normalizer: Normalizer) -> None:
    """A volume that is constant, or holds no finite voxel, is a DataError."""
    constant, empty = np.full((1, *SHAPE), 7, np.uint8), np.full((1, *SHAPE), np.nan, np.float32)
    for what, array in (("a constant volume", constant), ("a volume of NaN", empty)):
        with refused(what, "raise mitocore.DataError in `fit`, quoting the value"):
            _fitted(normalizer, array)


def check_block_invariance(normalizer: Normalizer) -> None:
    """`apply` on boxes, with the halo it declares, equals `apply` on the whole volume, bit for bit."""
    for array in _images(normalizer):
        dtype = array.dtype.name
        spec, stats = _spec(array), _fitted(normalizer, array)
        expected = normalizer.apply(array, stats)
        halo = (0, 0, 0) if normalizer.voxelwise else normalizer.halo(spec.voxel_size)
        block = _BLOCK if normalizer.voxelwise else normalizer.block_shape(spec, _BLOCK)
        grid, found = BlockGrid(Roi.whole(spec.shape), block), np.zeros_like(expected)
        for number in range(len(grid)):
            write = grid.box(number)
            read = write.grow(halo).clip(grid.region)
            values = normalizer.apply(np.ascontiguousarray(array[(slice(None), *read.slices)]), stats)
            found[(slice(None), *write.slices)] = values[(..., *write.within(read))]
        change = (
            "use `stats` alone, nothing measured on the box; or say voxelwise = False and declare `halo`"
            if normalizer.voxelwise
            else "enlarge `halo`, or insist on larger blocks in `block_shape`"
        )
        require_equal(found, expected, f"{dtype} in blocks of {block} with halo {halo}", change)


def check_unknown_voxel_size(normalizer: Normalizer) -> None:
    """Where the voxel size is not known, there is a result, or a ConfigError that says what is missing."""
    with config_error_allowed("a volume of unknown voxel size"):
        array = _images(normalizer)[0]
        boxes, spec = _Boxes(lambda _: array, [0]), replace(_spec(array), voxel_size=None)
        normalizer.halo(None)
        normalizer.apply(array, normalizer.fit(boxes, spec))


CHECKS: tuple[Check, ...] = (
    check_result,
    check_order,
    check_partition,
    check_padding,
    check_dtype,
    check_unknown_voxel_size,
    check_stats_json,
    check_bounded_memory,
    check_nothing_varies,
    check_block_invariance,
)


class NormalizerTests(ComponentTests):
    """Tests of a normaliser. Set `component`."""

    checks: ClassVar[tuple[Check, ...]] = CHECKS
