"""What metrics promise."""

import pickle
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.grid import BlockGrid
from mitocore.builtin.targets.affinities import Affinity
from mitocore.geometry import Roi, VoxelSize
from mitocore.interfaces import Block, Metric
from mitocore.interfaces.metric import finished
from mitocore.specs import ArraySpec, Kind
from mitocore.testing.checking import Check, CheckFailed, config_error_allowed, require, unmodified
from mitocore.testing.examples import array_of
from mitocore.testing.suite import ComponentTests

SHAPE = (10, 18, 16)
EDGES = VoxelSize(16.0, 8.0, 8.0)
_TRUTHS = {Kind.PROBABILITY: Kind.MASK, Kind.AFFINITY: Kind.INSTANCE}
_BLOCKS = (SHAPE, (5, 9, 8), (4, 18, 5))


def _example(metric: Metric, seed: int = 0) -> dict[str, NDArray[Any]]:
    """A prediction and a truth (c, z, y, x) that differ."""
    rng = np.random.default_rng(seed)
    truth = ArraySpec(_TRUTHS.get(metric.compares, metric.compares))
    predicted = array_of(ArraySpec(metric.compares, _channels(metric)), SHAPE, rng)
    return {"predicted": predicted, "truth": array_of(truth, SHAPE, rng)}


def _channels(metric: Metric) -> tuple[str, ...]:
    return ("z-1", "y-1", "x-1") if metric.compares is Kind.AFFINITY else ("",)


def _perfect(metric: Metric) -> dict[str, NDArray[Any]]:
    truth = _example(metric)["truth"]
    if metric.compares is Kind.AFFINITY:
        return {"predicted": Affinity().encode({"instances": truth[0]}, EDGES), "truth": truth}
    return {"predicted": truth.astype(np.float32) if truth.dtype.kind == "b" else truth.copy(), "truth": truth}


def _ready(metric: Metric, edges: VoxelSize | None) -> Metric:
    return metric.in_voxels(edges).for_channels(_channels(metric))


def _at(metric: Metric, arrays: Mapping[str, NDArray[Any]], write: Roi, edges: VoxelSize | None = EDGES) -> Block:
    whole = Roi.whole(SHAPE)
    read = write.grow(metric.halo(edges)).clip(whole)
    cut = {name: np.ascontiguousarray(array[(slice(None), *read.slices)]) for name, array in arrays.items()}
    return Block(write, read, cut, whole, edges)


def _parts(metric: Metric, arrays: Mapping[str, NDArray[Any]], block: tuple[int, int, int] = SHAPE) -> list[Any]:
    grid, metric = BlockGrid(Roi.whole(SHAPE), block), _ready(metric, EDGES)
    return [metric.partial(_at(metric, arrays, grid.box(number))) for number in range(len(grid))]


def _total(
    metric: Metric, arrays: Mapping[str, NDArray[Any]], parts: Sequence[Any], edges: VoxelSize | None = EDGES
) -> dict[str, float]:
    metric = _ready(metric, edges)
    return finished(metric, reduce(lambda a, b: a + b, parts), lambda box: _at(metric, arrays, box, edges))


def _scores(
    metric: Metric, arrays: Mapping[str, NDArray[Any]], block: tuple[int, int, int] = SHAPE
) -> dict[str, float]:
    return _total(metric, arrays, _parts(metric, arrays, block))


def _require_same(found: Mapping[str, float], expected: Mapping[str, float], what: str, change: str) -> None:
    same = found.keys() == expected.keys() and all(
        np.isclose(found[name], expected[name], rtol=1e-9, atol=1e-12, equal_nan=True) for name in expected
    )
    require(same, f"{what}: {dict(found)} instead of {dict(expected)}", change)


def check_scores(metric: Metric) -> None:
    """`total` gives named numbers, of which there is at least one; inputs stay as they are."""
    arrays = _example(metric)
    whole = Roi.whole(SHAPE)
    with unmodified(arrays, "partial"):
        part = _ready(metric, EDGES).partial(Block(whole, whole, arrays, whole, EDGES))
        found = _total(metric, arrays, [part])
    plain = bool(found) and all(isinstance(name, str) and isinstance(score, float) for name, score in found.items())
    require(plain, f"total gives {found!r}", "return a dict of float by name; the first is the headline")


def check_additive(metric: Metric) -> None:
    """The sum of the parts of blocks equals the whole, in any order of blocks."""
    arrays = _example(metric)
    expected = _scores(metric, arrays)
    change = (
        "let `partial` count voxels of `block.write` alone, with context from `halo`, and compute ratios in `total`"
    )
    for block in _BLOCKS[1:]:
        _require_same(_scores(metric, arrays, block), expected, f"scores from blocks of {block}", change)
        backwards = _total(metric, arrays, _parts(metric, arrays, block)[::-1])
        _require_same(backwards, expected, f"scores from blocks of {block}, last to first", change)


