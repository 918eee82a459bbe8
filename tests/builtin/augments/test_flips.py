"""Symmetries of a crop."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.builtin.augments.flips import FlipRotate, moved
from mitocore.geometry import VoxelSize
from mitocore.symmetry import Symmetry, of_the_cube

CUBIC = VoxelSize(8, 8, 8)


def example(shape=(3, 6, 6)):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 9, shape).astype("u8")
    return (ids[None] / 8).astype("f4"), {"instances": ids, "semantic": (ids % 3).astype("u2")}


@pytest.mark.parametrize("voxel_size", [None, VoxelSize(8, 8, 8), VoxelSize(40, 8, 4)])
@pytest.mark.parametrize("shape", [(3, 6, 6), (3, 6, 4)])
def test_flips_and_turns_move_image_and_labels_alike(shape, voxel_size):
    image, labels = example(shape)
    seen = set()
    for seed in range(90):
        turned, turned_labels = FlipRotate().apply(image, labels, voxel_size, np.random.default_rng(seed))
        assert turned.shape == image.shape
        assert turned.flags.c_contiguous
        np.testing.assert_array_equal(turned[0], (turned_labels["instances"] / 8).astype("f4"))
        np.testing.assert_array_equal(turned_labels["semantic"], turned_labels["instances"] % 3)
        seen.add(turned.tobytes())
    square = shape[1] == shape[2] and (voxel_size is None or voxel_size.y == voxel_size.x)
    assert len(seen) == (16 if square else 8)


sizes = st.sampled_from(
    [None, CUBIC, VoxelSize(8.02, 8, 8), VoxelSize(40, 8, 8), VoxelSize(8, 8, 4), VoxelSize(8, 4, 8)]
)
edges = st.integers(2, 3)


@settings(deadline=None, max_examples=40)
@given(shape=st.tuples(edges, edges, edges), voxel_size=sizes, symmetries=st.sampled_from(["plane", "all"]))
def test_exactly_the_symmetries_that_change_neither_shape_nor_voxels_are_drawn(shape, voxel_size, symmetries):
    array = np.arange(np.prod(shape)).reshape(shape)
    right = set()
    for symmetry in of_the_cube():
        still = symmetry.axes[0] == 0
        if voxel_size:
            old = np.array(voxel_size.edges)
            still = (still or symmetries == "all") and np.allclose(old[list(symmetry.axes)], old, rtol=0.01)
        if still and moved(array, symmetry).shape == shape:
            right.add(symmetry)
    turns = FlipRotate(symmetries=symmetries).turns(shape, voxel_size)
    flips = [Symmetry(flips=flips) for flips in product((False, True), repeat=3)]
    results = {moved(moved(array, turn), flip).tobytes() for turn in turns for flip in flips}
    assert results == {moved(array, symmetry).tobytes() for symmetry in right}
    assert len(results) == len(right)  # no two are the same
    for symmetry in right:
        turned = moved(array, symmetry)
        assert set(turned.flat) == set(array.flat)  # no voxel is lost
        assert moved(turned, symmetry).tobytes() in results  # done twice, it is still one of them
        np.testing.assert_array_equal(moved(turned, symmetry.inverse), array)


def test_a_cube_of_isotropic_voxels_is_seen_in_all_48_ways():
    image, labels = example((3, 3, 3))
    augment = FlipRotate(symmetries="all")
    seen = {augment.apply(image, labels, CUBIC, np.random.default_rng(s))[0].tobytes() for s in range(600)}
    assert len(seen) == 48


def test_without_flips_no_crop_becomes_its_mirror_image():
    array = np.arange(27).reshape(3, 3, 3)
    augment = FlipRotate(symmetries="all", axes=())
    image, labels = array[None].astype("f4"), {"instances": array}
    drawn = [augment.apply(image, labels, CUBIC, np.random.default_rng(s))[1]["instances"] for s in range(300)]
    seen = {found.tobytes() for found in drawn}
    assert len(seen) == 24
    assert array[::-1].tobytes() not in seen


def test_only_the_named_axes_are_flipped():
    image, labels = example()
    augment = FlipRotate(axes=("z",), rotate=False)
    results = {augment.apply(image, labels, None, np.random.default_rng(s))[0].tobytes() for s in range(20)}
    assert results == {image.tobytes(), image[:, ::-1].tobytes()}


def test_quarter_turns_alone_are_four():
    image, labels = example()
    augment = FlipRotate(axes=())
    results = {augment.apply(image, labels, None, np.random.default_rng(s))[0].tobytes() for s in range(60)}
    assert results == {np.rot90(image, k, (2, 3)).tobytes() for k in range(4)}


def test_a_share_of_the_crops_is_changed():
    image, labels = example()
    augment = FlipRotate(probability=0.3, axes=("z",), rotate=False)
    changed = [(augment.apply(image, labels, None, np.random.default_rng(s))[0] != image).any() for s in range(400)]
    assert 35 < sum(changed) < 85  # half of 0.3
