"""Synthetic tissue and its reader."""

import pickle

import cc3d
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from mitocore.builtin.sample import SampleReader
from mitocore.errors import ConfigError
from mitocore.geometry import Roi, VoxelSize
from mitocore.specs import Kind
from mitocore.testing import cells

COARSE = VoxelSize(16.0, 16.0, 16.0)


@pytest.fixture(scope="module")
def tissue():
    return cells((32, 96, 96), seed=2, voxel_size=COARSE)


def test_the_truths_agree_with_each_other(tissue):
    assert (tissue.raw.dtype, tissue.instances.dtype) == ("uint8", "uint64")
    assert (tissue.semantic.dtype, tissue.boundary.dtype) == ("uint16", "bool")
    assert {a.shape for a in (tissue.raw, tissue.instances, tissue.semantic, tissue.boundary)} == {(32, 96, 96)}
    np.testing.assert_array_equal(tissue.semantic, tissue.instances > 0)
    assert not tissue.boundary[tissue.instances == 0].any()
    ids = np.unique(tissue.instances)
    np.testing.assert_array_equal(ids, np.arange(len(ids)))


def test_boundary_is_where_a_face_neighbour_has_another_id(tissue):
    ids = tissue.instances[:6, :20, :20].astype(int)
    expected = np.zeros(ids.shape, bool)
    for z, y, x in np.ndindex(ids.shape):
        for dz, dy, dx in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
            near = (z + dz, y + dy, x + dx)
            if all(0 <= a < n for a, n in zip(near, ids.shape, strict=True)):
                expected[z, y, x] |= ids[near] != ids[z, y, x]
    expected &= ids > 0
    np.testing.assert_array_equal(tissue.boundary[:5, :19, :19], expected[:5, :19, :19])


def test_mitochondria_fill_a_share_of_the_volume_and_some_touch(tissue):
    assert 0.05 < tissue.semantic.mean() < 0.3
    assert len(np.unique(tissue.instances)) > 5
    left, right = tissue.instances[..., 1:], tissue.instances[..., :-1]
    assert ((left != right) & (left > 0) & (right > 0)).any()


def test_mitochondria_are_darker_than_cytoplasm_but_not_by_a_threshold(tissue):
    inside, outside = tissue.raw[tissue.semantic > 0], tissue.raw[tissue.semantic == 0]
    assert inside.mean() < outside.mean() - 20
    assert (outside < np.percentile(inside, 50)).sum() > 0.1 * len(inside)


def test_equal_seeds_give_equal_volumes_and_others_do_not():
    one, two, other = (cells((8, 32, 32), seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.raw, two.raw)
    np.testing.assert_array_equal(one.instances, two.instances)
    assert (one.raw != other.raw).any()


def _cut_by(instances, voxel_size, nm):
    """Objects that fall into pieces where less than `nm` around a voxel is theirs."""
    cut = 0
    for number in range(1, int(instances.max()) + 1):
        own = np.pad(instances == number, 1, mode="edge")
        cut += cc3d.connected_components(distance_transform_edt(own, sampling=voxel_size.edges) > nm).max() > 1
    return cut


@pytest.mark.parametrize("voxel_size", [COARSE, VoxelSize(30.0, 12.0, 12.0)], ids=str)
def test_mitochondria_on_a_string_are_one_object_each_held_together_by_thin_bridges(voxel_size):
    ids = cells((32, 96, 96), seed=1, voxel_size=voxel_size, strings=1.0).instances
    number = int(ids.max())
    assert number > 3
    assert cc3d.connected_components(ids > 0, connectivity=6).max() == number  # no two touch, none is torn
    assert _cut_by(ids, voxel_size, 45.0) > 0.6 * number


def test_mitochondria_in_tangles_touch_each_other():
    ids = cells((32, 96, 96), seed=1, voxel_size=COARSE, tangles=1.0).instances
    number = int(ids.max())
    assert number > 8
    assert cc3d.connected_components(ids > 0, connectivity=6).max() < 0.5 * number


@pytest.mark.parametrize(("strings", "tangles"), [(-0.1, 0.5), (0.6, 0.6)])
def test_shares_that_are_none_are_refused(strings, tangles):
    with pytest.raises(ConfigError, match="shares"):
        cells((2, 8, 8), strings=strings, tangles=tangles)


def test_the_reader_shows_what_is_asked_for():
    options = {"shape": (16, 64, 64), "voxel_size": "16 nm", "seed": 2}
    plain, strings = (SampleReader(**options, strings=share).open() for share in (0.0, 1.0))
    assert (plain.read(Roi.whole((16, 64, 64))) != strings.read(Roi.whole((16, 64, 64)))).any()
    with pytest.raises(ValueError, match="at most 1"):
        SampleReader(strings=0.6, tangles=0.6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 64, 64), (3, 5, 7)])
def test_any_shape_and_anisotropy_has_foreground(shape):
    tissue = cells(shape, seed=1, voxel_size=VoxelSize(40.0, 8.0, 8.0))
    assert tissue.raw.shape == shape
    assert tissue.semantic.any()


@pytest.mark.parametrize(
    ("array", "dtype", "kind"),
    [
        ("image", "uint8", Kind.IMAGE),
        ("instances", "uint64", Kind.INSTANCE),
        ("semantic", "uint16", Kind.SEMANTIC),
        ("boundary", "bool", Kind.MASK),
    ],
)
def test_the_reader_gives_the_image_and_each_truth_box_by_box(array, dtype, kind):
    volume = SampleReader(shape=(8, 32, 32), seed=5, array=array).open()
    assert (volume.spec.shape, volume.spec.dtype, volume.spec.kind) == ((8, 32, 32), dtype, kind)
    assert volume.spec.voxel_size == VoxelSize(8.0, 8.0, 8.0)
    tissue = cells((8, 32, 32), seed=5)
    whole = {"image": tissue.raw}.get(array, getattr(tissue, array, None))
    box = Roi((2, 3, 4), (7, 30, 9))
    values = volume.read(box)
    np.testing.assert_array_equal(values, whole[box.slices][None])
    assert values.dtype == dtype


def test_what_is_read_may_be_changed():
    volume = SampleReader(shape=(4, 16, 16)).open()
    box = Roi.whole((4, 16, 16))
    before = volume.read(box)
    volume.read(box)[:] = 0
    np.testing.assert_array_equal(volume.read(box), before)


def test_the_header_is_known_without_computing():
    assert SampleReader(shape=(4096, 4096, 4096)).open().spec.shape == (4096, 4096, 4096)


def test_voxels_too_large_for_a_mitochondrion_are_refused():
    with pytest.raises(ConfigError, match="1000 x 8 x 8 nm"):
        cells((2, 8, 8), voxel_size=VoxelSize(1000.0, 8.0, 8.0))


def test_options_survive_json_and_pickle():
    reader = SampleReader(shape=(8, 32, 32), voxel_size="16 nm")
    assert SampleReader.model_validate_json(reader.model_dump_json()) == reader
    assert pickle.loads(pickle.dumps(reader)) == reader
    assert len({reader, SampleReader()}) == 2


def test_no_file_stands_for_synthetic_tissue_whatever_its_path_names(tmp_path):
    assert SampleReader(path=str(tmp_path / "missing")).fingerprint() == SampleReader().fingerprint()
