"""What every writer promises: boxes in the order it declares, nothing half-written taken for whole, resume."""

import pickle
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mitocore import DataError, Kind, Roi, VolumeSpec, VoxelSize
from mitocore_io.hdf5_reader import Hdf5Reader
from mitocore_io.hdf5_writer import Hdf5Writer
from mitocore_io.nifti_reader import NiftiReader
from mitocore_io.nifti_writer import NiftiWriter
from mitocore_io.slices_reader import SlicesReader
from mitocore_io.slices_writer import SlicesWriter, TiffSlicesWriter
from mitocore_io.tiff_reader import TiffReader
from mitocore_io.tiff_writer import TiffWriter
from mitocore_io.zarr_reader import ZarrReader
from mitocore_io.zarr_writer import ZarrWriter

SHAPE = (6, 21, 34)
EDGES = VoxelSize(40.0, 4.6, 8.25)
NAME = "mito.instances"
SMALL = {"chunks": (2, 8, 16)}
CASES = {
    "ome-zarr 0.5": (ZarrWriter, "out.zarr", SMALL, ZarrReader),
    "ome-zarr 0.4": (ZarrWriter, "out.zarr", {**SMALL, "version": "0.4", "compression": "gzip"}, ZarrReader),
    "catena": (ZarrWriter, "out.zarr", {**SMALL, "layout": "catena", "key": "volumes/labels/{name}"}, ZarrReader),
    "hdf5": (Hdf5Writer, "out.h5", SMALL, Hdf5Reader),
    "sharded": (ZarrWriter, "out.zarr", {"chunks": (1, 4, 8), "shards": (2, 8, 16)}, ZarrReader),
    "tiff": (TiffWriter, "out.{name}.tif", {}, TiffReader),
    "tiff zlib": (TiffWriter, "out.{name}.tif", {"compression": "zlib"}, TiffReader),
    "nifti": (NiftiWriter, "out.{name}.nii", {}, NiftiReader),
    "nifti gz": (NiftiWriter, "out.{name}.nii.gz", {}, NiftiReader),
    "slices": (SlicesWriter, "out/{name}/", {}, SlicesReader),
    "tiff slices": (TiffSlicesWriter, "out/{name}/", {}, SlicesReader),
}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def writer(case, tmp_path):
    component, path, options, _ = CASES[case]
    return component(path=str(tmp_path / path), **options)


def reader_of(case, writer, name=NAME):
    options = {"key": writer.key.replace("{name}", name)} if hasattr(writer, "key") else {}
    return CASES[case][3](path=writer.path.replace("{name}", name), **options)


def spec(dtype="uint16", kind=Kind.INSTANCE, **changes):
    return VolumeSpec(SHAPE, dtype, voxel_size=EDGES, origin=(80.0, 0.0, 16.5), kind=kind, **changes)


def image(dtype="uint16", channels=1):
    values = np.random.default_rng(3).integers(0, 200, (channels, *SHAPE))
    return values.astype(dtype) if dtype != "bool" else values > 100


def boxes(writer, volume):
    """The boxes of one pass: whole planes in ascending z, or chunks in disorder."""
    if writer.order == "planes":
        return [Roi((z, 0, 0), (z + 2, *SHAPE[1:])) for z in range(0, SHAPE[0], 2)]
    step = volume.spec.chunks
    starts = list(product(*(range(0, n, c) for n, c in zip(SHAPE, step, strict=True))))
    np.random.default_rng(0).shuffle(starts)
    return [Roi(tuple(s), tuple(a + c for a, c in zip(s, step, strict=True))).clip(Roi.whole(SHAPE)) for s in starts]


def fill(writer, volume, array, part=slice(None)):
    for box in boxes(writer, volume)[part]:
        volume.write(box, array[(slice(None), *box.slices)])


def test_boxes_in_the_declared_order_make_the_array_and_its_meaning_is_kept(case, writer):
    array = image()
    with writer.create(NAME, spec()) as volume:
        fill(writer, volume, array)
        np.testing.assert_array_equal(volume.read(Roi((1, 2, 3), (5, 20, 30))), array[:, 1:5, 2:20, 3:30])
        volume.finish()
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), array)
    with reader_of(case, writer).open() as volume:
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), array)
        found = volume.spec
    assert (found.kind, found.shape, found.dtype) == (Kind.INSTANCE, SHAPE, "uint16")
    np.testing.assert_allclose(found.voxel_size.edges, EDGES.edges, rtol=1e-9)
    np.testing.assert_allclose(found.origin, (80.0, 0.0, 16.5))


