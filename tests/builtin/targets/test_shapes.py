"""Targets that look at the shape of objects: distances, skeletons, centres, local shape descriptors."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from mitocore.builtin.targets.centers import Center, Offset
from mitocore.builtin.targets.descriptors import Descriptors
from mitocore.builtin.targets.distances import InstanceDistance, SignedDistance
from mitocore.builtin.targets.objects import filled
from mitocore.builtin.targets.skeletons import SkeletonDistance
from mitocore.errors import ConfigError
from mitocore.geometry import VoxelSize
from mitocore.specs import DESCRIPTORS, Kind

IGNORE = np.iinfo("u8").max
CUBES = VoxelSize(8, 8, 8)
PLATES = VoxelSize(30, 8, 8)

LOCAL = [
    SignedDistance(limit=5, outer=4, inner=3),
    SignedDistance(unit="nm", limit="45 nm", per_instance=False),
    SignedDistance(limit=6, per_slice=True, erode=1),
    InstanceDistance(limit=4, fill_holes=3, peel=1),
    InstanceDistance(limit="35 nm", bins=3, per_slice=True, fill_holes=4),
    InstanceDistance(limit=5, anisotropy=2, bins=10),
    Descriptors(sigma="16 nm"),
    Descriptors(sigma=1.5, per_slice=True),
    Descriptors(sigma=2, anisotropy=1.5),
]
OF_WHOLE_OBJECTS = [
    InstanceDistance(limit=12, normalize="object"),
    InstanceDistance(limit=12, normalize="object", bins=4, per_slice=True),
    SkeletonDistance(context=12, smoothing=1),
    SkeletonDistance(context=12, per_slice=True, bins=5),
    Center(context=12, sigma=1.5),
    Center(context="96 nm", sigma="10 nm", per_slice=True),
    Offset(context=12),
    Offset(context=12, per_slice=True, center="voxel"),
]
named = pytest.mark.parametrize("target", LOCAL + OF_WHOLE_OBJECTS, ids=lambda target: repr(target)[:60])


def tissue(shape, seed, share=0.5, grain=1.5):
    """Blobs, many of which touch, in no order of ids, with a few voxels to ignore."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape).reshape(3, -1).T
    seeds = rng.uniform(0, 1, (9, 3)) * shape
    nearest = ((places[:, None] - seeds) ** 2).sum(-1).argmin(1).reshape(shape)
    smooth = gaussian_filter(rng.standard_normal(shape), grain)
    ids = np.where(smooth > np.quantile(smooth, 1 - share), rng.permutation(9)[nearest] + 1, 0).astype("u8")
    ids[rng.random(shape) < 0.002] = IGNORE
    return ids


def encoded(target, ids, voxel_size=PLATES):
    return target.encode({"instances": ids}, voxel_size)


def cropped(target, ids, start, stop, voxel_size):
    """What `target` gives of a box from labels within its halo, and the slices of these labels."""
    halo = target.halo(voxel_size)
    read = tuple(slice(max(0, a - h), b + h) for a, b, h in zip(start, stop, halo, strict=True))
    within = tuple(slice(a - r.start, b - r.start) for a, b, r in zip(start, stop, read, strict=True))
    return encoded(target, ids[read].copy(), voxel_size)[(slice(None), *within)], read


@pytest.mark.parametrize("target", LOCAL, ids=lambda target: repr(target)[:60])
@given(data=st.data())
@settings(deadline=None, max_examples=5)
def test_a_crop_and_its_halo_settle_a_local_target(target, data):
    voxel_size = data.draw(st.sampled_from([CUBES, PLATES, VoxelSize(16.5, 6, 7)]))
    assert target.local()
    ids = tissue((12, 28, 30), data.draw(st.integers(0, 99)), grain=3)
    start = [data.draw(st.integers(0, n - 4)) for n in ids.shape]
    stop = [a + 4 for a in start]
    found, _ = cropped(target, ids, start, stop, voxel_size)
    box = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
    np.testing.assert_array_equal(found, encoded(target, ids, voxel_size)[box])


