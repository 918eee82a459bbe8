"""Which files a step writes into itself, block by block, and by what a run knows its outputs."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from mitocore import ArraySpec, DataError, Kind, Roi, VolumeSpec, VoxelSize
from mitocore.blockwise.executor import InProcess, Processes, Threads
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.builtin.npy import NpyWriter
from mitocore.outputs import Outputs, outline, place_of
from mitocore.pipeline import Plan, SavedArray
from mitocore.volumes import Rewritable
from mitocore_io.hdf5_writer import Hdf5Writer
from mitocore_io.zarr_writer import ZarrWriter

SHAPE = (8, 16, 16)
WRITERS = {
    "npy": lambda path: NpyWriter(path=str(path / "out.npy")),
    "zarr": lambda path: ZarrWriter(path=str(path / "out.zarr"), chunks=(4, 8, 8), levels=1),
    "h5": lambda path: Hdf5Writer(path=str(path / "out.h5"), chunks=(4, 8, 8)),
}


class NothingButOutputs(SimpleNamespace):
    """What outputs look at in a plan."""

    header = Plan.header


@pytest.fixture
def sink_of(tmp_path):
    """The sink for an array of a run, if it is written in place: `sink_of("zarr", executor, grid, region)`."""
    locks = []

    def sink(writer, executor, grid, region=None):
        locks.append(RunLock(tmp_path / "run").__enter__())
        shape = region.shape if region else SHAPE
        saved = SavedArray("a.mask", ArraySpec(Kind.MASK), "uint8")
        config = SimpleNamespace(scale_factors=None)
        result = VolumeSpec(shape, "uint8")
        plan = NothingButOutputs(saved=(saved,), region=region, result=result, volume=None, config=config)
        workspace = Workspace(tmp_path / "run", executor, locks[-1])
        found = Outputs(plan, WRITERS[writer](tmp_path), workspace, {}, lambda: None)
        return found.in_place("a.mask", "bool", grid, "digest")

    (tmp_path / "run").mkdir()
    yield sink
    for lock in locks:
        lock.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("writer", "executor", "expected"),
    [
        ("npy", InProcess, True),
        ("npy", lambda: Threads(2), True),
        ("npy", lambda: Processes(2), False),
        ("zarr", InProcess, True),
        ("zarr", lambda: Threads(2), True),
        ("zarr", lambda: Processes(2), True),
        ("h5", InProcess, False),
        ("h5", lambda: Threads(2), False),
    ],
)
def test_a_file_takes_blocks_from_who_may_share_it(sink_of, writer, executor, expected):
    executor = executor()
    sink = sink_of(writer, executor, BlockGrid(Roi.whole(SHAPE), (4, 8, 8)))
    executor.close()
    assert (sink is not None) is expected
    if sink is not None:
        assert isinstance(sink.volume, Rewritable)
        sink.write(0, Roi((4, 8, 8), SHAPE), np.ones((1, 4, 8, 8), bool))
        assert sink.volume.read(Roi.whole(SHAPE)).sum() == 256


@pytest.mark.parametrize(
    ("block", "expected"), [((4, 8, 8), True), ((8, 16, 16), True), ((8, 16, 4), False), ((3, 8, 8), False)]
)
def test_blocks_that_share_a_chunk_are_not_written_in_place(sink_of, block, expected):
    sink = sink_of("zarr", InProcess(), BlockGrid(Roi.whole(SHAPE), block))
    assert (sink is not None) is expected


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (BlockGrid(Roi((2, 4, 4), (8, 16, 16)), (4, 8, 8)), True),
        (BlockGrid(Roi((2, 4, 4), (8, 16, 16)), (4, 8, 8), anchor=(0, 0, 0)), False),
        (BlockGrid(Roi((0, 4, 4), (8, 16, 16)), (4, 8, 8)), False),
    ],
    ids=["from its corner", "from that of the volume", "beyond it"],
)
def test_the_file_of_a_region_takes_blocks_that_begin_where_its_chunks_do(sink_of, grid, expected):
    region = Roi((2, 4, 4), (8, 16, 16))
    sink = sink_of("zarr", InProcess(), grid, region)
    assert (sink is not None) is expected
    if sink is not None:
        sink.write(0, Roi((2, 4, 4), (6, 12, 12)), np.ones((1, 4, 8, 8), bool))
        assert sink.volume.read(Roi((0, 0, 0), (4, 8, 8))).all()


def test_the_place_of_an_output_is_seen_from_the_run_folder_and_an_address_is_itself(tmp_path):
    def place(project, **options):
        return place_of(ZarrWriter(path=str(project / "out.zarr"), **options), project / "runs" / "first")

    assert place(tmp_path / "here") == place(tmp_path / "there")
    assert place(tmp_path) != place(tmp_path, compression="gzip")
    assert place_of(NpyWriter(path=str(tmp_path / "out.zarr")), tmp_path / "runs" / "first") != place(tmp_path)
    assert '"s3://bucket/out.zarr"' in place_of(ZarrWriter(path="s3://bucket/out.zarr"), tmp_path)


def test_the_stamp_of_a_file_or_folder_is_of_sizes_and_times_and_none_if_it_is_absent(tmp_path):
    writer = NpyWriter(path=str(tmp_path / "{name}"))
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "z0.png").write_bytes(b"1")
    file.write_bytes(b"1")
    for path, inside in ((file, file), (folder, folder / "z0.png")):
        stamps = [writer.stamp(path.name)]
        os.utime(inside, ns=(1, 1))
        stamps.append(writer.stamp(path.name))
        inside.write_bytes(b"12")
        os.utime(inside, ns=(1, 1))
        stamps.append(writer.stamp(path.name))
        assert len({*stamps, ""}) == 4
        assert writer.stamp(path.name) == stamps[-1]
    assert writer.stamp("absent") == ""


@pytest.fixture
def outputs_of(tmp_path):
    """Outputs of a run folder that has noted `own`; every state of plan.json that is saved is added to `saves`."""
    with RunLock(tmp_path / "run") as lock:
        plan = NothingButOutputs(
            saved=(SavedArray("a.mask", ArraySpec(Kind.MASK), "bool"),),
            region=None,
            volume=None,
            config=SimpleNamespace(scale_factors=None),
            result=VolumeSpec(SHAPE, "uint8", voxel_size=VoxelSize(8, 4, 4)),
        )
        workspace = Workspace(tmp_path / "run", InProcess(), lock)

        def outputs(own, saves):
            noted = lambda: saves.append({name: dict(entry) for name, entry in own.items()})  # noqa: E731 - used once
            return plan, Outputs(plan, WRITERS["npy"](tmp_path), workspace, own, noted)

        yield outputs


GRID = BlockGrid(Roi.whole(SHAPE), (4, 8, 8))


def test_what_a_run_creates_is_noted_before_it_is_there_and_its_stamp_once_it_is_finished(outputs_of):
    own, saves = {}, []
    plan, outputs = outputs_of(own, saves)
    outputs.in_place("a.mask", "bool", GRID, "digest")
    outputs.copy("a.mask", None, "digest", None)
    outputs.finish_all()
    stamp = outputs.writer.stamp("a.mask")
    assert [each["a.mask"]["stamp"] for each in saves] == ["changing", "", "changing", stamp]
    assert own == {"a.mask": {"place": outputs.place, "spec": outline(plan, plan.saved[0]), "stamp": stamp}}
    assert own["a.mask"]["spec"] == {
        "shape": [8, 16, 16],
        "origin": [0.0, 0.0, 0.0],
        "voxel_size": [8, 4, 4],
        "kind": "mask",
        "channels": [""],
        "dtype": "bool",
        "scale_factors": None,
    }


def test_a_file_that_could_not_be_created_is_not_noted_as_our_own(outputs_of, tmp_path):
    np.save(tmp_path / "out.npy", np.zeros(SHAPE, bool))
    own, saves = {}, []
    _, outputs = outputs_of(own, saves)
    with pytest.raises(DataError, match="already exists"):
        outputs.in_place("a.mask", "bool", GRID, "digest")
    assert own == {} == saves[-1]
