from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import minimum_filter

from mitocore import ArraySpec, DataError, Kind, Normalizer, Roi, RunError, VolumeSpec, WritableVolume
from mitocore.blockwise import passes
from mitocore.blockwise.arrays import Opened
from mitocore.blockwise.passes import export, fit, prepared, sampled
from mitocore.blockwise.workspace import Workspace

pytestmark = pytest.mark.usefixtures("no_power_is_lost")


class Array(WritableVolume):
    """A volume in memory that remembers which boxes were written."""

    def __init__(self, values, chunks=None):
        self.values, self.chunks, self.boxes = np.asarray(values), chunks, []

    @property
    def spec(self):
        return VolumeSpec(self.values.shape[1:], str(self.values.dtype), chunks=self.chunks)

    def read(self, roi):
        return self.values[(..., *roi.slices)]

    def write(self, roi, values):
        assert values.dtype == self.values.dtype
        self.boxes.append(roi)
        self.values[(..., *roi.slices)] = values


class Darkest(Normalizer):
    """The darkest voxel nearby, less the mean: not voxel-wise."""

    voxelwise: ClassVar[bool] = False

    def fit(self, boxes, spec):
        boxes_seen = [sum(float(box.sum()) for box in boxes) for _ in range(2)]
        assert boxes_seen[0] == boxes_seen[1]
        return {"mean": boxes_seen[0] / np.prod(spec.shape)}

    def apply(self, values, stats):
        return minimum_filter(values.astype(np.float32), size=(1, 3, 3, 3)) - np.float32(stats["mean"])

    def halo(self, voxel_size):
        return (1, 1, 1)

    def block_shape(self, volume, preferred):
        return (preferred[0], *volume.shape[1:])


class Shift(Darkest):
    """Less the mean: voxel-wise."""

    voxelwise: ClassVar[bool] = True

    def apply(self, values, stats):
        return values.astype(np.float32) - np.float32(stats["mean"])


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch):
    monkeypatch.setattr(passes, "_BOX", 100)


def image(seed=0, shape=(9, 8, 7), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 255, (1, *shape)).astype(dtype)


@pytest.mark.parametrize("chunks", [None, (4, 4, 4), (1, 8, 7), (64, 64, 64)])
def test_statistics_are_fitted_on_every_voxel_once_and_boxes_may_be_walked_again(chunks):
    values = image()
    assert fit(Shift(), Array(values, chunks)) == {"mean": pytest.approx(values.mean())}


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.tuples(*[st.integers(1, 16)] * 3), st.integers(1, 5000))
def test_of_a_huge_volume_a_fixed_lattice_of_whole_chunks_is_read(shape, chunks, enough):
    spec = VolumeSpec(shape, "uint8", chunks=chunks)
    boxes = sampled(spec, enough)
    assert boxes == sampled(spec, enough)
    assert len(set(boxes)) == len(boxes) >= 1
    for box in boxes:
        assert all(a % min(c, n) == 0 for a, c, n in zip(box.start, chunks, shape, strict=True))
        assert Roi.whole(shape).contains(box)
    if np.prod(shape) <= enough:
        assert sum(box.voxels for box in boxes) <= enough
    if len(boxes) > 1:
        assert sum(box.voxels for box in boxes) <= enough


def test_a_volume_that_is_not_huge_is_read_whole():
    spec = VolumeSpec((33, 40, 50), "uint8", chunks=(8, 16, 16))
    assert sum(box.voxels for box in sampled(spec)) == 33 * 40 * 50


def test_a_voxelwise_normaliser_stores_nothing(tmp_path, at_work):
    volume = Array(image())
    stats = fit(Shift(), volume)
    with at_work(tmp_path) as workspace:
        source = prepared(Shift(), stats, volume, Roi.whole((9, 8, 7)), (4, 4, 4), workspace, name="input.d")
    assert sorted(path.name for path in tmp_path.iterdir()) == []
    np.testing.assert_array_equal(source.read(Roi.whole((9, 8, 7))), Shift().apply(volume.values, stats))


