"""What sums over slabs say of probabilities, against plain numpy over all voxels."""

import numpy as np
import pytest

from mitocore.learn.calibration import Classes, Histogram, sums_of
from mitocore.specs import Head, Kind

ALL = np.ones((8, 40, 40), bool)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def voxels(sharpness=1.0, shift=0.0, shape=(1, 8, 40, 40), seed=0):
    """Truth drawn with the probability of its logits, which the prediction states `sharpness` times too large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 1.5, shape)
    truth = (rng.random(shape) < sigmoid(logits)).astype("f4")
    return sigmoid(logits * sharpness + shift).astype("f4"), truth


def histogram(values, truth, counted=ALL):
    found = Histogram(len(values))
    found.add(values, truth, counted)
    return found


@pytest.mark.parametrize("sharpness", [0.5, 1.6, 3.0])
def test_the_temperature_undoes_what_made_logits_too_large_or_too_small(sharpness):
    found = histogram(*voxels(sharpness))
    temperature = found.temperature()
    assert temperature == pytest.approx(sharpness, rel=0.08)
    before, after = found.reliability(1.0), found.reliability(temperature)
    assert after.nll < before.nll
    assert after.ece < 0.25 * before.ece


def test_no_temperature_is_found_where_every_prediction_is_right():
    _, truth = voxels()
    assert histogram(0.2 + 0.6 * truth, truth).temperature() is None
    assert histogram(np.full_like(truth, 0.5), truth, ~ALL).temperature() is None


def test_the_calibration_error_is_the_mean_distance_of_fifteen_bins():
    values, truth = voxels(2.0, shift=0.4)
    found = histogram(values, truth).reliability(1.0)
    p, y = values.ravel().astype(float), truth.ravel()
    row = (p * 15).astype(int)
    wanted = sum(abs(p[row == r].mean() - y[row == r].mean()) * (row == r).mean() for r in np.unique(row))
    assert found.ece == pytest.approx(wanted, abs=2e-3)
    assert found.nll == pytest.approx(-np.log(np.where(y > 0, p, 1 - p)).mean(), rel=1e-3)
    assert sum(row[2] for row in found.rows) == truth.size


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_the_threshold_has_the_best_dice_of_all(temperature):
    values, truth = voxels(1.3, shift=-1.0)
    threshold, _ = histogram(values, truth).thresholds(temperature)
    used = sigmoid(np.log(values / (1 - values)) / temperature)

    def dice(t):
        return 2 * (truth[used > t] > 0).sum() / ((used > t).sum() + truth.sum())

    best = max(dice(t) for t in np.linspace(0.01, 0.99, 197))
    assert dice(threshold) > best - 1e-3
    assert dice(threshold) > dice(0.5)
    assert histogram(values, truth).dice(threshold, temperature) == pytest.approx(dice(threshold), abs=2e-3)


def test_of_equally_good_thresholds_the_one_nearest_to_one_half_is_taken():
    _, truth = voxels()
    assert histogram(0.1 + 0.8 * truth, truth).thresholds(1.0)[0] == 0.5
    assert histogram(0.1 + 0.2 * truth, truth).thresholds(1.0)[0] == pytest.approx(0.3, abs=0.01)
    assert histogram(0.7 + 0.2 * truth, truth).thresholds(1.0)[0] == pytest.approx(0.7, abs=0.01)


def test_a_channel_without_foreground_has_no_threshold_and_does_not_move_that_of_the_head():
    values, truth = voxels(shift=-1.0, shape=(2, 8, 40, 40))
    truth[1] = 0
    best, each = histogram(values, truth).thresholds(1.0)
    assert each == [best, None]
    assert histogram(values[1:], truth[1:]).thresholds(1.0) == (None, [None])


def test_voxels_of_weight_0_change_nothing_and_slabs_add_up():
    values, truth = voxels(1.6, shape=(2, 8, 40, 40))
    counted = np.random.default_rng(1).random(ALL.shape) < 0.7
    whole = histogram(values, truth, counted)
    parts = Histogram(2)
    for z in (slice(0, 3), slice(3, 8)):
        wrong = np.where(counted, values, 1 - truth)
        parts.add(wrong[:, z], truth[:, z], counted[z])
    assert np.array_equal(whole.counts, parts.counts)


@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_the_temperature_of_classes_undoes_what_made_logits_too_large_or_too_small(sharpness):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (3, 6, 30, 30))
    shares = np.exp(logits) / np.exp(logits).sum(axis=0)
    chosen = (rng.random(logits.shape[1:]) > shares.cumsum(axis=0)).sum(axis=0)
    truth = (chosen == np.arange(3)[:, None, None, None]).astype("f4")
    stated = np.exp(sharpness * logits)
    found = Classes()
    found.add((stated / stated.sum(axis=0)).astype("f4"), truth, np.ones((6, 30, 30), bool))
    temperature = found.temperature()
    assert temperature == pytest.approx(sharpness, rel=0.13)
    before, after = found.reliability(1.0), found.reliability(temperature)
    assert after.nll < before.nll
    assert after.ece < 0.5 * before.ece


def test_only_probabilities_and_affinities_are_calibrated():
    heads = [
        Head("foreground", ("foreground",)),
        Head("affinity", ("z", "y", "x"), "sigmoid", Kind.AFFINITY, ((-1, 0, 0), (0, -1, 0), (0, 0, -1))),
        Head("semantic", ("background", "mito"), "softmax"),
        Head("distance", ("distance",), "tanh", Kind.DISTANCE),
        Head("descriptors", ("size",), "sigmoid", Kind.DESCRIPTOR),
        Head("center", ("center",), "none"),
        Head("foreground_aux1", ("foreground",), auxiliary=True),
    ]
    found = sums_of(heads)
    assert {name: type(sums) for name, sums in found.items()} == {
        "foreground": Histogram,
        "affinity": Histogram,
        "semantic": Classes,
    }


def test_large_sections_of_classes_are_sampled_and_count_as_many_voxels_as_they_have(monkeypatch):
    rng = np.random.default_rng(0)
    shares = rng.random((2, 3, 64, 64)).astype("f4")
    shares /= shares.sum(axis=0)
    truth = np.stack([rng.random((3, 64, 64)) < shares[0]]).astype("f4")
    truth = np.concatenate([truth, 1 - truth])
    whole, sampled = Classes(), Classes()
    whole.add(shares, truth, np.ones((3, 64, 64), bool))
    monkeypatch.setattr("mitocore.learn.calibration._GRID", 32)
    sampled.add(shares, truth, np.ones((3, 64, 64), bool))
    assert sampled.voxels == whole.voxels == 3 * 64 * 64
    assert sum(row[2] for row in sampled.reliability(1.0).rows) == whole.voxels
    assert sampled.reliability(1.0).nll == pytest.approx(whole.reliability(1.0).nll, rel=0.05)
