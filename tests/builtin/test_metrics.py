"""Metrics against plain loops; the sum of the parts is the whole."""

import math
from functools import reduce
from itertools import permutations
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.builtin.contingency import ContingencyTable
from mitocore.builtin.metrics import (
    AdaptedRand,
    AveragePrecision,
    Dice,
    Instance,
    IoU,
    MeanAbsolute,
    MeanSquared,
    SkeletonAccuracy,
    Surface,
    VariationOfInformation,
    Voxel,
)
from mitocore.builtin.metrics.skeletons import length
from mitocore.builtin.metrics.surfaces import distances
from mitocore.errors import ConfigError, WiringError
from mitocore.geometry import Roi, VoxelSize
from mitocore.interfaces import Block
from mitocore.interfaces.metric import finished

VOXELS, OBJECTS = (
    [Voxel(), Voxel(thresholds=(0.3, 0.7)), Dice(), IoU()],
    [
        Instance(),
        Instance(thresholds=(0.2, 0.5), criterion="iot"),
        AdaptedRand(),
        AdaptedRand(form="cremi"),
        VariationOfInformation(),
    ],
)


def part(metric, predicted, truth, box=None):
    whole = Roi.whole(truth.shape[1:])
    return metric.partial(Block(box or whole, whole, {"predicted": predicted, "truth": truth}, whole))


def scores(metric, predicted, truth):
    return metric.total(part(metric, np.asarray(predicted)[None], np.asarray(truth)[None]))


def example(metric, seed, shape=(5, 6, 7)):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, shape).astype("u8")
    if metric in VOXELS:
        return rng.random(shape).astype("f4"), (truth > 2).astype("f4")
    predicted = np.where(rng.random(shape) < 0.7, truth, rng.integers(0, 6, shape)).astype("u8")
    return predicted, truth


def ident(metric):
    return repr(metric)


@pytest.mark.parametrize("metric", VOXELS + OBJECTS, ids=ident)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999), cuts=st.tuples(*(st.integers(1, n) for n in (5, 6, 7))), order=st.randoms())
def test_the_sum_of_any_parts_in_any_order_is_the_whole(metric, seed, cuts, order):
    predicted, truth = (a[None] for a in example(metric, seed))
    ranges = [[(a, min(a + c, n)) for a in range(0, n, c)] for c, n in zip(cuts, truth.shape[1:], strict=True)]
    boxes = [Roi((z[0], y[0], x[0]), (z[1], y[1], x[1])) for z in ranges[0] for y in ranges[1] for x in ranges[2]]
    order.shuffle(boxes)
    total = reduce(add, (part(metric, predicted, truth, box) for box in boxes))
    assert metric.total(total) == metric.total(part(metric, predicted, truth))


@pytest.mark.parametrize("metric", OBJECTS, ids=ident)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999), ids=st.permutations(range(1, 7)))
def test_numbers_of_objects_do_not_matter(metric, seed, ids):
    predicted, truth = example(metric, seed)
    renumber = np.array([0, *(10 ** np.array(ids))], "u8")
    expected = scores(metric, predicted, truth)
    for changed in (scores(metric, renumber[predicted], truth), scores(metric, predicted, renumber[truth])):
        assert changed == pytest.approx(expected)


@pytest.mark.parametrize("metric", VOXELS + OBJECTS, ids=ident)
def test_a_perfect_prediction_has_the_best_scores(metric):
    _, truth = example(metric, 0)
    result = scores(metric, truth, truth)
    for name, score in result.items():
        if name not in ("predicted", "true"):
            best = 0 if name in ("are", "voi", "split", "merge") else 1
            assert score == pytest.approx(best, abs=1e-12), name


@pytest.mark.parametrize("metric", VOXELS + OBJECTS, ids=ident)
def test_nothing_found_where_nothing_is_is_perfect_and_finite(metric):
    empty = np.zeros((2, 3, 4), "f4" if metric in VOXELS else "u8")
    found = empty + np.asarray(1, empty.dtype)
    for name, score in scores(metric, empty, empty).items():
        assert score == (0 if name in ("are", "voi", "split", "merge", "predicted", "true") else 1), name
    for pair in ((found, empty), (empty, found)):
        assert all(math.isfinite(v) and v >= 0 for v in scores(metric, *pair).values())


