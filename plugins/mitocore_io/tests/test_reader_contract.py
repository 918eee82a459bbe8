"""What every reader promises, checked on files that other libraries wrote."""

import concurrent.futures
import os
import pickle
import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mitocore import DataError, Roi, VoxelSize
from mitocore_io.hdf5_reader import Hdf5Reader
from mitocore_io.nifti_reader import NiftiReader
from mitocore_io.slices_reader import SlicesReader
from mitocore_io.tiff_reader import TiffReader
from mitocore_io.zarr_reader import ZarrReader

SHAPE = (5, 23, 31)
EDGES = VoxelSize(40.0, 4.6, 8.25)


def write_zarr(version, separator="."):
    def make(path, array, edges):
        encoding = {"name": "v2" if version == 2 else "default", "separator": separator}
        group = zarr.open_group(str(path), mode="w", zarr_format=version)
        made = group.create_array(
            "raw", shape=array.shape, dtype=array.dtype, chunks=_chunks(array), chunk_key_encoding=encoding
        )
        made[:] = array
        if edges:
            made.update_attributes({"resolution": list(edges.edges), "offset": [0, 0, 0]})

    return make


def _chunks(array):
    return tuple(min(n, c) for n, c in zip(array.shape, (2, 8, 16)[-array.ndim :], strict=True))


def write_ome(version, unit, factor):
    def make(path, array, edges):
        group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
        group.create_array("s0", shape=array.shape, dtype=array.dtype, chunks=_chunks(array))[:] = array
        axes = [{"name": a, "type": "space"} | ({"unit": unit} if edges else {}) for a in "zyx"[-array.ndim :]]
        scale = [edge * factor for edge in edges.edges] if edges else [1.0] * array.ndim
        steps = [{"type": "scale", "scale": scale}]
        image = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}
        attributes = {"multiscales": [{"version": version, **image}]}
        group.update_attributes(
            attributes if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}}
        )

    return make


def write_hdf5(attribute, factor, **options):
    def make(path, array, edges):
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("volumes/raw", data=array, **options)
            if edges:
                dataset.attrs[attribute] = [edge * factor for edge in edges.edges]

    return make


def write_imagej(path, array, edges):
    noted = {"spacing": edges.z / 1000, "unit": "micron"} if edges else {}
    density = {"resolution": (1000 / edges.x, 1000 / edges.y)} if edges else {}
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "ZYX"[-array.ndim :], **noted}, **density)


def write_ome_tiff(**options):
    def make(path, array, edges):
        noted = {f"PhysicalSize{a}": edge for a, edge in zip("ZYX", edges.edges, strict=True)} if edges else {}
        noted |= {f"{name}Unit": "nm" for name in noted}
        tifffile.imwrite(path, array, ome=True, metadata={"axes": "ZYX"[-array.ndim :], **noted}, **options)

    return make


def write_plain_tiff(**options):
    def make(path, array, edges):
        with tifffile.TiffWriter(path, byteorder=">") as file:
            for plane in array if array.ndim == 3 else [array]:
                file.write(plane, contiguous=False, photometric="minisblack", metadata=None, **options)

    return make


def write_slices(suffix):
    def make(path, array, edges):
        path.mkdir()
        for number, plane in enumerate(array if array.ndim == 3 else [array]):
            Image.fromarray(plane).save(path / f"img{number + 8}{suffix}")

    return make


def write_nifti(path, array, edges):
    image = nibabel.Nifti1Image(array.T, None)
    if edges:
        image.header["pixdim"][1 : 1 + array.ndim] = [edge / 1000 for edge in reversed(edges.edges)][: array.ndim]
        image.header.set_xyzt_units(xyz="micron")
    nibabel.save(image, path)


MAKERS = {
    "zarr v2": (ZarrReader, "a.zarr", write_zarr(2)),
    "zarr v2 nested": (ZarrReader, "a.zarr", write_zarr(2, "/")),
    "zarr v3": (ZarrReader, "a.zarr", write_zarr(3, "/")),
    "ome-zarr 0.4": (ZarrReader, "a.zarr", write_ome("0.4", "micrometer", 1e-3)),
    "ome-zarr 0.5": (ZarrReader, "a.zarr", write_ome("0.5", "angstrom", 10)),
    "hdf5": (Hdf5Reader, "a.h5", write_hdf5("resolution", 1)),
    "hdf5 chunked": (Hdf5Reader, "a.h5", write_hdf5("element_size_um", 1e-3, chunks=True, compression="gzip")),
    "imagej": (TiffReader, "a.tif", write_imagej),
    "ome-tiff": (TiffReader, "a.ome.tif", write_ome_tiff()),
    "ome-tiff tiled": (TiffReader, "a.ome.tif", write_ome_tiff(tile=(16, 16), compression="zlib", predictor=True)),
    "big-endian lzw strips": (TiffReader, "a.tif", write_plain_tiff(rowsperstrip=7, compression="lzw")),
    "scattered pages": (TiffReader, "a.tif", write_plain_tiff()),
    "nifti": (NiftiReader, "a.nii", write_nifti),
    "nifti gz": (NiftiReader, "a.nii.gz", write_nifti),
    "png slices": (SlicesReader, "slices", write_slices(".png")),
    "tiff slices": (SlicesReader, "slices", write_slices(".tif")),
}
STATES_VOXEL_SIZE = [
    name for name in MAKERS if name not in ("big-endian lzw strips", "scattered pages", "png slices", "tiff slices")
]


