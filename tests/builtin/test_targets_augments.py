"""Targets and augments."""

import numpy as np
import pytest

from mitocore.builtin.augments import Contrast, FlipRotate
from mitocore.builtin.targets import Foreground
from mitocore.geometry import VoxelSize
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


def test_a_mask_has_no_ignore():
    mask = np.array([[[False, True]]])
    np.testing.assert_array_equal(Foreground(label="semantic").encode({"semantic": mask}, None), [[[[0, 1]]]])


def test_renumbering_objects_changes_no_target():
    ids = np.random.default_rng(0).integers(0, 4, (3, 4, 5)).astype("u8")
    renumbered = np.array([0, 9, 5, 70], "u8")[ids]
    one, two = (Foreground().encode({"instances": a}, None) for a in (ids, renumbered))
    np.testing.assert_array_equal(one, two)
    assert (Foreground().gives().kind, Foreground().gives().channels) == (Kind.PROBABILITY, ("foreground",))


def example(shape=(3, 6, 6)):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 9, shape).astype("u8")
    return (ids[None] / 8).astype("f4"), {"instances": ids, "semantic": (ids % 3).astype("u2")}


@pytest.mark.parametrize("voxel_size", [None, VoxelSize(8, 8, 8), VoxelSize(40, 8, 4)])
@pytest.mark.parametrize("shape", [(3, 6, 6), (3, 6, 4)])
def test_flips_and_turns_move_image_and_labels_alike(shape, voxel_size):
    image, labels = example(shape)
    seen = set()
    for seed in range(60):
        moved, moved_labels = FlipRotate().apply(image, labels, voxel_size, np.random.default_rng(seed))
        assert moved.shape == image.shape
        assert moved.flags.c_contiguous
        np.testing.assert_array_equal(moved[0], (moved_labels["instances"] / 8).astype("f4"))
        np.testing.assert_array_equal(moved_labels["semantic"], moved_labels["instances"] % 3)
        seen.add(moved.tobytes())
    square = shape[1] == shape[2] and (voxel_size is None or voxel_size.y == voxel_size.x)
    assert len(seen) == (16 if square else 8)


def test_only_the_named_axes_are_flipped():
    image, labels = example()
    results = {
        FlipRotate(axes=("z",), rotate=False).apply(image, labels, None, np.random.default_rng(s))[0].tobytes()
        for s in range(20)
    }
    assert results == {image.tobytes(), image[:, ::-1].tobytes()}


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


@pytest.mark.parametrize("augment", [FlipRotate(), Contrast(probability=1)], ids=lambda a: type(a).__name__)
def test_augments_follow_the_generator_and_leave_their_arguments_alone(augment):
    image, labels = example()
    before, ids = image.copy(), labels["instances"].copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - it must stay as it is
    one, two = (augment.apply(image, labels, None, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    assert one[0].dtype == np.float32
    assert one[1]["instances"].dtype == np.uint64
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(labels["instances"], ids)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_a_constant_crop_stays_finite():
    image = np.zeros((1, 2, 2, 2), "f4")
    changed, _ = Contrast(probability=1).apply(image, {}, None, np.random.default_rng(0))
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("options", [{"contrast": (1.5, 0.5)}, {"gamma": (0, 1)}, {"probability": 2}])
def test_ranges_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Contrast(**options)
