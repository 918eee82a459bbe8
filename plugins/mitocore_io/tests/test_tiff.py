"""TIFF: axes, voxel size, which bytes are read, and the files that are written."""

import numpy as np
import pytest
import tifffile

from mitocore import DataError, Kind, Roi, VolumeSpec, VoxelSize
from mitocore_io.tiff_reader import TiffReader
from mitocore_io.tiff_writer import TiffWriter


def image(*shape, dtype="uint8"):
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "a.tif")


def spec_of(path, **options):
    with TiffReader(path=path, **options).open() as volume:
        return volume.spec


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        ("micron", 1e3),
        ("um", 1e3),
        ("\\u00B5m", 1e3),
        ("nm", 1.0),
        ("cm", 1e7),
        ("inch", 25.4e6),
        ("pixel", 0),
        ("", 0),
    ],
)
def test_imagej_units_are_understood(unit, nm, path):
    noted = {"unit": unit} if unit else {}
    tifffile.imwrite(
        path, image(4, 6, 8), imagej=True, resolution=(4, 2), metadata={"axes": "ZYX", "spacing": 3.0, **noted}
    )
    size = spec_of(path).voxel_size
    assert size is None if not nm else np.allclose(size.edges, (3 * nm, nm / 2, nm / 4), rtol=1e-6)


def test_imagej_without_spacing_does_not_say_its_voxel_size(path):
    tifffile.imwrite(path, image(4, 6, 8), imagej=True, resolution=(4, 4), metadata={"axes": "ZYX", "unit": "um"})
    assert spec_of(path).voxel_size is None


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1e-3), ("nm", 1.0), ("Å", 10.0), ("mm", 1e-6), (None, 1e-3)])
def test_ome_units_are_understood_and_micrometres_are_the_default(unit, factor, path):
    sizes = {f"PhysicalSize{axis}": nm * factor for axis, nm in (("X", 4.6), ("Y", 4.8), ("Z", 50.0))}
    units = {f"{key}Unit": unit for key in sizes} if unit else {}
    tifffile.imwrite(path, image(4, 6, 8), ome=True, metadata={"axes": "ZYX", **sizes, **units})
    assert np.allclose(spec_of(path).voxel_size.edges, (50, 4.8, 4.6), rtol=1e-6)


def test_the_resolution_of_a_plain_file_is_no_voxel_size(path):
    tifffile.imwrite(
        path, image(4, 6, 8), resolution=(72, 72), resolutionunit="INCH", photometric="minisblack", metadata=None
    )
    assert spec_of(path).voxel_size is None


@pytest.mark.parametrize(
    ("axes", "shape", "options"),
    [
        ("ZCYX", (4, 2, 6, 8), {"imagej": True}),
        ("CZYX", (2, 4, 6, 8), {"ome": True}),
        ("ZCYX", (4, 2, 6, 8), {"ome": True, "compression": "zlib"}),
    ],
)
def test_channels_come_first(axes, shape, options, path):
    values = image(*shape, dtype="uint16")
    tifffile.imwrite(path, values, metadata={"axes": axes}, **options)
    wanted = values.transpose([axes.index(a) for a in "CZYX"])
    with TiffReader(path=path).open() as volume:
        assert (volume.spec.shape, volume.spec.channels) == ((4, 6, 8), ("0", "1"))
        np.testing.assert_array_equal(volume.read(Roi((1, 2, 3), (3, 6, 7))), wanted[:, 1:3, 2:6, 3:7])


def test_frames_are_slices_where_nothing_else_is(path):
    tifffile.imwrite(path, image(4, 6, 8), imagej=True, metadata={"axes": "TYX"})
    assert spec_of(path).shape == (4, 6, 8)