def test_unknown_voxel_size_stays_unknown(case, writer):
    with writer.create(NAME, replace(spec(), voxel_size=None, origin=(0.0, 0.0, 0.0))) as volume:
        volume.finish()
    with reader_of(case, writer).open() as volume:
        assert volume.spec.voxel_size is None


def test_what_is_not_written_is_zero(case, writer):
    with writer.create(NAME, spec()) as volume:
        assert not volume.read(Roi.whole(SHAPE)).any()
        fill(writer, volume, image(), slice(0, 1))
        box = boxes(writer, volume)[0]
        volume.finish()
    with reader_of(case, writer).open() as volume:
        values = volume.read(Roi.whole(SHAPE))
    values[(slice(None), *box.slices)] = 0
    assert not values.any()


def test_every_declared_dtype_comes_back(case, writer):
    for dtype in writer.dtypes:
        array = image(dtype)
        if "int" in dtype and np.dtype(dtype).itemsize > 2:
            array[0, 0, 0, 0] = np.iinfo(dtype).max - 1
        if dtype.startswith("int"):
            array[0, 0, 0, 1] = np.iinfo(dtype).min
        if dtype.startswith("float"):
            array /= 7
        name = f"a.{dtype}"
        with writer.create(name, spec(dtype, Kind.IMAGE)) as volume:
            fill(writer, volume, array)
            volume.finish()
        with reader_of(case, writer, name).open() as volume:
            assert volume.spec.dtype == dtype
            np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), array)


def test_other_dtypes_are_refused(case, writer):
    with pytest.raises(DataError, match="does not hold complex64; it holds"):
        writer.create(NAME, spec("complex64"))


def test_named_channels_come_back_or_are_refused(case, writer):
    array = image("uint8", 3)
    wanted = replace(spec("uint8", Kind.IMAGE), channels=("raw", "edge", "centre"))
    if "slices" in case:
        with pytest.raises(DataError, match="holds one channel, not 3"):
            writer.create(NAME, wanted)
        return
    with writer.create(NAME, wanted) as volume:
        fill(writer, volume, array)
        volume.finish()
    with reader_of(case, writer).open() as volume:
        assert volume.spec.channels == ("raw", "edge", "centre")
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), array)


@pytest.mark.parametrize("finished", [True, False])
def test_an_array_that_exists_is_refused_finished_or_not(finished, case, writer):
    with writer.create(NAME, spec()) as volume:
        if finished:
            volume.finish()
    with pytest.raises(DataError) as error:
        writer.create(NAME, spec())
    assert len(str(error.value).splitlines()) == 3


def test_half_an_array_is_refused_by_the_reader(case, writer):
    with writer.create(NAME, spec()) as volume:
        fill(writer, volume, image(), slice(0, 1))
    with pytest.raises(DataError, match=r"not finished|does not exist"):
        reader_of(case, writer).open()


def test_a_half_written_array_is_resumed_and_finish_may_be_called_again(case, writer):
    array = image()
    with writer.create(NAME, spec()) as volume:
        fill(writer, volume, array, slice(0, 2))
    with writer.create(NAME, spec(), resume=True) as volume:
        first = boxes(writer, volume)[0]
        np.testing.assert_array_equal(volume.read(first), array[(slice(None), *first.slices)])
        fill(writer, volume, array, slice(1, None))
        volume.finish()
        volume.finish()
    with writer.create(NAME, spec(), resume=True) as volume:
        volume.finish()
    with reader_of(case, writer).open() as volume:
        assert volume.spec.voxel_size == EDGES
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), array)


def test_writing_anew_into_a_finished_array_leaves_no_mixture_that_passes_as_whole(case, writer):
    old, new = image(), image() + 200
    with writer.create(NAME, spec()) as volume:
        fill(writer, volume, old)
        volume.finish()
    with writer.create(NAME, spec(), resume=True) as volume:
        fill(writer, volume, new, slice(0, 1))  # and killed
    with pytest.raises(DataError, match=r"not finished|does not exist"):
        reader_of(case, writer).open()
    with writer.create(NAME, spec(), resume=True) as volume:
        fill(writer, volume, new, slice(1, None))
        volume.finish()
    with reader_of(case, writer).open() as volume:
        assert (volume.spec.kind, volume.spec.voxel_size) == (Kind.INSTANCE, EDGES)
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), new)


