"""Classes, and weights that do not look at objects."""

import numpy as np
import pytest

from mitocore.builtin.targets.semantic import Semantic
from mitocore.builtin.targets.weights import ClassWeights, Known
from mitocore.errors import DataError
from mitocore.geometry import VoxelSize
from mitocore.specs import Kind

NAMES = ("background", "mito", "er")


def test_each_class_is_a_channel_and_ignore_is_none():
    ids = np.array([[[0, 1, 2, 65535, 1]]], "u2")
    target = Semantic(classes=NAMES)
    np.testing.assert_array_equal(
        target.encode({"semantic": ids}, None)[:, 0, 0], [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0]]
    )
    assert (target.gives().kind, target.gives().channels) == (Kind.PROBABILITY, NAMES)


def test_ranges_of_object_ids_are_classes():
    ids = np.array([[[0, 1000, 2999, 1999, 2**64 - 1]]], "u8")
    target = Semantic(label="instances", classes=NAMES, ranges=((0, 0), (1000, 1999), (2000, 2999)))
    assert set(target.needs()) == {"instances"}
    np.testing.assert_array_equal(
        target.encode({"instances": ids}, None)[:, 0, 0], [[1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]
    )


def test_two_classes_can_come_from_a_mask():
    mask = np.array([[[False, True]]])
    found = Semantic(classes=("background", "mito")).encode({"semantic": mask}, None)
    np.testing.assert_array_equal(found[:, 0, 0], [[1, 0], [0, 1]])


def test_a_label_of_no_class_is_named():
    with pytest.raises(DataError, match="label 3 is of no class; there are background 0, mito 1, er 2") as caught:
        Semantic(classes=NAMES).encode({"semantic": np.array([[[0, 3]]], "u2")}, None)
    assert "ignore = [3]" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"classes": ("mito",)}, "classes"),
        ({"classes": ("mito", "mito")}, "name one twice"),
        ({"classes": NAMES, "ranges": ((0, 0), (1, 9))}, "2 ranges are not one for each of the 3 classes"),
        ({"classes": NAMES, "ranges": ((0, 0), (1, 9), (9, 20))}, "overlap"),
        ({"classes": NAMES, "ranges": ((0, 0), (9, 1), (10, 20))}, "overlap or end before they begin"),
    ],
)
def test_classes_that_make_no_sense_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        Semantic(**options)


def test_the_last_class_weight_is_for_all_larger_ids():
    ids = np.array([[[0, 1, 2, 700, 2**64 - 1]]], "u8")
    found = ClassWeights(label="instances", factors=(0.5, 3, 2)).encode({"instances": ids}, None)
    np.testing.assert_array_equal(found, [[[[0.5, 3, 2, 2, 0]]]])
    mask = np.array([[[False, True]]])
    np.testing.assert_array_equal(ClassWeights(factors=(1, 4)).encode({"semantic": mask}, None), [[[[1, 4]]]])


def test_voxels_near_what_nobody_knows_do_not_count():
    ids = np.zeros((3, 5, 5), "u8")
    ids[1, 2, 2] = 2**64 - 1
    cube = Known(margin=1).encode({"instances": ids}, None)[0]
    assert (cube == 0).sum() == 27
    cross = Known(margin="10 nm").encode({"instances": ids}, VoxelSize(40, 10, 10))[0]
    assert (cross == 0).sum() == 5
    assert not cross[1, 1:4, 2].any()
    assert Known(margin=0).encode({"instances": ids}, None).sum() == ids.size - 1
