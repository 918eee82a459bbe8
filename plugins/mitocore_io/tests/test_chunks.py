"""Chunk files of PyTorch Connectomics: names, holes, overlaps, half-written files, one volume."""

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitocore import DataError, Kind, Roi, VoxelSize, convert
from mitocore_io.chunk_names import NamedChunk, chunk_of, missing_of
from mitocore_io.chunks_reader import ChunksReader
from mitocore_io.slices_reader import SlicesReader
from mitocore_io.zarr_reader import ZarrReader

SHAPE = (5, 9, 11)
FACES = ((0, 3, 5), (0, 4, 9), (0, 11))
VALUES = np.random.default_rng(2).integers(0, 256, (2, *SHAPE), "uint8")


def written(folder, values=VALUES, name="result_{}.h5", key="vol0", at=(0, 0, 0), faces=FACES, **options):
    """A volume (c, z, y, x) cut at `faces` into files; gives their names by place of their first voxel."""
    folder.mkdir(exist_ok=True)
    names = {}
    for box in itertools.product(*map(itertools.pairwise, faces)):
        spelled = "-".join(f"{a + o}-{b + o}" for (a, b), o in zip(box, at, strict=True))
        path = folder / name.format(spelled)
        part = values[(..., *(slice(a, b) for a, b in box))]
        with h5py.File(path, "w") as file:
            file.create_dataset(key, data=part, **{"compression": "gzip", **options})
        names[tuple(a for a, _ in box)] = path
    return names


def read(path, roi=None, **options):
    with ChunksReader(path=str(path), **options).open() as volume:
        return volume.read(roi or Roi.whole(volume.spec.shape))


def refused(path, **options):
    with pytest.raises(DataError) as error:
        ChunksReader(path=str(path), **options).open()
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.tuples(*[st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE]))
def test_every_box_equals_slicing_the_volume_that_was_cut(tmp_path, ends):
    if not (tmp_path / "out").exists():
        written(tmp_path / "out")
    roi = Roi(tuple(min(a, b - 1) for a, b in ends), tuple(b for _, b in ends))
    np.testing.assert_array_equal(read(tmp_path / "out", roi), VALUES[(slice(None), *roi.slices)])


@pytest.mark.parametrize(
    "name", ["result_{}.h5", "result_{}_xy.h5", "a_b_c_{}_txyz.hdf5", "result_txy_{}.h5", "1-2-3-4-5-6_{}.h5", "{}.h5"]
)
def test_names_may_hold_more_around_the_six_numbers(tmp_path, name):
    written(tmp_path / "out", name=name)
    np.testing.assert_array_equal(read(tmp_path / "out"), VALUES)


def test_volumes_without_channels_in_a_dataset_of_another_name_are_read_too(tmp_path):
    written(tmp_path / "out", VALUES[0], key="main", compression=None)
    np.testing.assert_array_equal(read(tmp_path / "out", key="main"), VALUES[:1])
    assert "has no dataset 'vol0'" in refused(tmp_path / "out", key="vol0")


def test_the_header_is_that_of_the_files_and_the_voxel_size_that_of_the_option(tmp_path):
    written(tmp_path / "out", at=(4, 0, 2))
    with ChunksReader(path=str(tmp_path / "out")).open() as volume:
        assert (volume.spec.shape, volume.spec.dtype, volume.spec.channels) == (SHAPE, "uint8", ("0", "1"))
        assert volume.spec.voxel_size is None
    with ChunksReader(path=str(tmp_path / "out"), voxel_size=[30, 8, 8]).open() as volume:
        assert (volume.spec.voxel_size, volume.spec.origin) == (VoxelSize(30, 8, 8), (120.0, 0.0, 16.0))


def test_chunks_that_are_missing_are_named_or_filled(tmp_path):
    names = written(tmp_path / "out")
    names[3, 0, 0].unlink()
    said = refused(tmp_path / "out")
    assert "chunks are missing: 3-5-0-4-0-11" in said
    assert "fill = 0" in said
    expected = VALUES.copy()
    expected[:, 3:, :4] = 7
    np.testing.assert_array_equal(read(tmp_path / "out", fill=7), expected)
    assert "fill = 300 does not fit uint8" in refused(tmp_path / "out", fill=300)


def test_a_missing_face_is_noticed_where_the_shape_is_stated(tmp_path):
    names = written(tmp_path / "out")
    for place in ((3, 0, 0), (3, 4, 0)):
        names[place].unlink()
    assert read(tmp_path / "out").shape == (2, 3, 9, 11)
    assert "chunks are missing: 3-5-0-4-0-11, 3-5-4-9-0-11" in refused(tmp_path / "out", shape=SHAPE)
    assert "leaves the volume of (2, 9, 11) voxels" in refused(tmp_path / "out", shape=(2, 9, 11))


@settings(deadline=None, max_examples=40)
@given(st.sets(st.tuples(*[st.integers(0, 2)] * 3), min_size=1))
def test_the_places_that_are_named_are_just_those_that_no_chunk_holds(places):
    chunks = [NamedChunk(Path("a"), Roi(place, tuple(n + 1 for n in place))) for place in places]
    whole = Roi((0, 0, 0), (3, 3, 3))
    said = missing_of(chunks, whole)
    if len(places) == 27:
        assert said == ""
        return
    named = [chunk_of(Path(f"{part.split(' and ')[0]}.h5")).roi for part in said.split(", ")]
    for roi in named:
        assert all(tuple(place) not in places for place in np.argwhere(np.ones(roi.shape)) + roi.start)


