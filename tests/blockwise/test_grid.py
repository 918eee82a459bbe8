import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.blockwise.grid import BlockGrid, starts
from mitocore.geometry import Roi

shapes = st.tuples(*[st.integers(1, 9)] * 3)
corners = st.tuples(*[st.integers(0, 5)] * 3)


def region_of(corner, shape):
    return Roi(corner, tuple(a + n for a, n in zip(corner, shape, strict=True)))


@settings(deadline=None, max_examples=100)
@given(corners, shapes, shapes)
def test_blocks_cover_a_region_exactly_once_in_raster_order(corner, shape, block):
    grid = BlockGrid(region_of(corner, shape), block)
    owner = np.full(grid.region.stop, -1)
    for number in range(len(grid)):
        assert (owner[grid.box(number).slices] == -1).all()
        owner[grid.box(number).slices] = number
    inside = owner[grid.region.slices]
    assert inside.min() == 0
    assert (owner >= 0).sum() == grid.region.voxels
    _, first = np.unique(inside, return_index=True)
    assert (np.diff(first) > 0).all()


@settings(deadline=None, max_examples=100)
@given(corners, shapes, shapes, corners)
def test_blocks_of_a_region_with_an_anchor_are_those_of_any_other_region_with_it(corner, shape, block, anchor):
    grid = BlockGrid(region_of(corner, shape), block, anchor)
    axes = [
        (np.arange(lo, hi) - a) // b
        for lo, hi, a, b in zip(grid.region.start, grid.region.stop, anchor, block, strict=True)
    ]
    assert grid.counts == tuple(int(along[-1] - along[0]) + 1 for along in axes)
    for number in range(len(grid)):
        inside = [np.unique(along[cut]) for along, cut in zip(axes, grid.box(number).within(grid.region), strict=True)]
        place = np.unravel_index(number, grid.counts)
        assert [along.tolist() for along in inside] == [[along[0] + n] for along, n in zip(axes, place, strict=True)]


@settings(deadline=None, max_examples=100)
@given(corners, shapes, shapes, st.none() | corners, st.data())
def test_the_blocks_a_box_meets_are_those_that_share_a_voxel_with_it(corner, shape, block, anchor, data):
    grid = BlockGrid(region_of(corner, shape), block, anchor)
    ends = [
        sorted(data.draw(st.lists(st.integers(a, b), min_size=2, max_size=2, unique=True)))
        for a, b in zip(grid.region.start, grid.region.stop, strict=True)
    ]
    roi = Roi(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    shared = [n for n in range(len(grid)) if all(length > 0 for length in grid.box(n).clip(roi).shape)]
    assert grid.meeting(roi) == shared


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 11))
def test_tiles_of_an_axis_cover_it_without_leaving_it(length, output, overlap):
    overlap = min(overlap, output - 1)
    places = starts(length, output, overlap)
    covered = {voxel for start in places for voxel in range(start, start + output)}
    assert covered >= set(range(length))
    assert places == sorted(set(places))
    assert length < output or places[-1] + output == length
