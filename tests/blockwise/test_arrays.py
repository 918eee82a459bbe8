import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mitocore import (
    ArraySpec,
    ContractError,
    DataError,
    Kind,
    ResourceError,
    Roi,
    RunError,
    Volume,
    VolumeSpec,
    WritableVolume,
)
from mitocore.blockwise.arrays import (
    BlockFiles,
    Computed,
    Normalised,
    Opened,
    Selected,
    Stored,
    VolumeSink,
    pack,
    read_all,
    settle,
    unpack,
    widen,
)
from mitocore.blockwise.grid import BlockGrid
from mitocore.testing.minimal import Threshold

floats = arrays(np.float32, (1, 1, 2, 3), elements=st.floats(width=32, allow_nan=False))
specs = [ArraySpec(kind) for kind in (Kind.IMAGE, Kind.PROBABILITY, Kind.OFFSET, Kind.DISTANCE, Kind.EMBEDDING)]
specs += [ArraySpec(kind, storage=s) for kind in (Kind.PROBABILITY, Kind.AFFINITY) for s in ("float32", "uint8")]


class Array(WritableVolume):
    def __init__(self, values, dtype=None):
        self.values = np.asarray(values if dtype is None else np.zeros(values, dtype))

    @property
    def spec(self):
        return VolumeSpec(self.values.shape[1:], str(self.values.dtype))

    def read(self, roi):
        return self.values[(..., *roi.slices)]

    def write(self, roi, values):
        assert values.dtype == self.values.dtype
        self.values[(..., *roi.slices)] = values


@pytest.mark.parametrize("spec", specs, ids=lambda spec: f"{spec.kind}-{spec.stored}")
@settings(deadline=None, max_examples=40)
@given(values=floats)
def test_settled_values_settle_to_themselves_and_hold_no_negative_zero(spec, values):
    settled = settle(values, spec)
    assert settled.dtype == np.float32
    assert np.isfinite(settled).all() or spec.stored == "float32"
    np.testing.assert_array_equal(settle(settled, spec), settled)
    assert not np.signbit(settled[settled == 0]).any()
    assert pack(values, spec).dtype == spec.stored


@given(st.integers(0, 255))
def test_every_byte_survives_as_a_probability(byte):
    spec = ArraySpec(Kind.PROBABILITY, storage="uint8")
    assert pack(unpack(np.array([byte], np.uint8), spec), spec) == byte


def test_probabilities_outside_their_range_are_clipped_and_nan_becomes_zero():
    spec = ArraySpec(Kind.PROBABILITY, storage="uint8")
    assert pack(np.array([-1, 2, np.nan, 0.5], np.float32), spec).tolist() == [0, 255, 0, 128]


@pytest.mark.parametrize(("kind", "dtype"), [(Kind.MASK, bool), (Kind.SEMANTIC, np.uint16), (Kind.INSTANCE, np.uint64)])
def test_labels_are_stored_as_they_are(kind, dtype):
    values = np.array([0, 1, 1], dtype)
    packed = pack(values, ArraySpec(kind))
    assert packed.dtype == dtype
    assert unpack(packed, ArraySpec(kind)).tolist() == values.tolist()


def test_what_a_file_of_floats_holds_of_a_byte_probability_is_the_probability():
    spec = ArraySpec(Kind.PROBABILITY, storage="uint8")
    assert widen(np.array([255], np.uint8), "float32", spec) == np.float32(1)


def test_ids_that_a_file_cannot_hold_are_refused():
    assert widen(np.array([65535], np.uint64), "uint16").dtype == np.uint16
    for spec in (None, ArraySpec(Kind.INSTANCE)):
        with pytest.raises(DataError, match="id 65536 is larger than uint16 holds"):
            widen(np.array([65536], np.uint64), "uint16", spec)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 7)] * 3), st.tuples(*[st.integers(1, 7)] * 3))
def test_any_box_of_a_scratch_array_reads_as_the_array_in_memory(tmp_path_factory, seed, shape, block):
    rng = np.random.default_rng(seed)
    grid = BlockGrid(Roi.whole(shape), block)
    values = rng.integers(0, 70_000, (2, *shape)).astype(np.uint32)
    files = BlockFiles(tmp_path_factory.mktemp("scratch"), grid, 2, "uint32")
    for number in rng.permutation(len(grid)).tolist():
        if rng.random() < 0.4:
            values[(..., *grid.box(number).slices)] = 0
        files.write(number, grid.box(number), values[(..., *grid.box(number).slices)])
    files.sync()
    start = [int(rng.integers(0, n)) for n in shape]
    roi = Roi(tuple(start), tuple(int(rng.integers(a + 1, n + 1)) for a, n in zip(start, shape, strict=True)))
    for box in (roi, Roi.whole(shape), grid.box(0)):
        read = files.read(box)
        assert read.dtype == np.uint32
        np.testing.assert_array_equal(read, values[(..., *box.slices)])