@pytest.fixture(params=MAKERS)
def case(request):
    return request.param


def made(name, tmp_path, array, edges=None):
    reader, file, make = MAKERS[name]
    if not (tmp_path / file).exists():
        make(tmp_path / file, array, edges)
    return reader(path=str(tmp_path / file))


def image(dtype="uint16", shape=SHAPE):
    values = np.random.default_rng(7).integers(0, 60_000, shape)
    return (values % 251).astype(dtype) if dtype == "uint8" else values.astype(dtype)


@st.composite
def rois(draw):
    start = [draw(st.integers(0, n - 1)) for n in SHAPE]
    return Roi(tuple(start), tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, SHAPE, strict=True)))


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(roi=rois())
def test_every_box_equals_slicing_the_array(case, tmp_path, roi):
    array = image()
    with made(case, tmp_path, array).open() as volume:
        values = volume.read(roi)
    assert values.dtype == volume.spec.dtype == "uint16"
    assert values.dtype.isnative
    np.testing.assert_array_equal(values, array[None][(slice(None), *roi.slices)])


def test_header_says_shape_and_dtype_and_the_file_is_closed_twice(case, tmp_path):
    volume = made(case, tmp_path, image("uint8")).open()
    assert (volume.spec.shape, volume.spec.dtype, volume.spec.channels) == (SHAPE, "uint8", ("",))
    volume.close()
    volume.close()


def test_the_fingerprint_follows_the_voxels_and_not_the_path(case, tmp_path):
    (tmp_path / "one").mkdir()
    reader = made(case, tmp_path / "one", image("uint8"))
    before = reader.fingerprint()
    assert before == reader.fingerprint()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert made(case, tmp_path / "two", None).fingerprint() == before
    for file in (tmp_path / "one").rglob("*"):
        if file.is_file():
            written = file.stat().st_mtime_ns + 1000
            os.utime(file, ns=(written, written))
    assert reader.fingerprint() != before


@pytest.mark.parametrize("name", STATES_VOXEL_SIZE)
def test_voxel_size_is_read_in_its_unit(name, tmp_path):
    with made(name, tmp_path, image("uint8"), EDGES).open() as volume:
        assert volume.spec.voxel_size is not None
        np.testing.assert_allclose(volume.spec.voxel_size.edges, EDGES.edges, rtol=1e-6)


def test_unknown_voxel_size_is_none_and_the_option_goes_before_the_file(case, tmp_path):
    reader = made(case, tmp_path, image("uint8"))
    with reader.open() as volume:
        assert volume.spec.voxel_size is None
    with reader.model_copy(update={"voxel_size": VoxelSize(5, 5, 5)}).open() as volume:
        assert volume.spec.voxel_size == VoxelSize(5, 5, 5)


def test_an_image_of_two_dimensions_is_one_slice(case, tmp_path):
    array = image("uint8", SHAPE[1:])
    with made(case, tmp_path, array).open() as volume:
        assert volume.spec.shape == (1, *SHAPE[1:])
        np.testing.assert_array_equal(volume.read(Roi.whole(volume.spec.shape))[0, 0], array)


def test_eight_threads_read_what_one_reads(case, tmp_path):
    array = image("uint8")
    boxes = [Roi((z, y, x), (z + 1, y + 11, x + 15)) for z in range(5) for y in (0, 11) for x in (0, 15)] * 2
    with made(case, tmp_path, array).open() as volume, concurrent.futures.ThreadPoolExecutor(8) as pool:
        for box, values in zip(boxes, pool.map(volume.read, boxes), strict=True):
            np.testing.assert_array_equal(values[0], array[box.slices])


def test_a_missing_path_is_refused_in_three_lines(case, tmp_path):
    reader, file, _ = MAKERS[case]
    with pytest.raises(DataError, match="does not exist") as error:
        reader(path=str(tmp_path / file)).open()
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("reader", [Hdf5Reader, NiftiReader, TiffReader, ZarrReader])
def test_a_file_of_another_format_is_refused(reader, tmp_path):
    (tmp_path / "notes").write_text("this is a text, long enough to be looked at")
    with pytest.raises(DataError, match=r"not an? .*(HDF5|NIfTI|TIFF|zarr)") as error:
        reader(path=str(tmp_path / "notes")).open()
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "name", [name for name, (_, file, _) in MAKERS.items() if Path(file).suffix in (".tif", ".h5", ".nii", ".gz")]
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_file_that_was_cut_short_is_refused_unless_nothing_is_lost(name, share, tmp_path):
    array = image()
    made(name, tmp_path, array)
    file = tmp_path / MAKERS[name][1]
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    try:
        with MAKERS[name][0](path=str(file)).open() as volume:
            values = volume.read(Roi.whole(SHAPE))[0]
    except DataError as error:
        message = str(error)
    else:
        np.testing.assert_array_equal(values, array)
        message = ""
    assert len(message.splitlines()) <= 3
    assert message or share > 0.99


def test_readers_are_pickled_compared_and_hashed(case, tmp_path):
    reader = MAKERS[case][0](path=str(tmp_path), voxel_size=[40, 8, 8])
    assert pickle.loads(pickle.dumps(reader)) == reader
    assert hash(reader) == hash(type(reader).model_validate_json(reader.model_dump_json()))
