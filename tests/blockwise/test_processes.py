"""Worker processes: what reaches them, what comes back, and what becomes of those that die."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mitocore import ArraySpec, ConfigError, DataError, Kind, ResourceError, Roi, RunError, Volume, VolumeSpec
from mitocore.blockwise.arrays import BlockFiles, Computed, Opened, Stored, VolumeSink
from mitocore.blockwise.executor import InProcess, Processes, Threads, drive
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.scopes import local, stitched
from mitocore.builtin.npy import NpyReader, NpyWriter
from mitocore.testing.minimal import Components, Threshold, Widen
from mitocore.volumes import ArrayVolume, Reopened, Rewritable

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # workers get the path of the driver, and import their duties from it
import worker_duties  # noqa: E402

SHAPE = (12, 20, 24)


@pytest.fixture(scope="module")
def pool():
    """Two workers for all tests that do not kill them."""
    executor = Processes(2)
    yield executor
    executor.close()


@pytest.fixture
def fresh():
    executor = Processes(2)
    yield executor
    executor.close()


def computed(executor, call, items, **options):
    committed = []
    drive(executor, call, items, commit=committed.extend, **options)
    return [result for _, result in sorted(committed)]


def test_every_item_is_computed_once_elsewhere_and_committed_here(pool, tmp_path):
    work = worker_duties.Counted(tmp_path)
    assert computed(pool, work, range(12)) == [item * item for item in range(12)]
    assert [len(work.calls(item)) for item in range(12)] == [1] * 12
    assert os.getpid() not in computed(pool, worker_duties.whoami, range(4))


def test_a_worker_uses_one_thread_and_the_driver_is_left_as_it_was(pool, monkeypatch):
    before = dict(os.environ)
    assert computed(pool, worker_duties.thread_limit, range(2)) == [os.environ.get("OMP_NUM_THREADS", "1")] * 2
    assert dict(os.environ) == before
    assert sys.modules["__main__"].__spec__ is None or sys.modules["__main__"].__spec__.name


def test_what_a_worker_logs_and_warns_of_is_heard_in_the_driver(pool, caplog):
    with caplog.at_level(logging.WARNING):
        assert computed(pool, worker_duties.say, [1]) == [1]
    assert [record.name for record in caplog.records] == ["mitocore.duties", "py.warnings"]
    assert "item 1 is odd" in caplog.text
    assert "UserWarning: item 1 is even odder" in caplog.text


def test_a_call_is_written_once_and_read_once_by_each_worker(pool, tmp_path):
    work = worker_duties.Heavy(tmp_path)
    assert computed(pool, work, range(30)) == list(range(30))
    found = [path.name.split("-")[0] for path in tmp_path.iterdir()]
    assert found.count("written") == 1
    assert 1 <= found.count("read") <= 2


def test_a_later_call_is_not_taken_for_the_one_before(pool):
    for factor in range(3):
        assert computed(pool, partial(max, factor), range(4)) == [max(factor, item) for item in range(4)]


def test_nothing_stays_of_closed_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    executor = Processes(1)
    assert computed(executor, worker_duties.square, [3]) == [9]
    assert len(list(tmp_path.glob("*/*.pickle"))) == 1
    executor.close()
    assert list(tmp_path.iterdir()) == []


def test_an_error_the_user_can_fix_arrives_with_its_place_and_hint(pool):
    with pytest.raises(DataError, match="item 0 is bad") as caught:
        computed(pool, worker_duties.complain, range(1))
    assert (caught.value.where, caught.value.hint) == ("a file", "take another")


def test_a_full_disk_is_recognised_in_a_worker(pool):
    with pytest.raises(ResourceError, match=r"block 0 cannot be written: .*No space left"):
        computed(pool, worker_duties.full, range(1))


def test_an_error_that_cannot_be_pickled_is_told_in_words(pool):
    with pytest.raises(RunError, match=r"block 7 failed 2 times: .*Fussy: 7 and nothing") as caught:
        computed(pool, worker_duties.fuss, [7], retries=1)
    assert "worker_duties.py" in "".join(caught.value.__cause__.__notes__)


def test_a_block_that_fails_twice_and_then_works_is_forgiven(pool, tmp_path):
    work = worker_duties.Counted(tmp_path, deadly=(3,), times=2, raises=True)
    assert computed(pool, work, range(8)) == [item * item for item in range(8)]
    assert [len(work.calls(item)) for item in range(8)] == [1, 1, 1, 3, 1, 1, 1, 1]


def test_only_the_block_that_always_kills_its_worker_is_blamed_and_a_second_run_goes_on(at_work, tmp_path):
    (tmp_path / "calls").mkdir()
    counted = worker_duties.Counted(tmp_path / "calls", deadly=(3,), times=4)
    work = partial(worker_duties.as_table, counted)
    with (
        at_work(tmp_path, executor=Processes(2), retries=2) as workspace,
        pytest.raises(RunError, match="block 3 failed 3 times: its worker process was killed") as caught,
    ):
        workspace.run("pass", "", work, range(10))
    assert caught.value.exit_code == 8
    assert "run again to resume" in caught.value.hint
    assert len(counted.calls(3)) == 4  # among others, then three times alone
    assert all(len(counted.calls(item)) <= 2 for item in range(10) if item != 3)
    with at_work(tmp_path) as workspace:
        with workspace.journal("pass") as journal:
            kept = {*journal.tables}
        tables = workspace.run("pass", "", work, range(10))
    assert {0, 1, 2} <= kept
    assert [int(table[0]) for table in tables.values()] == [item * item for item in range(10)]
    assert all(len(counted.calls(item)) <= 2 for item in kept)


def test_a_block_that_kills_its_worker_once_is_forgiven(fresh, tmp_path):
    work = worker_duties.Counted(tmp_path, deadly=(2,), times=1)
    assert computed(fresh, work, range(6), retries=0) == [item * item for item in range(6)]


@pytest.mark.parametrize("broken", [lambda item: item, threading.Lock(), partial(print, file=sys.stdout)])
def test_what_exists_in_this_process_alone_is_refused_in_words(pool, broken):
    with pytest.raises(ConfigError, match="cannot be sent to worker processes") as caught:
        computed(pool, broken, range(2))
    assert 'engine = "threads"' in caught.value.hint
    assert len(str(caught.value).splitlines()) <= 3


def test_a_component_that_cannot_be_sent_is_named(pool):
    component = Threshold()
    object.__setattr__(component, "__pydantic_private__", {"_lock": threading.Lock()})
    with pytest.raises(ConfigError, match="Threshold cannot be sent to worker processes: cannot pickle"):
        computed(pool, partial(max, component), range(2))


def test_an_open_volume_of_somebody_that_cannot_be_sent_is_named(pool):
    class Theirs(Volume):
        spec = VolumeSpec((1, 1, 1), "uint8")

        def read(self, roi):
            raise AssertionError

    with pytest.raises(ConfigError, match="Theirs cannot be sent to worker processes") as caught:
        computed(pool, partial(max, Opened(Theirs())), range(2))
    assert "give the path of its file" in caught.value.hint


def test_a_mapped_array_is_refused_rather_than_copied(pool, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(SHAPE, "u1"))
    volume = ArrayVolume(np.load(tmp_path / "a.npy", mmap_mode="r"))
    with pytest.raises(ConfigError, match=r"a\.npy is mapped into memory"):
        computed(pool, partial(worker_duties.total, Opened(volume)), range(1))


def test_an_array_is_read_by_workers_as_it_is(pool):
    values = np.arange(np.prod(SHAPE), dtype="u2").reshape(SHAPE)
    work = partial(worker_duties.total, Opened(ArrayVolume(values)))
    assert computed(pool, work, range(3)) == [int(values[z].sum()) for z in range(3)]


def test_a_file_is_opened_once_by_each_worker_however_many_calls_read_it(pool, tmp_path):
    values = np.arange(np.prod(SHAPE), dtype="u2").reshape(SHAPE)
    np.save(tmp_path / "a.npy", values)
    with Reopened(worker_duties.CountedReader(path=str(tmp_path / "a.npy"))) as volume:
        for source in (Opened(volume), Opened(volume, Kind.MASK)):
            sums = computed(pool, partial(worker_duties.total, source), range(6))
            assert sums == [int(source.read(Roi((z, 0, 0), (z + 1, *SHAPE[1:]))).sum()) for z in range(6)]
    assert 2 <= len(list(tmp_path.glob("opened-*"))) <= 3  # the driver and two workers


def test_workers_write_into_the_file_that_the_driver_created(pool, tmp_path):
    writer = NpyWriter(path=str(tmp_path / "out.npy"))
    grid = BlockGrid(Roi.whole(SHAPE), (4, 20, 8))
    with Rewritable(writer, "a", writer.create("a", VolumeSpec(SHAPE, "uint32"))) as volume:
        computed(pool, worker_duties.Fill(VolumeSink(volume), grid), range(len(grid)))
        volume.finish()
    found = np.load(tmp_path / "out.npy")
    assert [int(found[grid.box(number).slices].min()) for number in range(len(grid))] == list(range(len(grid)))


def test_a_file_that_is_gone_is_an_error_of_the_data_in_a_worker_too(pool, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(SHAPE, "u1"))
    volume = Reopened(NpyReader(path=str(tmp_path / "a.npy")))
    (tmp_path / "a.npy").unlink()
    with pytest.raises(DataError, match=r"a\.npy' does not exist"):
        computed(pool, partial(worker_duties.total, Opened(volume)), range(1))


@pytest.fixture(scope="module")
def probability():
    values = gaussian_filter(np.random.default_rng(3).normal(size=SHAPE), 1.3)
    return ((values - values.min()) / np.ptp(values))[None].astype("f4")


def pipeline(probability, folder, at_work, executor):
    """A Local step with a halo, one that is computed where it is read, and a Stitched one, on block files."""
    volume, grid = VolumeSpec(SHAPE, "float32"), BlockGrid(Roi.whole(SHAPE), (5, 8, 9))
    spec, mask = ArraySpec(Kind.PROBABILITY), ArraySpec(Kind.MASK)
    with at_work(folder, executor=executor) as workspace:
        made = {}

        def make(name, dtype):
            made[name] = BlockFiles(workspace.scratch(name), grid, 1, dtype)
            return made[name]

        given = {"probability": Opened(ArrayVolume(probability), Kind.PROBABILITY)}
        sinks = {"widened": make("widened", spec.stored)}
        local(Widen(), given, sinks, {"widened": spec}, grid, volume, workspace, name="widen.d")
        widened = Stored(made["widened"], spec)
        source = Computed(Threshold(level=0.62), "mask", mask, {"probability": widened}, grid.region)
        gives, digests = {"instances": ArraySpec(Kind.INSTANCE)}, {"early": "e", "late": "l"}
        args = Components(min_size=4), {"mask": source}, make, gives, grid, volume, workspace
        count = stitched(*args, name="cc", **digests)
        return count, widened.read(grid.region), made["instances"].read(grid.region)


def test_neither_threads_nor_processes_change_a_voxel(probability, tmp_path, at_work):
    found = [
        pipeline(probability, tmp_path / str(number), at_work, executor)
        for number, executor in enumerate([InProcess(), Threads(3), Processes(2)])
    ]
    for count, widened, instances in found[1:]:
        assert count == found[0][0] > 1
        np.testing.assert_array_equal(widened, found[0][1])
        np.testing.assert_array_equal(instances, found[0][2])


SCRIPT = """\
import sys
sys.path.insert(0, {here!r})
import worker_duties
from mitocore.blockwise.executor import Processes, drive