def test_two_predictions_in_one_folder_are_refused_and_a_pattern_takes_one(tmp_path):
    written(tmp_path / "out", VALUES)
    written(tmp_path / "out", 255 - VALUES, name="result_{}_xy.h5")
    said = refused(tmp_path / "out")
    assert "hold the same voxels" in said
    assert '"out/result_*_xy.h5"' in said
    np.testing.assert_array_equal(read(tmp_path / "out" / "result_*_xy.h5"), 255 - VALUES)


def test_overlapping_chunks_of_one_name_are_refused(tmp_path):
    written(tmp_path / "out")
    written(tmp_path / "out", faces=((2, 5), (0, 9), (0, 11)))
    assert "overlap" in refused(tmp_path / "out")


def test_a_chunk_of_another_shape_than_its_name_says_is_refused(tmp_path):
    names = written(tmp_path / "out")
    with h5py.File(names[3, 4, 0], "w") as file:
        file["vol0"] = VALUES[:, 3:5, 4:8]
    assert "holds (2, 4, 11) voxels (z, y, x), its name says (2, 5, 11)" in refused(tmp_path / "out")


def test_chunks_of_another_kind_are_refused(tmp_path):
    names = written(tmp_path / "out")
    with h5py.File(names[3, 4, 0], "w") as file:
        file["vol0"] = VALUES[:, 3:5, 4:9].astype("float32")
    assert "holds 2 channels of float32, 'result_0-3-0-4-0-11.h5' 2 channels of uint8" in refused(tmp_path / "out")


def cut_short(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path):
    path.write_bytes(b"")


def without_a_dataset(path):
    h5py.File(path, "w").close()


def partly_written(path):
    with h5py.File(path, "r") as file:
        shape = file["vol0"].shape
    with h5py.File(path, "w") as file:
        file.create_dataset("vol0", shape, "uint8", chunks=(1, 1, 4, 4))[:, :1] = 1


def never_written(path):
    with h5py.File(path, "r") as file:
        shape = file["vol0"].shape
    with h5py.File(path, "w") as file:
        file.create_dataset("vol0", shape, "uint8")


@pytest.mark.parametrize("damage", [cut_short, emptied, without_a_dataset, partly_written, never_written])
def test_a_file_that_a_stopped_run_left_is_refused_with_what_to_do(tmp_path, damage):
    names = written(tmp_path / "out")
    damage(names[3, 0, 0])
    said = refused(tmp_path / "out")
    assert "result_3-5-0-4-0-11.h5" in said
    assert "run the prediction of this chunk again" in said
    with pytest.raises(DataError):
        convert(tmp_path / "out", tmp_path / "merged.zarr", reader="chunks")
    assert not (tmp_path / "merged.zarr").exists()


def test_few_files_are_open_at_a_time_and_each_is_opened_once_by_neighbouring_boxes(tmp_path, monkeypatch):
    written(tmp_path / "out", faces=(range(6), (0, 9), (0, 11)))
    opened, monitored = [], ChunksReader.opened

    def opening(self, chunk):
        opened.append(chunk.name)
        return monitored(self, chunk)

    monkeypatch.setattr("mitocore_io.chunks_reader._OPEN", 2)
    with ChunksReader(path=str(tmp_path / "out")).open() as volume:
        monkeypatch.setattr(ChunksReader, "opened", opening)
        for z, y in itertools.product(range(5), range(9)):
            volume.read(Roi((z, y, 0), (z + 1, y + 1, 11)))
            assert len(volume._open) <= 2
    assert len(opened) == len(set(opened)) == 5


def test_merged_into_zarr_the_probabilities_are_those_of_the_files(tmp_path):
    written(tmp_path / "out")
    target = tmp_path / "merged.zarr"
    spec = convert(tmp_path / "out" / "*.h5", target, voxel_size=[30, 8, 8], kind="probability")
    assert (spec.shape, spec.dtype, spec.kind, len(spec.channels)) == (SHAPE, "uint8", Kind.PROBABILITY, 2)
    with ZarrReader(path=str(target), key="volume").open() as volume:
        np.testing.assert_array_equal(volume.read(Roi.whole(SHAPE)), VALUES)


def test_files_that_name_no_voxels_are_refused_and_a_folder_of_chunks_says_how_it_is_read(tmp_path):
    written(tmp_path / "out")
    (tmp_path / "raw").mkdir()
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / "raw" / name, "w") as file:
            file["raw"] = VALUES[0]
    assert "'a.h5' does not name its voxels" in refused(tmp_path / "raw" / "*.h5")
    assert "'nowhere' does not exist" in refused(tmp_path / "nowhere")
    assert "'a.h5' is one file, not a volume of chunks" in refused(tmp_path / "raw" / "a.h5")
    with pytest.raises(DataError, match=r'"out/\*\.h5" for its chunks as one volume'):
        SlicesReader(path=f"{tmp_path}/out/").open()
