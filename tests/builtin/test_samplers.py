"""Samplers: inside regions, in constant time, from one generator; anchors, classes, hard negatives, sources."""

import json
import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from mitocore.builtin.samplers import foreground, reading
from mitocore.builtin.samplers.foreground import Foreground
from mitocore.builtin.samplers.uniform import Uniform
from mitocore.errors import DataError
from mitocore.geometry import Roi, VoxelSize
from mitocore.interfaces import LabelledVolume
from mitocore.specs import VolumeSpec
from mitocore.testing import MemoryVolume

SHAPE = (4, 8, 8)


def volume(labels, region=None, *, voxel_size=None, **options):
    arrays = {name: MemoryVolume(array) for name, array in labels.items()}
    shape = next(iter(labels.values())).shape
    image = MemoryVolume(np.zeros(shape, "u1"), voxel_size)
    return LabelledVolume(image, arrays, region or Roi.whole(shape), **options)


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
    assert index.arrays["foreground_voxels"].tolist() == [np.ravel_multi_index((6, 10, 10), labels.shape)]


def test_the_label_that_counts_can_be_named():
    labels = {"instances": spots([(2, 2, 2)]), "semantic": spots([(9, 20, 30)], dtype="u2")}
    for name, number in ((None, 2), ("semantic", 1)):
        index = Foreground(label=name).index([volume(labels)], SHAPE)
        assert len(index.arrays["foreground_voxels"]) == number
    with pytest.raises(DataError, match="no label 'mito'") as caught:
        Foreground(label="mito").index([volume(labels)], SHAPE)
    assert "instances, semantic" in caught.value.hint


def test_a_mask_of_ones_is_foreground():
    index = Foreground().index([volume({"semantic": np.ones((4, 8, 8), bool)})], SHAPE)
    assert len(index.arrays["foreground_voxels"]) == 256


def test_the_index_is_bounded_and_does_not_depend_on_boxes(monkeypatch):
    monkeypatch.setattr(foreground, "REMEMBERED", 50)
    labels = (np.random.default_rng(0).random((10, 30, 30)) < 0.3).astype("u8")
    found = []
    for box in ((32, 512, 512), (3, 7, 11), (1, 30, 4)):
        monkeypatch.setattr(reading, "BOX", box)
        found.append(Foreground().index([volume({"a": labels}, Roi((1, 2, 3), (10, 30, 30)))], SHAPE))
    assert len(found[0].arrays["foreground_voxels"]) == 50
    for other in found[1:]:
        for name, array in found[0].arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])
    rows = np.unravel_index(found[0].arrays["foreground_voxels"], (9, 28, 27))
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


def test_a_voxel_at_a_corner_of_the_region_is_an_anchor_like_any_other():
    labels = spots([(0, 0, 0), (6, 15, 20)])
    sampler = Foreground(probability=1)
    crops = drawn(sampler, sampler.index([volume({"instances": labels})], SHAPE), 1000)
    assert 400 < sum(crop.roi.start == (0, 0, 0) for crop in crops) < 600


CLASSES = {"semantic": np.zeros((12, 30, 40), "u2")}
CLASSES["semantic"][:, :, :30] = 1
CLASSES["semantic"][0, 0, 39] = 2
CLASSES["semantic"][5:7, 10:12, 38:] = 3
CLASSES["semantic"][11] = 65535


@pytest.mark.parametrize(
    ("per_class", "shares"), [(True, (1 / 3, 1 / 3, 1 / 3)), (((1, 0.2), (3, 0.6), (2, 0)), (0.25, 0, 0.75))]
)
def test_classes_are_equally_likely_or_in_the_stated_shares_however_large_they_are(per_class, shares):
    sampler = Foreground(probability=1, per_class=per_class)
    index = pickle.loads(pickle.dumps(sampler.index([volume(CLASSES), volume(CLASSES)], SHAPE)))
    voxels, ends = index.arrays["foreground_voxels"], index.arrays["foreground_ends"]
    rows = np.split(CLASSES["semantic"].reshape(-1)[voxels], ends[:-1])
    chance = np.diff(index.arrays["foreground_chance"], prepend=0)
    for value, share in zip((1, 2, 3), shares, strict=True):
        of_class = [c for c, row in zip(chance, rows, strict=True) if (row == value).all()]
        assert sum(of_class) == pytest.approx(share)
    corner = sum(c.roi.contains(Roi((0, 0, 39), (1, 1, 40))) for c in drawn(sampler, index, 600))
    assert (corner > 120) == bool(shares[1])


def test_the_sample_of_each_class_is_bounded_and_does_not_depend_on_boxes(monkeypatch):
    monkeypatch.setattr(foreground, "REMEMBERED", 60)
    labels = np.random.default_rng(0).choice([0, 1, 2, 5], (10, 30, 30), p=[0.4, 0.5, 0.09, 0.01]).astype("u2")
    found = []
    for box, planes in (((32, 512, 512), 4), ((3, 7, 11), 1)):
        monkeypatch.setattr(reading, "BOX", box)
        monkeypatch.setattr(reading, "PLANES", planes)
        found.append(Foreground(per_class=True).index([volume({"semantic": labels})], SHAPE).arrays)
    assert np.diff(found[0]["foreground_ends"], prepend=0).tolist() == [20, 20, 20]
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name])


def test_a_class_that_is_nowhere_and_labels_that_are_no_classes_are_refused():
    with pytest.raises(DataError, match="class 4 of label 'semantic' is in no training region"):
        Foreground(per_class=((1, 0.5), (4, 0.5))).index([volume(CLASSES)], SHAPE)
    ids = np.arange(1, 12 * 30 * 40 + 1, dtype="u8").reshape(12, 30, 40)
    with pytest.raises(DataError, match="more than 256 classes"):
        Foreground(per_class=True, label="instances").index([volume({"instances": ids})], SHAPE)
    with pytest.raises(ValidationError, match="each class from 1 on once"):
        Foreground(per_class=((1, 0.5), (1, 0.5)))