def check_pickles_partial(metric: Metric) -> None:
    """A part pickles: blocks are summarised in other processes."""
    arrays = _example(metric)
    (part,) = _parts(metric, arrays)
    copy = pickle.loads(pickle.dumps(part))  # noqa: S301 - made on the line it is read
    _require_same(
        _total(metric, arrays, [copy]),
        _total(metric, arrays, [part]),
        "scores of a part after a round trip",
        "keep plain arrays in it",
    )


def check_perfect(metric: Metric, optimum: Mapping[str, float] | None = None) -> None:
    """A perfect prediction gets the best score: `optimum`; by default the headline is 1 or 0, and is not else."""
    found = _scores(metric, _perfect(metric))
    headline = next(iter(found))
    change = "mend the score, or say what is best: optimum = {...} in the tests"
    if optimum is None:
        require(
            np.isclose([0, 1], found[headline], atol=1e-9).any(),
            f"{headline} of a perfect prediction is {found}",
            change,
        )
        bad = _scores(metric, _example(metric))
        require(bad[headline] != found[headline], f"{headline} is {bad[headline]:g} for any prediction", change)
        return
    for name, best in optimum.items():
        score = found.get(name, np.nan)
        require(
            np.isclose(score, best, atol=1e-9), f"{name} of a perfect prediction is {score:g}, not {best:g}", change
        )


def check_permuted_ids(metric: Metric) -> None:
    """Other ids of the same instances give the same scores."""
    if metric.compares is not Kind.INSTANCE:
        return
    arrays = _example(metric)
    other = {}
    for seed, (name, array) in enumerate(arrays.items()):
        places = np.unique(array, return_inverse=True)[1].reshape(array.shape)
        order = 1 + np.random.default_rng(seed).permutation(int(places.max()) + 1)
        other[name] = np.where(array > 0, 50 + order[places], 0).astype(array.dtype)
    _require_same(
        _scores(metric, other), _scores(metric, arrays), "scores after other ids", "compare ids, not their order"
    )


def check_ignored(metric: Metric) -> None:
    """Voxels whose truth is "ignore", the maximum of its dtype, do not count, whatever is predicted there."""
    if metric.compares not in (Kind.INSTANCE, Kind.SEMANTIC):
        return
    arrays = _example(metric)
    truth = arrays["truth"].copy()
    truth[:, 2:6, 3:12] = np.iinfo(truth.dtype).max
    predicted = arrays["predicted"].copy()
    predicted[:, 2:6, 3:12] = 1
    one, other = (_scores(metric, {"predicted": p, "truth": truth}) for p in (arrays["predicted"], predicted))
    _require_same(other, one, "scores after another prediction where the truth says ignore", "leave such voxels out")


def check_nothing(metric: Metric) -> None:
    """Where neither prediction nor truth holds anything, in one block or in all, there are scores, or NaN."""
    arrays = _example(metric)
    part = {name: array.copy() for name, array in arrays.items()}
    for array in part.values():
        array[:, : _BLOCKS[1][0], :, :] = 0
    for what, given in (
        ("two blocks of which one is empty", part),
        ("an empty volume", {name: np.zeros_like(array) for name, array in arrays.items()}),
    ):
        change = "let `partial` count nothing, and `total` give nan where it would divide by 0"
        try:
            found = _scores(metric, given, (_BLOCKS[1][0], *SHAPE[1:]))
        except (ValueError, IndexError, KeyError, TypeError, ArithmeticError, RuntimeWarning) as error:
            raise CheckFailed(f"{what}: {type(error).__name__}: {error}", change) from error
        require(not any(map(np.isinf, found.values())), f"{what}: {found}", change)


def check_unknown_voxel_size(metric: Metric) -> None:
    """Where the voxel size is not known, there are scores, or a ConfigError that says what is missing."""
    arrays = _example(metric)
    with config_error_allowed("a volume of unknown voxel size"):
        part = _ready(metric, None).partial(_at(metric, arrays, Roi.whole(SHAPE), None))
        _total(metric, arrays, [part], None)


CHECKS: tuple[Check, ...] = (
    check_scores,
    check_additive,
    check_nothing,
    check_unknown_voxel_size,
    check_pickles_partial,
    check_perfect,
    check_permuted_ids,
    check_ignored,
)


class MetricTests(ComponentTests):
    """Tests of a metric. Set `component`; and `optimum`, if a perfect prediction scores neither 0 nor 1."""

    checks: ClassVar[tuple[Check, ...]] = CHECKS
    optimum: ClassVar[Mapping[str, float] | None] = None
    """Scores of a perfect prediction, by name; None: the headline is 0 or 1."""

    def apply(self, check: Check, component: Any, folder: Path) -> None:
        """Tell `check_perfect` the optimum."""
        if check is check_perfect:
            check_perfect(component, self.optimum)
        else:
            super().apply(check, component, folder)
