"""Targets of objects beside plain definitions of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mitocore.builtin.targets.affinities import Affinity
from mitocore.builtin.targets.boundaries import Boundary
from mitocore.builtin.targets.foreground import Foreground, SmallObjects
from mitocore.builtin.targets.weights import BorderDistance
from mitocore.errors import ConfigError
from mitocore.geometry import VoxelSize
from mitocore.specs import Kind

IGNORE = 2**64 - 1
EDGES = VoxelSize(20, 8, 10)


def blocks(seed, shape=(4, 7, 8)):
    """Voxels of few objects, of background and to ignore, in no order."""
    return np.random.default_rng(seed).choice(np.array([0, 0, 5, 5, 9, 2**40, IGNORE], "u8"), shape)


def near(ids, reaches):
    """For each voxel the known ids of voxels for which `reaches(step)`."""
    found = {}
    for v in np.ndindex(ids.shape):
        others = (u for u in np.ndindex(ids.shape) if reaches(np.subtract(u, v)))
        found[v] = {int(ids[u]) for u in others} - {IGNORE}
    return found


RULES = {
    "both": lambda own, around: len(around) > 1,
    "inner": lambda own, around: own > 0 and len(around) > 1,
    "outer": lambda own, around: bool(around - {0, own}),
    "contacts": lambda own, around: len(around - {0}) > 1,
}
WINDOWS = {
    (1, True): lambda step: step[0] == 0 and max(abs(step)) <= 1,
    (2, False): lambda step: max(abs(step)) <= 2,
    ("18 nm", True): lambda step: step[0] == 0 and np.linalg.norm(step * EDGES.edges) <= 18,
    ("23 nm", False): lambda step: np.linalg.norm(step * EDGES.edges) <= 23,
}


@pytest.mark.parametrize(("width", "per_slice"), WINDOWS)
def test_boundaries_are_what_lies_within_the_width_of_another_id(width, per_slice):
    ids = blocks(1, (3, 6, 5))
    around = near(ids, WINDOWS[width, per_slice])
    for side, rule in RULES.items():
        target = Boundary(side=side, width=width, per_slice=per_slice)
        found = target.encode({"instances": ids}, EDGES)[0]
        for v in np.ndindex(ids.shape):
            own = int(ids[v])
            assert found[v] == (own != IGNORE and rule(own, around[v])), (side, v)


def test_a_contour_in_three_dimensions_sees_steps_along_z():
    ids = np.zeros((4, 3, 3), "u8")
    ids[2:] = 1
    flat = Boundary(side="contour", width=0).encode({"instances": ids}, None)
    assert not flat.any()
    deep = Boundary(side="contour", width=0, per_slice=False).encode({"instances": ids}, None)[0]
    np.testing.assert_array_equal(deep[:, 1, 1], [0, 1, 1, 0])


def test_a_width_that_no_voxel_has_is_refused():
    with pytest.raises(ConfigError, match=r"'5 nm' is less than a voxel of 20 x 8 x 10 nm"):
        Boundary(width="5 nm").halo(EDGES)
    with pytest.raises(ConfigError, match="'30 nm' needs the voxel size"):
        Boundary(width="30 nm").halo(None)
    with pytest.raises(ValueError, match="a boundary 0 voxels wide is empty"):
        Boundary(width=0)
    with pytest.raises(ValueError, match="'wide' is not a length"):
        Boundary(width="wide")


@given(seed=st.integers(0, 99), edge=st.sampled_from(["source", "destination"]), sign=st.sampled_from([1, -1]))
@settings(deadline=None, max_examples=20)
def test_objects_come_back_from_their_affinities_by_the_stated_offsets(seed, edge, sign):
    ids = np.random.default_rng(seed).integers(0, 3, (4, 6, 5)).astype("u8")
    solid = np.stack([label(ids == k)[0] for k in (1, 2)])
    ids = np.where(solid[0] > 0, 2 * solid[0], np.where(solid[1] > 0, 2 * solid[1] + 1, 0)).astype("u8")
    target = Affinity(offsets=((sign, 0, 0), (0, -sign, 0), (0, 0, sign), (0, 2, -1)), edge=edge)
    found, spec = target.encode({"instances": ids}, None), target.gives()
    assert (spec.kind, len(spec.offsets)) == (Kind.AFFINITY, 4)
    number = np.arange(ids.size).reshape(ids.shape)
    pairs = []
    for channel, offset in zip(found, spec.offsets, strict=True):
        for v in np.argwhere(channel):
            u = v + offset
            if (u >= 0).all() and (u < ids.shape).all():
                pairs.append((number[tuple(v)], number[tuple(u)]))
    a, b = np.array(pairs).T
    _, pieces = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (ids.size, ids.size)))
    pieces = np.where(ids > 0, pieces.reshape(ids.shape) + 1, 0)
    assert len(set(zip(ids.ravel(), pieces.ravel(), strict=True))) == len(np.unique(ids)) == len(np.unique(pieces))


def test_a_value_stored_at_the_destination_is_that_of_the_opposite_offset():
    labels = {"instances": blocks(3)}
    there = Affinity(offsets=((0, 3, -1),), edge="destination")
    here = Affinity(offsets=((0, -3, 1),))
    assert there.gives() == here.gives()
    assert here.gives().channels == ("y-3x+1",)
    np.testing.assert_array_equal(there.encode(labels, None), here.encode(labels, None))
    assert Affinity(edge="middle").gives().offsets == ()


def test_an_affinity_is_never_that_of_background_or_of_voxels_to_ignore():
    ids = np.array([[[0, 0, 7, 7, IGNORE, IGNORE, 7]]], "u8")
    found = Affinity(offsets=((0, 0, 1),)).encode({"instances": ids}, None)
    np.testing.assert_array_equal(found.ravel(), [0, 0, 1, 0, 0, 0, 1])


@pytest.mark.parametrize("offsets", [(), ((0, 0, 0),), ((1, 0),)])
def test_offsets_that_lead_nowhere_are_refused(offsets):
    with pytest.raises(ValueError, match="offsets"):
        Affinity(offsets=offsets)


def test_eroded_objects_part_and_dilated_ones_meet_but_never_take_from_each_other():
    ids = np.array([[[5, 5, 9, 9, 0, 0, 0, IGNORE, 0, 3]]], "u8")
    labels = {"instances": ids}
    assert Foreground(erode=1).shaped(labels).tolist() == [[[5, 0, 0, 9, 0, 0, 0, IGNORE, 0, 3]]]
    assert Foreground(dilate=1).shaped(labels).tolist() == [[[5, 5, 9, 9, 9, 0, 0, IGNORE, 3, 3]]]
    assert Foreground(dilate=1, values=(9,)).encode(labels, None).tolist() == [[[[0, 0, 1, 1, 1, 0, 0, 0, 0, 0]]]]
    assert Foreground(erode=1, dilate=1).halo(None) == (0, 2, 2)


def test_dilation_goes_to_the_nearest_object_whatever_its_id():
    ids = np.zeros((1, 5, 5), "u8")
    ids[0, 2, 0], ids[0, 0, 1] = 8, 3
    for one, other in itertools.permutations((8, 3)):
        renamed = np.where(ids == 8, one, np.where(ids == 3, other, 0)).astype("u8")
        grown = Foreground(dilate=2).shaped({"instances": renamed})
        assert (grown[0, 2, 1], grown[0, 0, 3], grown[0, 1, 1]) == (one, other, other)


def test_thin_parts_of_large_objects_are_small_objects():
    ids = np.zeros((5, 9, 9), "u8")
    ids[:, 1:7, 1:7] = 4
    ids[2, 3, 7] = 4  # a tip, which a section along x shows alone
    ids[4, 8, 8] = 6
    found = SmallObjects(area=9).encode({"instances": ids}, None)[0]
    assert np.argwhere(found).tolist() == [[2, 3, 7], [4, 8, 8]]


@pytest.mark.parametrize(("sigma", "width"), [(2, 16), ("25 nm", 25)])
def test_the_border_weight_follows_the_two_nearest_objects(sigma, width):
    ids = blocks(5)
    ids[np.random.default_rng(0).random(ids.shape) < 0.8] = 0
    names = sorted(set(ids.ravel().tolist()) - {0, IGNORE})
    distances = np.sort([distance_transform_edt(ids != name, sampling=EDGES.edges) for name in names], axis=0)
    expected = np.maximum(1, 8 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * width**2)))
    expected[np.isin(ids, names)] = 0.5
    target = BorderDistance(border=8, inside=0.5, sigma=sigma, per_slice=False)
    np.testing.assert_allclose(target.encode({"instances": ids}, EDGES)[0], expected, rtol=1e-6)
    assert len(np.unique(expected)) > 10
