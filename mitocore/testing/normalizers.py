"""What normalisers promise."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.grid import BlockGrid
from mitocore.geometry import Roi, VoxelSize
from mitocore.interfaces import Normalizer, Stats
from mitocore.specs import VolumeSpec
from mitocore.testing.checking import Check, CheckFailed, refused, require, require_equal, unmodified
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


def _fitted(normalizer: Normalizer, array: NDArray[Any], *, backwards: bool = False) -> Stats:
    grid = BlockGrid(Roi.whole(_spec(array).shape), _BLOCK)
    order = list(range(len(grid)))
    boxes = _Boxes(lambda n: array[(slice(None), *grid.box(n).slices)], order[::-1] if backwards else order)
    return normalizer.fit(boxes, _spec(array))


def check_result(normalizer: Normalizer) -> None:
    """The result is float32 of the same shape and finite, for every dtype; the raw voxels stay as they are."""
    for dtype in _DTYPES:
        array = _image(dtype)
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
    for dtype in _DTYPES:
        array = _image(dtype)
        one, other = _fitted(normalizer, array), _fitted(normalizer, array, backwards=True)
        same = one.keys() == other.keys() and all(np.allclose(one[n], other[n], rtol=1e-6, atol=1e-9) for n in one)
        change = "gather sums, counts or extremes over all boxes, not what is in the first or the last"
        require(same, f"{dtype} boxes in order give {dict(one)}, backwards {dict(other)}", change)


def check_stats_json(normalizer: Normalizer) -> None:
    """Statistics survive JSON: they are written into run folders."""
    array = _image("float32")
    stats = _fitted(normalizer, array)
    change = "return numbers or tuples of numbers of Python: float(value)"
    try:
        back = json.loads(json.dumps(dict(stats)))
    except TypeError as error:
        raise CheckFailed(f"statistics {dict(stats)} are no JSON: {error}", change) from error
    expected = normalizer.apply(array, stats)
    require_equal(normalizer.apply(array, back), expected, "applied after a round trip through JSON", change)


def check_bounded_memory(normalizer: Normalizer) -> None:
    """`fit` holds one box at a time: sixteen times the boxes take no more memory."""
    peaks = []
    for count in (8, 8, 128):  # the first call also pays for what is imported or kept

        def box(number: int) -> NDArray[Any]:
            return np.random.default_rng(number).integers(1, 250, (1, 16, 64, 64)).astype(np.uint8)

        spec = VolumeSpec((16 * count, 64, 64), "uint8")
        tracemalloc.start()
        try:
            normalizer.fit(_Boxes(box, list(range(count))), spec)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    seen = f"fit takes {peaks[1] / 2**20:.1f} MiB for 0.5 MiB of voxels and {peaks[2] / 2**20:.1f} MiB for 8 MiB"
    require(peaks[2] < peaks[1] + 2**20, seen, "gather counts box by box instead of keeping the boxes")


def check_nothing_varies(normalizer: Normalizer) -> None:
    """A volume that is constant, or holds no finite voxel, is a DataError."""
    constant, empty = np.full((1, *SHAPE), 7, np.uint8), np.full((1, *SHAPE), np.nan, np.float32)
    for what, array in (("a constant volume", constant), ("a volume of NaN", empty)):
        with refused(what, "raise mitocore.DataError in `fit`, quoting the value"):
            _fitted(normalizer, array)


def check_block_invariance(normalizer: Normalizer) -> None:
    """`apply` on boxes, with the halo it declares, equals `apply` on the whole volume, bit for bit."""
    for dtype in _DTYPES:
        array = _image(dtype)
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


CHECKS: tuple[Check, ...] = (
    check_result,
    check_order,
    check_stats_json,
    check_bounded_memory,
    check_nothing_varies,
    check_block_invariance,
)


class NormalizerTests(ComponentTests):
    """Tests of a normaliser. Set `component`."""

    checks: ClassVar[tuple[Check, ...]] = CHECKS