def test_the_file_of_a_block_of_zeros_is_empty_even_if_an_earlier_attempt_left_values(tmp_path):
    grid = BlockGrid(Roi.whole((2, 2, 2)), (2, 2, 2))
    files = BlockFiles(tmp_path, grid, 1, "float16")
    files.write(0, grid.box(0), np.full((1, 2, 2, 2), -1, np.float16))
    assert (tmp_path / "0.npy").stat().st_size > 0
    files.write(0, grid.box(0), np.zeros((1, 2, 2, 2), np.float16))
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("0.npy", 0)]
    assert not files.read(grid.box(0)).any()
    assert not files.load(0).any()


def three_blocks(folder):
    """The middle one holds only 0."""
    grid = BlockGrid(Roi.whole((1, 1, 6)), (1, 1, 2))
    files = BlockFiles(folder / "net.foreground.ab", grid, 1, "uint32")
    files.folder.mkdir()
    for number, values in enumerate([[3, 4], [0, 0], [5, 6]]):
        files.write(number, grid.box(number), np.array([[[values]]], np.uint32))
    return files


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_block_whose_file_is_gone_is_missing_and_not_background(tmp_path, block):
    files = three_blocks(tmp_path)
    (files.folder / f"{block}.npy").unlink()
    for read in (lambda: files.load(block), lambda: files.read(Roi((0, 0, 2 * block), (1, 1, 2 * block + 1)))):
        with pytest.raises(RunError) as caught:
            read()
        assert caught.value.problem == f"block {block} of scratch 'net.foreground.ab' is missing"
        assert (caught.value.where, caught.value.hint) == (str(files.folder), "--fresh computes it again")
    with pytest.raises(RunError, match=f"block {block} of scratch"):
        files.read(files.grid.region)
    other = (block + 1) % 3
    assert files.read(files.grid.box(other)).ravel().tolist() == [[3, 4], [0, 0], [5, 6]][other]


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npy(np.ones((1, 1, 1, 2), np.uint8))[:-1],
        npy(np.ones((1, 1, 1, 2), np.uint8))[:40],
        b"\0" * 130,
        npy(np.ones((1, 1, 1, 1), np.uint8)),
        npy(np.ones((1, 1, 1, 2), np.float32)),
    ],
    ids=["cut", "half a header", "garbage", "another shape", "another dtype"],
)
def test_a_block_whose_file_is_damaged_is_named_however_it_is_read(tmp_path, content):
    files = three_blocks(tmp_path)
    (files.folder / "2.npy").write_bytes(content)
    for read in (lambda: files.load(2), lambda: files.read(files.grid.region)):
        with pytest.raises(RunError, match=r"'2\.npy' is damaged") as caught:
            read()
        assert caught.value.where == str(files.folder / "2.npy")


def test_ids_are_stored_in_the_fewest_bytes_that_hold_those_of_the_block(tmp_path):
    grid = BlockGrid(Roi.whole((1, 1, 4)), (1, 1, 2))
    files = BlockFiles(tmp_path, grid, 1, "uint64")
    files.write(0, grid.box(0), np.array([[[[3, 255]]]], np.uint64))
    files.write(1, grid.box(1), np.array([[[[3, 2**40]]]], np.uint64))
    assert [files.load(0).dtype, files.load(1).dtype] == [np.uint8, np.uint64]
    assert files.read(grid.region).tolist() == [[[[3, 255, 3, 2**40]]]]


def test_stored_arrays_are_read_as_components_see_them(tmp_path):
    grid = BlockGrid(Roi.whole((1, 1, 2)), (1, 1, 2))
    spec = ArraySpec(Kind.PROBABILITY, storage="uint8")
    files = BlockFiles(tmp_path, grid, 1, "uint8")
    files.write(0, grid.box(0), pack(np.array([[[[0.2, 1]]]], np.float32), spec))
    read = Stored(files, spec).read(grid.region)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, settle(np.array([[[[0.2, 1]]]], np.float32), spec))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"])