@pytest.mark.parametrize("target", LOCAL[:6], ids=lambda target: repr(target)[:60])
def test_the_halo_of_a_distance_holds_the_farthest_border_that_counts(target):
    halo = target.halo(PLATES)
    middle = tuple(n + 2 for n in halo)
    shape = [2 * n + 5 for n in halo]
    for axis in range(target.per_slice, 3):
        along = np.indices(shape)[axis] - middle[axis]
        line = np.all([np.indices(shape)[other] == middle[other] for other in range(3) if other != axis], axis=0)
        for away in range(1, halo[axis] + 2):
            hole = line & (along >= away) & (along < away + max(1, getattr(target, "fill_holes", 0) - 1))
            for matter in (along < away, along >= away, ~hole):
                ids = np.where(matter, 3, 0).astype("u8")
                found, _ = cropped(target, ids, middle, [n + 1 for n in middle], PLATES)
                np.testing.assert_array_equal(found[:, 0, 0, 0], encoded(target, ids)[:, *middle])


@pytest.mark.parametrize("target", OF_WHOLE_OBJECTS, ids=lambda target: repr(target)[:60])
@given(data=st.data())
@settings(deadline=None, max_examples=5)
def test_objects_within_crop_and_halo_are_those_of_the_volume(target, data):
    assert not target.local()
    shape = (14, 40, 40)
    ids = label(tissue(shape, data.draw(st.integers(0, 99)), share=0.12))[0].astype("u8")
    start = [data.draw(st.integers(0, n - 6)) for n in shape]
    stop = [a + 6 for a in start]
    _, read = cropped(target, ids, start, stop, CUBES)
    outside = np.ones(shape, bool)
    outside[read] = False
    if target.per_slice:
        outside[: read[0].start] = outside[read[0].stop :] = False
    ids[np.isin(ids, np.unique(ids[outside]))] = 0  # objects that go on where nothing is read
    found, _ = cropped(target, ids, start, stop, CUBES)
    box = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
    np.testing.assert_array_equal(found, encoded(target, ids, CUBES)[box])


@given(st.integers(0, 50))
@settings(deadline=None, max_examples=5)
def test_an_object_cut_by_crop_and_halo_has_the_centre_of_the_part_seen(seed):
    rod = np.zeros((1, 5, 60), "u8")
    rod[0, 2, : 30 + seed % 30] = 1
    found, read = cropped(Offset(context=6, per_slice=True), rod, (0, 0, 0), (1, 5, 10), None)
    assert read[2] == slice(0, 16)
    np.testing.assert_array_equal(found[1, 0, 2], 7.5 - np.arange(10))


def moved(values, spec, axes, flips):
    """What a target should be of labels whose axes were swapped and mirrored."""
    values = values.transpose(0, *(axis + 1 for axis in axes))
    values = np.flip(values, [axis + 1 for axis in range(3) if flips[axis]])
    if spec.kind is Kind.OFFSET:
        first = 3 - len(spec.channels)
        signs = [(-1) ** flip for flip in flips[first:]]
        return np.stack([sign * values[axis - first] for sign, axis in zip(signs, axes[first:], strict=True)])
    if spec.kind is Kind.DESCRIPTOR:
        places = {name: place for place, name in enumerate(DESCRIPTORS)}
        inside = values[-1] > 0
        result = []
        for name in DESCRIPTORS[:-1]:
            what, letters = name.split("_")
            new = ["zyx".index(letter) for letter in letters]
            old = "".join(sorted(("zyx"[axes[axis]] for axis in new), reverse=True))
            channel = values[places[f"{what}_{old}"]]
            mirrored = what != "variance" and sum(flips[axis] for axis in new) % 2
            result.append(np.where(inside & bool(mirrored), 1 - channel, channel))
        return np.stack([*result, values[-1]])
    return values