@pytest.mark.parametrize("region", [Roi.whole((9, 8, 7)), Roi((2, 0, 0), (7, 8, 7))])
def test_a_normaliser_with_a_halo_is_a_stored_pass_that_does_not_show_its_blocks(tmp_path, at_work, region):
    volume = Array(image())
    stats = {"mean": 3.0}
    with at_work(tmp_path) as workspace:
        source = prepared(Darkest(), stats, volume, region, (2, 4, 4), workspace, name="input.d")
    whole = Darkest().apply(volume.values, stats)
    np.testing.assert_array_equal(source.read(region), whole[(..., *region.slices)])
    assert (tmp_path / "scratch" / "input.d").is_dir()
    if region != Roi.whole((9, 8, 7)):
        with pytest.raises(RunError, match=r"block \d+ of scratch 'input\.d' is missing"):
            source.read(Roi.whole((9, 8, 7)))  # blocks that nobody asked for were not computed


@pytest.mark.parametrize("chunks", [None, (2, 3, 4)])
def test_planes_arrive_whole_and_ascending(tmp_path, at_work, memory, chunks):
    values = np.random.default_rng(0).random((1, 9, 8, 7)).astype(np.float32)
    target = Array(np.zeros((1, 9, 8, 7), np.float32), chunks)
    spec = ArraySpec(Kind.DISTANCE)
    with at_work(tmp_path) as workspace:
        export(memory(values), spec, target, "planes", workspace, "export.d")
    np.testing.assert_array_equal(target.values, values)
    assert all(box.shape[1:] == (8, 7) for box in target.boxes)
    assert [box.start[0] for box in target.boxes] == sorted(box.start[0] for box in target.boxes)
    assert max(box.voxels for box in target.boxes) <= max(100, 56 * (chunks or (1,))[0])


def test_boxes_of_a_chunked_target_are_whole_chunks_of_bounded_size(tmp_path, at_work, memory):
    values = image(shape=(9, 8, 7)).astype(np.uint64)
    target = Array(np.zeros((1, 9, 8, 7), np.uint32), (3, 4, 4))
    with at_work(tmp_path) as workspace:
        export(memory(values), ArraySpec(Kind.INSTANCE), target, "any", workspace, "export.d")
    np.testing.assert_array_equal(target.values, values)
    for box in target.boxes:
        assert all(a % c == 0 for a, c in zip(box.start, (3, 4, 4), strict=True))
        assert box.voxels <= 100


def test_a_killed_export_goes_on_after_the_last_box_it_committed(tmp_path, at_work, memory):
    values = image(shape=(9, 8, 7)).astype(np.uint16)
    target = Array(np.zeros((1, 9, 8, 7), np.uint16))
    args = memory(values), ArraySpec(Kind.SEMANTIC), target, "planes"
    with at_work(tmp_path, cancelled=lambda: len(target.boxes) == 4) as workspace, pytest.raises(KeyboardInterrupt):
        export(*args, workspace, "export.d")
    seen = []
    with at_work(tmp_path, progress=lambda *report: seen.append(report)) as workspace:
        export(*args, workspace, "export.d")
    np.testing.assert_array_equal(target.values, values)
    assert len(target.boxes) == len(set(target.boxes)) == 9
    assert seen == [("export", done, 9) for done in range(4, 10)]


@pytest.mark.parametrize(
    ("spec", "dtype", "expected"),
    [
        (ArraySpec(Kind.PROBABILITY), "float32", [0, np.float16(0.3), 1]),
        (ArraySpec(Kind.PROBABILITY, storage="uint8"), "uint8", [0, 76, 255]),
        (ArraySpec(Kind.PROBABILITY, storage="uint8"), "float32", np.float32([0, 76, 255]) / np.float32(255)),
    ],
)
def test_exported_values_are_packed_and_widened(tmp_path, at_work, memory, spec, dtype, expected):
    values = np.array([[[[0, 0.3, 1]]]], np.float32)
    target = Array(np.zeros((1, 1, 1, 3), dtype))
    with at_work(tmp_path) as workspace:
        export(memory(values), spec, target, "any", workspace, "export.d")
    np.testing.assert_array_equal(target.values.ravel(), np.asarray(expected, dtype))