def test_label_volumes_of_any_width_become_ids(dtype):
    volume = Array(np.array([[[[0, 3, 200]]]], dtype))
    for kind, seen in ((Kind.INSTANCE, np.uint64), (Kind.SEMANTIC, np.uint16), (Kind.MASK, bool)):
        read = Opened(volume, kind).read(Roi.whole((1, 1, 3)))
        assert read.dtype == seen
        assert read.ravel().tolist() == ([False, True, True] if seen is bool else [0, 3, 200])


def test_minus_one_in_a_label_volume_becomes_the_value_that_is_ignored():
    volume = Array(np.array([[[[-1, 2]]]], np.int32))
    whole = Roi.whole((1, 1, 2))
    assert Opened(volume, Kind.INSTANCE).read(whole).ravel().tolist() == [2**64 - 1, 2]
    assert Opened(volume, Kind.SEMANTIC).read(whole).ravel().tolist() == [2**16 - 1, 2]


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_the_largest_number_of_a_wide_unsigned_label_file_is_ignored(dtype):
    volume = Array(np.array([[[[0, 2, np.iinfo(dtype).max]]]], dtype))
    whole = Roi.whole((1, 1, 3))
    assert Opened(volume, Kind.INSTANCE).read(whole).ravel().tolist() == [0, 2, 2**64 - 1]
    assert Opened(volume, Kind.SEMANTIC).read(whole).ravel().tolist() == [0, 2, 2**16 - 1]


def test_255_in_a_byte_file_is_a_label_unless_it_is_named_to_be_ignored():
    volume = Array(np.array([[[[0, 2, 255]]]], np.uint8))
    whole = Roi.whole((1, 1, 3))
    assert Opened(volume, Kind.INSTANCE).read(whole).ravel().tolist() == [0, 2, 255]
    assert Opened(volume, Kind.INSTANCE, ignore=(255,)).read(whole).ravel().tolist() == [0, 2, 2**64 - 1]
    assert Opened(volume, Kind.SEMANTIC, ignore=(255, 2)).read(whole).ravel().tolist() == [0, 2**16 - 1, 2**16 - 1]


@pytest.mark.parametrize("dtype", ["int16", "int64", "float32"])
def test_a_negative_label_other_than_minus_one_is_refused_unless_it_is_named(dtype):
    volume = Array(np.array([[[[-1, 2, -2]]]], dtype))
    whole = Roi.whole((1, 1, 3))
    with pytest.raises(DataError, match="label -2 is negative"):
        Opened(volume, Kind.INSTANCE).read(whole)
    assert Opened(volume, Kind.INSTANCE, ignore=(-2,)).read(whole).ravel().tolist() == [2**64 - 1, 2, 2**64 - 1]


def test_a_class_id_that_would_be_taken_for_ignored_is_refused():
    with pytest.raises(DataError, match="class id 65535 is larger than 65534"):
        Opened(Array(np.array([[[[65535]]]], np.uint32)), Kind.SEMANTIC).read(Roi.whole((1, 1, 1)))


def test_a_class_id_that_does_not_fit_is_refused_rather_than_wrapped():
    with pytest.raises(DataError, match="class id 65536"):
        Opened(Array(np.array([[[[65536]]]], np.uint32)), Kind.SEMANTIC).read(Roi.whole((1, 1, 1)))


def test_byte_probabilities_are_divided_by_their_maximum_and_images_left_alone():
    volume = Array(np.array([[[[0, 51, 255]]]], np.uint8))
    whole = Roi.whole((1, 1, 3))
    np.testing.assert_allclose(Opened(volume, Kind.PROBABILITY).read(whole).ravel(), [0, 0.2, 1])
    assert Opened(volume).read(whole).dtype == np.uint8
    assert Opened(volume, Kind.IMAGE).read(whole).ravel().tolist() == [0, 51, 255]


def test_selected_channels_come_in_the_order_asked_for(memory):
    values = np.arange(3.0)[:, None, None, None] * np.ones((1, 1, 1, 2))
    assert Selected(memory(values), (2, 0)).read(Roi.whole((1, 1, 2)))[:, 0, 0, 0].tolist() == [2, 0]


