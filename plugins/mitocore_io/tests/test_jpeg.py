"""JPEG slices: read where they are whole and grey, written where values may change."""

import numpy as np
import pytest
from PIL import Image

import mitocore
from mitocore import DataError, Roi, VolumeSpec, VoxelSize, WiringError
from mitocore_io import jpeg
from mitocore_io.slices_reader import SlicesReader
from mitocore_io.slices_writer import JpegSlicesWriter, SlicesWriter, TiffSlicesWriter


def smooth(shift=0, shape=(48, 70)):
    y, x = np.indices(shape)
    return (100 + 60 * np.sin((x + shift) / 9) * np.cos(y / 7)).astype("uint8")


def save(folder, suffix=".jpg", mode="L", **options):
    folder.mkdir(exist_ok=True)
    for number in (2, 10, 1):
        Image.fromarray(smooth(number)).convert(mode).save(folder / f"img{number}{suffix}", **options)
    return str(folder)


@pytest.mark.parametrize(
    ("suffix", "mode", "options"),
    [
        (".jpg", "L", {}),
        (".JPEG", "L", {"progressive": True}),
        (".jpeg", "RGB", {"quality": 60}),
        (".jpg", "L", {"comment": b"x" * 60_000, "icc_profile": bytes(120_000)}),
    ],
)
def test_slices_are_read_in_natural_order_as_another_library_decodes_them(tmp_path, suffix, mode, options):
    path = save(tmp_path / "raw", suffix, mode, **options)
    with SlicesReader(path=path).open() as volume:
        assert (volume.spec.shape, volume.spec.dtype, volume.spec.voxel_size) == ((3, 48, 70), "uint8", None)
        found = volume.read(Roi((0, 3, 5), (3, 40, 60)))[0]
    for plane, number in zip(found, (1, 2, 10), strict=True):
        with Image.open(tmp_path / "raw" / f"img{number}{suffix}") as image:
            expected = np.asarray(image.convert("L"))[3:40, 5:60]
        assert np.abs(plane.astype(int) - expected).max() <= 2


def test_opening_decodes_nothing(tmp_path, monkeypatch):
    path = save(tmp_path / "raw")
    monkeypatch.setattr(jpeg, "decoded", None)
    assert SlicesReader(path=path).open().spec.shape == (3, 48, 70)


@pytest.mark.parametrize("left", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_slice_that_was_cut_short_is_not_filled_with_grey(tmp_path, left, options):
    path = save(tmp_path / "raw", **options)
    file = tmp_path / "raw" / "img2.jpg"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * left)])
    with SlicesReader(path=path).open() as volume:
        volume.read(Roi((0, 0, 0), (1, 48, 70)))
        with pytest.raises(DataError, match=r"'img2.jpg' cannot be decoded") as error:
            volume.read(Roi((1, 0, 0), (2, 48, 70)))
    assert len(str(error.value).splitlines()) == 3


def test_what_is_no_jpeg_or_ends_in_its_header_is_refused_when_it_is_opened(tmp_path):
    path = save(tmp_path / "raw")
    for content in (b"text", b"\xff\xd8\xff\xe0\0\x10JFIF", b"\xff\xd8" + bytes(99)):
        (tmp_path / "raw" / "img2.jpg").write_bytes(content)
        with pytest.raises(DataError, match="not a JPEG file, or is cut short"):
            SlicesReader(path=path).open()


def test_colours_are_refused(tmp_path):
    Image.fromarray(np.dstack([smooth(), smooth(9), smooth(20)])).save(tmp_path / "a.jpg")
    with SlicesReader(path=str(tmp_path / "a.jpg")).open() as volume, pytest.raises(DataError, match="is in colour"):
        volume.read(Roi((0, 0, 0), (1, 48, 70)))


def test_written_slices_are_near_the_image_and_nearer_with_more_quality(tmp_path):
    spec, errors = VolumeSpec((2, 48, 70), "uint8", voxel_size=VoxelSize(40, 8, 8)), []
    values = np.stack([smooth(0), smooth(5)])
    for quality in (20, 95):
        writer = JpegSlicesWriter(path=f"{tmp_path}/{quality}", quality=quality)
        with writer.create("raw", spec) as volume:
            volume.write(Roi.whole(spec.shape), values[None])
            volume.finish()
        with SlicesReader(path=writer.path).open() as volume:
            assert volume.spec.voxel_size == spec.voxel_size
            errors.append(np.abs(volume.read(Roi.whole(spec.shape))[0].astype(int) - values).mean())
    assert errors[1] < errors[0] < 8
    assert errors[1] < 1


def test_labels_are_refused_before_anything_is_computed(tmp_path):
    """By the plan of a pipeline, and by a copy of labels."""
    Image.fromarray(smooth()).save(tmp_path / "raw.png")
    text = (
        'mitocore = 1\n[input]\npath = "raw.png"\nkind = "probability"\nvoxel_size = 8\n'
        '[[step]]\npostprocessor = "threshold"\n'
        '[output]\nwriter = "jpeg-slices"\npath = "out/"\n'
    )
    (tmp_path / "pipeline.toml").write_text(text)
    with pytest.raises(WiringError, match="this format changes values"):
        mitocore.load(tmp_path / "pipeline.toml")
    assert not (tmp_path / "out").exists()


def test_folders_of_another_format_are_not_gone_on_with(tmp_path):
    spec = VolumeSpec((2, 4, 4), "uint8")
    SlicesWriter(path=str(tmp_path / "out")).create("a", spec).close()
    with pytest.raises(DataError, match=r"holds \.png slices, not \.jpg"):
        JpegSlicesWriter(path=str(tmp_path / "out")).create("a", spec, resume=True)


def test_ids_that_png_cannot_hold_go_to_tiff_slices(tmp_path):
    spec = VolumeSpec((1, 4, 4), "uint32")
    with pytest.raises(DataError, match=r"a \.png slice does not hold uint32; it holds bool, uint8, uint16"):
        SlicesWriter(path=str(tmp_path / "png")).create("a", spec)
    with TiffSlicesWriter(path=str(tmp_path / "tiff")).create("a", spec) as volume:
        volume.write(Roi.whole(spec.shape), np.full((1, 1, 4, 4), 2**31, "uint32"))
        volume.finish()
    with SlicesReader(path=str(tmp_path / "tiff")).open() as volume:
        assert volume.read(Roi.whole(spec.shape)).max() == 2**31
