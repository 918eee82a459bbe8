"""Lost sections, and sections out of place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.builtin.augments.sections import Misalignment, MissingSection
from mitocore.geometry import VoxelSize

seeds = st.integers(0, 2**32)


def numbered(shape):
    """An image, and labels, that say which voxel each was."""
    ids = np.arange(1, 1 + np.prod(shape), dtype="u8").reshape(shape)
    return ids[None].astype("f4"), {"instances": ids, "valid": np.ones(shape, "u1")}


@settings(deadline=None, max_examples=60)
@given(depth=st.integers(2, 9), sections=st.integers(1, 4), seed=seeds)
def test_sections_are_lost_from_within_and_the_crop_stays_full(depth, sections, seed):
    augment = MissingSection(probability=1, sections=sections)
    halo = augment.halo((depth, 3, 3), None)[0]
    image, labels = numbered((depth + 2 * halo, 3, 3))
    found, moved = augment.apply(image, labels, None, np.random.default_rng(seed))
    np.testing.assert_array_equal(found[0], moved["instances"])
    came = (moved["instances"][:, 0, 0].astype(int) - 1) // 9
    counts = moved["valid"][:, 0, 0] == 1
    assert counts[halo : halo + depth].all()
    kept = came[counts]
    lost = set(range(len(came))) - set(kept.tolist())
    enough = depth + 2 * halo - 2 > sections
    assert len(lost) == (sections if enough else 0)
    assert not lost & {0, len(came) - 1}
    assert (np.diff(kept) > 0).all()


def test_a_single_section_is_left_alone():
    image, labels = numbered((1, 4, 4))
    for augment in (MissingSection(probability=1), Misalignment(probability=1)):
        assert augment.halo((1, 4, 4), None)[0] == 0
        found, _ = augment.apply(image, labels, None, np.random.default_rng(0))
        np.testing.assert_array_equal(found, image)


@settings(deadline=None, max_examples=60)
@given(slip=st.sampled_from([0, 1]), rotation=st.sampled_from([0, 1]), depth=st.integers(2, 6), seed=seeds)
def test_one_section_slips_or_all_from_some_section_on_move(slip, rotation, depth, seed):
    augment = Misalignment(probability=1, displacement=6, slip=slip, rotation=rotation)
    image, labels = numbered((depth, 20, 24))
    found, moved = augment.apply(image, labels, VoxelSize(30, 4, 4), np.random.default_rng(seed))
    out = [(moved["instances"][z] != labels["instances"][z]).any() for z in range(depth)]
    assert not out[0]
    first = out.index(True) if any(out) else depth
    expected = [z == first if slip else z >= first for z in range(depth)]
    assert out == expected
    if first < depth and not slip:  # all of them alike
        plane = labels["instances"][0].size
        together = moved["instances"][first:].reshape(depth - first, -1) - np.arange(first, depth)[:, None].astype(
            "u8"
        ) * np.uint64(plane)
        assert (together == together[0]).all()
    if not rotation:
        np.testing.assert_array_equal(found[0], moved["instances"])  # whole voxels: nothing is interpolated


@settings(deadline=None, max_examples=40)
@given(rotation=st.sampled_from([0, 1]), shape=st.sampled_from([(3, 20, 24), (2, 9, 40)]), seed=seeds)
def test_no_voxel_moves_further_than_the_displacement(rotation, shape, seed):
    size = VoxelSize(30, 4, 4)
    augment = Misalignment(probability=1, displacement=4, rotation=rotation)
    image = np.stack(np.meshgrid(*(np.arange(n, dtype="f4") for n in shape), indexing="ij"))
    _, labels = numbered(shape)
    found, moved = augment.apply(image, labels, size, np.random.default_rng(seed))
    by = np.abs(found - image)[:, moved["valid"] == 1]
    assert by[0].max() == 0
    assert by[1:].max() <= 4.001
    assert augment.halo(shape, size) == (0, 4, 4)


@pytest.mark.parametrize("rotation", [0, 1])
def test_the_largest_displacement_is_nearly_reached(rotation):
    augment = Misalignment(probability=1, displacement=8, slip=0, rotation=rotation)
    image = np.stack(np.meshgrid(*(np.arange(n, dtype="f4") for n in (2, 64, 64)), indexing="ij"))
    _, labels = numbered((2, 64, 64))
    far = []
    for seed in range(80):
        found, moved = augment.apply(image, labels, None, np.random.default_rng(seed))
        far.append(np.linalg.norm(found - image, axis=0)[moved["valid"] == 1].max())
    assert 7 < max(far) < 8 * (np.sqrt(2) + 1e-3)