def test_inputs_that_are_channels_of_one_array_are_read_from_it_once(memory):
    class Counted:
        def __init__(self, source):
            self.source, self.reads = source, 0

        def read(self, roi):
            self.reads += 1
            return self.source.read(roi)

    one, other = (Counted(memory(np.arange(24.0).reshape(4, 1, 2, 3) + more)) for more in (0, 100))
    box = Roi((0, 1, 0), (1, 2, 3))
    wires = {"a": Selected(one, (0,)), "b": Selected(one, (2, 1)), "c": other, "d": Selected(other, (3,))}
    found = read_all(wires, box)
    assert {name: values[:, 0, 0, 0].tolist() for name, values in found.items()} == {
        "a": [3], "b": [15, 9], "c": [103, 109, 115, 121], "d": [121],
    }  # fmt: skip
    assert all(values.flags.c_contiguous for values in found.values())
    assert (one.reads, other.reads) == (1, 2)  # an array that is wired as a whole is an input of its own


def test_a_voxelwise_normaliser_is_applied_where_the_image_is_read(memory):
    class Shift:
        def apply(self, values, stats):
            return values.astype(np.float32) - np.float32(stats["mean"])

    source = Normalised(memory(np.full((1, 2, 2, 2), 5, np.uint8)), Shift(), {"mean": 3.0})
    assert source.read(Roi((0, 0, 0), (1, 1, 2))).tolist() == [[[[2, 2]]]]


def test_a_computed_output_equals_the_stored_one(memory, at_work, job, tmp_path):
    values = np.random.default_rng(0).random((1, 5, 6, 7)).astype(np.float32)
    given = {"probability": ArraySpec(Kind.PROBABILITY)}
    step = Threshold(level=0.3)
    grid = BlockGrid(Roi.whole((5, 6, 7)), (3, 4, 5))
    with at_work(tmp_path) as workspace:
        stored = job(step, {"probability": values}, given, grid).local(workspace)["mask"]
    source = Computed(step, "mask", step.gives(given)["mask"], {"probability": memory(values)}, grid.region)
    box = Roi((1, 0, 2), (4, 6, 5))
    np.testing.assert_array_equal(source.read(box), stored[(..., *box.slices)])


def test_a_computed_output_of_the_wrong_kind_is_blamed_on_its_component(memory):
    class Wrong(Threshold):
        """Returns numbers for a mask."""

        def process(self, block):
            return {"mask": block["probability"]}

    source = Computed(
        Wrong(), "mask", ArraySpec(Kind.MASK), {"probability": memory(np.ones((1, 1, 1, 1)))}, Roi.whole((1, 1, 1))
    )
    with pytest.raises(ContractError, match=r"Wrong of .* returned 'mask' as float64; mask is bool"):
        source.read(Roi.whole((1, 1, 1)))


def test_blocks_are_written_into_a_volume_in_its_own_dtype_and_frame():
    volume = Array((1, 2, 2, 2), "float32")
    sink = VolumeSink(volume, ArraySpec(Kind.PROBABILITY), origin=(4, 0, 0))
    sink.write(0, Roi((5, 0, 0), (6, 2, 2)), np.ones((1, 1, 2, 2), np.float16))
    sink.sync()
    assert volume.values[0, :, 0, 0].tolist() == [0, 1]
    assert isinstance(volume, Volume)


def test_every_source_says_how_many_bytes_per_voxel_a_read_may_hold(memory, tmp_path):
    grid = BlockGrid(Roi.whole((1, 1, 2)), (1, 1, 2))
    image, labels = Array((1, 1, 1, 2), "uint8"), Array((1, 1, 1, 2), "uint32")
    assert Opened(image).voxel_bytes == 1
    assert Opened(labels, Kind.INSTANCE).voxel_bytes == 4 + 8
    assert Normalised(Opened(image), None, {}).voxel_bytes == 1 + 4
    affinities = ArraySpec(Kind.AFFINITY, ("z", "y", "x"))
    stored = Stored(BlockFiles(tmp_path, grid, 3, "float16"), affinities)
    assert stored.voxel_bytes == 3 * (2 + 4)
    assert Selected(stored, (0,)).voxel_bytes == stored.voxel_bytes
    computed = Computed(Threshold(), "mask", ArraySpec(Kind.MASK), {"probability": stored}, grid.region)
    assert computed.voxel_bytes == stored.voxel_bytes + 1


def test_a_full_disk_under_a_scratch_array_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    grid = BlockGrid(Roi.whole((2, 2, 2)), (2, 2, 2))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"0\.npy' cannot be written: No space left"):
        BlockFiles(tmp_path, grid, 1, "float16").write(0, grid.box(0), np.ones((1, 2, 2, 2), np.float16))
    assert not [*tmp_path.iterdir()]