FIVE = (5, 15, 15)
HERE = Roi(FIVE, (6, 16, 16))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,z,y,x\n7,5.2,14.8,15\n8,40,1,1\n"),
        ("a.csv", "volume,z_nm,y_nm,x_nm\ndata/em.tif,150,120,120\nother.tif,30,8,8\n"),
        ("a.csv", "volume,z,y,x,z_nm,y_nm,x_nm\nem.tif,10,30,30,150,120,120\n"),
        ("a.json", json.dumps([[5, 15, 15]])),
        ("a.json", json.dumps([{"z": 5, "y": 15, "x": 15, "volume": "em.tif"}])),
    ],
)
def test_crops_of_hard_negatives_contain_a_point_of_the_file_in_their_share(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    sampler = Foreground(probability=0, points=str(tmp_path / name), hard_share=0.8)
    only = volume({"a": spots([])}, name="data/em.tif", voxel_size=VoxelSize(30, 8, 8))
    index = pickle.loads(pickle.dumps(sampler.index([only], SHAPE)))
    crops = drawn(sampler, index, 500)
    assert 0.75 < np.mean([crop.roi.contains(HERE) for crop in crops]) < 0.87
    assert len({crop.roi.start for crop in crops if crop.roi.contains(HERE)}) > 100


@pytest.mark.parametrize("columns", ["z,y,x", "z_nm,y_nm,x_nm"])
@pytest.mark.parametrize("voxel", [(3, 15, 21), (4, 16, 22)])
def test_points_of_a_volume_that_was_resampled_are_those_of_its_file(tmp_path, columns, voxel):
    path = tmp_path / "points.csv"
    edges = (30, 8, 8) if "nm" in columns else (1, 1, 1)
    path.write_text(f"{columns}\n" + ",".join(str(n * edge) for n, edge in zip(voxel, edges, strict=True)))
    sampler = Foreground(probability=0, points=str(path), hard_share=1)
    file = VolumeSpec((24, 60, 80), "uint8", voxel_size=VoxelSize(30, 8, 8))
    halved = volume({"a": spots([])}, voxel_size=VoxelSize(60, 16, 16), original=file)
    index = sampler.index([halved], SHAPE)
    place = tuple(n // 2 for n in voxel)
    assert np.unravel_index(index.arrays["hard_voxels"][0], halved.region.shape) == place


def test_points_outside_the_training_regions_are_never_drawn(tmp_path):
    path = tmp_path / "points.json"
    path.write_text(json.dumps([[5, 15, 15], [11, 15, 15]]))
    sampler = Foreground(probability=0, points=str(path), hard_share=1)
    training = Roi((0, 0, 0), (9, 30, 40))
    index = sampler.index([volume({"a": spots([])}, training)], SHAPE)
    assert all(crop.roi.contains(HERE) and training.contains(crop.roi) for crop in drawn(sampler, index))
    path.write_text(json.dumps([[11, 15, 15]]))
    with pytest.raises(DataError, match=r"no point of .* lies in a training region"):
        sampler.index([volume({"a": spots([])}, training)], SHAPE)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        ("id,voxels\n1,2\n", "point 1 of .* has no place"),
        ("z,y,x\n1,2,three\n", "a place is three numbers"),
        ("z,y,x\n1,2,nan\n", "three finite numbers"),
        ("z,y,x\n", "holds no point"),
        ("z,y,x\n1,2,3\n", "does not say which volume"),
        ("volume,z_nm,y_nm,x_nm\na.tif,1,2,3\n", "the voxel size of a.tif is not known"),
    ],
)
def test_files_of_points_that_cannot_be_used_are_refused_with_what_they_should_hold(tmp_path, content, problem):
    path = tmp_path / "points.csv"
    if content is not None:
        path.write_text(content)
    volumes = [volume({"a": spots([FIVE])}, name=name) for name in ("a.tif", "b.tif")]
    with pytest.raises(DataError, match=problem) as caught:
        Foreground(points=str(path)).index(volumes, SHAPE)
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) <= 3


def test_shares_that_are_more_than_all_crops_are_refused():
    with pytest.raises(ValidationError, match=r"0\.9 \+ 0\.25"):
        Foreground(probability=0.9, points="fp.csv")


def test_gamma_evens_out_sources_as_empanada_does():
    shapes = {"a": (8, 10, 80), "b": (8, 10, 20)}
    volumes = [volume({"i": np.ones(shape, "u1")}, name=name) for name, shape in shapes.items()]
    for gamma, share in ((0, 0.8), (1, 0.5), (0.5, 2 / 3)):  # (1 / 800) ^ gamma * 800 against the same of 200
        index = Uniform(gamma=gamma).index(volumes, SHAPE)
        assert index.arrays["anywhere"].tolist() == pytest.approx([share, 1])
        index = Foreground(gamma=gamma, probability=1).index(volumes, SHAPE)
        assert index.arrays["foreground_chance"].tolist() == pytest.approx([share, 1])


def test_volumes_of_one_source_share_its_chance():
    volumes = [volume({"i": np.ones((8, 10, 20), "u1")}, source=source) for source in ("lab", "lab", "other")]
    index = Uniform(gamma=1).index(volumes, SHAPE)
    assert np.diff(index.arrays["anywhere"], prepend=0).tolist() == pytest.approx([0.25, 0.25, 0.5])
