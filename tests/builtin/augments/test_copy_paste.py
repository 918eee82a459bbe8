"""Objects of a crop that are there twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mitocore.builtin.augments.copy_paste import CopyPaste
from mitocore.errors import ConfigError
from mitocore.geometry import VoxelSize

IGNORE8, IGNORE2 = np.iinfo("u8").max, np.iinfo("u2").max
seeds = st.integers(0, 2**32)


def crop(seed=0, shape=(12, 40, 44)):
    """Grey levels all different, blobs, and their labels."""
    rng = np.random.default_rng(seed)
    image = rng.permutation(2 * np.prod(shape)).reshape(2, *shape).astype("f4")
    ids = np.zeros(shape, "u8")
    ids[3:8, 5:12, 6:16], ids[4:6, 20:24, 5:9], ids[0:4, 30:36, 30:37] = 7, 3, 90
    ids[3:8, 5:9, 6:10] = 0  # not a box
    parts = np.where(ids == 7, 11, 0).astype("u8")
    parts[3:5] = 0
    around = np.full(shape, 4, "u8")
    around[:, 20:] = 5
    ids[9:, :, 38:] = IGNORE8
    valid = np.ones(shape, "u1")
    valid[:, 36:, :20] = 0
    labels = {"instances": ids, "semantic": (ids % 50 % 4).astype("u2"), "parts": parts, "cells": around}
    labels["semantic"][ids == IGNORE8] = IGNORE2
    return image, {**labels, "valid": valid}


@settings(deadline=None, max_examples=60)
@given(seed=seeds, margin=st.integers(0, 4), square=st.booleans())
def test_copies_are_whole_objects_on_background_with_ids_of_their_own(seed, margin, square):
    image, labels = crop()
    size = VoxelSize(30, 8, 8 if square else 5)
    found, changed = CopyPaste(probability=1, margin=margin).apply(image, labels, size, np.random.default_rng(seed))
    new = changed["instances"] != labels["instances"]
    assert set(np.unique(changed["instances"][new]).tolist()) <= {91, 92, 93}
    assert (labels["instances"][new] == 0).all()
    assert (labels["valid"][new] == 1).all()
    np.testing.assert_array_equal(found[:, ~new], image[:, ~new])
    for name in ("semantic", "parts", "valid"):
        np.testing.assert_array_equal(changed[name][~new], labels[name][~new])
    np.testing.assert_array_equal(changed["cells"], labels["cells"])  # what is larger than the copy stays
    source = np.full(found[0].size * 2, -1)
    source[image[0].ravel().astype(int)] = np.arange(image[0].size)
    copies = {}
    for value in np.unique(changed["instances"][new]).tolist():
        copy = changed["instances"] == value
        came = source[found[0][copy].astype(int)]
        (original,) = set(labels["instances"].ravel()[came].tolist())
        assert original not in copies
        copies[original] = copy
        assert sorted(came) == np.flatnonzero(labels["instances"] == original).tolist()  # each voxel once
        np.testing.assert_array_equal(found[1][copy], image[1].ravel()[came])
        np.testing.assert_array_equal(changed["semantic"][copy], labels["semantic"].ravel()[came])
        np.testing.assert_array_equal(changed["parts"][copy] == 12, labels["parts"].ravel()[came] == 11)
        others = (changed["instances"] != 0) & ~copy
        near = ndimage.distance_transform_cdt(~copy, "chessboard") <= margin
        assert not (near & others).any()
        if original == 90:  # cut by the first section
            assert copy[0].any()
            np.testing.assert_array_equal(copy.sum((1, 2)), (labels["instances"] == 90).sum((1, 2)))
        if not square:
            box = ndimage.find_objects(copy.astype(int))[0]
            (before,) = ndimage.find_objects((labels["instances"] == original).astype(int))
            assert [p.stop - p.start for p in box] == [p.stop - p.start for p in before]


def test_copies_are_turned_and_come_to_lie_anywhere():
    image, labels = crop()
    edges, places = set(), set()
    for seed in range(60):
        _, changed = CopyPaste(probability=1, margin=1).apply(image, labels, None, np.random.default_rng(seed))
        for box in ndimage.find_objects(np.where(changed["instances"] > IGNORE2, 0, changed["instances"]).astype("i4"))[
            90:
        ]:
            edges.add(tuple(part.stop - part.start for part in box))
            places.add(tuple(part.start for part in box))
    assert {(5, 7, 10), (5, 10, 7)} <= edges
    assert len(places) > 50


def test_an_object_longer_than_the_crop_is_wide_is_not_turned_across():
    ids = np.zeros((3, 12, 60), "u8")
    ids[1, 2:4, 5:45] = 1
    image = np.where(ids, 1, np.linspace(-1, 0, 60)).astype("f4")[None]
    pasted = 0
    for seed in range(20):
        augment = CopyPaste(probability=1, margin=0)
        found, changed = augment.apply(image, {"instances": ids}, None, np.random.default_rng(seed))
        np.testing.assert_array_equal(found[0] == 1, changed["instances"] > 0)
        pasted += (changed["instances"] == 2).sum() == 80
    assert pasted > 10


@pytest.mark.parametrize("full", [True, False])
def test_crops_that_are_full_or_empty_are_left_alone(full):
    image, labels = crop()
    labels["instances"] = np.full_like(labels["instances"], 3 if full else 0)
    labels["instances"][:, 30:] = 0
    found, changed = CopyPaste(probability=1).apply(image, labels, None, np.random.default_rng(0))
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(changed["instances"], labels["instances"])


def test_a_probability_of_0_changes_nothing():
    image, labels = crop()
    found, changed = CopyPaste(probability=0).apply(image, labels, None, np.random.default_rng(0))
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(changed["instances"], labels["instances"])


def test_a_label_array_that_is_not_there_is_named():
    image, labels = crop()
    with pytest.raises(ConfigError, match=r"'mito'.*cells, instances, parts, semantic"):
        CopyPaste(label="mito").apply(image, labels, None, np.random.default_rng(0))
