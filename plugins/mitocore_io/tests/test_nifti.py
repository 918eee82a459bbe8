"""NIfTI: units, scaled values, what is mapped, what is unpacked, and the files that are written."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mitocore import DataError, Kind, Roi, VolumeSpec, VoxelSize
from mitocore_io.nifti_reader import NiftiReader
from mitocore_io.nifti_writer import NiftiWriter

VALUES = np.random.default_rng(2).integers(0, 200, (4, 6, 8)).astype("int16")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "a.nii")


def save(path, values=VALUES, zooms=None, unit="unknown", version=nibabel.Nifti1Image, **fields):
    image = version(values.T, None)
    if zooms:
        image.header["pixdim"][1 : 1 + len(zooms)] = zooms
    image.header.set_xyzt_units(xyz=unit)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)


def spec_of(path, **options):
    with NiftiReader(path=str(path), **options).open() as volume:
        return volume.spec


@pytest.mark.parametrize(
    ("zooms", "unit", "edges"),
    [
        ((0.0046, 0.0048, 0.05), "micron", (50, 4.8, 4.6)),
        ((4.6e-6, 4.8e-6, 5e-5), "mm", (50, 4.8, 4.6)),
        ((4.6e-9, 4.8e-9, 5e-8), "meter", (50, 4.8, 4.6)),
        ((8, 8, 40), "unknown", None),
        ((1, 1, 1), "mm", None),
        ((5.8e7, 5.8e7, 5.8e7), "mm", None),
        ((0, 8, 40), "micron", None),
    ],
)
def test_a_voxel_size_is_known_with_its_unit_and_where_it_is_possible(zooms, unit, edges, path):
    save(path, zooms=zooms, unit=unit)
    found = spec_of(path).voxel_size
    assert found is None if edges is None else np.allclose(found.edges, edges, rtol=1e-6, atol=0)


def test_values_are_scaled_as_the_header_says(path):
    save(path)
    content = bytearray(Path(path).read_bytes())
    content[112:120] = struct.pack("<ff", 0.5, 10.0)  # scl_slope and scl_inter
    Path(path).write_bytes(content)
    with NiftiReader(path=path).open() as volume:
        assert volume.spec.dtype == "float32"
        found = volume.read(Roi((1, 2, 3), (3, 6, 8)))[0]
    np.testing.assert_allclose(found, nibabel.load(path).get_fdata().T[1:3, 2:6, 3:8])
    np.testing.assert_allclose(found, VALUES[1:3, 2:6, 3:8] * 0.5 + 10)


def test_big_endian_files_and_version_2_are_read(path):
    header = nibabel.Nifti2Header(endianness=">")
    header.set_data_dtype(np.dtype(">i2"))
    nibabel.save(nibabel.Nifti2Image(VALUES.T, None, header), path)
    assert nibabel.load(path).header.endianness == ">"
    with NiftiReader(path=path).open() as volume:
        found = volume.read(Roi.whole((4, 6, 8)))
    assert found.dtype.isnative
    np.testing.assert_array_equal(found[0], VALUES)


def test_vectors_are_channels_and_times_are_refused(path):
    values = np.stack([VALUES, VALUES + 1])
    save(path, values[:, None])
    with NiftiReader(path=path).open() as volume:
        assert (volume.spec.shape, volume.spec.channels) == ((4, 6, 8), ("0", "1"))
        np.testing.assert_array_equal(volume.read(Roi((1, 0, 2), (3, 5, 8))), values[:, 1:3, :5, 2:8])
    save(path, values)
    with pytest.raises(DataError, match="2 time points"):
        spec_of(path)
    assert spec_of(path, axes="czyx").channels == ("0", "1")


def test_further_axes_of_one_voxel_are_left_out(path):
    save(path, VALUES[None, None, None])
    assert spec_of(path).shape == (4, 6, 8)


def test_only_voxels_of_the_box_are_read_from_a_plain_file(path):
    """A hole of 2 TiB in the file does not matter to a box beside it."""
    header = nibabel.Nifti2Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((2**14, 2**14, 2**13))
    with Path(path).open("wb") as file:
        header.write_to(file)
        file.truncate(header["vox_offset"] + 2**41)
        file.seek(header["vox_offset"] + 2**28 + 3)
        file.write(b"\x07")
    with NiftiReader(path=path).open() as volume:
        np.testing.assert_array_equal(volume.read(Roi((1, 0, 2), (2, 1, 5)))[0, 0, 0], [0, 7, 0])


def test_opening_a_compressed_file_unpacks_nothing_and_reading_unpacks_once(tmp_path, monkeypatch):
    file = tmp_path / "a.nii.gz"
    save(file)
    opened, unpack = [], gzip.open
    reader = NiftiReader(path=str(file))
    with reader.open() as volume:
        monkeypatch.setattr("mitocore_io.nifti_reader.gzip.open", lambda f: opened.append(f) or unpack(f))
        assert volume.packed
        for z in (0, 2):
            np.testing.assert_array_equal(volume.read(Roi((z, 0, 0), (z + 2, 6, 8)))[0], VALUES[z : z + 2])
    assert opened == [file]


def test_the_temporary_copy_goes_with_the_volume(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "room"))
    save(tmp_path / "a.nii.gz")
    with NiftiReader(path=str(tmp_path / "a.nii.gz")).open() as volume:
        volume.read(Roi.whole((4, 6, 8)))
        assert len(list((tmp_path / "room").iterdir())) == 1
    assert not list((tmp_path / "room").iterdir())


def test_a_compressed_file_that_was_cut_or_damaged_is_an_error_of_three_lines(tmp_path):
    file = tmp_path / "a.nii.gz"
    save(file, np.random.default_rng(0).integers(0, 99, (16, 32, 32)).astype("int16"))
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:9000] + bytes(200) + whole[9200:]):
        file.write_bytes(content)
        with (
            NiftiReader(path=str(file)).open() as volume,
            pytest.raises(DataError, match="cannot be unpacked") as error,
        ):
            volume.read(Roi((0, 0, 0), (1, 1, 1)))
        assert len(str(error.value).splitlines()) == 3


def test_a_compressed_file_of_a_file_that_was_cut_is_refused_when_it_is_read(tmp_path, path):
    save(path)
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        file.write(Path(path).read_bytes()[:-40])
    with NiftiReader(path=str(tmp_path / "a.nii.gz")).open() as volume, pytest.raises(DataError, match="40 bytes are"):
        volume.read(Roi((0, 0, 0), (1, 1, 1)))


def test_colours_are_refused(path):
    colours = np.zeros((8, 6, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, None), path)
    with pytest.raises(DataError, match="bool, integers and real numbers are read"):
        spec_of(path)


def write(path, spec, values):
    with NiftiWriter(path=str(path)).create("a", spec) as volume:
        volume.write(Roi.whole(spec.shape), values)
        volume.finish()


def test_other_programs_find_axes_voxel_size_place_and_labels(path):
    spec = VolumeSpec((4, 6, 8), "uint16", voxel_size=VoxelSize(50, 4.8, 4.6), origin=(100, 0, 46), kind=Kind.INSTANCE)
    write(path, spec, VALUES[None])
    image = nibabel.load(path)
    assert (image.shape, image.header.get_xyzt_units()[0]) == ((8, 6, 4), "micron")
    np.testing.assert_allclose(image.header.get_zooms(), (0.0046, 0.0048, 0.05), rtol=1e-6)
    np.testing.assert_allclose(image.affine[:3, 3], (0.046, 0, 0.1), rtol=1e-6)
    assert image.header.get_intent()[0] == "label"
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, VALUES)


def test_long_axes_make_version_2(path):
    spec = VolumeSpec((1, 1, 40_000), "uint8")
    write(path, spec, np.full((1, *spec.shape), 3, "uint8"))
    assert isinstance(nibabel.load(path), nibabel.Nifti2Image)
    assert spec_of(path).shape == spec.shape


def test_a_compressed_file_is_plain_until_it_is_finished_and_small_then(tmp_path):
    spec, told = VolumeSpec((4, 64, 64), "uint8"), []
    with NiftiWriter(path=str(tmp_path / "a.nii.gz")).create("a", spec) as volume:
        part = tmp_path / "a.nii.gz.part"
        assert part.stat().st_size > 4 * 64 * 64
        volume.finish(lambda done, total: told.append((done, total)))
        assert not part.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "a.nii.gz").stat().st_size < 1000
    assert told[-1][0] == told[-1][1]


def test_a_compressed_file_of_another_program_is_not_written_into(tmp_path):
    save(tmp_path / "a.nii.gz")
    before = (tmp_path / "a.nii.gz").read_bytes()
    with (
        NiftiWriter(path=str(tmp_path / "a.nii.gz")).open("a") as volume,
        pytest.raises(DataError, match="cannot be written into"),
    ):
        volume.write(Roi((0, 0, 0), (1, 6, 8)), np.zeros((1, 1, 6, 8), "int16"))
    assert (tmp_path / "a.nii.gz").read_bytes() == before
