"""Results at another resolution: shape, place, values; of a region as of the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.blockwise.arrays import Opened
from mitocore.errors import DataError
from mitocore.geometry import Roi, VoxelSize
from mitocore.resampling import Resampling
from mitocore.scaling import Rescaled, factors_of, scaled
from mitocore.specs import Kind, VolumeSpec
from mitocore.volumes import ArrayVolume

FACTORS = st.one_of(st.sampled_from([1.0, 0.5, 2.0, 0.25, 1 / 3, 0.3, 1.5]), st.floats(0.2, 3))


@st.composite
def regions(draw):
    """A shape, factors that leave voxels of it, and a box of it that keeps some of them."""
    shape = draw(st.tuples(*[st.integers(5, 14)] * 3))
    factors = draw(st.tuples(FACTORS, FACTORS, FACTORS))
    start = draw(st.tuples(*[st.integers(0, n - 1) for n in shape]))
    stop = draw(st.tuples(*[st.integers(a + 1, n) for a, n in zip(start, shape, strict=True)]))
    return shape, factors, Roi(start, stop)


@settings(deadline=None, max_examples=60)
@given(regions())
def test_labels_of_a_region_are_the_cut_of_those_of_the_whole_and_nothing_beyond_it_is_read(case):
    shape, factors, region = case
    ids = np.arange(1, 1 + np.prod(shape), dtype=np.uint64).reshape(shape)
    outside = np.ones(shape, bool)
    outside[region.slices] = False
    resampling = Resampling.by(shape, factors)
    assert resampling.shape == tuple(int(n * f + 1e-6) for n, f in zip(shape, factors, strict=True))
    whole = Rescaled(Opened(ArrayVolume(ids)), resampling, Roi.whole(shape), labels=True)
    part = Rescaled(Opened(ArrayVolume(np.where(outside, 0, ids))), resampling, region, labels=True)
    if min(part.box.shape) < 1:
        return
    np.testing.assert_array_equal(part.read(part.box), whole.read(part.box))
    image = np.where(outside, np.nan, 1).astype("f4")
    means = Rescaled(Opened(ArrayVolume(image)), resampling, region, labels=False)
    np.testing.assert_allclose(means.read(part.box), 1, rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(regions(), st.data())
def test_a_box_read_by_itself_is_the_cut_of_the_whole(case, data):
    shape, factors, _ = case
    image = np.random.default_rng(3).random(shape, "f4")
    source = Rescaled(Opened(ArrayVolume(image)), Resampling.by(shape, factors), Roi.whole(shape), labels=False)
    start = data.draw(st.tuples(*[st.integers(0, n - 1) for n in source.box.stop]))
    box = Roi(
        start, data.draw(st.tuples(*[st.integers(a + 1, n) for a, n in zip(start, source.box.stop, strict=True)]))
    )
    np.testing.assert_array_equal(source.read(box), source.read(source.box)[(slice(None), *box.slices)])


def test_the_header_has_the_new_shape_voxel_size_and_place():
    spec = VolumeSpec((8, 21, 30), "uint8", voxel_size=VoxelSize(30, 8, 8), origin=(0, 16, 0), kind=Kind.INSTANCE)
    found, _ = scaled(spec, (1, 0.5, 0.25), Roi((2, 4, 8), (8, 21, 30)))
    assert found.shape == (6, 8, 5)
    assert found.voxel_size == VoxelSize(30, 16, 32)
    assert found.origin == (60, 48, 64)
    unknown, _ = scaled(VolumeSpec((8, 20, 30), "uint8"), (1, 0.5, 0.5), Roi.whole((8, 20, 30)))
    assert (unknown.voxel_size, unknown.origin) == (None, (0, 0, 0))


def test_what_a_larger_voxel_covers_is_averaged_and_rounded():
    image = np.array([[[0, 1, 4, 6, 9]]], "u1")
    source = Rescaled(
        Opened(ArrayVolume(image)), Resampling.by((1, 1, 5), (1, 1, 0.5)), Roi.whole((1, 1, 5)), False, "uint8"
    )
    found = source.read(source.box)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [0, 5]


@pytest.mark.parametrize("kind", [Kind.OFFSET, Kind.AFFINITY])
def test_values_that_count_voxels_are_refused(kind):
    with pytest.raises(DataError, match=f"{kind} values speak of voxels of one size"):
        scaled(VolumeSpec((4, 4, 4), "float32", kind=kind), (1, 0.5, 0.5), Roi.whole((4, 4, 4)))


@pytest.mark.parametrize(
    ("factors", "region"), [((0.2, 1, 1), ((0, 0, 0), (4, 4, 4))), ((1, 1, 0.5), ((0, 0, 0), (4, 4, 1)))]
)
def test_a_resolution_at_which_nothing_is_left_is_refused(factors, region):
    with pytest.raises(DataError, match="leaves nothing of"):
        scaled(VolumeSpec((4, 4, 4), "uint8"), factors, Roi(*region))


@pytest.mark.parametrize("stated", ["0.5", "1,2", "1,0,1", [1, -1, 1], "a,b,c", None, 0.5, [1, float("nan"), 1]])
def test_what_are_no_three_factors_is_refused(stated):
    with pytest.raises(ValueError, match="is not three factors"):
        factors_of(stated)