@pytest.mark.parametrize("metric", VOXELS + OBJECTS, ids=ident)
def test_voxels_to_ignore_are_left_out(metric):
    predicted, truth = example(metric, 3)
    hidden = np.zeros(truth.shape, bool)
    hidden[:, 2:4] = True
    spoiled = np.where(hidden, np.nan, truth) if metric in VOXELS else np.where(hidden, np.iinfo("u8").max, truth)
    keep = [0, 1, 4, 5]
    assert scores(metric, predicted, spoiled) == scores(metric, predicted[:, keep], truth[:, keep])


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_voxel_scores_equal_a_plain_loop(threshold):
    rng = np.random.default_rng(0)
    predicted = np.round(rng.random((3, 4, 5)), 1).astype("f4")  # some exactly at the threshold
    truth = rng.integers(0, 3, predicted.shape).astype("u2")
    tp = fp = fn = 0
    for p, t in zip(predicted.ravel(), truth.ravel(), strict=True):
        tp, fp, fn = tp + (p > threshold and t > 0), fp + (p > threshold and t == 0), fn + (p <= threshold and t > 0)
    result = scores(Voxel(thresholds=(threshold,)), predicted, truth)
    assert list(result) == ["iou", "mean_iou", "dice", "precision", "recall"]
    tn = truth.size - tp - fp - fn
    iou, background = tp / (tp + fp + fn), tn / (tn + fp + fn)
    expected = (iou, (iou + background) / 2, 2 * tp / (2 * tp + fp + fn), tp / (tp + fp), tp / (tp + fn))
    assert tuple(result.values()) == pytest.approx(expected)
    assert scores(Dice(thresholds=(threshold,)), predicted, truth) == {"dice": result["dice"]}
    assert scores(IoU(thresholds=(threshold,)), predicted, truth) == {"iou": result["iou"]}


def test_several_thresholds_are_told_apart_by_name():
    predicted, truth = np.array([[[0.4, 0.8]]], "f4"), np.array([[[1, 1]]], "u1")
    result = scores(Voxel(thresholds=(0.3, 0.5)), predicted, truth)
    assert (result["recall_30"], result["recall_50"]) == (1, 0.5)


def test_masks_and_classes_count_where_they_are_not_zero():
    truth = np.array([[[0, 1, 2, 0]]], "u2")
    for predicted in (truth > 0, truth):
        assert scores(IoU(), predicted, truth) == {"iou": 1}


def test_channels_are_averaged_and_must_be_equally_many():
    predicted, truth = np.ones((2, 1, 1, 2), "f4"), np.array([[[[1, 1]]], [[[1, 0]]]], "f4")
    assert IoU().total(part(IoU(), predicted, truth)) == {"iou": 0.75}
    with pytest.raises(WiringError, match=r"2 channels .* 1"):
        part(IoU(), predicted, truth[:1])


def test_only_the_written_part_of_a_block_counts():
    predicted = np.ones((1, 1, 1, 4), "f4")
    box, whole = Roi((0, 0, 1), (1, 1, 3)), Roi((0, 0, 0), (1, 1, 4))
    block = Block(box, whole, {"predicted": predicted, "truth": predicted}, whole)
    assert Voxel().partial(block).tolist() == [[[2], [2], [2], [2]]]


