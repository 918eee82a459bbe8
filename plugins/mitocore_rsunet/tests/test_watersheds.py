import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from skimage.segmentation import watershed

from mitocore import ArraySpec, Block, ConfigError, Kind, Roi, VoxelSize, load
from mitocore.testing.one_step import Example, results
from mitocore_rsunet.instances import ConnectedComponents
from mitocore_rsunet.seeded import quantised
from mitocore_rsunet.watersheds import (
    BinaryWatershed,
    BoundaryConnected,
    BoundaryDistanceWatershed,
    BoundaryWatershed,
    DistanceWatershed,
)

FULL = np.ones((3, 3, 3), bool)
RNGS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
BLOCKS = st.tuples(st.integers(3, 9), st.integers(4, 12), st.integers(5, 14))


def smooth(rng, shape):
    values = ndimage.uniform_filter(rng.random(shape, dtype="f4"), 3, mode="nearest")
    return ((values - values.min()) / np.ptp(values))[None]


def by_engine(step, arrays, block=None):
    given = {name: ArraySpec(next(iter(need.kinds))) for name, need in step.needs().items()}
    example = Example(arrays, given)
    return results(step, example, block or example.volume.shape)["instances"][0]


def in_raster_order(labels):
    ids, first, place = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(np.where(ids == 0, -1, first)))
    return (rank + (0 not in ids))[place].reshape(labels.shape)


def by_component(mask, seeds, landscape, min_seed_size, min_size):
    """One component of the whole volume after the other, with scikit-image; instances in order of their components."""
    parts, count = ndimage.label(mask, FULL)
    out, last = np.zeros(mask.shape, int), 0
    for number in range(1, count + 1):
        box = ndimage.find_objects(parts)[number - 1]
        alone = parts == number
        labels, _ = ndimage.label((seeds & alone)[box], FULL)
        labels[(np.bincount(labels.ravel()) < min_seed_size)[labels]] = 0
        ids = watershed(landscape[box], labels, mask=alone[box])
        ids[(np.bincount(ids.ravel()) < min_size)[ids]] = 0
        ids = in_raster_order(ids)
        out[box][ids > 0] = ids[ids > 0] + last
        last = max(last, int(out.max()))
    return out


@settings(deadline=None, max_examples=6)
@given(RNGS, BLOCKS, st.integers(0, 6), st.integers(0, 20), st.booleans())
def test_a_watershed_in_blocks_is_that_of_each_component_of_the_whole(rng, block, min_seed_size, min_size, exact):
    arrays = {name: smooth(rng, (9, 12, 14)) for name in ("foreground", "boundary", "distance")}
    foreground, boundary, distance = (array[0] for array in arrays.values())
    options = {"min_seed_size": min_seed_size, "min_size": min_size, "exact": exact}
    step = BoundaryDistanceWatershed(
        seed_threshold=0.55, threshold=0.4, boundary_threshold=0.7, seed_distance=0.3, distance_threshold=0.2, **options
    )
    mask = (foreground > 0.4) & (distance > 0.2)
    seeds = (foreground > 0.55) & (boundary < 0.7) & (distance > 0.3)
    landscape = -foreground if exact else np.rint((1 - foreground) * np.float32(255))
    expected = by_component(mask, seeds, landscape, max(min_seed_size, 1), min_size)
    assert np.array_equal(by_engine(step, arrays, block), expected)


@settings(deadline=None, max_examples=5)
@given(RNGS, BLOCKS, st.integers(0, 20))
def test_seeds_of_a_step_above_flood_the_components_they_lie_in(rng, block, min_size):
    foreground = smooth(rng, (9, 12, 14))
    ids = rng.choice([7, 2**40, 2**63, 9], (9, 12, 14)).astype("u8") * (rng.random((9, 12, 14)) < 0.03)
    parts, count = ndimage.label(foreground[0] > 0.5, FULL)
    expected, last = np.zeros(parts.shape, int), 0
    for number in range(1, count + 1):
        here = np.where(parts == number, ids, 0)
        seeds = np.searchsorted(np.unique([0, *here.ravel()]), here)
        found = watershed(np.rint((1 - foreground[0]) * np.float32(255)), seeds, mask=parts == number)
        found[(np.bincount(found.ravel()) < min_size)[found]] = 0
        found = in_raster_order(found)
        expected[found > 0] = found[found > 0] + last
        last = expected.max()
    step = BinaryWatershed(threshold=0.5, seeds_from="input", min_seed_size=999, min_size=min_size)
    arrays = {"foreground": foreground, "seeds": ids[None]}
    assert np.array_equal(by_engine(step, arrays, block), expected)


