"""Boxes of voxels, lengths and sizes: what is read, what is refused, and the algebra of boxes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mitocore.errors import ConfigError
from mitocore.geometry import Roi, SizeOption, VoxelSize, VoxelSizeOption, nanometres, size_in_voxels

corners = st.tuples(*[st.integers(-20, 20)] * 3)
extents = st.tuples(*[st.integers(1, 12)] * 3)
margins = st.tuples(*[st.integers(0, 5)] * 3)


@st.composite
def boxes(draw):
    start, shape = draw(corners), draw(extents)
    return Roi(start, tuple(a + n for a, n in zip(start, shape, strict=True)))


@given(boxes(), margins)
def test_growing_and_shrinking_back_gives_the_same_box(box, margin):
    grown = box.grow(margin)
    assert grown.contains(box)
    assert grown.grow(tuple(-n for n in margin)) == box
    assert grown.shape == tuple(n + 2 * m for n, m in zip(box.shape, margin, strict=True))


@given(boxes(), boxes())
def test_what_is_clipped_lies_in_both_boxes_and_clipping_again_changes_nothing(one, other):
    part = one.clip(other)
    if min(part.shape) > 0:
        assert one.contains(part)
        assert other.contains(part)
        assert other.clip(one) == part
    assert part.clip(other) == part


@given(boxes(), boxes())
def test_the_box_around_two_holds_both_and_none_smaller_does(one, other):
    both = one.around(other)
    assert both == other.around(one)
    assert both.contains(one)
    assert both.contains(other)
    for axis in range(3):
        assert both.start[axis] in (one.start[axis], other.start[axis])
        assert both.stop[axis] in (one.stop[axis], other.stop[axis])


@given(boxes(), margins)
def test_slices_within_an_outer_box_cut_out_the_same_voxels(box, margin):
    outer = box.grow(margin)
    places = np.stack(
        np.meshgrid(*(np.arange(a, b) for a, b in zip(outer.start, outer.stop, strict=True)), indexing="ij")
    )
    cut = places[(slice(None), *box.within(outer))]
    assert cut.shape[1:] == box.shape
    assert tuple(cut[:, 0, 0, 0]) == box.start
    assert tuple(cut[:, -1, -1, -1] + 1) == box.stop


@given(extents)
def test_the_whole_of_a_volume_has_all_its_voxels(shape):
    whole = Roi.whole(shape)
    assert whole.voxels == np.prod(shape)
    assert np.zeros(shape)[whole.slices].shape == shape


@given(extents, st.data())
def test_a_region_that_was_written_is_read_back(shape, data):
    starts = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stops = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(starts, shape, strict=True))
    text = ", ".join(f"{a}:{b}" for a, b in zip(starts, stops, strict=True))
    assert Roi.parse(text, shape) == Roi(starts, stops)


@pytest.mark.parametrize("text", ["", "1:2", "1:2,3:4", "1:2,3:4,5", "a:b,:,:", "1:2:3,:,:", "-1:2,:,:", "1:2,:,:,:"])
def test_what_is_no_region_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="write three ranges of voxels") as refused:
        Roi.parse(text, (8, 8, 8))
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", ["2:2,:,:", "3:1,:,:", ":9,:,:", ":,8:,:"])
def test_a_region_that_is_empty_or_too_large_is_refused_with_the_shape(text):
    with pytest.raises(ValueError, match=r"\(8, 8, 8\) voxels"):
        Roi.parse(text, (8, 8, 8))


@pytest.mark.parametrize(
    ("length", "nm"),
    [(8, 8), (0.5, 0.5), ("8", 8), ("8 nm", 8), ("8nm", 8), ("13.3 Å", 1.33), ("13.3 angstrom", 1.33), ("0.5 um", 500),
     ("0.5 µm", 500), ("0.5 μm", 500), ("1e2", 100), ("5.24 NM", 5.24)],
)  # fmt: skip
def test_a_length_is_read_with_its_unit(length, nm):
    assert nanometres(length) == nm


@pytest.mark.parametrize(
    "length", [0, -8, "-8", "0 nm", "8 px", "nm", "", "8 8", None, True, [8], float("nan"), 1e9, "8,5"]
)
def test_what_is_no_length_is_refused_and_quoted(length):
    with pytest.raises(ValueError, match=r"is not a length; write 8, '8 nm' or '13.3 Å'") as refused:
        nanometres(length)
    assert repr(length) in str(refused.value)


@pytest.mark.parametrize("value", [8, "8 nm", [8, 8, 8], (8.0, "8", "0.008 um"), VoxelSize(8, 8, 8)])
def test_a_voxel_size_is_one_length_or_three(value):
    assert VoxelSize.parse(value) == VoxelSize(8, 8, 8)


@pytest.mark.parametrize("value", [[8], [8, 8], [8, 8, 8, 8], []])
def test_another_number_of_edges_is_refused(value):
    with pytest.raises(ValueError, match=f"has {len(value)} edges"):
        VoxelSize.parse(value)


def test_a_voxel_size_knows_its_anisotropy_and_volume():
    size = VoxelSize(40, 8, 8)
    assert (size.anisotropy, size.volume, str(size)) == (5, 2560, "40 x 8 x 8 nm")


class Options(BaseModel):
    voxel_size: VoxelSizeOption = VoxelSize(8, 8, 8)
    min_size: SizeOption = 0


@given(st.tuples(*[st.floats(0.1, 1000)] * 3))
def test_an_option_survives_a_round_trip_through_json(edges):
    options = Options(voxel_size=edges, min_size="0.002 um3")
    assert Options(**json.loads(options.model_dump_json())) == options


@pytest.mark.parametrize(
    ("size", "voxels"),
    [(0, 0), (64, 64), ("1000 nm3", 1), ("1001 nm3", 2), ("0.001 um3", 1000), ("0.001 µm³", 1000), ("2e6 nm^3", 2000)],
)
def test_a_size_is_a_number_of_voxels_or_the_fewest_that_reach_a_volume(size, voxels):
    assert size_in_voxels(Options(min_size=size).min_size, VoxelSize(10, 10, 10)) == voxels


@pytest.mark.parametrize("size", ["0.002 um", "um3", "2", "-1 nm3", "2 px3", ""])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValidationError, match=r"write a number of voxels, '0.002 um3' or '2e6 nm3'"):
        Options(min_size=size)


def test_less_than_no_voxels_are_refused():
    with pytest.raises(ValidationError, match="-1 voxels is less than none"):
        Options(min_size=-1)


def test_a_physical_size_needs_the_voxel_size_and_says_where_to_state_it():
    with pytest.raises(ConfigError) as refused:
        size_in_voxels("0.002 um3", None)
    assert "'0.002 um3' needs the voxel size" in refused.value.problem
    assert refused.value.hint.startswith("voxel_size = [")