@pytest.mark.parametrize(
    "target",
    [
        t
        for t in LOCAL + OF_WHOLE_OBJECTS
        if not isinstance(t, SkeletonDistance) and getattr(t, "center", "") != "voxel"
    ],
    ids=lambda target: repr(target)[:60],
)
@given(data=st.data())
@settings(deadline=None, max_examples=5)
def test_turned_and_mirrored_labels_have_a_turned_and_mirrored_target(target, data):
    in_space = not target.per_slice and target.anisotropy is None
    axes = data.draw(st.sampled_from(list(permutations(range(3))) if in_space else [(0, 1, 2), (0, 2, 1)]))
    flips = data.draw(st.sampled_from(list(product((0, 1), repeat=3))))
    voxel_size = CUBES if in_space else PLATES
    ids = tissue((10, 13, 15), data.draw(st.integers(0, 99)))
    turned = np.flip(ids.transpose(axes), [axis for axis in range(3) if flips[axis]])
    found = encoded(target, turned, voxel_size)
    expected = moved(encoded(target, ids, voxel_size), target.gives(), axes, flips)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@named
def test_targets_per_slice_know_no_other_slice(target):
    flat = target.model_copy(update={"per_slice": True})
    ids = tissue((5, 20, 22), 3)
    alone = [encoded(flat, ids[z : z + 1]) for z in range(5)]
    np.testing.assert_array_equal(encoded(flat, ids), np.concatenate(alone, axis=1))
    assert flat.halo(PLATES)[0] == 0


@named
def test_voxels_to_ignore_are_of_no_object(target):
    ids = tissue((8, 20, 22), 5)
    np.testing.assert_array_equal(encoded(target, ids), encoded(target, np.where(ids == IGNORE, 0, ids)))


def two_boxes():
    """Objects at x 2 … 7 and 8 … 13, which touch, in a plane of 10 x 16."""
    ids = np.zeros((1, 10, 16), "u8")
    ids[0, :, 2:8], ids[0, :, 8:14] = 40, 3
    return ids


def test_touching_objects_have_a_border_between_them():
    row = [-10, -5, 5, 10, 15, 15, 10, 5, 5, 10, 15, 15, 10, 5, -5, -10]
    target = SignedDistance(unit="nm", limit="200 nm", per_slice=True)
    found = encoded(target, two_boxes(), VoxelSize(40, 7, 5))
    np.testing.assert_array_equal(found[0, 0, 4], row)
    one = encoded(target.model_copy(update={"per_instance": False}), two_boxes(), VoxelSize(40, 7, 5))
    np.testing.assert_array_equal(one[0, 0, 4], [-10, -5, 5, 10, 15, 20, 25, 30, 30, 25, 20, 15, 10, 5, -5, -10])


def test_distances_in_space_follow_the_voxel_size():
    ids = tissue((12, 20, 22), 1)
    inside = (ids > 0) & (ids != IGNORE)
    found = encoded(SignedDistance(unit="nm", limit="70 nm", per_instance=False), ids, PLATES)[0]
    both = (np.minimum(distance_transform_edt(part, PLATES.edges), 70) for part in (inside, ~inside))
    np.testing.assert_allclose(found, next(both) - next(both), rtol=1e-5)
    squashed = encoded(SignedDistance(inner=2, outer="24 nm", limit="70 nm", per_instance=False), ids, PLATES)[0]
    np.testing.assert_allclose(squashed, np.tanh(np.where(inside, found / 16, found / 24)), rtol=1e-5)


def test_a_crop_full_of_one_object_is_as_deep_as_the_limit():
    full = np.full((3, 6, 6), 9, "u8")
    assert np.unique(encoded(SignedDistance(unit="nm", limit="60 nm"), full)) == [60]
    assert np.unique(encoded(SignedDistance(limit="none"), full)) == [1]
    assert np.unique(encoded(InstanceDistance(), full)) == [1]
    assert np.unique(encoded(InstanceDistance(normalize="object"), full)) == [1]
    assert np.isfinite(encoded(SkeletonDistance(), full)).all()


