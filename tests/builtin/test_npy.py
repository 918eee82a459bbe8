"""The .npy reader and writer."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.builtin.npy import NpyReader, NpyWriter
from mitocore.errors import DataError, ResourceError
from mitocore.geometry import Roi, VoxelSize
from mitocore.specs import VolumeSpec


def saved(path, array):
    np.save(path, array)
    return NpyReader(path=str(path))


def test_every_box_equals_numpy_slicing(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (2, 5, 6, 7)).astype("u1")
    with saved(tmp_path / "a.npy", array).open() as volume:

        @settings(deadline=None, max_examples=40)
        @given(st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in (5, 6, 7))))
        def check(ends):
            roi = Roi(tuple(min(a, b - 1) for a, b in ends), tuple(b for _, b in ends))
            np.testing.assert_array_equal(volume.read(roi), array[(slice(None), *roi.slices)])

        check()


@pytest.mark.parametrize(
    ("shape", "expected"), [((6, 7), (1, 6, 7)), ((5, 6, 7), (5, 6, 7)), ((2, 5, 6, 7), (5, 6, 7))]
)
def test_sections_volumes_and_channels_are_told_by_their_axes(tmp_path, shape, expected):
    spec = saved(tmp_path / "a.npy", np.ones(shape, "u2")).open().spec
    assert (spec.shape, spec.dtype, len(spec.channels)) == (expected, "uint16", shape[0] if len(shape) == 4 else 1)


def test_voxel_size_is_unknown_unless_stated(tmp_path):
    reader = saved(tmp_path / "a.npy", np.ones((2, 2, 2), "u1"))
    assert reader.open().spec.voxel_size is None
    stated = NpyReader(path=reader.path, voxel_size=[40, 8, 8])
    assert stated.open().spec.voxel_size == VoxelSize(40, 8, 8)


def test_fortran_order_and_foreign_byte_order_read_as_native(tmp_path):
    array = np.arange(60, dtype=">u2").reshape(3, 4, 5)
    volume = saved(tmp_path / "a.npy", np.asfortranarray(array)).open()
    values = volume.read(Roi((1, 1, 1), (3, 4, 5)))
    assert values.dtype == np.dtype("uint16")
    assert values.dtype.isnative
    np.testing.assert_array_equal(values[0], array[1:, 1:, 1:])


def test_what_is_read_is_not_the_file(tmp_path):
    volume = saved(tmp_path / "a.npy", np.ones((2, 2, 2), "u1")).open()
    volume.read(Roi.whole((2, 2, 2)))[:] = 7
    assert volume.read(Roi.whole((2, 2, 2))).max() == 1


def _truncated(path):
    np.save(path, np.zeros((8, 8, 8), "f4"))
    path.write_bytes(path.read_bytes()[:-100])


def _text(path):
    path.write_text("z,y,x")


def _objects(path):
    np.save(path, np.array([{}, None], object), allow_pickle=True)


def _complex(path):
    np.save(path, np.zeros((2, 2, 2), "c8"))


def _five_axes(path):
    np.save(path, np.zeros((1,) * 5))


@pytest.mark.parametrize("spoil", [_truncated, _text, _objects, _complex, _five_axes])
def test_a_file_that_cannot_be_used_is_refused_in_three_lines(tmp_path, spoil):
    path = tmp_path / "a.npy"
    spoil(path)
    with pytest.raises(DataError) as caught:
        NpyReader(path=str(path)).open()
    assert "a.npy" in str(caught.value)
    assert "numpy.save" in caught.value.hint
    assert len(str(caught.value).splitlines()) <= 3


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        NpyReader(path=str(tmp_path / "a.npy")).open()
    with pytest.raises(DataError, match="cannot be opened"):
        NpyReader(path=str(tmp_path)).open()


def test_a_closed_volume_says_so(tmp_path):
    volume = saved(tmp_path / "a.npy", np.ones((2, 2, 2), "u1")).open()
    volume.close()
    volume.close()
    with pytest.raises(DataError, match="closed"):
        volume.read(Roi.whole((2, 2, 2)))


@pytest.mark.parametrize("dtype", NpyWriter.dtypes)
@pytest.mark.parametrize("channels", [("",), ("a", "b")])
def test_boxes_written_by_threads_come_back(tmp_path, dtype, channels):
    shape = (4, 6, 5)
    values = np.random.default_rng(1).integers(0, 200, (len(channels), *shape)).astype(dtype)
    writer = NpyWriter(path=str(tmp_path / "out.npy"))
    volume = writer.create("mito", VolumeSpec(shape, dtype, channels))
    boxes = [Roi((z, 0, 0), (z + 1, 6, 5)) for z in range(4)]
    threads = [
        threading.Thread(target=volume.write, args=(b, values[(slice(None), *b.slices)])) for b in reversed(boxes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    volume.finish()
    volume.finish()
    stored = np.load(tmp_path / "out.npy")
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, values[0] if len(channels) == 1 else values)
    assert not (tmp_path / "out.npy.part").exists()


def test_an_array_begun_is_part_until_finished_and_can_be_resumed(tmp_path):
    writer, spec, box = NpyWriter(path=str(tmp_path / "sub" / "out.npy")), VolumeSpec((2, 3, 4), "uint8"), (0, 0, 0)
    writer.create("mito", spec).write(Roi(box, (1, 3, 4)), np.ones((1, 1, 3, 4), "u1"))
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["out.npy.part"]
    again = writer.create("mito", spec, resume=True)
    assert again.read(Roi.whole((2, 3, 4))).sum() == 12
    again.finish()
    finished = writer.create("mito", spec, resume=True)
    finished.finish()
    assert np.load(tmp_path / "sub" / "out.npy").sum() == 12


def test_writing_anew_into_a_finished_file_leaves_no_mixture_that_passes_as_whole(tmp_path):
    writer, spec = NpyWriter(path=str(tmp_path / "out.npy")), VolumeSpec((2, 3, 4), "uint8")
    writer.create("mito", spec).finish()
    writer.create("mito", spec, resume=True).write(Roi((0, 0, 0), (1, 3, 4)), np.ones((1, 1, 3, 4), "u1"))
    assert [p.name for p in tmp_path.iterdir()] == ["out.npy.part"]
    again = writer.create("mito", spec, resume=True)
    assert again.read(Roi.whole((2, 3, 4))).sum() == 12
    again.finish()
    assert np.load(tmp_path / "out.npy").sum() == 12


def test_a_finished_file_and_a_part_of_another_are_not_mixed_up(tmp_path):
    writer, spec = NpyWriter(path=str(tmp_path / "out.npy")), VolumeSpec((2, 3, 4), "uint8")
    writer.create("mito", spec).finish()
    (tmp_path / "out.npy.part").write_bytes((tmp_path / "out.npy").read_bytes())
    with pytest.raises(DataError, match="both"):
        writer.create("mito", spec, resume=True)


def test_the_fingerprint_of_a_file_follows_its_content_and_not_its_name(tmp_path):
    reader = saved(tmp_path / "a.npy", np.ones((2, 2, 2), "u1"))
    before = reader.fingerprint()
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")
    assert NpyReader(path=str(tmp_path / "b.npy")).fingerprint() == before
    with pytest.raises(DataError, match="cannot be looked at"):
        reader.fingerprint()
    assert saved(tmp_path / "b.npy", np.ones((2, 2, 3), "u1")).fingerprint() != before


def test_an_existing_target_is_refused(tmp_path):
    writer, spec = NpyWriter(path=str(tmp_path / "out.npy")), VolumeSpec((2, 3, 4), "uint8")
    volume = writer.create("mito", spec)
    with pytest.raises(DataError, match=r"part' already exists"):
        writer.create("mito", spec)
    volume.finish()
    with pytest.raises(DataError, match=r"out.npy' already exists"):
        writer.create("mito", spec)


def test_resuming_another_shape_is_refused(tmp_path):
    writer = NpyWriter(path=str(tmp_path / "out.npy"))
    writer.create("mito", VolumeSpec((2, 3, 4), "uint8"))
    with pytest.raises(DataError, match="begun as uint8"):
        writer.create("mito", VolumeSpec((2, 3, 5), "uint8"), resume=True)


def test_several_arrays_are_told_apart_by_a_name_in_the_path(tmp_path):
    writer = NpyWriter(path=str(tmp_path / "{name}.npy"))
    for name in ("mito.instances", "net.foreground"):
        writer.create(name, VolumeSpec((2, 2, 2), "uint8")).finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mito.instances.npy", "net.foreground.npy"]


def test_a_folder_that_cannot_be_written_is_a_resource_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        NpyWriter(path=str(tmp_path / "file" / "out.npy")).create("mito", VolumeSpec((2, 2, 2), "uint8"))