def best_matching(iou, threshold):
    """All assignments, tried one by one: most matches, then largest sum of IoU."""
    rows, columns = iou.shape
    if rows > columns:
        return best_matching(iou.T, threshold)
    best = (0, 0.0)
    for chosen in permutations(range(columns), rows):
        good = [iou[r, c] for r, c in enumerate(chosen) if iou[r, c] >= threshold]
        best = max(best, (len(good), math.fsum(good)))
    return best


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.5, 0.75])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 9999))
def test_instance_scores_equal_a_search_over_all_matchings(threshold, seed):
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 5, (1, 1, 12)), 3, axis=2)
    predicted = np.roll(truth, int(rng.integers(-2, 3)), axis=2)
    predicted = np.where(rng.random(truth.shape) < 0.8, predicted, rng.integers(0, 6, truth.shape))
    true_ids, ids = (sorted(set(a.ravel().tolist()) - {0}) for a in (truth, predicted))
    iou = np.array(
        [
            [np.sum((predicted == p) & (truth == t)) / np.sum((predicted == p) | (truth == t)) for t in true_ids]
            for p in ids
        ]
    ).reshape(len(ids), len(true_ids))
    tp, quality = best_matching(iou, threshold)
    both = len(ids) + len(true_ids)
    result = scores(Instance(thresholds=(threshold,)), predicted.astype("u8"), truth.astype("u8"))
    name = f"{100 * threshold:g}"
    assert result["predicted"] == len(ids)
    assert result["true"] == len(true_ids)
    if ids and true_ids:
        assert result[f"precision_{name}"] == pytest.approx(tp / len(ids))
        assert result[f"recall_{name}"] == pytest.approx(tp / len(true_ids))
        assert result[f"f1_{name}"] == pytest.approx(2 * tp / both)
        assert result[f"accuracy_{name}"] == pytest.approx(tp / (both - tp))
        assert result[f"pq_{name}"] == pytest.approx(2 * quality / both)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 9999))
def test_average_precision_equals_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 9, 30), rng.integers(1, 6, 30))
    predicted = np.where(rng.random(truth.shape) < 0.8, truth, rng.integers(0, 12, truth.shape))
    ids, true_ids = (sorted(set(a.tolist()) - {0}) for a in (predicted, truth))
    order = sorted(ids, key=lambda p: (-np.sum(predicted == p), p))
    taken, hits = set(), []
    for p in order:
        overlaps = [
            (np.sum((predicted == p) & (truth == t)) / np.sum((predicted == p) | (truth == t)), -t) for t in true_ids
        ]
        iou, t = max(overlaps)
        hits.append(iou >= 0.5 and t not in taken)
        taken |= {t} if iou >= 0.5 else set()
    curve = [(sum(hits[: k + 1]) / len(true_ids), sum(hits[: k + 1]) / (k + 1)) for k in range(len(hits))]
    recalls = np.linspace(0, 1, 101)
    expected = np.mean([max([p for r, p in curve if r >= recall], default=0.0) for recall in recalls])
    result = scores(AveragePrecision(), predicted[None, None].astype("u8"), truth[None, None].astype("u8"))
    assert result["ap_50"] == pytest.approx(expected)


def test_a_prediction_that_swallows_two_objects_matches_one_at_most():
    truth = np.array([[[1, 1, 2, 2]]], "u8")
    result = scores(Instance(), np.ones_like(truth), truth)
    assert (result["precision_50"], result["recall_50"], result["f1_75"]) == (1, 0.5, 0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 9999))
def test_adapted_rand_and_voi_equal_plain_loops(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 60)
    predicted = np.where(rng.random(60) < 0.6, truth, rng.integers(0, 4, 60))
    inside = [(p, t) for p, t in zip(predicted.tolist(), truth.tolist(), strict=True) if t]
    count = {pair: inside.count(pair) for pair in inside}
    missed = sum(p == 0 for p, _ in inside) / 60
    both = sum(n * n for (p, _), n in count.items() if p) + missed
    rows = sum(sum(n for (q, _), n in count.items() if q == p) ** 2 for p in range(1, 4)) + missed
    columns = sum(sum(n for (_, u), n in count.items() if u == t) ** 2 for t in range(1, 4))
    precision, recall = both / rows, both / columns
    arrays = predicted[None, None].astype("u8"), truth[None, None].astype("u8")
    expected = {"are": 1 - 2 * precision * recall / (precision + recall), "precision": precision, "recall": recall}
    assert scores(AdaptedRand(), *arrays) == pytest.approx(expected)
    split = merge = 0.0
    for (p, t), n in count.items():
        split -= n / len(inside) * math.log2(n / sum(m for (_, u), m in count.items() if u == t))
        merge -= n / len(inside) * math.log2(n / sum(m for (q, _), m in count.items() if q == p))
    assert scores(VariationOfInformation(), *arrays) == pytest.approx(
        {"voi": split + merge, "split": split, "merge": merge}, abs=1e-9
    )


def test_ids_beyond_32_bits_stay_apart():
    big = np.array([[[2**40, 2**40 + 1, 2**53 + 1, 2**53]]], "u8")
    table = ContingencyTable.of(big, big)
    assert len(table.voxels) == 4
    assert scores(Instance(), big, big)["f1_75"] == 1


