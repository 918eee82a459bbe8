"""HDF5: which dataset is meant, what its attributes say, and the file that several arrays share."""

import json

import h5py
import numpy as np
import pytest

from mitocore import DataError, Roi, VolumeSpec, VoxelSize
from mitocore_io.hdf5_reader import Hdf5Reader
from mitocore_io.hdf5_writer import Hdf5Writer

SPEC = VolumeSpec((4, 6, 8), "uint8")


def made(tmp_path, attributes=None, **datasets):
    path = tmp_path / "em.h5"
    with h5py.File(path, "w") as file:
        for key, values in datasets.items():
            file[key.replace("__", "/")] = values
            file[key.replace("__", "/")].attrs.update(attributes or {})
    return str(path)


def image(*shape):
    return np.arange(np.prod(shape)).reshape(shape).astype("uint16")


def test_the_only_volume_needs_no_key(tmp_path):
    path = made(tmp_path, volumes__raw=image(4, 6, 8), names=["a", "b"], scalar=5.0)
    with Hdf5Reader(path=path).open() as volume:
        assert volume.spec.shape == (4, 6, 8)


def test_several_datasets_without_a_key_are_listed(tmp_path):
    path = made(tmp_path, raw=image(4, 6, 8), labels__mito=image(4, 6, 8))
    with pytest.raises(DataError, match=r"'em\.h5' holds 2 arrays") as error:
        Hdf5Reader(path=path).open()
    assert error.value.hint == 'key = "labels/mito"; there are: labels/mito, raw'


def test_a_missing_key_is_refused_with_the_nearest_one(tmp_path):
    path = made(tmp_path, raw=image(4, 6, 8), labels__mito=image(4, 6, 8))
    for wrong in ("labels/mita", "labels", "raw/x"):
        with pytest.raises(DataError, match=f"has no dataset '{wrong}'") as error:
            Hdf5Reader(path=path, key=wrong).open()
        assert "there are: labels/mito, raw" in error.value.hint


@pytest.mark.parametrize(
    ("attributes", "edges"),
    [
        ({"resolution": [40, 8, 8]}, (40, 8, 8)),
        ({"element_size_um": np.array([0.05, 0.0046, 0.0046], "float32")}, (50, 4.6, 4.6)),
        ({"voxel_size": [0.04, 0.008, 0.008], "units": ["um", "um", "um"]}, (40, 8, 8)),
        ({"resolution": [0, 8, 8]}, None),
        ({"resolution": [8, 8]}, None),
        ({"resolution": "fine"}, None),
        ({}, None),
    ],
)
def test_voxel_size_comes_from_the_attributes_in_use(attributes, edges, tmp_path):
    with Hdf5Reader(path=made(tmp_path, attributes, raw=image(4, 6, 8))).open() as volume:
        size = volume.spec.voxel_size
    assert size is None if edges is None else np.allclose(size.edges, edges, rtol=1e-6)


def test_axes_of_ilastik_are_followed(tmp_path):
    tags = json.dumps({"axes": [{"key": key} for key in "zyxc"]})
    values = image(4, 6, 8, 3)
    with Hdf5Reader(path=made(tmp_path, {"axistags": tags}, exported_data=values)).open() as volume:
        assert (volume.spec.shape, volume.spec.channels) == ((4, 6, 8), ("0", "1", "2"))
        np.testing.assert_array_equal(
            volume.read(Roi((1, 0, 2), (3, 6, 7))), values.transpose(3, 0, 1, 2)[:, 1:3, :, 2:7]
        )


def test_numbers_that_are_not_real_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds complex64; bool, integers and real"):
        Hdf5Reader(path=made(tmp_path, raw=np.zeros((4, 6, 8), "complex64")), key="raw").open()


def test_big_endian_values_come_out_native(tmp_path):
    values = image(4, 6, 8).astype(">u2")
    with Hdf5Reader(path=made(tmp_path, raw=values)).open() as volume:
        assert volume.spec.dtype == "uint16"
        assert volume.read(Roi.whole((4, 6, 8))).dtype.isnative