def test_share_of_an_object_and_its_classes():
    shares = np.array([-1, -1, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2, 1, -1, -1]) / 3
    options = {"per_slice": True, "normalize": "object"}
    found = encoded(InstanceDistance(**options), two_boxes(), None)[0, 0, 4]
    np.testing.assert_allclose(found, np.where(shares < 0, -1, shares), rtol=1e-6)
    target = InstanceDistance(bins=3, **options)
    assert target.gives().channels == ("background", "distance_1", "distance_2", "distance_3")
    classes = encoded(target, two_boxes(), None)
    assert (classes.sum(axis=0) == 1).all()
    assert classes.argmax(axis=0)[0, 4].tolist() == [0, 0, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2, 1, 0, 0]
    capped = encoded(InstanceDistance(limit=2, per_slice=True), two_boxes(), None)[0, 0, 4, 2:8]
    assert capped.tolist() == [0.5, 1, 1, 1, 1, 0.5]


def test_holes_are_filled_if_one_object_encloses_them():
    ids = np.ones((9, 16), "u4")
    ids[:, 11:] = 2
    ids[2, 2:4] = 0  # a hole of two voxels
    ids[5:7, 2:5] = 0  # one of six
    ids[4, 7], ids[4, 8] = 3, 0  # an object beside its own hole
    ids[3, 10:12] = 0  # between two objects
    ids[0, 5] = 0  # open at the border of what is seen
    expected = ids.copy()
    expected[2, 2:4] = 1
    np.testing.assert_array_equal(filled(ids, 6), expected)
    expected[5:7, 2:5] = 1
    np.testing.assert_array_equal(filled(ids, 7), expected)
    np.testing.assert_array_equal(filled(ids, 0), ids)


def test_the_skeleton_of_a_rod_is_its_axis():
    rod = np.zeros((9, 11, 40), "u8")
    rod[2:7, 3:8, 4:36] = 1
    found = encoded(SkeletonDistance(smoothing=0), rod, CUBES)[0]
    np.testing.assert_allclose(found[4, 5, 8:32], 1, rtol=1e-6)  # voxels on the axis
    np.testing.assert_allclose(found[4, 3, 8:32], (1 / 3) ** 0.8, rtol=1e-6)  # of 3 voxels to the border 1 is left
    assert (found[rod == 0] == -1).all()


@pytest.mark.parametrize("per_slice", [False, True])
def test_round_objects_that_thinning_takes_away_keep_their_deepest_voxel(per_slice):
    for size in range(1, 9):
        ids = np.zeros((size + 2, 14, 14), "u8")
        places = np.indices(ids.shape) - (np.array([size + 1, 12, 12]) / 2)[:, None, None, None]
        ids[1 : size + 1][((places**2).sum(axis=0) <= (size / 2) ** 2)[1 : size + 1]] = 5
        found = encoded(SkeletonDistance(per_slice=per_slice), ids, CUBES)
        assert found.max() == 1
        assert found[0][ids > 0].min() > 0


def test_a_centre_is_the_mean_of_a_connected_object():
    ids = np.zeros((1, 20, 50), "u8")
    ids[0, 3:8, 2:7] = ids[0, 10:19, 40:43] = 6  # one id, two places
    ids[0, 0, 0] = 8
    found = encoded(Offset(per_slice=True), ids, None)
    assert Offset(per_slice=True).gives().channels == ("y", "x")
    for box, middle in ((np.s_[3:8, 2:7], (5, 4)), (np.s_[10:19, 40:43], (14, 41))):
        places = np.indices(ids.shape[1:])[(slice(None), *box)]
        np.testing.assert_array_equal(found[(slice(None), 0, *box)], np.reshape(middle, (2, 1, 1)) - places)
    assert not found[:, ids == 0].any()
    heat = encoded(Center(per_slice=True, sigma=2), ids, None)[0, 0]
    assert (heat[5, 4], heat[14, 41], heat[0, 0]) == (1, 1, 1)
    np.testing.assert_allclose(heat[5, 6], np.exp(-0.5), rtol=1e-6)
    assert heat[5, 13] == 0  # beyond four sigma