def test_scores_decide_which_object_is_tried_first():
    truth = np.zeros((1, 1, 30), "u8")
    truth[..., :10] = 1
    predicted = truth.copy()
    predicted[..., 12:30] = 2  # larger, and wrong
    sure = np.where(predicted == 1, 0.9, 0.2).astype("f4")
    assert scores(AveragePrecision(), predicted, truth)["ap"] == pytest.approx(0.5)
    whole = Roi.whole(truth.shape)
    arrays = {"predicted": predicted[None], "truth": truth[None], "scores": sure[None]}
    halves = [Roi((0, 0, 0), (1, 1, 7)), Roi((0, 0, 7), (1, 1, 30))]
    total = reduce(add, (AveragePrecision().partial(Block(half, whole, arrays, whole)) for half in halves))
    assert AveragePrecision().total(total)["ap"] == 1


def test_sizes_of_average_precision_look_at_true_objects_of_that_size_alone():
    truth = np.zeros((1, 1, 60), "u8")
    truth[..., :5], truth[..., 10:30] = 1, 2
    predicted = np.zeros_like(truth)
    predicted[..., 10:30], predicted[..., 40:44] = 1, 2
    result = scores(AveragePrecision(ranges=(5, 15)), predicted, truth)
    assert result["ap_75_large"] == 1  # the small one that is wrong counts neither way
    assert result["ap_75_small"] == 0
    assert math.isnan(result["ap_75_medium"])
    physical = AveragePrecision(ranges=("5000 nm3", "15000 nm3")).in_voxels(VoxelSize(10, 10, 10))
    assert physical.ranges == (5, 15)
    with pytest.raises(ConfigError, match="voxel size"):
        AveragePrecision(ranges=("5000 nm3", 20000)).in_voxels(None)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 9999), beyond=st.booleans())
def test_a_table_equals_a_count_of_pairs_however_large_the_ids(seed, beyond):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 2**63 if beyond else 50, (2, 9)).astype("u8")
    predicted, truth = (np.repeat(rng.choice(side, 40), 3) for side in ids)
    heat = rng.random(predicted.size)
    table = ContingencyTable.of(predicted, truth, heat)
    pairs = list(zip(predicted.tolist(), truth.tolist(), strict=True))
    expected = sorted(set(pairs))
    assert list(zip(table.predicted.tolist(), table.truth.tolist(), strict=True)) == expected
    assert table.voxels.tolist() == [pairs.count(pair) for pair in expected]
    sums = [sum(h for h, pair in zip(heat, pairs, strict=True) if pair == one) for one in expected]
    assert table.scores == pytest.approx(sums)


def test_more_than_one_slab_is_counted():
    truth = np.arange(1_200_000, dtype="u8") // 300_000
    table = ContingencyTable.of(np.full_like(truth, 7), truth)
    assert (table.truth.tolist(), table.voxels.tolist()) == ([0, 1, 2, 3], [300_000] * 4)


def test_the_cremi_form_takes_missed_voxels_as_objects_of_their_own():
    truth, predicted = np.array([[[1, 1, 1, 1, 2, 2, 0]]], "u8"), np.array([[[5, 5, 0, 0, 6, 6, 6]]], "u8")
    own = np.array([[[5, 5, 8, 9, 6, 6, 6]]], "u8")
    result = scores(AdaptedRand(form="cremi"), predicted, truth)
    assert result == pytest.approx(scores(AdaptedRand(), own, truth))
    assert result["recall"] == pytest.approx((4 + 4 + 2) / (16 + 4))
    assert result != pytest.approx(scores(AdaptedRand(), predicted, truth))


EDGES = VoxelSize(30, 8, 8)


def object_scores(metric, predicted, truth, voxel_size=EDGES):
    whole = Roi.whole(truth.shape)

    def look(box):
        arrays = {name: one[(None, *box.slices)] for name, one in (("predicted", predicted), ("truth", truth))}
        return Block(box, box, arrays, whole, voxel_size)

    return finished(metric, metric.partial(look(whole)), look)