executor = Processes(2)
try:
    drive(executor, worker_duties.linger, range(1000), commit=lambda done: print("committed", flush=True), every=0)
except KeyboardInterrupt:
    executor.close()
    print("awaited", flush=True)
    raise SystemExit(130)
"""


@pytest.fixture
def driver(tmp_path):
    """A driver with two workers at work, in a session of its own, whose temporary files lie in `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(here=str(HERE))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout.readline() == "committed\n"
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_workers_end_by_themselves_when_their_driver_is_killed(driver, tmp_path):
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=30)  # the pipe closes when the last who holds it is gone, workers included
    assert driver.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_the_drivers_business_alone(driver, tmp_path):
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal sends it
    out, err = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert out.endswith("awaited\n")
    assert err == ""
    assert list(tmp_path.iterdir()) == []


def test_a_pool_that_was_replaced_computes_on(fresh):
    pids = set(computed(fresh, worker_duties.whoami, range(6)))
    os.kill(next(iter(pids)), signal.SIGKILL)
    time.sleep(0.1)
    assert computed(fresh, worker_duties.square, range(6)) == [item * item for item in range(6)]


def test_an_open_volume_stays_itself_for_pickle_within_one_process(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(8, dtype="u1").reshape(2, 2, 2))
    volume = Reopened(NpyReader(path=str(tmp_path / "a.npy")))
    first, second = (pickle.loads(pickle.dumps(volume)) for _ in range(2))
    assert first is second
    assert first.spec == volume.spec
