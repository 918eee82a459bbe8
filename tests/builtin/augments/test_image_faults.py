"""Noise, blur, and hidden parts: the image changes as intended, labels do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.builtin.augments.blur import Blur, MotionBlur
from mitocore.builtin.augments.intensity import Contrast
from mitocore.builtin.augments.noise import Noise
from mitocore.builtin.augments.occlusions import CutBlur, CutNoise, CutOut, MissingParts
from mitocore.builtin.augments.tomograms import MissingWedge, Spectrum
from mitocore.geometry import VoxelSize

KINDS = (Contrast, Noise, Blur, MotionBlur, MissingParts, CutOut, CutBlur, CutNoise, MissingWedge, Spectrum)
seeds = st.integers(0, 2**32)


def image(shape=(2, 6, 40, 50), seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("f4")


def applied(augment, array, seed=0, size=None):
    return augment.apply(array, {}, size, np.random.default_rng(seed))[0]


def box_of(changed):
    """The smallest box (z, y, x) around what changed in any channel, and its shape."""
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(changed.any(0)))
    return box, tuple(part.stop - part.start for part in box)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 6, 30, 20), (3, 1, 30, 20)])
def test_labels_stay_and_a_probability_of_0_changes_nothing(kind, shape):
    array = image(shape)
    labels = {"instances": np.arange(array[0].size, dtype="u8").reshape(shape[1:]), "valid": np.ones(shape[1:], "u1")}
    for probability in (0, 1):
        found, same = kind(probability=probability).apply(array, labels, None, np.random.default_rng(1))
        assert found.dtype == np.float32
        assert (found != array).any() == (probability == 1 and (kind is not MissingWedge or shape[1] > 1))
        for name, label in labels.items():
            np.testing.assert_array_equal(same[name], label)


def test_noise_has_the_deviation_that_is_asked_for_and_no_mean():
    array = image((2, 8, 60, 60))
    noise = applied(Noise(probability=1, sigma=(0.2, 0.2)), array) - array
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    assert abs(noise.mean()) < 0.005
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.03


def test_the_variance_of_shot_noise_grows_with_brightness():
    array = np.repeat(np.array([-1, 0, 1], "f4"), 20_000).reshape(1, 3, 100, 200)
    noise = applied(Noise(probability=1, sigma=(0.1, 0.1), shot=(0.3, 0.3)), array) - array
    np.testing.assert_allclose(noise.var((0, 2, 3)), [0.01, 0.01 + 0.045, 0.01 + 0.09], rtol=0.06)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, augment=st.sampled_from([Blur(probability=1), MotionBlur(probability=1)]))
def test_two_sections_are_blurred_and_keep_their_mean_grey(seed, augment):
    array = np.full((1, 6, 64, 64), 0.2, "f4")
    array[..., 32, 32] = 1
    found = applied(augment, array, seed)
    (blurred,) = np.nonzero((found != array).any((0, 2, 3)))
    assert len(blurred) == 2
    np.testing.assert_allclose(found.mean((0, 2, 3)), array.mean((0, 2, 3)), rtol=1e-4)
    assert (found[0, blurred].max((1, 2)) < 0.9).all()


def test_motion_smears_a_point_along_a_line_of_any_direction():
    array = np.zeros((1, 1, 41, 41), "f4")
    array[..., 20, 20] = 1
    y, x = np.mgrid[-20:21, -20:21]
    directions = []
    for seed in range(60):
        found = applied(MotionBlur(probability=1, kernel=11), array, seed)[0, 0]
        spread = [[(found * a * b).sum() for a in (y, x)] for b in (y, x)]
        (thin, long), vectors = np.linalg.eigh(spread)
        assert long == pytest.approx(10, rel=0.05)  # mean square of -5 … 5, and of sharing between neighbours
        assert thin < 0.5
        directions.append(np.arctan2(*vectors[:, 1]) % np.pi)
    assert np.histogram(directions, 4, (0, np.pi))[0].min() >= 7


def test_blur_is_as_wide_in_nanometres_along_y_as_along_x():
    array = np.zeros((1, 1, 61, 61), "f4")
    array[..., 30, 30] = 1
    found = applied(Blur(probability=1, sigma=(3, 3)), array, size=VoxelSize(30, 8, 4))[0, 0]
    from_middle = np.square(np.arange(61) - 30)
    along_y, along_x = (np.sqrt((found.sum(axis) * from_middle).sum()) for axis in (1, 0))
    assert along_x == pytest.approx(2 * along_y, rel=0.1)


@settings(deadline=None, max_examples=30)
@given(seed=seeds, reach=st.integers(1, 12))
def test_a_band_across_the_section_becomes_its_mean(seed, reach):
    array = image((2, 9, 40, 50), 3)
    found = applied(MissingParts(probability=1, reach=reach), array, seed)
    hidden = (found != array).any(0)
    (sections,) = np.nonzero(hidden.any((1, 2)))
    assert sections.tolist() == [0, 3, 6]
    for z in sections:
        band = hidden[z]
        assert band.any(0).all() or band.any(1).all()  # from edge to edge
        for channel in (0, 1):
            np.testing.assert_allclose(found[channel, z][band], array[channel, z].mean(), atol=1e-6)
        length = max(band.any(0).sum(), band.any(1).sum())
        assert band.sum() / length < 2 * (min(reach, 10) + 1) * np.sqrt(2)


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_a_box_that_is_cut_out_becomes_the_mean(seed):
    array = image((2, 10, 40, 50))
    found = applied(CutOut(probability=1, boxes=1, ratio=(0.2, 0.5)), array, seed)
    changed = found != array
    box, edges = box_of(changed)
    assert changed[(slice(None), *box)].all()
    for edge, size in zip(edges, array.shape[1:], strict=True):
        assert 0.2 * size - 0.5 <= edge <= 0.5 * size + 0.5
    for channel in (0, 1):
        np.testing.assert_allclose(found[channel][box], array[channel].mean(), atol=1e-6)


def test_as_many_boxes_are_cut_out_as_allowed():
    array = image((1, 1, 200, 200))
    shares = [(applied(CutOut(probability=1, boxes=4, ratio=(0.05, 0.05)), array, s) != array).sum() for s in range(60)]
    assert min(shares) == 100
    assert 350 < max(shares) <= 400


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_noise_is_cut_into_one_box_and_no_larger_than_its_scale(seed):
    array = image((2, 10, 40, 50))
    difference = applied(CutNoise(probability=1, scale=0.5), array, seed) - array
    box, edges = box_of(difference != 0)
    assert edges == (4, 16, 20)
    inside = difference[(slice(None), *box)]
    assert abs(inside).max() <= 0.5 + 1e-6
    assert inside.std() == pytest.approx(1 / np.sqrt(12), rel=0.1)


@settings(deadline=None, max_examples=30)
@given(seed=seeds, deep=st.booleans())
def test_one_box_is_coarser(seed, deep):
    array = image((2, 10, 40, 50))
    found = applied(CutBlur(probability=1, factor=(4, 4), downsample_z=deep), array, seed)
    box, edges = box_of(found != array)
    assert edges == (4, 16, 20)
    before, after = (each[(slice(None), *box)] for each in (array, found))
    axes = (1, 2, 3) if deep else (2, 3)
    runs = before
    for axis in axes:
        runs = np.add.reduceat(runs, np.arange(0, runs.shape[axis], 4), axis) / 4
    assert after.max() <= runs.max() + 1e-6
    assert after.min() >= runs.min() - 1e-6
    np.testing.assert_allclose(
        after[:, 0 if deep else slice(None), 0, 0], runs[:, 0 if deep else slice(None), 0, 0], atol=1e-5
    )


def test_a_slope_survives_a_coarser_box_but_for_its_ends():
    array = np.broadcast_to(np.arange(40, dtype="f4") / 40, (1, 4, 40, 40))
    found = applied(CutBlur(probability=1, ratio=1, factor=(4, 4)), array)
    np.testing.assert_allclose(found[..., 2:-2], array[..., 2:-2], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Noise, {"sigma": (-0.1, 0.1)}),
        (CutBlur, {"factor": (8, 2)}),
        (CutOut, {"ratio": (0.2, 1.5)}),
        (Blur, {"sections": 0}),
    ],
)
def test_options_that_make_no_sense_are_refused(kind, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)
