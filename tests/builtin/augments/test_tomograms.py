"""Missing wedges and spectra."""

import numpy as np
import pytest

from mitocore.builtin.augments.tomograms import MissingWedge, Spectrum
from mitocore.geometry import VoxelSize


def wave(shape, angle, period=8.0, z_edge=1.0, axis="x"):
    """A plane wave whose direction is `angle` degrees away from the plane, towards z."""
    z, y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
    along = np.cos(np.radians(angle)) * (x if axis == "x" else y) + np.sin(np.radians(angle)) * z * z_edge
    return np.cos(2 * np.pi * along / period)[None].astype("f4")


def kept(augment, image, size=None, seed=0):
    """Share of the amplitude that is left in the middle of the crop."""
    found, _ = augment.apply(image, {}, size, np.random.default_rng(seed))
    middle = (..., *(slice(n // 4, -(n // 4)) for n in image.shape[1:]))
    return float(found[middle].std() / image[middle].std())


@pytest.mark.parametrize(("angle", "passes"), [(0, True), (35, True), (65, False), (90, False)])
@pytest.mark.parametrize("edges", [None, VoxelSize(20, 10, 10)])
def test_waves_steeper_than_the_largest_tilt_are_lost(angle, passes, edges):
    augment = MissingWedge(probability=1, tilt=(50, 50), rotation=0)
    share = kept(augment, wave((40, 64, 64), angle, z_edge=2.0 if edges else 1.0), edges)
    assert share > 0.9 if passes else share < 0.25


def test_waves_along_the_tilt_axis_are_lost_unless_they_lie_in_the_plane():
    augment = MissingWedge(probability=1, tilt=(50, 50), rotation=0)
    assert kept(augment, wave((40, 64, 64), 0, axis="y")) > 0.8
    assert kept(augment, wave((40, 64, 64), 35, axis="y")) < 0.3


def test_the_tilt_axis_is_turned_at_random():
    image = wave((40, 64, 64), 45)
    turned = MissingWedge(probability=1, tilt=(50, 50), rotation=90)
    assert {kept(turned, image, seed=seed) > 0.5 for seed in range(12)} == {True, False}
    straight = MissingWedge(probability=1, tilt=(50, 50), rotation=10)
    assert all(kept(straight, image, seed=seed) > 0.8 for seed in range(12))


def test_the_mean_of_every_channel_stays():
    image = np.stack([wave((20, 30, 30), 30)[0] + 0.5, wave((20, 30, 30), 80)[0] - 0.25])
    for augment in (MissingWedge(probability=1), Spectrum(probability=1)):
        found, _ = augment.apply(image, {}, None, np.random.default_rng(0))
        np.testing.assert_allclose(found.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=0.05)


def test_amplitudes_rise_and_fall_within_the_range_and_alike_in_all_directions():
    shares = []
    augment = Spectrum(probability=1, change=0.4)
    for seed in range(25):
        flat, up = (kept(augment, wave((48, 48, 48), angle), seed=seed) for angle in (0, 90))
        assert flat == pytest.approx(up, abs=0.03)
        shares.append(flat)
    assert min(shares) > 0.55
    assert max(shares) < 1.45
    assert min(shares) < 0.85
    assert max(shares) > 1.15
