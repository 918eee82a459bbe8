"""Which files a step writes into itself, block by block."""

from types import SimpleNamespace

import numpy as np
import pytest

from mitocore import ArraySpec, Kind, Roi, VolumeSpec
from mitocore.blockwise.executor import InProcess, Processes, Threads
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.builtin.npy import NpyWriter
from mitocore.outputs import Outputs
from mitocore.pipeline import SavedArray
from mitocore.volumes import Rewritable
from mitocore_io.hdf5_writer import Hdf5Writer
from mitocore_io.zarr_writer import ZarrWriter

SHAPE = (8, 16, 16)
WRITERS = {
    "npy": lambda path: NpyWriter(path=str(path / "out.npy")),
    "zarr": lambda path: ZarrWriter(path=str(path / "out.zarr"), chunks=(4, 8, 8), levels=1),
    "h5": lambda path: Hdf5Writer(path=str(path / "out.h5"), chunks=(4, 8, 8)),
}


@pytest.fixture
def sink_of(tmp_path):
    """The sink for an array of a run, if it is written in place: `sink_of("zarr", executor, grid, region)`."""
    locks = []

    def sink(writer, executor, grid, region=None):
        locks.append(RunLock(tmp_path / "run").__enter__())
        shape = region.shape if region else SHAPE
        saved = SavedArray("a.mask", ArraySpec(Kind.MASK), "uint8")
        plan = SimpleNamespace(saved=(saved,), region=region, result=VolumeSpec(shape, "uint8"))
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
