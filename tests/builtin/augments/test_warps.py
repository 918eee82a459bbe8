"""Rotation, scaling, bending: every voxel comes from where its labels come from, and from what was read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.builtin.augments.flips import FlipRotate
from mitocore.builtin.augments.sections import Misalignment, MissingSection
from mitocore.builtin.augments.warps import Elastic, Rescale, Rotate
from mitocore.geometry import VoxelSize

CUBIC, FLAT, LONG = VoxelSize(8, 8, 8), VoxelSize(32, 8, 8), VoxelSize(16, 4, 8)
WARPS = (
    Rotate(probability=1),
    Rotate(probability=1, angle=7),
    Rotate(probability=1, angle=20, tilt=15),
    Rescale(probability=1),
    Rescale(probability=1, axes=("z", "y", "x"), fixed_aspect=True),
    Elastic(probability=1),
    Elastic(probability=1, alpha=60, sigma=5),
    Elastic(probability=1, alpha=80, dimensions=3),
)
MOVES = (
    *WARPS,
    FlipRotate(symmetries="all"),
    MissingSection(probability=1),
    MissingSection(probability=1, sections=3),
    Misalignment(probability=1, displacement=5),
)
augments = st.sampled_from(MOVES)
shapes = st.sampled_from([(1, 12, 12), (3, 11, 16), (6, 9, 14), (10, 10, 10)])
voxel_sizes = st.sampled_from([None, CUBIC, FLAT, LONG])
seeds = st.integers(0, 2**32)


def grown(augment, shape, voxel_size, more=(0, 0, 0)):
    return tuple(n + 2 * (h + m) for n, h, m in zip(shape, augment.halo(shape, voxel_size), more, strict=True))


def ramps(shape):
    """An image whose channels are z, y and x, which interpolation keeps; and labels that say the same exactly."""
    image = np.stack(np.meshgrid(*(np.arange(n, dtype="f4") for n in shape), indexing="ij"))
    ids = np.arange(1, 1 + np.prod(shape), dtype="u8").reshape(shape)
    return image, {"instances": ids, "semantic": (ids % 501).astype("u2"), "valid": np.ones(shape, "u1")}


def sources(labels):
    """Where the labels come from, (3, z, y, x)."""
    ids = labels["instances"]
    return np.stack(np.unravel_index(ids.astype("i8") - 1, ids.shape))


def middle(array, shape):
    margins = [(n - m) // 2 for n, m in zip(array.shape[-3:], shape, strict=True)]
    return array[(..., *(slice(h, h + m) for h, m in zip(margins, shape, strict=True)))]


@settings(deadline=None, max_examples=100)
@given(augment=augments, shape=shapes, voxel_size=voxel_sizes, seed=seeds)
def test_labels_are_those_of_the_voxel_nearest_to_where_the_image_comes_from(augment, shape, voxel_size, seed):
    image, labels = ramps(grown(augment, shape, voxel_size))
    found, moved = augment.apply(image, labels, voxel_size, np.random.default_rng(seed))
    assert np.abs(found - sources(moved)).max() < 0.501
    np.testing.assert_array_equal(moved["semantic"], moved["instances"] % 501)


@settings(deadline=None, max_examples=100)
@given(
    augment=augments,
    shape=shapes,
    voxel_size=voxel_sizes,
    more=st.sampled_from([(0, 0, 0), (0, 3, 3), (2, 4, 1)]),
    seed=seeds,
)
def test_the_whole_crop_comes_from_what_was_read(augment, shape, voxel_size, more, seed):
    image, labels = ramps(grown(augment, shape, voxel_size, more))
    _, moved = augment.apply(image, labels, voxel_size, np.random.default_rng(seed))
    assert middle(moved["valid"], shape).all()


@settings(deadline=None, max_examples=60)
@given(
    augment=st.sampled_from([w for w in WARPS if not isinstance(w, Elastic)]),
    shape=shapes,
    voxel_size=voxel_sizes,
    seed=seeds,
)
def test_a_crop_with_its_halo_looks_as_if_all_of_the_volume_had_been_warped(augment, shape, voxel_size, seed):
    large, labels = ramps(grown(augment, shape, voxel_size, (5, 7, 6)))
    part = grown(augment, shape, voxel_size)
    small = {name: middle(array, part) for name, array in labels.items()}
    one, some = augment.apply(large, labels, voxel_size, np.random.default_rng(seed))
    other, more = augment.apply(middle(large, part), small, voxel_size, np.random.default_rng(seed))
    np.testing.assert_allclose(middle(one, shape), middle(other, shape), atol=1e-4)
    differ = middle(some["instances"], shape) != middle(more["instances"], shape)
    assert differ.mean() < 0.03  # where a place lies just between two voxels


def test_what_comes_from_beyond_what_was_read_does_not_count():
    image, labels = ramps((4, 21, 31))
    shrunk = Rescale(probability=1, factors=(0.5, 0.5))
    found, moved = shrunk.apply(image, labels, CUBIC, np.random.default_rng(0))
    expected = np.zeros((4, 21, 31), bool)
    expected[:, 5:16, 8:23] = True  # offsets of up to a quarter of the edge
    np.testing.assert_array_equal(moved["valid"] == 1, expected)
    np.testing.assert_array_equal(found[1, 0, 5:16, 15], np.arange(0, 21, 2))


def test_a_voxel_that_does_not_count_takes_its_mark_with_it():
    _, labels = ramps((3, 20, 20))
    labels["valid"][:, 4:9, 6:12] = 0
    for augment in WARPS:
        _, moved = augment.apply(np.zeros((1, 3, 20, 20), "f4"), labels, CUBIC, np.random.default_rng(1))
        z, y, x = sources(moved)
        assert not moved["valid"][labels["valid"][z, y, x] == 0].any()


@pytest.mark.parametrize("voxel_size", [CUBIC, FLAT, LONG])
@pytest.mark.parametrize("augment", [Rotate(probability=1), Rotate(probability=1, angle=30, tilt=40)])
def test_rotation_keeps_lengths_in_nanometres(augment, voxel_size):
    shape = (9, 15, 21)
    image, labels = ramps(shape)
    edges = np.array(voxel_size.edges)[:, None]
    far = np.linalg.norm((image.reshape(3, -1) - (np.array(shape)[:, None] - 1) / 2) * edges, axis=0)
    for seed in range(5):
        found, moved = augment.apply(image, labels, voxel_size, np.random.default_rng(seed))
        came = np.linalg.norm((found.reshape(3, -1) - (np.array(shape)[:, None] - 1) / 2) * edges, axis=0)
        inside = moved["valid"].reshape(-1) == 1
        np.testing.assert_allclose(came[inside], far[inside], atol=0.01)
        assert (found != image).mean() > 0.5


def test_rotation_stays_within_its_angles():
    image, labels = ramps((9, 41, 41))
    right, up = image[:, 4, 20, 40] - image[:, 4, 20, 20], image[:, 8, 20, 20] - image[:, 4, 20, 20]
    angles, tilts = [], []
    for seed in range(120):
        found, _ = Rotate(probability=1, angle=20, tilt=10).apply(image, labels, CUBIC, np.random.default_rng(seed))
        one, other = found[:, 4, 20, 30] - found[:, 4, 20, 20], found[:, 5, 20, 20] - found[:, 4, 20, 20]
        angles.append(np.degrees(np.arctan2(one[1], one[2])))
        tilts.append(np.degrees(np.arccos(other @ up / np.linalg.norm(up) / np.linalg.norm(other))))
    assert right @ up == 0
    assert 17 < max(angles) < 20.5  # a tilt foreshortens by a little
    assert -20.5 < min(angles) < -17
    assert 9 < max(tilts) < 10.01


@pytest.mark.parametrize("voxel_size", [None, FLAT])
@pytest.mark.parametrize("augment", [Rotate(probability=1, tilt=30), Elastic(probability=1)])
def test_sections_stay_sections_where_voxels_are_not_isotropic(augment, voxel_size):
    image, labels = ramps((4, 12, 12))
    found, _ = augment.apply(image, labels, voxel_size, np.random.default_rng(0))
    np.testing.assert_array_equal(found[0], image[0])
    np.testing.assert_array_equal(found[1:, 0], found[1:, 3])
    assert augment.halo((4, 12, 12), voxel_size)[0] == 0


def test_scaling_is_drawn_between_its_factors_and_for_each_axis_unless_the_aspect_is_fixed():
    image, labels = ramps((3, 30, 30))
    for fixed in (False, True):
        steps = []
        for seed in range(60):
            augment = Rescale(probability=1, fixed_aspect=fixed)
            found, _ = augment.apply(image, labels, None, np.random.default_rng(seed))
            steps.append((found[1, 0, 16, 0] - found[1, 0, 15, 0], found[2, 0, 0, 16] - found[2, 0, 0, 15]))
        steps = np.array(steps)
        assert 0.8 <= steps.min() < 0.83
        assert 1.2 < steps.max() <= 1.2501
        assert (np.abs(steps[:, 0] - steps[:, 1]).max() < 1e-5) == fixed


def test_bending_has_the_strength_of_smoothed_noise():
    from scipy.ndimage import gaussian_filter

    image, labels = ramps((1, 100, 100))
    rng = np.random.default_rng(0)
    noise = np.stack([16 * gaussian_filter(rng.uniform(-1, 1, (100, 100)), 4, mode="wrap") for _ in range(20)])
    fields = []
    for seed in range(20):
        found, _ = Elastic(probability=1).apply(image, labels, None, np.random.default_rng(seed))
        fields.append((found - image)[1:, 0, 8:-8, 8:-8])
    fields = np.array(fields)
    assert fields.std() == pytest.approx(noise.std(), rel=0.06)
    rough = np.diff(fields, axis=-1).std(), np.diff(noise, axis=-1).std()
    assert rough[0] == pytest.approx(rough[1], rel=0.1)


def test_bending_in_space_is_as_long_in_nanometres_along_every_axis():
    image, labels = ramps((24, 48, 48))
    augment, lengths = Elastic(probability=1, alpha=300, sigma=6, dimensions=3), []
    for seed in range(6):
        found, moved = augment.apply(image, labels, VoxelSize(16, 8, 8), np.random.default_rng(seed))
        lengths.append([(found - image)[axis][moved["valid"] == 1].std() for axis in range(3)] * np.array([16, 8, 8]))
    z, y, x = np.mean(lengths, axis=0)
    assert z == pytest.approx((y + x) / 2, rel=0.25)


@pytest.mark.parametrize("augment", MOVES, ids=repr)
def test_a_plane_needs_no_other_planes(augment):
    if getattr(augment, "tilt", 0) or getattr(augment, "dimensions", 2) == 3:
        augment = type(augment)(probability=1)
    assert augment.halo((1, 32, 32), FLAT)[0] == 0
    image, labels = ramps((1, 12, 12))
    found, moved = augment.apply(image, labels, FLAT, np.random.default_rng(0))
    assert not found[0].any()
    np.testing.assert_array_equal(moved["instances"].shape, (1, 12, 12))


@pytest.mark.parametrize("kind", [Rotate, Rescale, Elastic, MissingSection, Misalignment])
def test_a_share_of_the_crops_is_changed(kind):
    image, labels = ramps((5, 8, 8))
    rngs = [np.random.default_rng(seed) for seed in range(200)]
    changed = [(kind(probability=0.5).apply(image, labels, CUBIC, rng)[0] != image).any() for rng in rngs]
    assert 70 < sum(changed) < 130
    found, moved = kind(probability=0).apply(image, labels, CUBIC, rngs[0])
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(moved["instances"], labels["instances"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Rotate, {"angle": 181}),
        (Rotate, {"tilt": -1}),
        (Rescale, {"factors": (1.2, 0.8)}),
        (Rescale, {"factors": (0, 1)}),
        (Rescale, {"axes": ()}),
        (Elastic, {"sigma": 0}),
        (Elastic, {"dimensions": 1}),
        (MissingSection, {"sections": 0}),
        (Misalignment, {"displacement": 0}),
        (Misalignment, {"slip": 1.5}),
    ],
)
def test_options_that_make_no_sense_are_refused(kind, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)
