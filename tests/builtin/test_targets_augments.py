"""Targets."""

import numpy as np

from mitocore.builtin.targets.foreground import Foreground
from mitocore.specs import Kind

IGNORE = np.iinfo("u8").max


def test_foreground_is_every_object_but_not_ignore():
    ids = np.array([[[0, 1, 7, IGNORE]]], "u8")
    result = Foreground().encode({"instances": ids}, None)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [[[[0, 1, 1, 0]]]])


def test_foreground_of_chosen_classes():
    target = Foreground(label="semantic", values=(2, 255))
    ids = np.array([[[0, 1, 2, 255]]], "u1")  # 255 is "ignore", whatever was chosen
    np.testing.assert_array_equal(target.encode({"semantic": ids}, None), [[[[0, 0, 1, 0]]]])
    assert set(target.needs()) == {"semantic"}
    ids = np.array([[[2**63 + 5, 2**63 + 6, 3, 2**53 + 1]]], "u8")  # as floats, some of these are alike
    chosen = Foreground(values=(2**63 + 6, 3, 2**53)).encode({"instances": ids}, None)
    np.testing.assert_array_equal(chosen, [[[[0, 1, 1, 0]]]])


def test_a_mask_has_no_ignore():
    mask = np.array([[[False, True]]])
    np.testing.assert_array_equal(Foreground(label="semantic").encode({"semantic": mask}, None), [[[[0, 1]]]])


def test_renumbering_objects_changes_no_target():
    ids = np.random.default_rng(0).integers(0, 4, (3, 4, 5)).astype("u8")
    renumbered = np.array([0, 9, 5, 70], "u8")[ids]
    one, two = (Foreground().encode({"instances": a}, None) for a in (ids, renumbered))
    np.testing.assert_array_equal(one, two)
    assert (Foreground().gives().kind, Foreground().gives().channels) == (Kind.PROBABILITY, ("foreground",))
