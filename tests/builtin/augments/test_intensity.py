"""Changes of grey levels."""

import numpy as np
import pytest

from mitocore.builtin.augments.intensity import Contrast


def example(shape=(3, 6, 6)):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 9, shape).astype("u8")
    return (ids[None] / 8).astype("f4"), {"instances": ids, "semantic": (ids % 3).astype("u2")}


def test_contrast_changes_the_image_within_its_ranges_and_no_label():
    image, labels = example()
    image = image * 2 - 1
    augment = Contrast(probability=1, contrast=(0.5, 1.5), brightness=(-0.5, 0.5), gamma=(1, 1))
    for seed in range(30):
        changed, same = augment.apply(image, labels, None, np.random.default_rng(seed))
        slope, offset = np.polyfit(image.ravel(), changed.ravel(), 1)
        assert 0.5 <= slope <= 1.5
        assert -0.5 <= offset <= 0.5
        np.testing.assert_allclose(changed, image * slope + offset, atol=1e-5)
        np.testing.assert_array_equal(same["instances"], labels["instances"])


def test_gamma_keeps_smallest_and_largest():
    image, labels = example()
    augment = Contrast(probability=1, contrast=(1, 1), brightness=(0, 0), gamma=(2, 2))
    changed, _ = augment.apply(image, labels, None, np.random.default_rng(0))
    np.testing.assert_allclose(changed, image**2, atol=1e-6)


def test_contrast_leaves_the_others_alone():
    image, labels = example()
    changed = [
        (Contrast(probability=0.5).apply(image, labels, None, np.random.default_rng(s))[0] != image).any()
        for s in range(200)
    ]
    assert 60 < sum(changed) < 140
    np.testing.assert_array_equal(
        Contrast(probability=0).apply(image, labels, None, np.random.default_rng(0))[0], image
    )


def test_a_constant_crop_stays_finite():
    image = np.zeros((1, 2, 2, 2), "f4")
    changed, _ = Contrast(probability=1).apply(image, {}, None, np.random.default_rng(0))
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("options", [{"contrast": (1.5, 0.5)}, {"gamma": (0, 1)}, {"probability": 2}])
def test_ranges_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Contrast(**options)


def test_sections_are_changed_alone_in_the_share_that_is_asked_for():
    image = np.tile(np.linspace(-1, 1, 64, dtype="f4").reshape(1, 1, 8, 8), (2, 5, 1, 1))
    augment = Contrast(probability=1, by_section=0.5)
    alone = 0
    for seed in range(200):
        changed, _ = augment.apply(image, {}, None, np.random.default_rng(seed))
        np.testing.assert_array_equal(changed[0], changed[1])  # channels stay alike
        alone += len(np.unique(changed[0, :, 0, 0])) == 5
    assert 70 < alone < 130


def test_inversion_exchanges_dark_and_bright_in_the_share_that_is_asked_for():
    image = np.linspace(-1, 1, 64, dtype="f4").reshape(1, 1, 8, 8)
    augment = Contrast(probability=1, contrast=(1, 1), brightness=(0.2, 0.2), gamma=(1, 1), inversion=0.25)
    inverted = 0
    for seed in range(200):
        changed, _ = augment.apply(image, {}, None, np.random.default_rng(seed))
        turned = changed.flat[0] > changed.flat[-1]
        np.testing.assert_allclose(changed, (-1 if turned else 1) * (image + 0.2), atol=1e-6)
        inverted += turned
    assert 30 < inverted < 75
