"""Copies of volumes: every value as it was."""

import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from mitocore.conversion import convert
from mitocore.errors import ConfigError, DataError, PluginError, ResourceError
from mitocore.geometry import Roi, VoxelSize
from mitocore.specs import Kind
from mitocore.volumes import open_volume

SHAPE = (5, 7, 9)


def saved(path, dtype, values):
    array = np.zeros(SHAPE, dtype)
    array.flat[: len(values)] = values
    np.save(path, array)
    return array


def whole(path):
    with open_volume(path) as volume:
        return volume.read(Roi.whole(volume.spec.shape))[0]


def test_ids_beyond_what_float32_tells_apart_are_copied_as_they_are(tmp_path):
    ids = saved(tmp_path / "ids.npy", "uint64", [2**24 + 1, 2**53 + 1, 2**63, 2**64 - 1])
    convert(tmp_path / "ids.npy", tmp_path / "copy.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "copy.npy"), ids)


def test_instances_in_zarr_keep_their_ids_and_say_what_they_are(tmp_path):
    ids = saved(tmp_path / "ids.npy", "uint32", [2**24 + 1, 2**31 + 1, 2**32 - 1])
    spec = convert(tmp_path / "ids.npy", f"{tmp_path}/copy.zarr::ids", voxel_size="8 nm", kind="instance")
    assert (spec.dtype, spec.kind, spec.voxel_size) == ("uint32", Kind.INSTANCE, VoxelSize(8, 8, 8))
    np.testing.assert_array_equal(whole(f"{tmp_path}/copy.zarr::ids"), ids)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint16", "float16", "float64"])
@pytest.mark.parametrize("target", ["copy.npy", "copy.zarr", "copy.h5", "copy.tif"])
def test_numbers_of_every_type_come_back_from_every_format_that_holds_them(tmp_path, dtype, target):
    if dtype == "bool":
        extremes = [True]
    else:
        limits = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
        extremes = [limits.min, limits.max, 3]
    values = saved(tmp_path / "a.npy", dtype, extremes)
    stored = "uint8" if (dtype, target) == ("bool", "copy.tif") else dtype
    assert convert(tmp_path / "a.npy", tmp_path / target).dtype == stored
    np.testing.assert_array_equal(whole(tmp_path / target), values)


def test_a_region_knows_where_it_lies(tmp_path):
    values = saved(tmp_path / "a.npy", "uint8", range(200))
    spec = convert(tmp_path / "a.npy", tmp_path / "part.zarr", voxel_size=[40, 8, 8], roi="1:4,:,2:8")
    assert (spec.shape, spec.origin) == ((3, 7, 6), (40.0, 0.0, 16.0))
    np.testing.assert_array_equal(whole(tmp_path / "part.zarr"), values[1:4, :, 2:8])


@pytest.mark.parametrize(("dtype", "stored"), [("bool", "uint8"), ("float16", "float32"), ("int8", "int8")])
def test_what_a_format_lacks_becomes_the_next_wider_type(tmp_path, dtype, stored):
    values = saved(tmp_path / "a.npy", dtype, [1, 0, 1])
    assert convert(tmp_path / "a.npy", tmp_path / "copy.nii").dtype == stored
    np.testing.assert_array_equal(whole(tmp_path / "copy.nii"), values)


@pytest.mark.parametrize("dtype", ["uint32", "uint64", "int64"])
def test_labels_that_fit_become_slices(tmp_path, dtype):
    ids = saved(tmp_path / "ids.npy", dtype, [0, 182, 65534])
    assert convert(tmp_path / "ids.npy", f"{tmp_path}/ids/", kind="instance").dtype == "uint16"
    np.testing.assert_array_equal(whole(f"{tmp_path}/ids/"), ids)


def test_labels_that_do_not_fit_are_refused_with_their_id_and_leave_nothing(tmp_path):
    saved(tmp_path / "ids.npy", "uint32", [1, 65535])  # in uint16 this means "ignore"
    with pytest.raises(DataError, match=r"ids\.npy' holds id 65535; uint16 holds ids from 0 to 65534"):
        convert(tmp_path / "ids.npy", f"{tmp_path}/ids/", kind="instance")
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npy"]


def test_numbers_that_nothing_says_are_labels_do_not_become_narrower(tmp_path):
    saved(tmp_path / "a.npy", "uint32", [1, 2])
    with pytest.raises(DataError, match="is uint32; this format holds") as refused:
        convert(tmp_path / "a.npy", f"{tmp_path}/a/")
    assert refused.value.hint.startswith("--kind instance, if these are ids")


def test_reader_and_writer_can_be_named(tmp_path):
    values = saved(tmp_path / "a.npy", "uint32", [2**20])
    convert(tmp_path / "a.npy", tmp_path / "a", writer="tiff-slices")
    assert len(list((tmp_path / "a").glob("*.tif"))) == SHAPE[0]
    np.testing.assert_array_equal(whole(f"{tmp_path}/a/"), values)
    convert(tmp_path / "a" / "z00000.tif", tmp_path / "first.npy", reader="slices")
    np.testing.assert_array_equal(np.load(tmp_path / "first.npy"), values[:1])
    with pytest.raises(PluginError, match="no writer is called 'tif-slices'"):
        convert(tmp_path / "a.npy", tmp_path / "b", writer="tif-slices")


def test_a_voxel_size_that_the_format_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    saved(tmp_path / "a.tif.npy", "uint8", [1])
    with pytest.raises(DataError, match=r"'copy.npy' cannot hold a voxel size"):
        convert(tmp_path / "a.tif.npy", tmp_path / "copy.npy", voxel_size="8 nm")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif.npy"]


def test_a_name_that_the_format_cannot_hold_is_refused(tmp_path):
    saved(tmp_path / "a.npy", "uint8", [1])
    with pytest.raises(DataError, match=r"'z\.tif' holds one array, which has no name: there is no place for 'raw'"):
        convert(tmp_path / "a.npy", f"{tmp_path}/z.tif::raw")


@pytest.mark.parametrize("place", [None, 3, [1, 2]])
def test_what_is_no_path_is_refused(tmp_path, place):
    with pytest.raises(DataError, match="is no path of a volume"):
        convert(place, tmp_path / "copy.npy")


@contextmanager
def full_disk():
    """No file may become larger than a few kilobytes: to a program, that is a full disk.

    Only while something is written: the tests themselves may write their report to a file.
    """
    resource = pytest.importorskip("resource", reason="this system has no largest size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def large(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (8, 120, 120), "uint8")
    np.save(tmp_path / "a.npy", values)
    return tmp_path / "a.npy"


@pytest.mark.parametrize("target", ["x.tif", "x.nii", "x.nii.gz", "x.npy", "x.zarr", "x.zarr::a/b", "x/"])
def test_on_a_full_disk_a_copy_says_so_and_leaves_nothing(tmp_path, large, target):
    with full_disk(), pytest.raises(ResourceError, match="File too large") as refused:
        convert(large, f"{tmp_path}/{target}")
    assert refused.value.hint.startswith("free some disk space")
    assert "resume" not in str(refused.value)
    assert "x" in refused.value.where
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_copy_into_a_store_that_fails_leaves_its_other_arrays(tmp_path, large):
    convert(large, f"{tmp_path}/x.zarr::raw", roi="0:2,0:8,0:8")
    with full_disk(), pytest.raises(ResourceError):
        convert(large, f"{tmp_path}/x.zarr::copies/raw")
    assert not (tmp_path / "x.zarr" / "copies").exists()
    assert whole(f"{tmp_path}/x.zarr::raw").shape == (2, 8, 8)


FULL_HDF5 = """
import sys, resource
from mitocore import ResourceError, convert
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    convert(sys.argv[1], sys.argv[2])
except ResourceError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no largest size of files")
def test_hdf5_on_a_full_disk_says_so_and_does_not_crash_when_the_program_ends(tmp_path, large):
    command = [sys.executable, "-c", FULL_HDF5, str(large), str(tmp_path / "x.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'x.h5.part' cannot be written: File too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("target", ["x.npy", "x.zarr::raw", "x.h5::raw", "x.tif"])
def test_an_interrupted_copy_leaves_nothing(tmp_path, large, target):
    def interrupt(label, done, _total):
        if label == "convert" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(large, f"{tmp_path}/{target}", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_file_of_several_arrays_keeps_its_name_when_a_copy_into_it_is_interrupted(tmp_path, large):
    convert(large, f"{tmp_path}/x.h5::raw")

    def interrupt(label, _done, _total):
        if label == "convert":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(large, f"{tmp_path}/x.h5::again", progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "x.h5"]
    np.testing.assert_array_equal(whole(f"{tmp_path}/x.h5::raw"), np.load(large))
    with pytest.raises(DataError, match="is not finished"):
        whole(f"{tmp_path}/x.h5::again")
    convert(large, f"{tmp_path}/x.h5::again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "x.h5"]
    np.testing.assert_array_equal(whole(f"{tmp_path}/x.h5::again"), np.load(large))


def test_a_target_that_exists_is_refused_and_stays(tmp_path):
    saved(tmp_path / "a.npy", "uint8", [1])
    kept = saved(tmp_path / "b.npy", "uint8", [2])
    with pytest.raises(DataError, match="already exists"):
        convert(tmp_path / "a.npy", tmp_path / "b.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), kept)


def test_at_another_resolution_ids_are_those_of_the_nearest_voxels_and_grey_levels_are_means(tmp_path):
    ids = saved(tmp_path / "ids.npy", "uint32", range(1, 316))
    spec = convert(
        tmp_path / "ids.npy", tmp_path / "ids.zarr", voxel_size=[40, 8, 8], kind="instance", scale_factors=(1, 0.5, 0.5)
    )
    assert (spec.shape, spec.voxel_size, spec.dtype) == ((5, 3, 4), VoxelSize(40, 16, 16), "uint32")
    np.testing.assert_array_equal(whole(tmp_path / "ids.zarr"), ids[:, 1:6:2, 1:8:2])
    spec = convert(
        tmp_path / "ids.npy", tmp_path / "part.zarr", kind="instance", scale_factors="1,.5,.5", roi="1:4,2:7,:"
    )
    np.testing.assert_array_equal(whole(tmp_path / "part.zarr"), ids[1:4, 3:6:2, 1:8:2])
    image = np.random.default_rng(0).random(SHAPE, "f4")
    np.save(tmp_path / "image.npy", image)
    convert(tmp_path / "image.npy", tmp_path / "means.npy", scale_factors=(1, 1.7, 0.4))
    convert(tmp_path / "image.npy", tmp_path / "cut.npy", scale_factors=(1, 1.7, 0.4), roi="1:4,2:6,3:9")
    np.testing.assert_array_equal(np.load(tmp_path / "cut.npy"), np.load(tmp_path / "means.npy")[1:4, 3:10, 1:3])
    np.save(tmp_path / "raw.npy", np.arange(24, dtype="uint16").reshape(1, 2, 12) * 100)
    assert convert(tmp_path / "raw.npy", tmp_path / "raw.tif", scale_factors=[1, 1, 1 / 3]).dtype == "uint16"
    assert whole(tmp_path / "raw.tif").ravel().tolist() == [100, 400, 700, 1000, 1300, 1600, 1900, 2200]


def test_means_of_what_may_be_ids_are_not_taken(tmp_path):
    saved(tmp_path / "ids.npy", "uint32", [1, 2])
    with pytest.raises(DataError, match="means of uint32 are not taken") as refused:
        convert(tmp_path / "ids.npy", tmp_path / "copy.npy", scale_factors=(1, 0.5, 0.5))
    assert refused.value.hint.startswith("--kind instance")
    with pytest.raises(ConfigError, match="is not three factors"):
        convert(tmp_path / "ids.npy", tmp_path / "copy.npy", scale_factors=0.5)


def test_a_narrower_dtype_can_be_asked_for_and_takes_only_ids_that_fit(tmp_path):
    ids = saved(tmp_path / "ids.npy", "uint64", [0, 7, 65534])
    assert convert(tmp_path / "ids.npy", tmp_path / "a.h5", kind="instance", dtype="uint16").dtype == "uint16"
    np.testing.assert_array_equal(whole(tmp_path / "a.h5"), ids)
    with pytest.raises(DataError, match="holds id 65534; uint8 holds ids from 0 to 255"):
        convert(tmp_path / "ids.npy", tmp_path / "b.h5", kind="instance", dtype="uint8")
    with pytest.raises(DataError, match="is uint64, which uint16 does not hold") as refused:
        convert(tmp_path / "ids.npy", tmp_path / "b.h5", dtype="uint16")
    assert refused.value.hint.startswith("--kind instance")
    with pytest.raises(ConfigError, match="'unit16' is no dtype of this format"):
        convert(tmp_path / "ids.npy", tmp_path / "b.h5", dtype="unit16")
    saved(tmp_path / "p.npy", "float32", [0.5])
    with pytest.raises(DataError, match="which float16 does not hold"):
        convert(tmp_path / "p.npy", tmp_path / "b.h5", dtype="float16")
    assert not (tmp_path / "b.h5").exists()


def test_probabilities_of_bytes_asked_for_as_floats_become_shares(tmp_path):
    bytes_ = saved(tmp_path / "p.npy", "uint8", [0, 51, 127, 255])
    spec = convert(tmp_path / "p.npy", tmp_path / "p.h5", kind="probability", dtype="float32")
    assert (spec.dtype, spec.kind) == ("float32", Kind.PROBABILITY)
    np.testing.assert_array_equal(whole(tmp_path / "p.h5"), bytes_ / np.float32(255))
    convert(tmp_path / "p.npy", tmp_path / "image.h5", dtype="float32")
    np.testing.assert_array_equal(whole(tmp_path / "image.h5"), bytes_)
    assert convert(tmp_path / "p.npy", tmp_path / "same.h5", kind="probability").dtype == "uint8"
