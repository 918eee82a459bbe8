"""Copies of volumes: every value as it was."""

import numpy as np
import pytest

from mitocore.conversion import convert
from mitocore.errors import DataError
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
    if (dtype, target) == ("bool", "copy.tif"):
        with pytest.raises(DataError, match="is bool; this format holds uint8"):
            convert(tmp_path / "a.npy", tmp_path / target)
        return
    assert convert(tmp_path / "a.npy", tmp_path / target).dtype == dtype
    np.testing.assert_array_equal(whole(tmp_path / target), values)


def test_a_region_knows_where_it_lies(tmp_path):
    values = saved(tmp_path / "a.npy", "uint8", range(200))
    spec = convert(tmp_path / "a.npy", tmp_path / "part.zarr", voxel_size=[40, 8, 8], roi="1:4,:,2:8")
    assert (spec.shape, spec.origin) == ((3, 7, 6), (40.0, 0.0, 16.0))
    np.testing.assert_array_equal(whole(tmp_path / "part.zarr"), values[1:4, :, 2:8])


def test_a_target_that_exists_is_refused_and_stays(tmp_path):
    saved(tmp_path / "a.npy", "uint8", [1])
    kept = saved(tmp_path / "b.npy", "uint8", [2])
    with pytest.raises(DataError, match="already exists"):
        convert(tmp_path / "a.npy", tmp_path / "b.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), kept)
