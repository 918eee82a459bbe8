"""Distances, skeletons, centres and offsets beside values that other programs gave for the same labels."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label

from mitocore.builtin.targets.centers import Center, Offset
from mitocore.builtin.targets.distances import InstanceDistance, SignedDistance
from mitocore.builtin.targets.skeletons import SkeletonDistance

PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
TARGETS = PARITY / "connectomics" / "targets_v1_iso.npz"
UNITS = PARITY / "empanada" / "units.npz"
connectomics = pytest.mark.skipif(not TARGETS.exists(), reason="needs ../shared/parity/connectomics")
empanada = pytest.mark.skipif(not UNITS.exists(), reason="needs ../shared/parity/empanada")


@pytest.fixture(scope="module")
def arrays():
    with np.load(TARGETS, allow_pickle=False) as stored:
        return dict(stored)


def encoded(target, ids, padding=0):
    """What `target` gives, with background around the crop where the other program pads."""
    found = target.encode({"instances": np.pad(ids, padding)}, None)
    z, y, x = (slice(padding, n - padding) for n in found.shape[1:])
    return found[:, z, y, x]


def swallowed(ids):
    """Objects of a slice that enclose, with the edge of the crop or alone, fewer than 16 voxels with other objects:
    the other program takes these, too, for holes. True in both."""
    found = np.zeros(ids.shape, bool)
    for z, plane in enumerate(ids):
        for number in np.unique(plane[plane > 0]):
            rest = label(plane != number)[0]
            small = np.bincount(rest.ravel()) < 16
            small[0] = False
            hole = small[rest]
            if plane[hole].any():
                found[z] |= hole | (plane == number)
    return found


@connectomics
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("6", {"per_slice": True}),
        ("6-2d-8-50", {"per_slice": True, "inner": 8, "outer": 50}),
        ("6-3d-8-50", {"anisotropy": 6}),
        ("6-3d-4-20", {"anisotropy": 6, "inner": 4, "outer": 20}),
    ],
)
@pytest.mark.parametrize("limit", ["none", 400])
def test_signed_distance_is_that_of_connectomics(arrays, name, options, limit):
    found = encoded(SignedDistance(limit=limit, per_instance=False, **options), arrays["label"])
    np.testing.assert_allclose(found, arrays[f"t_{name}"], rtol=1e-5, atol=1e-7)


@connectomics
@pytest.mark.parametrize(
    ("name", "padding", "options"),
    [
        ("5-2d-1-0-5.0-0", 1, {"per_slice": True}),
        ("5-2d-1-0-5.0-2", 1, {"per_slice": True, "peel": 2}),
        ("5-3d-0-0-1.0-0", 0, {"anisotropy": 1}),
        ("5-3d-1-0-5.0-0", 1, {"anisotropy": 5}),
    ],
)
def test_instance_distance_is_that_of_connectomics(arrays, name, padding, options):
    found = encoded(InstanceDistance(normalize="object", fill_holes=16, **options), arrays["label"], padding)
    np.testing.assert_allclose(found, arrays[f"t_{name}"], rtol=1e-5)


@connectomics
def test_instance_distance_without_padding_is_that_of_connectomics_but_for_swallowed_neighbours(arrays):
    other = swallowed(arrays["label"])
    assert 0 < other.sum() < 400
    target = InstanceDistance(normalize="object", fill_holes=16, per_slice=True)
    found = encoded(target, arrays["label"])
    np.testing.assert_allclose(found[:, ~other], arrays["t_5"][:, ~other], rtol=1e-5)
    classes = encoded(target.model_copy(update={"bins": 10}), arrays["label"]).argmax(axis=0)
    np.testing.assert_array_equal(classes[~other], arrays["t_5-2d-0-1-5.0-0"][0][~other])


@connectomics
def test_classes_of_instance_distance_are_those_of_connectomics(arrays):
    target = InstanceDistance(normalize="object", fill_holes=16, anisotropy=5, peel=1, bins=10)
    classes = encoded(target, arrays["label"], 1).argmax(axis=0)
    np.testing.assert_array_equal(classes, arrays["t_5-3d-1-1-5.0-1"][0])


@connectomics
@pytest.mark.parametrize(("name", "anisotropy"), [("1.0-1.0-1.0", 1), ("30-8-8", 30 / 8)])
def test_skeleton_distance_is_that_of_connectomics_but_where_thinning_leaves_nothing(arrays, name, anisotropy):
    """One object has no skeleton there, and distances to it are those to a place outside the object."""
    expected = arrays[f"t_a-0-{name}"]
    lost = arrays["label"] == 19
    assert expected[lost].max() < 0.999
    found = encoded(SkeletonDistance(anisotropy=anisotropy), arrays["label"], 2)[0]
    np.testing.assert_allclose(found[~lost], expected[~lost], rtol=1e-5)
    assert found[lost].max() == 1
    if name == "30-8-8":
        classes = encoded(SkeletonDistance(anisotropy=anisotropy, bins=10), arrays["label"], 2).argmax(axis=0)
        np.testing.assert_array_equal(classes[~lost], arrays[f"t_a-1-{name}"][~lost])


@empanada
def test_centres_and_offsets_are_those_of_empanada():
    with np.load(UNITS, allow_pickle=False) as units:
        ids, heat, offsets = units["tgt_mask"][None], units["tgt_heatmap"], units["tgt_offsets"]
    found = encoded(Center(per_slice=True, sigma=6, peak="sum"), ids)
    np.testing.assert_allclose(found[:, 0], heat, atol=1e-5)
    np.testing.assert_allclose(encoded(Offset(per_slice=True), ids)[:, 0], offsets, atol=1e-5)
