"""Affinities are scored pair by pair, and a prediction that is stored at the other voxel of its pairs is recognised."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore import Block, ConfigError, Roi
from mitocore.builtin.metrics.affinities import Affinity
from mitocore.builtin.targets.affinities import Affinity as AffinityTarget
from mitocore.specs import channel_of, offsets_of

IGNORE = np.iinfo(np.uint64).max
SHAPE = (6, 9, 8)
OFFSETS = ((-1, 0, 0), (0, 3, 0), (0, -1, 2))


def truth_of(seed=0):
    """Touching boxes of four objects with background between some of them, and voxels to ignore."""
    ids = np.zeros(SHAPE, np.uint64)
    ids[:4, :5, :4], ids[:4, :5, 4:], ids[3:, 6:, 1:7], ids[4:, :4] = 1, 2, 3, 4
    ids[np.random.default_rng(seed).random(SHAPE) < 0.05] = IGNORE
    return ids


def true_affinities(ids, offsets, edge="source"):
    labels = {"instances": ids}
    return AffinityTarget(offsets=offsets, edge=edge).encode(labels, None)


def scores(metric, predicted, truth, block=SHAPE):
    whole, parts = Roi.whole(truth.shape), []
    for start in itertools.product(*(range(0, n, b) for n, b in zip(truth.shape, block, strict=True))):
        write = Roi(start, tuple(a + b for a, b in zip(start, block, strict=True))).clip(whole)
        read = write.grow(metric.halo(None)).clip(whole)
        cut = {"predicted": predicted[:, *read.slices], "truth": truth[None][:, *read.slices]}
        parts.append(metric.partial(Block(write, read, cut, whole)))
    return metric.total(sum(parts[1:], parts[0]))


def counted_by_hand(predicted, truth, offset):
    """Pairs (predicted and true, predicted, true, all) of one offset."""
    both = found = true = counted = 0
    for voxel in np.ndindex(truth.shape):
        other = tuple(np.add(voxel, offset))
        if any(not 0 <= at < n for at, n in zip(other, truth.shape, strict=True)):
            continue
        if IGNORE in (truth[voxel], truth[other]):
            continue
        together, said = truth[voxel] == truth[other] > 0, predicted[voxel] > 0.5
        counted, true, found, both = counted + 1, true + together, found + said, both + (together and said)
    return both, found, true, counted


def test_scores_are_those_of_a_loop_over_all_pairs_inside_the_volume():
    truth, predicted = truth_of(), np.random.default_rng(1).random((3, *SHAPE)).astype("f4")
    found = scores(Affinity(offsets=OFFSETS), predicted, truth)
    dice = []
    for channel, offset in zip(predicted, OFFSETS, strict=True):
        both, said, true, counted = counted_by_hand(channel, truth, offset)
        name, right = channel_of(offset), counted - true - said + both
        dice.append(2 * both / (said + true))
        assert found[f"{name}.dice"] == pytest.approx(dice[-1])
        assert found[f"{name}.iou"] == pytest.approx(both / (said + true - both))
        assert found[f"{name}.balanced_accuracy"] == pytest.approx((both / true + right / (counted - true)) / 2)
    assert found["dice"] == pytest.approx(np.mean(dice))


@settings(deadline=None, max_examples=25)
@given(st.tuples(*(st.integers(1, n) for n in SHAPE)))
def test_blocks_of_any_shape_give_the_scores_of_the_whole(block):
    truth, predicted = truth_of(), np.random.default_rng(2).random((3, *SHAPE)).astype("f4")
    metric = Affinity(offsets=OFFSETS)
    assert scores(metric, predicted, truth, block) == scores(metric, predicted, truth)


def test_true_affinities_are_perfect_and_nothing_is_said():
    truth = truth_of()
    metric = Affinity(offsets=OFFSETS)
    found = scores(metric, true_affinities(truth, OFFSETS), truth)
    assert {name: found[name] for name in ("dice", "iou", "balanced_accuracy", "other_side")} == {
        "dice": 1, "iou": 1, "balanced_accuracy": 1, "other_side": 0,
    }  # fmt: skip
    assert not metric.remarks(found)


def test_noisy_affinities_stored_at_the_destination_are_explained_by_the_offsets_to_state():
    truth, flips = truth_of(), np.random.default_rng(3).random((3, *SHAPE)) < 0.1
    predicted = np.abs(true_affinities(truth, OFFSETS, "destination") - flips).astype("f4")
    metric = Affinity(offsets=OFFSETS)
    found = scores(metric, predicted, truth)
    assert found["other_side"] > 0.8
    (remark,) = metric.remarks(found)
    assert "offsets = [[1, 0, 0], [0, -3, 0], [0, 1, -2]] instead of [[-1, 0, 0], [0, 3, 0], [0, -1, 2]]" in remark


def test_of_channels_that_disagree_only_the_wrong_ones_are_turned():
    truth = truth_of()
    predicted = true_affinities(truth, OFFSETS)
    predicted[1] = true_affinities(truth, OFFSETS[1:2], "destination")
    metric = Affinity(offsets=OFFSETS)
    (remark,) = metric.remarks(scores(metric, predicted, truth))
    assert "1 of 3 channels" in remark
    assert "offsets = [[-1, 0, 0], [0, -3, 0], [0, -1, 2]]" in remark


def test_a_prediction_of_chance_says_nothing_of_the_side():
    truth, metric = truth_of(), Affinity(offsets=OFFSETS)
    predicted = np.random.default_rng(4).random((3, *SHAPE)).astype("f4")
    assert not metric.remarks(scores(metric, predicted, truth))


def test_a_volume_without_objects_says_nothing_of_the_side():
    metric = Affinity()
    found = scores(metric, np.zeros((3, *SHAPE), "f4"), np.zeros(SHAPE, np.uint64))
    assert np.isnan(found["other_side"])
    assert found["dice"] == 1
    assert not metric.remarks(found)


def test_offsets_are_stated_or_read_from_the_names_of_channels_or_of_the_nearest_neighbours():
    assert Affinity(offsets=OFFSETS).for_channels(["z-1", "y-1", "x-1"]).offsets == OFFSETS
    assert Affinity().for_channels(["z-2", "x+1"]).offsets == ((-2, 0, 0), (0, 0, 1))
    assert Affinity().for_channels(["0", "1", "2"]).offsets == ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    with pytest.raises(ConfigError, match="4 channels of affinities, and names that are no offsets"):
        Affinity().for_channels(["0", "1", "2", "3"])
    with pytest.raises(ConfigError, match="2 channels of affinities, and 3 offsets"):
        Affinity(offsets=OFFSETS).for_channels(["z-1", "y-1"])


@given(st.lists(st.tuples(*[st.integers(-30, 30)] * 3).filter(any), min_size=1, max_size=4))
def test_names_of_channels_lead_back_to_their_offsets(offsets):
    names = [channel_of(offset) for offset in offsets]
    assert offsets_of(names) == tuple(offsets)
    assert AffinityTarget(offsets=tuple(offsets)).gives().channels == tuple(names)
