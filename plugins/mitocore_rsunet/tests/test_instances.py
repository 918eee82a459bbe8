from itertools import product

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mitocore import ArraySpec, Block, ConfigError, Kind, Roi, VoxelSize, WiringError
from mitocore_rsunet.instances import ConnectedComponents, FillHoles, SizeFilter
from mitocore_rsunet.small import without_small

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
BLOCKS = st.tuples(*[st.integers(1, 6)] * 3)
RNGS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
CONNECTIVITY = st.sampled_from([6, 18, 26])
quickly = settings(deadline=None, max_examples=60)


def in_raster_order(labels):
    """The same objects with ids 1..n by first voxel."""
    ids, first, place = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.zeros(len(ids), "u8")
    order = np.argsort(np.where(ids == 0, -1, first))
    rank[order] = np.arange(len(ids)) + (0 not in ids)
    return rank[place].reshape(labels.shape)


def blobs(rng, shape, density):
    """A random mask with objects of more than a voxel."""
    noise = ndimage.uniform_filter(rng.random(shape), 2, mode="nearest")
    return noise < np.quantile(noise, density)


def scattered_ids(rng, shape):
    """Random labels; ids are large, not in raster order, and not always connected."""
    pool = np.array([0, 0, 3, 2**40, 7, 2**64 - 2, 2**33 + 1, 5], "u8")
    return np.kron(pool[rng.integers(0, len(pool), [-(-n // 2) for n in shape])], np.ones((2, 2, 2), "u8"))[
        tuple(slice(n) for n in shape)
    ]


def shuffled(rng, shape, block):
    return rng.permutation(int(np.prod([-(-n // b) for n, b in zip(shape, block, strict=True)])))


def structure(connectivity):
    return ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])


# --- connected components ---------------------------------------------------------------------------------------------


@quickly
@given(RNGS, SHAPES, BLOCKS, CONNECTIVITY, st.integers(0, 12), st.floats(0, 1))
def test_components_do_not_depend_on_blocks_and_equal_labels_of_the_whole(
    in_blocks, rng, shape, block, connectivity, min_size, density
):
    mask = blobs(rng, shape, density)
    step = ConnectedComponents(connectivity=connectivity, min_size=min_size)
    found = in_blocks(step, {"mask": mask[None]}, block, shuffled(rng, shape, block))
    whole = ndimage.label(mask, structure(connectivity))[0]
    whole[(np.bincount(whole.ravel()) < min_size)[whole]] = 0
    assert np.array_equal(found, in_blocks(step, {"mask": mask[None]}))
    assert np.array_equal(found, in_raster_order(whole))


def test_components_equal_cc3d_of_the_whole(in_blocks):
    mask = blobs(np.random.default_rng(5), (30, 40, 50), 0.3)
    found = in_blocks(ConnectedComponents(), {"mask": mask[None]}, (13, 17, 50))
    assert np.array_equal(found, in_raster_order(cc3d.connected_components(mask, connectivity=26)))


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 3, 3), (1, 33, 33)])
def test_isolated_voxels_are_as_many_objects(in_blocks, shape):
    mask = np.zeros((1, *shape), bool)
    mask[:, ::2, ::2, ::2] = True
    assert in_blocks(ConnectedComponents(), {"mask": mask}).max() == mask.sum()


def test_small_pieces_of_a_large_object_survive_the_size_filter(in_blocks):
    mask = np.zeros((1, 1, 1, 9), bool)
    mask[..., 0:5] = mask[..., 7] = True
    found = in_blocks(ConnectedComponents(min_size=5), {"mask": mask}, (1, 1, 4))
    assert found.ravel().tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_foreground_is_strictly_above_the_threshold(in_blocks, dtype):
    probability = np.array([0.25, 0.5, 0.75, np.nan, 1.0], dtype).reshape(1, 1, 1, 5)
    assert in_blocks(ConnectedComponents(), {"mask": probability}).ravel().tolist() == [0, 0, 1, 0, 2]
    low = in_blocks(ConnectedComponents(threshold=0.25), {"mask": probability})
    assert low.ravel().tolist() == [0, 1, 1, 0, 2]


def test_a_threshold_for_a_mask_is_refused():
    with pytest.raises(WiringError, match=r"threshold = 0.3 does not apply to a mask"):
        ConnectedComponents(threshold=0.3).gives({"mask": ArraySpec(Kind.MASK)})
    for spec in (ArraySpec(Kind.MASK), ArraySpec(Kind.PROBABILITY)):
        assert ConnectedComponents().gives({"mask": spec})["instances"].kind == Kind.INSTANCE


# --- size filter ------------------------------------------------------------------------------------------------------


def filtered_by_loop(ids, low, high, *, neighbour):
    """One voxel, one pair at a time."""
    sizes = {i: int((ids == i).sum()) for i in np.unique(ids) if i}
    stays = {i for i, n in sizes.items() if low <= n <= high}
    out = np.where(np.isin(ids, list(stays)), ids, np.uint64(0))
    for small in (i for i, n in sizes.items() if n < low and neighbour):
        contact = dict.fromkeys(sorted(stays), 0)
        for voxel in np.argwhere(ids == small):
            for step in product((-1, 0, 1), repeat=3):
                near = voxel + step
                if (near >= 0).all() and (near < ids.shape).all() and ids[tuple(near)] in contact:
                    contact[ids[tuple(near)]] += 1
        if any(contact.values()):
            out[ids == small] = max(contact, key=contact.__getitem__)
    return in_raster_order(out)


@settings(deadline=None, max_examples=30)
@given(RNGS, SHAPES, BLOCKS, st.integers(0, 40), st.integers(40, 200), st.booleans())
def test_sizes_are_of_whole_instances_whatever_the_blocks(in_blocks, rng, shape, block, low, high, neighbour):
    ids = scattered_ids(rng, shape)
    mode = "neighbor" if neighbour else "background"
    step = SizeFilter(min_size=low, max_size=high, remove_small_mode=mode)
    found = in_blocks(step, {"instances": ids[None]}, block, shuffled(rng, shape, block))
    assert np.array_equal(found, filtered_by_loop(ids, low, high, neighbour=neighbour))


@settings(deadline=None, max_examples=12)
@given(RNGS, SHAPES, BLOCKS, st.integers(0, 20), st.sampled_from(["background", "neighbor"]))
def test_slices_of_instances_are_filtered_one_by_one_whatever_the_blocks(in_blocks, rng, shape, block, low, mode):
    ids = scattered_ids(rng, shape)
    step = SizeFilter(min_size=low, remove_small_mode=f"{mode}_2d")
    found = in_blocks(step, {"instances": ids[None]}, block, shuffled(rng, shape, block))
    numbers = np.searchsorted(np.unique([*ids.ravel(), np.uint64(0)]), ids).astype("u4")
    assert np.array_equal(found, in_raster_order(without_small(numbers, low, f"{mode}_2d")))


def test_an_id_of_several_pieces_is_one_instance(in_blocks):
    ids = np.array([9, 0, 9, 4, 0, 9], "u8").reshape(1, 1, 1, 6)
    found = in_blocks(SizeFilter(min_size=3), {"instances": ids}, (1, 1, 2))
    assert found.ravel().tolist() == [1, 0, 1, 0, 0, 1]


def test_a_small_instance_goes_to_the_neighbour_it_touches_most(in_blocks):
    ids = np.zeros((1, 4, 4), "u8")
    ids[0, 0], ids[0, 1], ids[0, 2:] = 8, [0, 5, 5, 0], 3
    ids[0, 3, 0] = 0
    step = SizeFilter(min_size=3, remove_small_mode="neighbor")
    found = in_blocks(step, {"instances": ids[None]}, (1, 2, 3))
    assert found[0].tolist() == [[1, 1, 1, 1], [0, 2, 2, 0], [2, 2, 2, 2], [0, 2, 2, 2]]  # six pairs each: smaller id


def test_a_small_instance_that_touches_only_small_or_oversized_ones_is_removed(in_blocks):
    ids = np.array([7, 7, 7, 7, 7, 4, 6, 0, 2, 2, 2], "u8").reshape(1, 1, 1, 11)
    step = SizeFilter(min_size=2, max_size=4, remove_small_mode="neighbor")
    assert in_blocks(step, {"instances": ids}, (1, 1, 3)).ravel().tolist() == [0] * 8 + [1] * 3


def test_a_minimum_above_the_maximum_is_refused():
    with pytest.raises(ConfigError, match="'1 um3' is more than max_size = 100"):
        SizeFilter(min_size="1 um3", max_size=100).in_voxels(VoxelSize(10, 10, 10))


# --- holes ------------------------------------------------------------------------------------------------------------


def filled_by_loop(ids, connectivity, max_size=2**62):
    cavities, count = ndimage.label(ids == 0, structure(connectivity))
    out = ids.copy()
    for number in range(1, count + 1):
        cavity = cavities == number
        around = set(np.unique(ids[ndimage.binary_dilation(cavity, structure(connectivity))])) - {0}
        places = np.argwhere(cavity)
        faces = any(
            size > 1 and (places[:, axis].min() == 0 or places[:, axis].max() == size - 1)
            for axis, size in enumerate(ids.shape)
        )
        if len(around) == 1 and not faces and len(places) <= max_size:
            out[cavity] = around.pop()
    return in_raster_order(out)


@quickly
@given(RNGS, SHAPES, BLOCKS, CONNECTIVITY, st.sampled_from([1, 3, None]), st.integers(1, 4), st.floats(0.3, 0.95))
def test_holes_do_not_depend_on_blocks_and_equal_a_plain_loop(
    in_blocks, rng, shape, block, connectivity, max_size, kinds, density
):
    ids = np.where(blobs(rng, shape, density), rng.choice([2**50, 3, 2**63, 8], kinds)[0], 0).astype("u8")
    ids[(ids > 0) & blobs(rng, shape, 0.3)] = 11  # a second instance that shares cavities with the first
    step = FillHoles(connectivity=connectivity, max_size=max_size)
    found = in_blocks(step, {"instances": ids[None]}, block, shuffled(rng, shape, block))
    assert np.array_equal(found, filled_by_loop(ids, connectivity, max_size or 2**62))


@quickly
@given(RNGS, st.tuples(*[st.integers(2, 10)] * 3), BLOCKS, CONNECTIVITY, st.floats(0.5, 0.95))
def test_holes_of_one_instance_are_those_of_scipy(in_blocks, rng, shape, block, connectivity, density):
    mask = blobs(rng, shape, density)
    found = in_blocks(FillHoles(connectivity=connectivity), {"instances": mask[None].astype("u8")}, block)
    assert np.array_equal(found > 0, ndimage.binary_fill_holes(mask, structure(connectivity)))


def shell(side):
    """A hollow cube of id 1 with one voxel of wall around it."""
    ids = np.zeros((side + 2,) * 3, "u8")
    ids[1:-1, 1:-1, 1:-1] = 1
    ids[2:-2, 2:-2, 2:-2] = 0
    return ids


@pytest.mark.parametrize("block", [(9, 9, 9), (4, 4, 4), (1, 2, 3)])
def test_a_cavity_with_another_instance_inside_stays_open(in_blocks, block):
    ids = shell(7)
    assert in_blocks(FillHoles(), {"instances": ids[None]}, block).sum() == 7**3
    ids[4, 4, 4] = 2
    assert np.array_equal(in_blocks(FillHoles(), {"instances": ids[None]}, block), ids)


@pytest.mark.parametrize("block", [(9, 9, 9), (4, 4, 4), (1, 2, 3)])
def test_a_cavity_within_a_nested_instance_belongs_to_the_inner_one(in_blocks, block):
    ids = shell(9)
    ids[4:7, 4:7, 4:7] = 2
    ids[5, 5, 5] = 0
    found = in_blocks(FillHoles(), {"instances": ids[None]}, block)
    assert found[5, 5, 5] == 2
    assert found[2, 5, 5] == 0


def test_a_hole_through_the_corner_of_a_wall_is_open_at_26_only(in_blocks):
    ids = shell(5)
    ids[1, 1, 1] = 0
    assert in_blocks(FillHoles(), {"instances": ids[None]}, (3, 3, 3))[3, 3, 3] == 1
    assert in_blocks(FillHoles(connectivity=26), {"instances": ids[None]}, (3, 3, 3))[3, 3, 3] == 0


def test_holes_of_an_image_are_filled_like_those_of_a_volume(in_blocks):
    ids = shell(5)[3:4]
    assert in_blocks(FillHoles(), {"instances": ids[None]}, (1, 3, 4)).sum() == 25


# --- all --------------------------------------------------------------------------------------------------------------

EMPTY, FULL = np.zeros((1, 4, 5, 6), "u8"), np.full((1, 4, 5, 6), 12, "u8")


@pytest.mark.parametrize("block", [(4, 5, 6), (2, 2, 2)])
@pytest.mark.parametrize("step", [SizeFilter(remove_small_mode="neighbor"), SizeFilter(), FillHoles()])
def test_empty_and_full_volumes_of_instances_stay_so(in_blocks, step, block):
    assert not in_blocks(step, {"instances": EMPTY}, block).any()
    assert (in_blocks(step, {"instances": FULL}, block) == 1).all()


@pytest.mark.parametrize("block", [(4, 5, 6), (2, 2, 2)])
def test_empty_and_full_masks_give_no_object_and_one(in_blocks, block):
    assert not in_blocks(ConnectedComponents(), {"mask": EMPTY.astype(bool)}, block).any()
    assert (in_blocks(ConnectedComponents(), {"mask": FULL.astype(bool)}, block) == 1).all()


@pytest.mark.parametrize(
    ("step", "in_voxels"),
    [
        (ConnectedComponents(min_size="0.001 um3"), ConnectedComponents(min_size=1000)),
        (SizeFilter(min_size="0.001 um3", max_size="2e6 nm3"), SizeFilter(min_size=1000, max_size=2000)),
        (FillHoles(max_size="0.001 um3"), FillHoles(max_size=1000)),
        (FillHoles(), FillHoles()),
    ],
)
def test_physical_sizes_become_voxels(step, in_voxels):
    assert step.in_voxels(VoxelSize(10, 10, 10)) == in_voxels
    if step != in_voxels:
        with pytest.raises(ConfigError, match="needs the voxel size"):
            step.in_voxels(None)


@pytest.mark.parametrize(
    ("early", "late"),
    [
        (ConnectedComponents(), ConnectedComponents(min_size=9)),
        (SizeFilter(remove_small_mode="neighbor"), SizeFilter(remove_small_mode="neighbor", min_size=9, max_size=50)),
        (FillHoles(), FillHoles(max_size=2)),
    ],
)
def test_late_options_do_not_change_what_is_labelled_and_linked(early, late):
    changed = {name for name in type(early).model_fields if getattr(early, name) != getattr(late, name)}
    assert changed == set(early.late)
    ids = scattered_ids(np.random.default_rng(1), (6, 6, 6))
    name = next(iter(early.needs()))
    given_array = (ids > 0)[None] if name == "mask" else ids[None]
    write, whole = Roi((0, 0, 0), (6, 6, 4)), Roi.whole((6, 6, 6))
    block = Block(write, write, {name: given_array[..., :4]}, whole)
    for one, other in zip(early.label(block), late.label(block), strict=True):
        assert np.array_equal(one, other)
    grown = Block(write, whole, {}, whole)
    assert np.array_equal(early.link(grown, ids), late.link(grown, ids))