def test_seeds_are_asked_for_only_where_an_input_gives_them():
    for decoder in (BinaryWatershed, BoundaryWatershed, BoundaryDistanceWatershed, DistanceWatershed):
        assert "seeds" not in decoder().needs()
        assert set(decoder(seeds_from="input").needs()["seeds"].kinds) == {Kind.INSTANCE}
        assert 'instance of "seeds"' in decoder(seeds_from="input").hint_if_empty()
    assert BoundaryWatershed(seeds_from="input", threshold=0.95).threshold == 0.95  # seed_threshold does not count


@settings(deadline=None, max_examples=5)
@given(RNGS, BLOCKS, st.sampled_from([(1, 5, 5), (3, 3, 1), (1, 1, 1)]), st.integers(0, 20))
def test_widened_parts_in_blocks_are_those_of_the_whole_volume(rng, block, dilation, min_size):
    arrays = {name: smooth(rng, (9, 12, 14)) for name in ("foreground", "boundary")}
    step = BoundaryConnected(seed_threshold=0.6, boundary_threshold=0.6, dilation=dilation, min_size=min_size)
    cores, _ = ndimage.label((arrays["foreground"][0] > 0.6) & (arrays["boundary"][0] < 0.6), FULL)
    whole = ndimage.grey_dilation(cores, dilation, mode="constant")
    whole[(np.bincount(whole.ravel()) < min_size)[whole]] = 0
    assert np.array_equal(in_raster_order(by_engine(step, arrays, block)), in_raster_order(whole))


@pytest.mark.parametrize("landscape", ["distance", "mask"])
def test_two_touching_balls_are_two_by_their_distance(landscape):
    z, y, x = np.ogrid[:11, :20, :34]
    balls = [9.0 - np.sqrt((z - 5) ** 2 + (y - 10) ** 2 + (x - at) ** 2) for at in (9, 24)]
    arrays = {"distance": np.maximum(*balls)[None].astype("f4")}
    step = DistanceWatershed(seed_distance=4, threshold=0, landscape=landscape, min_seed_size=5)
    found = by_engine(step, arrays, (6, 9, 20))
    assert np.array_equal(found > 0, arrays["distance"][0] > 0)
    assert found[5, 10, 9] != found[5, 10, 24]
    assert found.max() == 2


@pytest.mark.parametrize(
    ("decoder", "options"),
    [
        (DistanceWatershed, {"threshold": -0.1, "seed_distance": 0.2}),
        (DistanceWatershed, {"threshold": -0.1, "seed_distance": 0.2, "landscape": "mask"}),
        (
            BoundaryDistanceWatershed,
            {"seed_threshold": 0.5, "threshold": 0.4, "distance_threshold": -0.2, "seed_distance": 0.1}
            | {"landscape": "distance"},
        ),
    ],
)
def test_a_distance_as_a_probability_is_the_distance_it_stands_for(decoder, options):
    names = ("foreground", "boundary", "distance")
    arrays = {name: smooth(np.random.default_rng(seed), (9, 12, 14)) for seed, name in enumerate(names)}
    arrays = {name: arrays[name] for name in decoder().needs()}
    step = decoder(min_seed_size=1, min_size=1, **options)
    signed = arrays | {"distance": arrays["distance"] * np.float32(2) - np.float32(1)}
    unit = step.model_copy(update={"distance_scale": "unit"})
    assert set(unit.needs()["distance"].kinds) == {Kind.PROBABILITY}
    assert set(step.needs()["distance"].kinds) == {Kind.DISTANCE}
    found = by_engine(unit, arrays, (4, 7, 9))
    assert found.max() > 1
    assert np.array_equal(found, by_engine(step, signed, (9, 12, 14)))


