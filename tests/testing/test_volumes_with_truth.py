"""Synthetic volumes with their truth."""

import numpy as np
import pytest
from scipy import ndimage

from mitocore.builtin import cells as tissue
from mitocore.errors import ConfigError
from mitocore.geometry import VoxelSize
from mitocore.testing import cells, tomogram


@pytest.fixture(scope="module")
def found():
    return tomogram((40, 96, 96), seed=1)


def test_each_membrane_is_one_piece_with_an_id_of_its_own(found):
    ids = np.unique(found.instances)
    np.testing.assert_array_equal(ids, np.arange(len(ids)))
    assert len(ids) > 3
    np.testing.assert_array_equal(found.membrane, found.instances > 0)
    for number in ids[1:]:
        assert ndimage.label(found.instances == number, np.ones((3, 3, 3)))[1] == 1


def test_membranes_are_about_seven_nanometres_thick(found):
    depth = ndimage.distance_transform_edt(found.membrane, sampling=found.voxel_size.edges)
    assert 2.5 < np.percentile(depth[found.membrane], 98) < 5


def test_membranes_are_darker_but_drown_in_noise(found):
    inside, outside = found.raw[found.membrane], found.raw[~found.membrane]
    assert inside.mean() < outside.mean()
    assert abs(inside.mean() - outside.mean()) < outside.std()
    assert found.raw.dtype == np.float32


def test_the_missing_wedge_holds_almost_nothing(found):
    power = np.square(np.abs(np.fft.fftn(found.raw)))
    z, _, x = np.meshgrid(*(np.fft.fftfreq(n) for n in found.raw.shape), indexing="ij")
    low = np.hypot(z, x) < 0.25
    missing, seen = (np.abs(z) > 3 * np.abs(x)) & low, (np.abs(z) < 1.2 * np.abs(x)) & low
    missing[:, :, 0] = False
    assert power[missing].mean() < 0.02 * power[seen].mean()
    whole = tomogram((40, 96, 96), seed=1, tilt=90)
    np.testing.assert_array_equal(whole.instances, found.instances)
    power = np.square(np.abs(np.fft.fftn(whole.raw)))
    assert power[missing].mean() > 0.3 * power[seen].mean()


def test_equal_seeds_give_equal_tomograms_and_others_do_not():
    one, two, other = (tomogram((16, 32, 32), seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.raw, two.raw)
    np.testing.assert_array_equal(one.instances, two.instances)
    assert (one.raw != other.raw).any()


def test_a_better_signal_shows_the_membranes_better():
    clear, faint = (tomogram((16, 64, 64), 2, snr=snr) for snr in (2.0, 0.05))
    np.testing.assert_array_equal(clear.instances, faint.instances)
    contrast = [t.raw[~t.membrane].mean() - t.raw[t.membrane].mean() for t in (clear, faint)]
    assert contrast[0] > 2 * contrast[1] > 0


def test_voxels_that_show_no_membrane_are_refused():
    with pytest.raises(ConfigError, match="too large to show a membrane"):
        tomogram((8, 8, 8), voxel_size=VoxelSize(8, 8, 8))


@pytest.mark.parametrize("seed", range(4))
def test_each_mitochondrion_is_one_piece(seed):
    ids = cells((24, 96, 96), seed, voxel_size=VoxelSize(24, 16, 16)).instances
    for number, box in enumerate(ndimage.find_objects(ids.astype(int)), start=1):
        assert ndimage.label(ids[box] == number, np.ones((3, 3, 3)))[1] == 1


def test_pieces_of_a_mitochondrion_get_ids_of_their_own_and_crumbs_none():
    ids = np.zeros((1, 1, 16), np.uint64)
    ids[0, 0, :10] = [1, 1, 0, 2, 2, 2, 0, 1, 1, 1]
    ids[0, 0, 12], ids[0, 0, 14:] = 1, 2
    found = tissue._separated(ids, smallest=2)
    assert found[0, 0].tolist() == [3, 3, 0, 2, 2, 2, 0, 1, 1, 1, 0, 0, 0, 0, 4, 4]
    assert tissue._separated(found, smallest=2) is found