def test_masks_become_zeros_and_ones_and_ids_too_large_are_refused(tmp_path, at_work, memory):
    target = Array(np.zeros((1, 1, 1, 2), np.uint8))
    with at_work(tmp_path) as workspace:
        export(memory(np.array([[[[True, False]]]])), ArraySpec(Kind.MASK), target, "any", workspace, "mask.d")
        assert target.values.ravel().tolist() == [1, 0]
        ids = memory(np.array([[[[1, 300]]]], np.uint64))
        with pytest.raises(DataError, match="id 300 is larger than uint8 holds"):
            export(ids, ArraySpec(Kind.INSTANCE), target, "any", workspace, "ids.d")


def test_a_region_of_the_source_fills_a_target_of_its_size(tmp_path, at_work, memory):
    values = image(shape=(9, 8, 7)).astype(np.uint16)
    target = Array(np.zeros((1, 4, 3, 2), np.uint16))
    with at_work(tmp_path) as workspace:
        export(memory(values), ArraySpec(Kind.SEMANTIC), target, "any", workspace, "export.d", origin=(2, 1, 3))
    np.testing.assert_array_equal(target.values, values[:, 2:6, 1:4, 3:5])


def test_statistics_tell_each_box_and_stop_when_cancelled():
    seen = []
    fit(Shift(), Array(image()), progress=lambda *report: seen.append(report))
    total = seen[-1][1]
    assert total > 1
    assert seen == [(done, total) for _ in range(2) for done in range(total)] + [(total, total)]
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        fit(Shift(), Array(image()), progress=lambda *report: seen.append(report), cancelled=lambda: len(seen) == 3)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 2**24 + 1, 2**63 + 1], "uint64"),
        ([0, 2**24 + 1, 2**32 - 1], "uint32"),
        ([-(2**31), -1, 2**24 + 1], "int32"),
        ([-0.0, 1 / 3, 1e300], "float64"),
    ],
)
def test_without_a_spec_values_are_copied_as_they_are(tmp_path, at_work, values, dtype):
    source = Array(np.array([[[values]]], dtype))
    target = Array(np.zeros((1, 1, 1, 3), dtype))
    with at_work(tmp_path) as workspace:
        export(Opened(source), None, target, "any", workspace, "export.d")
    assert target.values.tobytes() == source.values.tobytes()


def test_a_copy_that_would_change_a_value_is_refused(tmp_path, at_work):
    cases = [
        ([-1, 2], "int32", "uint64", "id -1 is smaller than uint64 holds"),
        ([0, 2**40], "uint64", "uint32", "id 1099511627776 is larger than uint32 holds"),
        ([0, 2**24 + 1], "uint32", "float32", "float32 does not hold uint32 as it is"),
        ([0.5, 1], "float32", "uint8", "uint8 does not hold float32 as it is"),
    ]
    for number, (values, dtype, to, problem) in enumerate(cases):
        source, target = Array(np.array([[[values]]], dtype)), Array(np.zeros((1, 1, 1, 2), to))
        with at_work(tmp_path) as workspace, pytest.raises(DataError, match=problem):
            export(Opened(source), None, target, "any", workspace, f"export.{number}")


def test_stored_passes_count_what_their_blocks_read_against_the_budget(tmp_path, at_work, monkeypatch):
    costs = []
    run = Workspace.run

    def spy(self, name, label, call, items, *, cost, **options):
        costs.extend(cost(item) for item in items)
        return run(self, name, label, call, items, cost=cost, **options)

    monkeypatch.setattr(Workspace, "run", spy)
    with at_work(tmp_path) as workspace:
        prepared(Darkest(), {"mean": 0.0}, Array(image()), Roi.whole((9, 8, 7)), (4, 8, 7), workspace, name="input.d")
    planes = [5, 6, 2]  # a block of 4 planes and what its halo reaches of the next; one byte raw, two float32
    assert costs == [depth * 8 * 7 * (1 + 4 + 4) for depth in planes]