def test_the_file_is_called_part_until_every_array_is_finished(tmp_path):
    writer = Hdf5Writer(path=str(tmp_path / "out.h5"))
    first, second = writer.create("a", SPEC), writer.create("b", SPEC)
    first.finish()
    assert not (tmp_path / "out.h5").exists()
    with pytest.raises(DataError, match="does not exist") as error:
        Hdf5Reader(path=writer.path).open()
    assert error.value.hint == "out.h5.part is there: resume the run that writes it"
    second.finish()
    assert not (tmp_path / "out.h5.part").exists()
    first.close()
    second.close()
    assert h5py.File(tmp_path / "out.h5", "r").keys() == {"a", "b"}


def test_an_array_is_added_to_a_file_that_is_there(tmp_path):
    path = made(tmp_path, raw=image(4, 6, 8))
    writer = Hdf5Writer(path=path, key="labels/mito")
    with writer.create("mito.instances", SPEC) as volume:
        assert not (tmp_path / "em.h5").exists()
        volume.finish()
    with Hdf5Reader(path=path, key="raw").open() as volume:
        np.testing.assert_array_equal(volume.read(Roi.whole((4, 6, 8)))[0], image(4, 6, 8))
    with pytest.raises(DataError, match="has 'labels/mito' already"):
        writer.create("mito.instances", SPEC)


def test_a_file_that_is_read_cannot_be_written(tmp_path):
    path = made(tmp_path, raw=image(4, 6, 8))
    with Hdf5Reader(path=path).open(), pytest.raises(DataError, match="in use"):
        Hdf5Writer(path=path).open("raw")


def test_only_the_chunks_of_the_box_are_decoded(tmp_path):
    """A chunk whose bytes are damaged does no harm to boxes beside it."""
    path = tmp_path / "em.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("raw", data=image(4, 6, 8), chunks=(2, 6, 8), compression="gzip")
        place = dataset.id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    with Hdf5Reader(path=str(path)).open() as volume:
        assert volume.spec.chunks == (2, 6, 8)
        np.testing.assert_array_equal(volume.read(Roi((0, 0, 0), (2, 6, 8)))[0], image(4, 6, 8)[:2])
        with pytest.raises(DataError, match="cannot be decoded"):
            volume.read(Roi((1, 0, 0), (3, 6, 8)))


def test_voxel_size_is_noted_as_resolution(tmp_path):
    spec = VolumeSpec((4, 6, 8), "uint8", voxel_size=VoxelSize(40, 8, 8))
    with Hdf5Writer(path=str(tmp_path / "out.h5")).create("a", spec) as volume:
        volume.finish()
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["a"].attrs["resolution"].tolist() == [40, 8, 8]


@pytest.mark.parametrize("how", ["linked", "virtual", "external"])
def test_the_fingerprint_follows_voxels_that_lie_in_another_file(tmp_path, how):
    shape, path = (2, 3, 4), tmp_path / "em.h5"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["raw"] = np.zeros(shape, "u1")
    with h5py.File(path, "w") as file:
        if how == "linked":
            file["raw"] = h5py.ExternalLink("other.h5", "raw")
        elif how == "virtual":
            layout = h5py.VirtualLayout(shape, "u1")
            layout[:] = h5py.VirtualSource("other.h5", "raw", shape)
            file.create_virtual_dataset("raw", layout)
        else:
            file.create_dataset("raw", shape, "u1", external=[("other.h5", 0, 24)], efile_prefix="${ORIGIN}")
    reader = Hdf5Reader(path=str(path), key="raw")
    before = reader.fingerprint()
    assert before == reader.fingerprint()
    with (tmp_path / "other.h5").open("ab") as file:
        file.write(b"more")
    assert reader.fingerprint() != before