def test_a_finished_array_of_other_shape_stays_as_it_is(case, writer):
    with writer.create(NAME, spec()) as volume:
        volume.finish()
    with pytest.raises(DataError, match="what is there is"):
        writer.create(NAME, replace(spec(), shape=(6, 21, 33)), resume=True)
    with reader_of(case, writer).open() as volume:
        assert volume.spec.shape == SHAPE


def test_resume_creates_what_the_killed_run_had_not_begun(case, writer):
    with writer.create(NAME, spec(), resume=True) as volume:
        volume.finish()
    with reader_of(case, writer).open() as volume:
        assert volume.spec.shape == SHAPE


def test_resume_refuses_an_array_of_other_shape(case, writer):
    writer.create(NAME, spec()).close()
    with pytest.raises(DataError, match="what is there is"):
        writer.create(NAME, replace(spec(), shape=(6, 21, 33)), resume=True)


def test_another_process_opens_by_name_what_was_created(case, writer):
    array = image()
    writer.create(NAME, spec()).close()
    with pickle.loads(pickle.dumps(writer)).open(NAME) as volume:
        assert (volume.spec.shape, volume.spec.voxel_size, volume.spec.kind) == (SHAPE, EDGES, Kind.INSTANCE)
        fill(writer, volume, array)
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), array)


def test_opening_what_is_not_there_is_refused(case, writer):
    with pytest.raises(DataError, match=r"does not exist|has no"):
        writer.open(NAME)


def test_a_region_of_a_finished_array_is_replaced(case, writer):
    array = image()
    with writer.create(NAME, spec()) as volume:
        fill(writer, volume, array)
        volume.finish()
    region = Roi((1, 3, 5), (4, 9, 30))
    with writer.open(NAME) as volume:
        volume.write(region, np.full((1, *region.shape), 7, "uint16"))
        volume.finish()
    array[(slice(None), *region.slices)] = 7
    with reader_of(case, writer).open() as volume:
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), array)


def test_two_arrays_stand_beside_each_other(case, writer):
    with writer.create("a", spec()) as first, writer.create("b", spec("uint8")) as second:
        fill(writer, first, image())
        fill(writer, second, image("uint8"))
        first.finish()
        second.finish()
        np.testing.assert_array_equal(first.read(Roi.whole(SHAPE)), image())
    with writer.create("c", spec()) as third:
        fill(writer, third, image())
        third.finish()
    for name, dtype in (("a", "uint16"), ("b", "uint8"), ("c", "uint16")):
        with reader_of(case, writer, name).open() as volume:
            np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), image(dtype))


def finished(writer, name=NAME, *, resume=False):
    with writer.create(name, spec(), resume=resume) as volume:
        fill(writer, volume, image())
        volume.finish()
    return writer.stamp(name)


def test_only_a_finished_array_has_a_stamp(writer):
    assert writer.stamp(NAME) == ""
    writer.create(NAME, spec()).close()
    assert writer.stamp(NAME) == ""
    assert finished(writer, resume=True) != ""
    writer.create(NAME, spec(), resume=True).close()
    assert writer.stamp(NAME) == ""


def test_the_stamp_changes_when_the_array_is_written_anew_and_only_then(case, writer, tmp_path):
    first = finished(writer)
    with reader_of(case, writer).open() as volume:
        volume.read(Roi.whole(SHAPE))
    writer.open(NAME).close()
    if CASES[case][1] in ("out.zarr", "out.h5") or "{name}" in writer.path:
        finished(writer, "beside")
    assert writer.stamp(NAME) == first
    assert finished(writer, resume=True) not in ("", first)
    path = Path(writer.path.replace("{name}", NAME))
    path.rename(tmp_path / "gone")
    assert writer.stamp(NAME) == ""
    assert finished(writer) not in ("", first)


@pytest.mark.parametrize("case", ["ome-zarr 0.5", "ome-zarr 0.4", "catena", "hdf5"], indirect=True)
def test_a_copy_has_the_stamp_of_the_array_whenever_it_was_made(writer, tmp_path):
    stamp, path = finished(writer), Path(writer.path)
    copy = tmp_path / f"copy{path.suffix}"
    shutil.copytree(path, copy, copy_function=shutil.copyfile) if path.is_dir() else shutil.copyfile(path, copy)
    assert writer.model_copy(update={"path": str(copy)}).stamp(NAME) == stamp