def test_several_time_points_of_a_volume_are_refused(path):
    tifffile.imwrite(path, image(3, 4, 6, 8), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(DataError, match="3 time points"):
        spec_of(path)
    assert spec_of(path, axes="czyx").channels == ("0", "1", "2")


def test_colours_are_refused(path):
    tifffile.imwrite(path, image(4, 6, 8, 3), photometric="rgb")
    with pytest.raises(DataError, match="holds colours: 3 samples"):
        spec_of(path)


def test_pages_of_different_shape_are_refused_until_one_series_is_chosen(path):
    with tifffile.TiffWriter(path) as file:
        file.write(image(4, 6, 8), photometric="minisblack")
        file.write(image(3, 3), photometric="minisblack")
    with pytest.raises(DataError, match=r"holds 2 images of different shape \(0: \(4, 6, 8\), 1: \(3, 3\)\)"):
        spec_of(path)
    assert spec_of(path, series=0).shape == (4, 6, 8)
    assert spec_of(path, series=1).shape == (1, 3, 3)


def test_one_bit_pages_are_boolean(path):
    values = image(4, 6, 9) % 2 == 0
    tifffile.imwrite(path, values, photometric="minisblack")
    with TiffReader(path=path).open() as volume:
        assert volume.spec.dtype == "bool"
        np.testing.assert_array_equal(volume.read(Roi((1, 1, 2), (3, 6, 9)))[0], values[1:3, 1:6, 2:9])


@pytest.mark.parametrize("options", [{"rowsperstrip": 4}, {"tile": (16, 16)}])
def test_only_the_strips_or_tiles_of_the_box_are_decoded(options, path, monkeypatch):
    values = image(5, 32, 48)
    tifffile.imwrite(path, values, compression="zlib", **options)
    with TiffReader(path=path).open() as volume:
        asked, encoded = [], volume._encoded
        monkeypatch.setattr(volume, "_encoded", lambda page, segment: asked.append(segment) or encoded(page, segment))
        np.testing.assert_array_equal(volume.read(Roi((1, 5, 3), (3, 9, 14)))[0], values[1:3, 5:9, 3:14])
    assert len(asked) == 2 * (2 if "rowsperstrip" in options else 1)


def test_opening_decodes_no_page(path, monkeypatch):
    tifffile.imwrite(path, image(5, 32, 48), compression="zlib", photometric="minisblack")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)
    monkeypatch.setattr(tifffile.TiffPage, "decode", None)
    assert spec_of(path).shape == (5, 32, 48)


def test_damaged_pages_are_an_error_of_three_lines(path, tmp_path):
    tifffile.imwrite(
        path,
        np.random.default_rng(0).integers(0, 255, (3, 32, 48)).astype("uint8"),
        compression="zlib",
        photometric="minisblack",
    )
    with tifffile.TiffFile(path) as tif:
        place, count = tif.pages[1].dataoffsets[0], tif.pages[1].databytecounts[0]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[place : place + count] = bytes(count)
    (tmp_path / "a.tif").write_bytes(content)
    with TiffReader(path=path).open() as volume:
        volume.read(Roi((0, 0, 0), (1, 32, 48)))
        with pytest.raises(DataError, match="planes 1 to 2 cannot be decoded") as error:
            volume.read(Roi((1, 0, 0), (2, 32, 48)))
    assert len(str(error.value).splitlines()) == 3


def test_tifffile_logs_nothing_about_a_file_that_is_refused(path, tmp_path, caplog):
    tifffile.imwrite(path, image(4, 6, 8), imagej=True)
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:300])
    with caplog.at_level("WARNING"), pytest.raises(DataError):
        spec_of(path)
    assert not caplog.records


@pytest.mark.parametrize(
    ("dtype", "classic", "form"),
    [
        ("uint8", True, "imagej"),
        ("float32", True, "imagej"),
        ("uint16", False, "ome"),
        ("uint32", True, "ome"),
        ("uint64", True, "shaped"),
        ("uint64", False, "shaped"),
    ],
)
def test_other_programs_find_pages_and_voxel_size(dtype, classic, form, path, tmp_path, monkeypatch):
    monkeypatch.setattr("mitocore_io.tiff_metadata._CLASSIC", 2**31 if classic else 64)
    values = image(4, 6, 8, dtype=dtype)
    spec = VolumeSpec((4, 6, 8), dtype, voxel_size=VoxelSize(50, 4.8, 4.6), kind=Kind.INSTANCE)
    with TiffWriter(path=path).create("a", spec) as volume:
        volume.write(Roi.whole(spec.shape), values[None])
        volume.finish()
    with tifffile.TiffFile(path) as tif:
        assert (tif.series[0].kind, tif.is_bigtiff, len(tif.pages)) == (form, not classic, 4)
        np.testing.assert_array_equal(tif.asarray().reshape(values.shape), values)
        if form == "imagej":
            assert (tif.imagej_metadata["unit"], tif.imagej_metadata["spacing"]) == ("um", 0.05)
            pixels, length = tif.pages[0].tags["YResolution"].value
            assert np.isclose(pixels / length, 1 / 0.0048)
        if form == "ome":
            assert 'PhysicalSizeY="0.0048"' in tif.ome_metadata