def test_heat_in_space_is_as_wide_in_nm_along_z():
    ids = np.zeros((9, 21, 21), "u8")
    ids[4, 10, 10] = 1
    heat = encoded(Center(sigma="30 nm"), ids, VoxelSize(30, 10, 15))[0]
    np.testing.assert_allclose([heat[5, 10, 10], heat[4, 13, 10], heat[4, 10, 12]], np.exp(-0.5), rtol=1e-6)


def test_the_nearest_voxel_of_a_bent_object_can_be_its_centre():
    ids = np.zeros((1, 11, 11), "u8")
    ids[0, 1:10, 1:10] = 4
    ids[0, 3:10, 3:8] = 0  # a horseshoe, whose mean lies in the gap
    places = np.stack(np.nonzero(ids[0]))
    ends = places + encoded(Offset(per_slice=True, center="voxel"), ids, None)[:, 0][:, *places]
    assert len(np.unique(ends, axis=1).T) == 1
    chosen = ends[:, 0].astype(int)
    assert ids[0][tuple(chosen)] == 4
    away = np.linalg.norm(places - places.mean(axis=1, keepdims=True), axis=0)
    np.testing.assert_allclose(np.linalg.norm(chosen - places.mean(axis=1)), away.min())


def test_descriptors_are_moments_of_a_truncated_gaussian_window():
    ids, sigma = tissue((10, 24, 26), 2), 20.0
    found = encoded(Descriptors(sigma="20 nm"), ids, VoxelSize(16, 8, 5))
    reach = np.array([4, 8, 12])  # 3 sigma: 3.75, 7.5 and 12 voxels
    steps = [np.arange(-n, n + 1) for n in reach]
    curves = [np.exp(-0.5 * (step * edge / sigma) ** 2) for step, edge in zip(steps, (16, 8, 5), strict=True)]
    window = np.einsum("i,j,k->ijk", *(curve / curve.sum() for curve in curves))
    away = np.stack(np.meshgrid(*(s * e for s, e in zip(steps, (16, 8, 5), strict=True)), indexing="ij")) / sigma
    padded = np.pad(ids, [(n, n) for n in reach])
    objects = np.argwhere((ids > 0) & (ids != IGNORE))
    for place in objects[:: len(objects) // 25]:
        around = padded[tuple(slice(p, p + 2 * n + 1) for p, n in zip(place, reach, strict=True))]
        weight = window * (around == ids[tuple(place)])
        share = weight.sum()
        mean = (weight * away).sum((1, 2, 3)) / share
        shared = np.einsum("azyx,bzyx,zyx->ab", away, away, weight) / share - np.outer(mean, mean)
        variance = np.diag(shared)
        spread = np.sqrt(np.maximum(variance, 1e-3))
        related = [shared[a, b] / spread[a] / spread[b] for a, b in ((0, 1), (0, 2), (1, 2))]
        expected = [*(0.5 + mean / 2), *variance, *(0.5 + np.array(related) / 2), share]
        np.testing.assert_allclose(found[:, *place], np.clip(expected, 0, 1), atol=1e-6)
    assert not found[:, (ids == 0) | (ids == IGNORE)].any()


def test_lengths_in_nm_and_distances_in_space_need_the_voxel_size():
    with pytest.raises(ConfigError, match="3-D need the voxel size") as refused:
        encoded(SignedDistance(), tissue((3, 8, 8), 0), None)
    assert "per_slice = true" in str(refused.value)
    with pytest.raises(ConfigError, match="'80 nm' needs the voxel size"):
        encoded(Descriptors(per_slice=True), tissue((3, 8, 8), 0), None)
    with pytest.raises(ConfigError, match="in nm needs the voxel size"):
        encoded(SignedDistance(unit="nm", per_slice=True), tissue((3, 8, 8), 0), None)
    assert encoded(SignedDistance(anisotropy=5), tissue((3, 8, 8), 0), None).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"limit": -3}, "not above 0"), ({"limit": "3 miles"}, "not a length"), ({"unit": "nm", "limit": None}, "limit")],
)
def test_lengths_are_checked(options, problem):
    with pytest.raises(ValidationError, match=problem):
        SignedDistance(**options)
