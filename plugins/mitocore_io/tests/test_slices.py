"""Folders of slices: order, mixed modes, and what is refused."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from mitocore import DataError, Roi, VolumeSpec, VoxelSize
from mitocore_io import images, png
from mitocore_io.slices_reader import SlicesReader
from mitocore_io.slices_writer import SlicesWriter


def plane(value=0, shape=(6, 9), dtype="uint8"):
    return (np.arange(np.prod(shape)).reshape(shape) % 200 + value).astype(dtype)


def save(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, values in files.items():
        Image.fromarray(values).save(folder / f"{name}.png")
    return str(folder)


def read(path, **options):
    with SlicesReader(path=str(path), **options).open() as volume:
        return volume.read(Roi.whole(volume.spec.shape))[0]


def test_slices_stand_in_the_order_of_their_numbers(tmp_path):
    path = save(tmp_path / "raw", img10=plane(10), img2=plane(2), img1=plane(1))
    (tmp_path / "raw" / "Thumbs.db").write_text("not a slice")
    (tmp_path / "raw" / "._img3.png").write_text("not a slice either")
    np.testing.assert_array_equal(read(path)[:, 0, 0], [1, 2, 10])


def test_a_pattern_picks_slices_and_one_file_is_one_slice(tmp_path):
    path = save(tmp_path / "raw", a1=plane(1), a2=plane(2), b1=plane(3))
    assert len(read(f"{path}/a*.png")) == 2
    assert read(f"{path}/b1.png").shape == (1, 6, 9)
    with pytest.raises(DataError, match="no file that fits"):
        read(f"{path}/c*.png")


def test_one_bit_slices_among_grey_ones_are_0_and_255(tmp_path):
    mask = plane() > 30
    path = save(tmp_path / "mito", s0=plane(), s1=mask)
    values = read(path)
    assert values.dtype == "uint8"
    np.testing.assert_array_equal(values[1], np.where(mask, 255, 0))


def test_one_bit_slices_alone_are_boolean(tmp_path):
    mask = plane() > 30
    path = save(tmp_path / "mito", s0=mask, s1=~mask)
    assert SlicesReader(path=path).open().spec.dtype == "bool"
    np.testing.assert_array_equal(read(path), [mask, ~mask])


def test_sixteen_bits_are_kept(tmp_path):
    path = save(tmp_path / "raw", s0=plane(40_000, dtype="uint16"))
    assert read(path).dtype == "uint16"
    np.testing.assert_array_equal(read(path)[0], plane(40_000, dtype="uint16"))


def test_colour_modes_that_hold_grey_are_read_and_alpha_is_left_out(tmp_path):
    grey = Image.fromarray(plane())
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, mode in enumerate(("L", "LA", "RGB", "RGBA", "P")):
        grey.convert(mode).save(folder / f"{number}.png")
    np.testing.assert_array_equal(read(folder), [plane()] * 5)


def test_colours_are_refused_with_the_file_and_the_pixel(tmp_path):
    colours = np.repeat(plane()[..., None], 3, axis=2)
    colours[2, 3] = (200, 10, 10)
    path = save(tmp_path / "raw", s0=plane(), s1=colours)
    with pytest.raises(DataError, match=r"'s1.png' is in colour: pixel \(2, 3\) is \(200, 10, 10\)") as error:
        read(path)
    assert len(str(error.value).splitlines()) == 3


def test_the_odd_slice_is_named(tmp_path):
    path = save(tmp_path / "raw", s0=plane(), s1=plane(), s2=plane(shape=(6, 8)))
    with pytest.raises(DataError, match=r"'s2.png' is 6 x 8 uint8, other slices are 6 x 9 uint8"):
        SlicesReader(path=path).open()
    path = save(tmp_path / "deep", s0=plane(), s1=plane(dtype="uint16"), s2=plane())
    with pytest.raises(DataError, match=r"'s1.png' is 6 x 9 uint16, other slices are 6 x 9 uint8"):
        SlicesReader(path=path).open()


def test_two_kinds_of_files_are_refused_with_a_pattern_as_remedy(tmp_path):
    path = save(tmp_path / "raw", s0=plane())
    tifffile.imwrite(tmp_path / "raw" / "s1.tif", plane())
    with pytest.raises(DataError, match=r"end in \.png and \.tif") as error:
        SlicesReader(path=path).open()
    assert error.value.hint == 'path = "raw/*.png"'
    assert len(read(f"{path}/*.tif")) == 1


def test_a_folder_without_slices_and_a_file_that_is_no_png_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no slices"):
        SlicesReader(path=str(tmp_path / "empty")).open()
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(DataError, match="not a PNG file"):
        SlicesReader(path=str(tmp_path / "a.png")).open()


def test_a_slice_that_was_cut_short_is_refused_when_it_is_read(tmp_path):
    path = save(tmp_path / "raw", s0=plane(), s1=plane())
    file = tmp_path / "raw" / "s1.png"
    file.write_bytes(file.read_bytes()[:60])
    with SlicesReader(path=path).open() as volume:
        volume.read(Roi((0, 0, 0), (1, 6, 9)))
        with pytest.raises(DataError, match=r"'s1.png' cannot be decoded"):
            volume.read(Roi((1, 0, 0), (2, 6, 9)))


def test_tiff_files_of_several_planes_are_no_slices(tmp_path):
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw" / "a.tif", np.zeros((3, 6, 9), "uint8"), photometric="minisblack")
    with pytest.raises(DataError, match="holds 3 planes"):
        SlicesReader(path=str(tmp_path / "raw")).open()


def test_only_slices_of_the_box_are_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "raw", **{f"s{z}": plane(z) for z in range(6)})
    asked, pixels = [], images.pixels
    monkeypatch.setattr(images, "pixels", lambda file: asked.append(file.name) or pixels(file))
    with SlicesReader(path=path).open() as volume:
        assert not asked
        volume.read(Roi((2, 0, 0), (4, 3, 3)))
    assert asked == ["s2.png", "s3.png"]


@pytest.mark.parametrize("width", [1, 7, 8, 9])
def test_one_bit_png_is_what_other_programs_read(width, tmp_path):
    mask = np.random.default_rng(0).random((5, width)) > 0.5
    (tmp_path / "a.png").write_bytes(png.encode(mask))
    assert png.header(tmp_path / "a.png").dtype == "bool"
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == "1"
        np.testing.assert_array_equal(np.asarray(opened), mask)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()) > 0, mask)


def test_written_slices_are_ordinary_files_in_a_folder_that_is_renamed(tmp_path):
    spec = VolumeSpec((12, 6, 9), "uint16", voxel_size=VoxelSize(40, 8, 8))
    with SlicesWriter(path=f"{tmp_path}/out/").create("a", spec) as volume:
        assert (tmp_path / "out.part").is_dir()
        volume.write(Roi((0, 0, 0), (1, 6, 9)), plane(300, dtype="uint16")[None, None])
        volume.finish()
    names = sorted(file.name for file in (tmp_path / "out").glob("*.png"))
    assert names == [f"z{z:05d}.png" for z in range(12)]
    with Image.open(tmp_path / "out" / names[0]) as opened:
        np.testing.assert_array_equal(np.asarray(opened), plane(300, dtype="uint16"))


def test_slices_without_a_note_are_not_written_into(tmp_path):
    path = save(tmp_path / "raw", s0=plane())
    with pytest.raises(DataError, match="cannot be written into"):
        SlicesWriter(path=path).open("a")


def test_the_fingerprint_is_of_the_slices_that_fit_the_pattern(tmp_path):
    save(tmp_path, raw0=plane(), raw1=plane(), raw2=plane())
    reader = SlicesReader(path=str(tmp_path / "raw*.png"))
    before = reader.fingerprint()
    save(tmp_path, other=plane())
    assert reader.fingerprint() == before
    save(tmp_path, raw1=plane(shape=(60, 90)))
    rewritten = reader.fingerprint()
    (tmp_path / "raw0.png").unlink()
    assert len({before, rewritten, reader.fingerprint()}) == 3


@pytest.mark.parametrize("numbers", [(1, 2, 4), (0, 10, 20, 40)])
def test_a_gap_in_the_numbers_is_told_once(tmp_path, caplog, numbers):
    path = save(tmp_path / "raw", **{f"s{number}": plane(number) for number in numbers})
    for _ in range(2):
        SlicesReader(path=path).open().close()
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert f"between 's{numbers[-2]}.png' and 's{numbers[-1]}.png'" in told.getMessage()


@pytest.mark.parametrize("names", [("s1", "s2", "s3"), ("s0", "s10", "s20"), ("a1", "b5", "b6"), ("x", "y", "z")])
def test_numbers_in_even_steps_and_names_of_several_series_have_no_gap(tmp_path, caplog, names):
    SlicesReader(path=save(tmp_path / "raw", **{name: plane() for name in names})).open().close()
    assert not caplog.records
