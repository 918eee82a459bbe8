"""Adaptive histogram equalisation: a function of the volume, whatever is read of it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.blockwise import passes
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.builtin.normalizers import Clahe
from mitocore.geometry import Roi
from mitocore.specs import VolumeSpec
from mitocore.volumes import ArrayVolume


def spec(array):
    return VolumeSpec(array.shape[1:], array.dtype.name, tuple(str(i) for i in range(len(array))))


def tissue(shape, seed=0, dtype="u1"):
    rng = np.random.default_rng(seed)
    slope = np.linspace(60, 160, shape[-1])
    return (slope + rng.normal(0, 15, shape)).clip(0, 255).astype(dtype)


def normalised(normalizer, array):
    return normalizer.apply(array, normalizer.fit([array], spec(array)))


def by_the_book(section, tile, clip, sigma):
    """One section of bytes, voxel by voxel, as the peer's pipeline does with (edge / tile) squared tiles."""
    low, high = int(section.min()), int(section.max())
    grey = np.rint((section.astype(float) - low) / (high - low) * 255).astype(int)
    tables = {}
    rows, columns = (size // tile for size in section.shape)
    for row in range(rows):
        for column in range(columns):
            part = grey[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
            counts = [float((part == level).sum()) for level in range(256)]
            limit = clip * part.size / 256
            excess = sum(max(count - limit, 0) for count in counts)
            limited = [min(count, limit) + excess / 256 for count in counts]
            tables[row, column] = 255 * np.cumsum(limited) / part.size
    equal = np.empty(section.shape)
    for y, x in np.ndindex(section.shape):
        at_y, at_x = (y + 0.5) / tile - 0.5, (x + 0.5) / tile - 0.5
        value = 0.0
        for row, weight_y in ((math.floor(at_y), 1 - at_y % 1), (math.floor(at_y) + 1, at_y % 1)):
            for column, weight_x in ((math.floor(at_x), 1 - at_x % 1), (math.floor(at_x) + 1, at_x % 1)):
                table = tables[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
                value += weight_y * weight_x * table[grey[y, x]]
        equal[y, x] = value
    kernel = np.exp(-0.5 * np.square([-1, 0, 1]) / sigma**2)
    kernel /= kernel.sum()
    padded = np.pad(equal, 1, mode="reflect")
    blurred = sum(
        kernel[i] * kernel[j] * padded[i : i + section.shape[0], j : j + section.shape[1]]
        for i in range(3)
        for j in range(3)
    )
    return (blurred - 127.5) / 127.5


def test_one_section_of_whole_tiles_is_equalised_by_the_book():
    array = tissue((1, 1, 64, 48))
    found = normalised(Clahe(tile=8), array)
    np.testing.assert_allclose(found[0, 0], by_the_book(array[0, 0], 8, 3.5, 0.5), atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(2, 40)),
    tile=st.integers(4, 9),
    block=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
)
def test_blocks_of_any_shape_give_what_the_whole_volume_gives(shape, tile, block):
    array, normalizer = tissue((1, *shape), seed=sum(shape)), Clahe(tile=tile)
    array.flat[:2] = 0, 255
    stats = normalizer.fit([array], spec(array))
    whole = normalizer.apply(array, stats)
    grid = BlockGrid(Roi.whole(shape), normalizer.block_shape(spec(array), block))
    for number in range(len(grid)):
        write = grid.box(number)
        read = write.grow(normalizer.halo(None)).clip(grid.region)
        part = normalizer.apply(array[(slice(None), *read.slices)], stats)[(..., *write.within(read))]
        np.testing.assert_array_equal(part, whole[(slice(None), *write.slices)])


def test_shading_goes_and_every_grey_level_becomes_as_frequent():
    found = normalised(Clahe(sigma=0, clip=256), tissue((1, 2, 128, 128)))
    left, right = found[..., :40], found[..., -40:]
    assert abs(left.mean() - right.mean()) < 0.05
    shares = np.histogram(found, 8, (-1, 1))[0] / found.size
    assert shares.min() > 0.09
    assert shares.max() < 0.16


def test_a_low_clip_keeps_the_contrast_of_what_hardly_varies():
    flat = tissue((1, 1, 64, 64))
    flat[..., :32] = 100 + np.random.default_rng(1).integers(0, 3, (64, 32))
    weak, strong = (normalised(Clahe(clip=clip, sigma=0), flat)[..., :20].std() for clip in (1, 60))
    assert weak < 0.05 < strong


def test_sections_and_channels_do_not_see_each_other():
    array = tissue((2, 3, 40, 40))
    array[:, 0].flat[0], array[:, 0].flat[1600] = 0, 255  # so that ranges stay what they are
    array[:, 0, 0, :2] = 0, 255
    other = array.copy()
    other[1, 1] = other[1, 1][::-1]
    one, two = normalised(Clahe(), array), normalised(Clahe(), other)
    same = np.ones((2, 3), bool)
    same[1, 1] = False
    np.testing.assert_array_equal(one[same], two[same])
    assert (one[1, 1] != two[1, 1]).any()


def test_voxels_that_are_not_finite_become_0_and_do_not_count():
    array = tissue((1, 1, 48, 48), dtype="f4")
    holes = array.copy()
    holes[..., 16:32, 16:32] = np.nan
    found = normalised(Clahe(tile=16), holes)
    assert np.isfinite(found).all()
    assert not found[..., 16:32, 16:32].any()
    assert found[..., :14, :14].std() > 0.2


def test_the_stored_image_is_that_of_the_whole_volume_whatever_the_blocks(tmp_path):
    array = tissue((1, 3, 70, 50))
    normalizer, volume = Clahe(), ArrayVolume(array)
    stats = passes.fit(normalizer, volume)
    expected = normalizer.apply(array, stats)
    for number, preferred in enumerate([(1, 20, 30), (2, 64, 16)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with RunLock(folder) as lock:
            work = Workspace(folder, InProcess(), lock)
            source = passes.prepared(
                normalizer, stats, volume, Roi.whole((3, 70, 50)), preferred, work, name="normalised.0"
            )
            np.testing.assert_array_equal(source.read(Roi((1, 5, 7), (3, 60, 50))), expected[:, 1:3, 5:60, 7:])


@pytest.mark.parametrize("options", [{"clip": 0.5}, {"tile": 2}, {"sigma": -1}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Clahe(**options)