@pytest.mark.parametrize("landscape", ["distance", "mask"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_distance_that_is_no_number_is_outside_and_an_infinite_one_is_far(landscape, exact):
    step = DistanceWatershed(
        seed_distance=2, threshold=0, min_seed_size=1, min_size=1, landscape=landscape, exact=exact
    )
    distance = np.array([-1, 1, 3, np.inf, 1, 3, np.nan, 3, -np.inf], "f4").reshape(1, 1, 1, 9)
    assert by_engine(step, {"distance": distance}).ravel().tolist() == [0, 1, 1, 1, 1, 2, 0, 3, 0]


def test_where_a_mask_has_no_edge_both_seeds_get_what_is_nearer():
    distance = np.ones((1, 1, 3, 12), "f4")
    distance[..., 1, [0, 11]] = 9
    step = DistanceWatershed(seed_distance=2, min_seed_size=1, min_size=1, landscape="mask")
    assert (by_engine(step, {"distance": distance}) == np.repeat([1, 2], 6)).all()


def test_depth_of_a_component_alone_is_that_of_the_whole_mask():
    rng = np.random.default_rng(0)
    distance = smooth(rng, (8, 14, 15)) - 0.5
    step = DistanceWatershed(threshold=0, seed_distance=0.2, landscape="mask")
    volume = Roi.whole((8, 14, 15))
    parts, _ = ndimage.label(distance[0] > 0, FULL)
    depth = ndimage.distance_transform_edt(distance[0] > 0, (30, 8, 8))
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        write = Roi(tuple(a.start for a in box), tuple(a.stop for a in box))
        read = write.grow(step.halo()).clip(volume)
        block = Block(write, read, {"distance": distance[(..., *read.slices)]}, volume, VoxelSize(30, 8, 8))
        alone = parts[read.slices] == number
        values, _, _ = step.height(block, alone)
        assert np.allclose(values[alone], depth[read.slices][alone])


def test_a_part_of_the_mask_without_a_seed_is_background():
    foreground = np.full((1, 3, 3, 12), 0.9, "f4")
    foreground[..., 5] = 0
    foreground[..., :5] = 0.99
    found = by_engine(BinaryWatershed(min_seed_size=1, min_size=1), {"foreground": foreground})
    assert found[0, 0].tolist() == [1] * 5 + [0] * 7


@pytest.mark.parametrize(
    ("decoder", "theirs", "ours"),
    [
        (
            BoundaryDistanceWatershed,
            {
                "thres1": 0.8,
                "thres2": 0.7,
                "thres3": 0.6,
                "thres4": 0.4,
                "thres5": 0.1,
                "thres_small": 64,
                "seed_thres": 8,
                "scale_factors": [1.0, 1.0, 1.0],
            },
            {
                "seed_threshold": 0.8,
                "boundary_threshold": 0.7,
                "threshold": 0.6,
                "seed_distance": 0.4,
                "distance_threshold": 0.1,
                "min_size": 64,
                "min_seed_size": 8,
            },
        ),
        (BinaryWatershed, {"thres1": 0.9, "thres2": 0.5}, {"seed_threshold": 0.9, "threshold": 0.5}),
        (
            BoundaryConnected,
            {"thres1": 0.9, "thres2": 0.4, "dilation_struct": (1, 3, 3)},
            {"seed_threshold": 0.9, "boundary_threshold": 0.4, "dilation": (1, 3, 3)},
        ),
        (
            ConnectedComponents,
            {"thres": 0.8, "thres_small": 9, "remove_small_mode": "background"},
            {"threshold": 0.8, "min_size": 9},
        ),
        (ConnectedComponents, {"thres_small": 9, "remove_small_mode": "none"}, {}),
    ],
)
def test_names_of_the_peers_mean_the_same_options(decoder, theirs, ours):
    assert decoder(**theirs) == decoder(**ours)


@pytest.mark.parametrize(
    ("decoder", "options", "says"),
    [
        (BoundaryWatershed, {"thres1": 0.9, "seed_threshold": 0.8}, "seed_threshold and thres1 are two names"),
        (BoundaryWatershed, {"threshold": 0.95}, "seed_threshold = 0.9 is below threshold = 0.95"),
        (BoundaryWatershed, {"boundary_threshold": 0}, "no probability is below 0"),
        (BoundaryWatershed, {"seed_threshold": 1}, "no probability is above 1"),
        (BoundaryWatershed, {"thres1": 216}, r"216 is a threshold on the scale 0-255.*0.847"),
        (BoundaryWatershed, {"threshold": -0.1}, "-0.1 is not between 0 and 1"),
        (BoundaryWatershed, {"scale_factors": [1, 0.5, 0.5]}, r"state scale_factors in \[output\]"),
        (BoundaryDistanceWatershed, {"seed_distance": -0.5}, "seed_distance = -0.5 is below distance_threshold = 0"),
        (DistanceWatershed, {"threshold": 0.9}, "seed_distance = 0.5 is below threshold = 0.9"),
        (BoundaryConnected, {"dilation": (1, 4, 4)}, r"\[1, 4, 4\] are not three odd numbers"),
        (BinaryWatershed, {"oversize": "tile", "remove_small_mode": "neighbor"}, "size_filter"),
        (ConnectedComponents, {"remove_small_mode": "neighbor"}, "size_filter"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(decoder, options, says):
    with pytest.raises(ValidationError, match=says):
        decoder(**options)


def test_a_size_is_late_only_where_it_is_asked_of_whole_instances():
    assert BoundaryWatershed().read_late() == ("min_size",)
    assert BoundaryWatershed(oversize="tile", remove_small_mode="none").read_late() == ("min_size",)
    assert BoundaryWatershed(remove_small_mode="neighbor").read_late() == ()


def test_physical_sizes_become_voxels():
    step = BoundaryWatershed(min_size="0.001 um3")
    assert step.in_voxels(VoxelSize(10, 10, 10)).min_size == 1000
    with pytest.raises(ConfigError, match="needs the voxel size"):
        step.in_voxels(None)


def test_an_empty_result_asks_whether_foreground_and_boundary_were_swapped():
    assert "foreground > 0.9 and boundary < 0.8: were the two swapped?" in BoundaryWatershed().hint_if_empty()
    assert "above 0.98" in BinaryWatershed().hint_if_empty()
    assert "above 0.5" in DistanceWatershed().hint_if_empty()
    assert {Kind.PROBABILITY} == set(BoundaryWatershed().needs()["boundary"].kinds)


PIPELINE = """\
mitocore = 1
[input]
path = "prediction.npy"
kind = "probability"

[[step]]
name = "mito"
postprocessor = "bc_watershed"
inputs = {{ foreground = "input.image:0", boundary = "input.image:1" }}
thres1 = 0.6
thres2 = 0.7
thres3 = 0.45
seed_thres = 2
thres_small = {size}
remove_small_mode = "{mode}"

[output]
path = "{mode}{output}.zarr"
[run]
folder = "{mode}{output}"
block = {block}
workers = 0
keep = "all"
"""


@pytest.mark.parametrize("mode", ["none", "background", "neighbor", "background_2d", "neighbor_2d"])
def test_another_size_in_a_finished_run_folder_gives_what_a_new_folder_gives(tmp_path, mode):
    arrays = [smooth(np.random.default_rng(seed), (9, 18, 20))[0] for seed in range(2)]
    np.save(tmp_path / "prediction.npy", np.stack(arrays).astype("f2"))
    found = []
    for size, output, block in ((40, "", [5, 9, 9]), (4, "", [5, 9, 9]), (4, "again", [9, 18, 20])):
        text = PIPELINE.format(size=size, mode=mode, output=output, block=block)
        (tmp_path / "pipeline.toml").write_text(text, "utf-8")
        with load(tmp_path / "pipeline.toml").run(policy="resume") as result:
            found.append(result.arrays()["mito.instances"])
    assert found[2].max() > 2
    assert np.array_equal(found[1], found[2])
    assert np.array_equal(found[0], found[1]) == (mode == "none")


def test_quantising_never_reverses_heights_and_gives_back_those_of_8_bits():
    stored = np.arange(256, dtype="u1")
    assert np.array_equal(quantised(stored / np.float32(255), 0, 1, 255), stored[::-1])
    heights = np.sort(np.random.default_rng(0).random(1000, "f4"))
    assert (np.diff(quantised(heights, 0, 1, 1000).astype(int)) <= 0).all()
    assert quantised(heights, 0, 1, 65535).dtype == "u2"
    assert quantised(np.array([-1, 2], "f4"), 0, 1, 255).tolist() == [255, 0]
    assert quantised(np.full(2, 3, "f4"), 3, 3, 255).tolist() == [0, 0]
