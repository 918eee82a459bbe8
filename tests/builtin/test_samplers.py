"""Samplers: inside regions, in constant time, from one generator."""

import pickle

import numpy as np
import pytest

from mitocore.builtin import samplers
from mitocore.builtin.samplers import Foreground, Uniform
from mitocore.errors import DataError
from mitocore.geometry import Roi
from mitocore.interfaces import LabelledVolume
from mitocore.testing import MemoryVolume

SHAPE = (4, 8, 8)


def volume(labels, region=None, **options):
    arrays = {name: MemoryVolume(array) for name, array in labels.items()}
    shape = next(iter(labels.values())).shape
    return LabelledVolume(MemoryVolume(np.zeros(shape, "u1")), arrays, region or Roi.whole(shape), **options)


def spots(points, shape=(12, 30, 40), dtype="u8", value=1):
    array = np.zeros(shape, dtype)
    for point in points:
        array[point] = value
    return array


def drawn(sampler, index, number=200, seed=0):
    rng = np.random.default_rng(seed)
    return [sampler.draw(index, SHAPE, i, rng) for i in range(number)]


@pytest.mark.parametrize("sampler", [Uniform(), Foreground(), Foreground(probability=1)])
def test_crops_have_the_shape_and_lie_inside_the_regions(sampler):
    regions = [Roi((2, 3, 4), (9, 20, 30)), Roi.whole((12, 30, 40))]
    volumes = [volume({"instances": spots([(5, 10, 10), (2, 3, 4), (8, 19, 29)])}, r) for r in regions]
    index = pickle.loads(pickle.dumps(sampler.index(volumes, SHAPE)))
    crops = drawn(sampler, index)
    assert {c.volume for c in crops} == {0, 1}
    for crop in crops:
        assert crop.roi.shape == SHAPE
        assert regions[crop.volume].contains(crop.roi)
    assert crops == drawn(sampler, index)
    assert crops != drawn(sampler, index, seed=1)


def test_every_crop_of_probability_one_contains_foreground():
    labels = spots([(0, 0, 0), (11, 29, 39), (6, 15, 20)])
    sampler = Foreground(probability=1)
    index = sampler.index([volume({"instances": labels})], SHAPE)
    assert all(labels[c.roi.slices].any() for c in drawn(sampler, index))


def test_foreground_voxels_are_chosen_evenly_and_anywhere_in_the_crop():
    labels = spots([(5, 15, 15), (5, 15, 16), (6, 20, 30)])
    sampler = Foreground(probability=1)
    index = sampler.index([volume({"instances": labels})], SHAPE)
    crops = drawn(sampler, index, 3000)
    far = sum(c.roi.contains(Roi((6, 20, 30), (7, 21, 31))) for c in crops)
    assert 900 < far < 1100
    starts = {c.roi.start for c in crops}
    assert len(starts) > 300


def test_probability_zero_is_uniform():
    labels = spots([(0, 0, 0)])
    sampler = Foreground(probability=0)
    crops = drawn(sampler, sampler.index([volume({"instances": labels})], SHAPE), 500)
    assert {c.roi.start[0] for c in crops} == set(range(9))


def test_volumes_are_drawn_by_weight_and_size():
    volumes = [volume({"a": np.ones((8, 10, 10), "u1")}, weight=3.0), volume({"a": np.ones((8, 10, 20), "u1")})]
    for sampler in (Uniform(), Foreground(probability=1)):
        crops = drawn(sampler, sampler.index(volumes, SHAPE), 2000)
        assert 0.55 < np.mean([c.volume == 0 for c in crops]) < 0.65


def test_ignored_and_invalid_voxels_are_no_foreground():
    labels = spots([(2, 2, 2)], value=np.iinfo("u8").max)
    labels[6, 10, 10] = labels[9, 20, 30] = 5
    valid = np.ones(labels.shape, bool)
    valid[9] = False
    sampler = Foreground(probability=1)
    index = sampler.index([volume({"instances": labels}, valid=MemoryVolume(valid))], SHAPE)
    assert index.arrays["voxels"].tolist() == [np.ravel_multi_index((6, 10, 10), labels.shape)]


def test_the_label_that_counts_can_be_named():
    labels = {"instances": spots([(2, 2, 2)]), "semantic": spots([(9, 20, 30)], dtype="u2")}
    for name, number in ((None, 2), ("semantic", 1)):
        index = Foreground(label=name).index([volume(labels)], SHAPE)
        assert len(index.arrays["voxels"]) == number
    with pytest.raises(DataError, match="no label 'mito'") as caught:
        Foreground(label="mito").index([volume(labels)], SHAPE)
    assert "instances, semantic" in caught.value.hint


def test_a_mask_of_ones_is_foreground():
    index = Foreground().index([volume({"semantic": np.ones((4, 8, 8), bool)})], SHAPE)
    assert len(index.arrays["voxels"]) == 256


def test_the_index_is_bounded_and_does_not_depend_on_boxes(monkeypatch):
    monkeypatch.setattr(samplers, "REMEMBERED", 50)
    labels = (np.random.default_rng(0).random((10, 30, 30)) < 0.3).astype("u8")
    found = []
    for box in ((32, 512, 512), (3, 7, 11), (1, 30, 4)):
        monkeypatch.setattr(samplers, "BOX", box)
        found.append(Foreground().index([volume({"a": labels}, Roi((1, 2, 3), (10, 30, 30)))], SHAPE))
    assert len(found[0].arrays["voxels"]) == 50
    for other in found[1:]:
        for name, array in found[0].arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])
    rows = np.unravel_index(found[0].arrays["voxels"], (9, 28, 27))
    assert labels[1:, 2:, 3:][rows].all()
    assert len(np.unique(rows[0])) == 9  # spread over the volume


def test_a_crop_that_fits_nowhere_is_refused_with_the_regions():
    for sampler in (Uniform(), Foreground()):
        with pytest.raises(DataError, match=r"\(4, 8, 8\).*\(3, 30, 40\)"):
            sampler.index([volume({"a": np.ones((3, 30, 40), "u1")})], SHAPE)


def test_a_volume_too_small_is_never_drawn():
    volumes = [volume({"a": np.ones((3, 30, 40), "u1")}), volume({"a": np.ones((4, 8, 8), "u1")})]
    for sampler in (Uniform(), Foreground(probability=1)):
        assert {c.volume for c in drawn(sampler, sampler.index(volumes, SHAPE))} == {1}


def test_labels_without_foreground_are_refused():
    with pytest.raises(DataError, match="no foreground") as caught:
        Foreground().index([volume({"instances": spots([])})], SHAPE)
    assert "uniform" in caught.value.hint