def test_the_length_of_a_rod_is_measured_along_its_axis_in_nm():
    straight, bent = np.zeros((2, 9, 12, 40), bool)
    straight[3:6, 4:9, 2:38] = True
    assert length(straight, EDGES.edges) == pytest.approx(36 * 8, abs=5 * 8)
    bent[4, 2, 2:38] = bent[4, 2:11, 2] = True
    assert length(bent, EDGES.edges) == pytest.approx((35 + 8) * 8, abs=8)
    upright = np.moveaxis(bent, 2, 0)
    assert length(upright, EDGES.edges) == pytest.approx(35 * 30 + 8 * 8, abs=38)


def test_accuracy_by_length_counts_matches_and_misses_by_the_true_object_and_the_rest_by_their_own():
    truth = np.zeros((5, 40, 60), "u8")
    truth[2, 2, 2:57], truth[2, 10, 2:12], truth[2, 20, 2:50] = 1, 2, 3
    predicted = np.zeros_like(truth)
    predicted[2, 2, 2:57], predicted[2, 10, 2:7], predicted[2, 30, 2:50] = 9, 8, 7
    result = object_scores(SkeletonAccuracy(lengths=(160, "1 um")), predicted, truth)
    assert result["accuracy_75"] == pytest.approx(1 / 5)
    assert result["accuracy_75_short"] == 0
    assert result["accuracy_75_medium"] == pytest.approx(1 / 3)
    assert math.isnan(result["accuracy_75_long"])
    assert [result[f"true_{name}"] for name in ("short", "medium", "long")] == [1, 2, 0]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 9999))
def test_surface_distances_equal_those_of_all_pairs_of_surface_voxels(seed):
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(2):
        shape = np.zeros((5, 8, 8), bool)
        low, high = rng.integers(0, 3, 3), rng.integers(3, 6, 3)
        shape[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
        shapes.append(shape & (rng.random(shape.shape) < 0.9))
        shapes[-1][3, 3, 3] = True
    places = []
    for shape in shapes:
        wide = np.pad(shape, 1)
        inner = reduce(np.logical_and, (np.roll(wide, step, axis) for axis in range(3) for step in (-1, 1)))
        places.append(np.argwhere(wide & ~inner) * EDGES.edges)
    apart = np.linalg.norm(places[0][:, None] - places[1], axis=-1)
    there, back = distances(*shapes, EDGES.edges)
    assert np.sort(there) == pytest.approx(np.sort(apart.min(axis=1)), rel=1e-5)
    assert np.sort(back) == pytest.approx(np.sort(apart.min(axis=0)), rel=1e-5)


def test_a_plate_that_is_shifted_by_a_voxel_is_that_far_away():
    truth, predicted = np.zeros((2, 6, 30, 30), "u8")
    truth[1:4, 5:25, 5:25] = 3
    predicted[2:5, 5:25, 5:25] = 4
    result = object_scores(Surface(threshold=0.4, tolerance=29), predicted, truth)
    assert result["hd95_nm"] == 30
    assert 0 < result["assd_nm"] < 30
    assert 0 < result["nsd"] < 1
    assert result["matches"] == 1
    assert object_scores(Surface(threshold=0.4, tolerance="0.03 um"), predicted, truth)["nsd"] == 1


@pytest.mark.parametrize("metric", [SkeletonAccuracy(), Surface()], ids=ident)
def test_lengths_need_the_voxel_size(metric):
    truth = np.ones((2, 2, 2), "u8")
    with pytest.raises(ConfigError, match="voxel size"):
        object_scores(metric, truth, truth, voxel_size=None)


def test_errors_of_distances_are_means_over_the_voxels_that_count():
    rng = np.random.default_rng(0)
    predicted, truth = rng.normal(size=(2, 3, 4, 5, 6)).astype("f4")
    truth[:, 0] = np.nan
    difference = (predicted - truth)[:, 1:]
    halves = [Roi((0, 0, 0), (2, 5, 6)), Roi((2, 0, 0), (4, 5, 6))]
    for metric, wanted in ((MeanAbsolute(), np.abs(difference).mean()), (MeanSquared(), np.square(difference).mean())):
        total = metric.total(reduce(add, (part(metric, predicted, truth, half) for half in halves)))
        assert list(total.values()) == [pytest.approx(wanted, rel=1e-6)]
        assert metric.lower_is_better
