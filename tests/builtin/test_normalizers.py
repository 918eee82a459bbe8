"""Normalisers: statistics of the whole volume, whatever the boxes."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.blockwise import passes
from mitocore.builtin.normalizers import DtypeRange, MinMax, Percentile, ZScore
from mitocore.errors import ConfigError, DataError
from mitocore.specs import VolumeSpec
from mitocore.volumes import ArrayVolume

ALL = [Percentile(), MinMax(), ZScore(), DtypeRange()]


def spec(array):
    return VolumeSpec(array.shape[1:], array.dtype.name, tuple(str(i) for i in range(len(array))))


def image(dtype="u1", shape=(1, 8, 9, 10), seed=0):
    values = np.random.default_rng(seed).normal(120, 30, shape)
    return values.clip(0, 255).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)


def plain(values, statistics):
    return (values.astype(float) - statistics[0]) / statistics[1]


@pytest.mark.parametrize("normalizer", ALL, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8"])
@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(8)), cut=st.integers(1, 8))
def test_statistics_do_not_depend_on_boxes_and_survive_json(normalizer, dtype, order, cut):
    array = image(dtype)
    boxes = [array[:, z : z + 1, :cut] for z in order] + [array[:, z : z + 1, cut:] for z in order]
    stats = normalizer.fit(boxes, spec(array))
    assert stats == normalizer.fit([array], spec(array))
    again = json.loads(json.dumps(stats))
    whole = normalizer.apply(array, stats)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(normalizer.apply(array[:, 2:5, 1:], again), whole[:, 2:5, 1:])


def test_zscore_of_bytes_is_exact():
    array = image()
    stats = ZScore().fit([array], spec(array))
    values = array[0].astype(float)
    assert stats["mean"] == pytest.approx((values.mean(),))
    assert stats["std"] == pytest.approx((values.std(),))
    np.testing.assert_allclose(ZScore().apply(array, stats), plain(array, (values.mean(), values.std())), atol=1e-5)


def test_statistics_of_floats_are_close_to_exact():
    array = image("f4", (1, 20, 40, 40))
    values, step = array.astype(float), float(np.ptp(array)) / 65536
    stats = ZScore().fit([array], spec(array))
    assert stats["mean"][0] == pytest.approx(values.mean(), abs=step)
    assert stats["std"][0] == pytest.approx(values.std(), abs=step)
    stats = Percentile(low=5, high=95).fit([array], spec(array))
    low, high = np.percentile(values, [5, 95], method="inverted_cdf")
    assert stats["low"][0] == pytest.approx(low, abs=step)
    assert stats["high"][0] == pytest.approx(high, abs=step)


def test_percentiles_of_integers_are_grey_levels_that_occur():
    array = np.arange(1000, dtype="u2").reshape(1, 10, 10, 10)
    stats = Percentile(low=1, high=99).fit([array], spec(array))
    assert stats == {"low": (9.0,), "high": (989.0,)}
    result = Percentile(low=1, high=99).apply(array, stats)
    assert (result.min(), result.max()) == (-1, 1)
    assert result[0].flat[9] == -1
    assert Percentile(low=1, high=99, clip=False).apply(array, stats).min() < -1


def test_minmax_spans_minus_one_to_one():
    array = image("f4")
    stats = MinMax().fit([array], spec(array))
    assert stats == {"low": (float(array.min()),), "high": (float(array.max()),)}
    result = MinMax().apply(array, stats)
    assert (result.min(), result.max()) == pytest.approx((-1, 1))


def test_dtype_range_uses_fractions_of_the_largest_value():
    array = image("u2")
    norm = DtypeRange(mean=0.57571, std=0.12765)
    stats = norm.fit([array], spec(array))
    assert stats == {"maximum": 65535.0}
    np.testing.assert_allclose(norm.apply(array, stats), (array / 65535 - 0.57571) / 0.12765, rtol=1e-4)


def test_channels_are_normalised_on_their_own():
    array = np.concatenate([image(), image() // 2])
    stats = MinMax().fit([array], spec(array))
    assert stats["high"] == (float(array[0].max()), float(array[1].max()))
    result = MinMax().apply(array, stats)
    assert (result[0].max(), result[1].max()) == (1, 1)


@pytest.mark.parametrize("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_voxels_that_are_not_finite_count_for_nothing_and_become_the_centre(normalizer):
    array = image("f4")
    holes = array.copy()
    holes[0, 0] = np.nan
    holes[0, 1, 0], holes[0, 1, 1] = np.inf, -np.inf
    rest = np.concatenate([array[:, 1:2, 2:].ravel(), array[:, 2:].ravel()]).reshape(1, 1, 1, -1)
    assert normalizer.fit([holes], spec(holes)) == normalizer.fit([rest], spec(rest))
    result = normalizer.apply(holes, normalizer.fit([holes], spec(holes)))
    assert np.isfinite(result).all()
    assert not result[0, 0].any()
    assert not result[0, 1, :2].any()


@pytest.mark.parametrize("normalizer", [Percentile(), MinMax(), ZScore()], ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dtype", ["u1", "f4"])
@pytest.mark.parametrize("fill", [0, 255])
def test_constant_padding_does_not_change_the_statistics(normalizer, dtype, fill):
    array = (image("f8", (1, 8, 30, 30)).clip(30, 200)).astype(dtype)
    array = np.where(np.isin(array, (30, 200)), np.array(100, dtype), array)
    padded = np.concatenate([np.full_like(array[:, :3], fill), array], axis=1)
    expected, got = (normalizer.fit([a], spec(a)) for a in (array, padded))
    for name in expected:
        assert got[name] == pytest.approx(expected[name], abs=0 if dtype == "u1" else 0.01, rel=1e-3)


def test_an_image_of_two_levels_keeps_both():
    array = np.where(np.arange(1000).reshape(1, 10, 10, 10) % 2, 255, 0).astype("u1")
    assert MinMax().fit([array], spec(array)) == {"low": (0.0,), "high": (255.0,)}


@pytest.mark.parametrize("normalizer", ALL, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("array", [np.full((1, 2, 3, 4), 7, "u1"), np.full((1, 2, 3, 4), 7, "f4")])
def test_an_image_that_does_not_vary_is_refused_with_its_value(normalizer, array):
    with pytest.raises(DataError, match="every voxel of the image is 7"):
        normalizer.fit([array], spec(array))


@pytest.mark.parametrize("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_an_image_without_a_finite_voxel_is_refused(normalizer):
    array = np.full((1, 2, 3, 4), np.nan, "f4")
    with pytest.raises(DataError, match="no finite voxel"):
        normalizer.fit([array], spec(array))


def test_percentiles_that_fall_together_are_refused_with_the_remedy():
    array = np.full((1, 10, 100, 100), 5, "u1")
    array[0, 0, 0, :10] = np.arange(10)
    with pytest.raises(DataError, match=r"percentiles 1 and 99 .* both 5") as caught:
        Percentile().fit([array], spec(array))
    assert "minmax" in caught.value.hint


def test_low_must_be_below_high():
    with pytest.raises((ValueError, ConfigError), match="not below"):
        Percentile(low=99, high=1)


def test_fitting_needs_bounded_memory():
    array = np.broadcast_to(image("u1", (1, 1, 64, 64)), (1, 500, 64, 64))
    tracemalloc.start()
    Percentile().fit((array[:, z : z + 4] for z in range(0, 500, 4)), spec(array))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


@pytest.mark.parametrize("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_voxels_that_are_not_finite_are_counted_once_and_told(normalizer, caplog, monkeypatch):
    monkeypatch.setattr(passes, "_BOX", 90)  # one plane after the other
    array = image("f4")
    plain_stats = passes.fit(normalizer, ArrayVolume(array))
    assert not caplog.records
    array[0, [1, 6, 7], 2, 3] = np.nan, np.inf, -np.inf
    stats = passes.fit(normalizer, ArrayVolume(array))
    assert stats.keys() == {*plain_stats, "not_finite"}
    assert stats["not_finite"] == 3
    (told,) = caplog.records
    assert told.getMessage() == "voxels of the input that are NaN or infinite: 3; they count as mid-grey"
    assert not normalizer.apply(array, stats)[0, [1, 6, 7], 2, 3].any()


def test_of_a_volume_that_is_sampled_the_count_is_a_least_one(caplog, monkeypatch):
    monkeypatch.setattr(passes, "_BOX", 90)
    monkeypatch.setattr(passes.sampled, "__defaults__", (4 * 90,))
    array = image("f4")
    array[0, 0] = np.nan
    assert passes.fit(MinMax(), ArrayVolume(array))["not_finite"] == 90
    assert "at least 90;" in caplog.text
