"""The tile JSON of PyTorch Connectomics: which file holds which voxels, coded ids, missing tiles, resolution."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mitocore import DataError, Kind, Roi, VoxelSize
from mitocore_io import images
from mitocore_io.tiles_reader import TilesReader, resampled

SHAPE = (3, 20, 29)
TILE = (8, 12)
VALUES = np.random.default_rng(5).integers(0, 250, SHAPE).astype("uint8")
IDS = np.random.default_rng(6).integers(0, 2**24, SHAPE).astype("uint32")


def colours(plane):
    return np.stack([plane >> 16, plane >> 8 & 255, plane & 255], axis=-1).astype("uint8")


def tiled(folder, values, pattern="z{z}/{row}_{column}.png", first=(0, 0), encode=lambda plane: plane, **changes):
    """Cut a volume into tiles, the last ones smaller, and list them."""
    rows, columns = (-(-n // t) for n, t in zip(values.shape[1:], TILE, strict=True))
    for z, plane in enumerate(values):
        for row in range(rows):
            for column in range(columns):
                name = pattern.format(z=z, row=row + first[0], column=column + first[1])
                (folder / name).parent.mkdir(exist_ok=True, parents=True)
                part = plane[row * TILE[0] : (row + 1) * TILE[0], column * TILE[1] : (column + 1) * TILE[1]]
                Image.fromarray(encode(part)).save(folder / name)
    stated = {
        "image": [pattern.replace("{z}", str(z)) for z in range(len(values))],
        "depth": len(values),
        "height": values.shape[1],
        "width": values.shape[2],
        "n_rows": rows,
        "n_columns": columns,
        "tile_size": list(TILE),
        "tile_st": list(first),
        "tile_ratio": 1,
        "ndim": 1,
        "dtype": "uint8",
    }
    (folder / "im.json").write_text(json.dumps(stated | changes))
    return str(folder / "im.json")


def read(path, roi=None, **options):
    with TilesReader(path=path, **options).open() as volume:
        return volume.read(roi or Roi.whole(volume.spec.shape))[0]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.tuples(*[st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE]))
def test_every_box_equals_slicing_the_volume_that_was_cut(tmp_path, ends):
    path = str(tmp_path / "im.json")
    if not (tmp_path / "im.json").exists():
        tiled(tmp_path, VALUES, first=(4, 7))
    roi = Roi(tuple(min(a, b - 1) for a, b in ends), tuple(b for _, b in ends))
    np.testing.assert_array_equal(read(path, roi), VALUES[roi.slices])


def test_the_header_is_that_of_the_json_file_and_the_voxel_size_is_unknown(tmp_path):
    spec = TilesReader(path=tiled(tmp_path, VALUES)).open().spec
    assert (spec.shape, spec.dtype, spec.voxel_size, spec.kind) == (SHAPE, "uint8", None, Kind.IMAGE)
    assert spec.chunks == (1, *TILE)
    reader = TilesReader(path=str(tmp_path / "im.json"), voxel_size=[30, 8, 8])
    assert reader.open().spec.voxel_size == VoxelSize(30, 8, 8)


def test_colours_are_ids(tmp_path):
    path = tiled(tmp_path, IDS, encode=colours, ndim=3)
    spec = TilesReader(path=path).open().spec
    assert (spec.dtype, spec.kind) == ("uint32", Kind.INSTANCE)
    np.testing.assert_array_equal(read(path), IDS)


def test_tiff_tiles_may_hold_coded_ids_too(tmp_path):
    tifffile.imwrite(tmp_path / "seg0.tif", colours(IDS[0]), photometric="rgb")
    listed = {"image": ["seg0.tif"], "height": 20, "width": 29, "tile_size": [20, 29], "ndim": 3}
    (tmp_path / "seg.json").write_text(json.dumps(listed))
    np.testing.assert_array_equal(read(str(tmp_path / "seg.json"))[0], IDS[0])


def test_one_tile_larger_than_the_volume_is_cut(tmp_path):
    Image.fromarray(VALUES[0]).save(tmp_path / "im0.png")
    listed = {"image": ["im0.png"], "depth": 1, "height": 15, "width": 29, "tile_size": 4096}
    (tmp_path / "im.json").write_text(json.dumps(listed))
    np.testing.assert_array_equal(read(str(tmp_path / "im.json"))[0], VALUES[0, :15])


def test_missing_tiles_and_sections_are_filled(tmp_path):
    path = tiled(tmp_path, VALUES)
    (tmp_path / "z0" / "1_0.png").unlink()
    stated = json.loads((tmp_path / "im.json").read_text())
    (tmp_path / "im.json").write_text(json.dumps(stated | {"image": [*stated["image"][:2], None]}))
    for fill in (0, 128):
        expected = VALUES.copy()
        expected[0, 8:16, :12] = expected[2] = fill
        np.testing.assert_array_equal(read(path, fill=fill), expected)


def test_a_list_of_which_no_tile_is_there_is_refused_when_it_is_opened(tmp_path):
    (tmp_path / "im.json").write_text(json.dumps({"image": ["a/0.png"], "height": 4, "width": 4, "tile_size": 4}))
    with pytest.raises(DataError, match=r"none of the tiles is there; the first is '.*a/0\.png'") as error:
        TilesReader(path=str(tmp_path / "im.json")).open()
    assert len(str(error.value).splitlines()) <= 3


def test_numbers_in_names_may_have_leading_zeros(tmp_path):
    path = tiled(tmp_path, VALUES, "{z}_{row:02d}_{column:03}.png")
    np.testing.assert_array_equal(read(path), VALUES)


def test_only_the_tiles_of_the_box_are_decoded_and_each_once(tmp_path, monkeypatch):
    path = tiled(tmp_path, VALUES)
    asked, decoded = [], images.decoded
    monkeypatch.setattr(images, "decoded", lambda file: asked.append(file.name) or decoded(file))
    with TilesReader(path=path).open() as volume:
        assert not asked
        volume.read(Roi((1, 0, 5), (2, 8, 20)))
        volume.read(Roi((1, 3, 0), (2, 7, 13)))
    assert asked == ["0_0.png", "0_1.png"]


def test_tiles_that_are_kept_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("mitocore_io.tiles_reader._KEPT", 2 * TILE[0] * TILE[1])
    with TilesReader(path=tiled(tmp_path, VALUES)).open() as volume:
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE))[0], VALUES)
        assert sum(tile.nbytes for tile in volume._kept.values()) <= 2 * TILE[0] * TILE[1]


@pytest.mark.parametrize(("ratio", "shape"), [(0.5, (1, 10, 14)), (2, (1, 40, 58))])
def test_tile_ratio_is_voxels_per_pixel_and_labels_keep_their_values(tmp_path, ratio, shape):
    ramp = np.add.outer(np.arange(20) * 4, np.arange(29) * 2).astype("uint8")[None]
    for values, options, changes in ((ramp, {}, {}), (IDS[:1], {"encode": colours}, {"ndim": 3})):
        folder = tmp_path / f"{changes}{ratio}"
        size = {"height": shape[1], "width": shape[2], "tile_size": [round(n * ratio) for n in (20, 29)]}
        folder.mkdir()
        Image.fromarray(options.get("encode", lambda p: p)(values[0])).save(folder / "0.png")
        listed = {"image": ["0.png"], "tile_ratio": ratio, **size, **changes}
        (folder / "im.json").write_text(json.dumps(listed))
        found = read(str(folder / "im.json"))
        assert found.shape == shape
        if changes:
            assert np.isin(found, values).all()
        else:  # a ramp stays one: voxel centres stand where they stood
            y, x = ((np.arange(n) + 0.5) / ratio - 0.5 for n in shape[1:])
            inner = np.add.outer(y * 4, x * 2)[2:-2, 2:-2]
            assert np.abs(found[0, 2:-2, 2:-2] - inner).max() <= 1


def test_halving_takes_the_mean_of_two_pixels():
    np.testing.assert_array_equal(resampled(np.array([[10, 20, 30, 60]], "uint8"), 0.5, linear=True), [[15, 45]])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"height": None}, "height"),
        ({"tile_size": 0}, "tile_size"),
        ({"depth": 5}, "depth 5 with 3 paths"),
        ({"image": ["a.png", "b.png", "c.png"]}, "a path without {row} and {column}"),
        ({"dtype": "float32"}, "dtype"),
        ({"tile_ratio": 0}, "tile_ratio"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_its_key(tmp_path, changes, said):
    path = tiled(tmp_path, VALUES, **changes)
    with pytest.raises(DataError) as error:
        TilesReader(path=path).open()
    assert said in error.value.problem
    assert len(str(error.value).splitlines()) <= 3


def test_a_json_file_of_something_else_or_cut_short_is_refused(tmp_path):
    path = tiled(tmp_path, VALUES)
    for content in ('{"image": [', "[1, 2]", "{}"):
        (tmp_path / "im.json").write_text(content)
        with pytest.raises(DataError, match=r"is not a (JSON file|list of tiles)") as error:
            TilesReader(path=path).open()
        assert len(str(error.value).splitlines()) <= 3


def test_tiles_that_do_not_fit_the_list_are_refused_when_they_are_read(tmp_path):
    path = tiled(tmp_path, VALUES, tile_size=[9, 12])
    with pytest.raises(DataError, match=r"has \(8, 12\) pixels \(y, x\), which give \(8, 12\) voxels, not \(9, 12\)"):
        read(path)
    tiled(tmp_path, IDS, encode=colours)
    with pytest.raises(DataError, match="is in colour"):
        read(path)
    tiled(tmp_path, VALUES, encode=lambda plane: plane.astype("uint16"))
    with pytest.raises(DataError, match=r"is uint16, the volume uint8"):
        read(path)


def test_a_damaged_tile_is_an_error_of_three_lines(tmp_path):
    path = tiled(tmp_path, VALUES)
    file = tmp_path / "z1" / "0_0.png"
    file.write_bytes(file.read_bytes()[:50])
    read(path, Roi((0, 0, 0), (1, 8, 12)))
    with pytest.raises(DataError, match=r"'0_0.png' cannot be decoded") as error:
        read(path)
    assert len(str(error.value).splitlines()) == 3


def test_the_fingerprint_follows_the_tiles(tmp_path):
    reader = TilesReader(path=tiled(tmp_path, VALUES))
    before = reader.fingerprint()
    (tmp_path / "z1" / "0_0.png").unlink()
    assert reader.fingerprint() != before