def test_a_second_array_is_refused_with_the_remedy(tmp_path):
    writer = TiffWriter(path=str(tmp_path / "out.tif"))
    with writer.create("a", VolumeSpec((2, 4, 4), "uint8")), pytest.raises(DataError, match="not finished") as error:
        writer.create("b", VolumeSpec((2, 4, 4), "uint8"))
    assert "{name} in path" in error.value.hint
    with writer.open("a") as volume:
        volume.finish()
    with pytest.raises(DataError, match="exists") as error:
        writer.create("b", VolumeSpec((2, 4, 4), "uint8"))
    assert "'out.{name}.tif'" in error.value.hint


def test_a_compressed_file_is_not_written_into(path):
    tifffile.imwrite(path, image(4, 6, 8), compression="zlib", photometric="minisblack")
    with TiffWriter(path=path).open("a") as volume, pytest.raises(DataError, match="cannot be written into"):
        volume.write(Roi((0, 0, 0), (1, 6, 8)), np.zeros((1, 1, 6, 8), "uint8"))


def test_a_run_killed_while_it_laid_out_the_file_begins_again(tmp_path):
    (tmp_path / "out.tif.part").write_bytes(b"II*\0\x08\0")
    spec = VolumeSpec((2, 4, 4), "uint8")
    with TiffWriter(path=str(tmp_path / "out.tif")).create("a", spec, resume=True) as volume:
        volume.finish()
    assert spec_of(str(tmp_path / "out.tif")).shape == (2, 4, 4)


def test_a_compressed_file_is_packed_when_it_is_finished_and_unpacked_to_be_written_again(path, tmp_path):
    spec, told = VolumeSpec((4, 60, 80), "uint32", voxel_size=VoxelSize(50, 4, 4), kind=Kind.INSTANCE), []
    values = np.repeat(np.arange(4, dtype="uint32"), 4800).reshape(1, 4, 60, 80)
    writer = TiffWriter(path=path, compression="zlib")
    with writer.create("a", spec) as volume:
        volume.write(Roi.whole(spec.shape), values)
        volume.finish(lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (tmp_path / "a.tif").stat().st_size < values.nbytes / 10
    with tifffile.TiffFile(path) as tif:
        assert (tif.pages[0].compression.name, tif.series[0].kind) == ("ADOBE_DEFLATE", "ome")
        np.testing.assert_array_equal(tif.asarray(), values[0])
    with writer.open("a") as volume:
        volume.write(Roi((1, 0, 0), (2, 60, 80)), values[:, 3:])
        with pytest.raises(DataError, match="does not exist"):  # it is called .part again
            spec_of(path)
        volume.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
    with TiffReader(path=path).open() as volume:
        assert (volume.spec.voxel_size, volume.spec.kind) == (spec.voxel_size, spec.kind)
        np.testing.assert_array_equal(volume.read(Roi.whole(spec.shape))[0, :, 0, 0], [0, 3, 2, 3])


def test_a_run_killed_while_it_packed_the_file_finishes_it(path, tmp_path, monkeypatch):
    spec = VolumeSpec((4, 60, 80), "uint8")
    writer = TiffWriter(path=path, compression="zlib")
    volume = writer.create("a", spec)
    volume.write(Roi.whole(spec.shape), np.full((1, *spec.shape), 7, "uint8"))

    def killed(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with volume, pytest.raises(KeyboardInterrupt):
        volume.finish(killed)
    assert not (tmp_path / "a.tif").exists()
    with writer.create("a", spec, resume=True) as volume:
        volume.finish()
    with TiffReader(path=path).open() as volume:
        assert (volume.read(Roi.whole(spec.shape)) == 7).all()
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
