import time
from threading import Lock

import numpy as np
import pytest

from mitocore import DataError, ResourceError, RunError
from mitocore.blockwise.executor import Threads


def squares(item):
    return np.array([item * item])


def test_a_pass_reports_at_its_start_and_after_every_commit(tmp_path, at_work):
    seen = []
    with at_work(tmp_path, progress=lambda *report: seen.append(report)) as workspace:
        workspace.run("pass.d", "squares", squares, range(3))
        workspace.run("pass.d", "squares", squares, range(3))
    assert seen == [("squares", done, 3) for done in (0, 1, 2, 3)] + [("squares", 3, 3)]


def test_what_the_journal_holds_is_not_computed_again(tmp_path, at_work):
    calls = []

    def work(item):
        calls.append(item)
        return squares(item)

    with at_work(tmp_path, cancelled=lambda: len(calls) == 2) as workspace, pytest.raises(KeyboardInterrupt):
        workspace.run("pass.d", "squares", work, range(4))
    with at_work(tmp_path) as workspace:
        tables = workspace.run("pass.d", "squares", work, range(4))
    assert calls == [0, 1, 2, 3]
    assert {item: table.tolist() for item, table in tables.items()} == {0: [0], 1: [1], 2: [4], 3: [9]}
    assert list(tables) == [0, 1, 2, 3]


def test_another_digest_in_the_name_starts_from_nothing(tmp_path, at_work):
    calls = []
    with at_work(tmp_path) as workspace:
        for name in ("pass.one", "pass.two"):
            workspace.run(name, "", lambda item: calls.append(item) or np.zeros(0), range(2))
    assert calls == [0, 1, 0, 1]


def test_sinks_are_durable_before_the_journal_says_so(tmp_path, at_work):
    events = []

    class Sink:
        def write(self, block, roi, values):
            raise AssertionError

        def sync(self):
            events.append(("sync", (tmp_path / "state" / "pass.journal").stat().st_size))

    with at_work(tmp_path, progress=lambda *_: events.append("progress")) as workspace:
        workspace.run("pass", "", squares, range(1), sinks=[Sink()])
    assert events == ["progress", ("sync", 0), "progress"]


def test_a_driver_that_lost_its_folder_commits_nothing_more(tmp_path, at_work):
    def work(item):
        if item == 2:
            (tmp_path / "run.lock").write_text("{}")
        return squares(item)

    with at_work(tmp_path) as workspace, pytest.raises(RunError, match="taken over"):
        workspace.run("pass", "", work, range(5))
    (tmp_path / "run.lock").unlink()
    with at_work(tmp_path) as workspace, workspace.journal("pass") as journal:
        assert list(journal.tables) == [0, 1]


def test_what_a_killed_worker_was_writing_is_removed_and_finished_blocks_stay(tmp_path, at_work):
    with at_work(tmp_path) as workspace:
        folder = workspace.scratch("array")
        (folder / "0.npy").touch()
        (folder / "abc.tmp").touch()
        assert [path.name for path in workspace.scratch("array").iterdir()] == ["0.npy"]
        workspace.discard("array")
        workspace.discard("array")
        assert not folder.exists()


def test_a_forgotten_pass_runs_again(tmp_path, at_work):
    calls = []
    with at_work(tmp_path, executor=Threads(2)) as workspace:
        for _ in range(2):
            workspace.run("pass", "", lambda item: calls.append(item) or np.zeros(0), range(2))
        workspace.forget("pass")
        workspace.forget("pass")
        workspace.run("pass", "", lambda item: calls.append(item) or np.zeros(0), range(2))
    assert sorted(calls) == [0, 0, 1, 1]


def test_a_saved_table_is_read_back_and_a_missing_one_is_none(tmp_path, at_work):
    with at_work(tmp_path) as workspace:
        assert workspace.table("final") is None
        workspace.save("final", np.arange(3))
        assert workspace.table("final").tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\0"])
def test_a_damaged_table_is_named(tmp_path, at_work, content):
    with at_work(tmp_path) as workspace:
        workspace.save("final", np.arange(3))
        (tmp_path / "state" / "final.npy").write_bytes(content)
        with pytest.raises(RunError, match=r"'final\.npy' is damaged") as caught:
            workspace.table("final")
    assert caught.value.hint == "--fresh computes it again"


def test_a_disk_that_is_full_ends_the_pass_at_once_and_what_is_finished_stays(tmp_path, at_work):
    calls = []

    def work(item):
        calls.append(item)
        if item == 1:
            raise OSError(28, "No space left on device", "out.zarr/c/0")
        return squares(item)

    with at_work(tmp_path) as workspace:
        with pytest.raises(
            ResourceError, match=r"block 1 cannot be written: .*No space left on device: 'out.zarr/c/0'"
        ):
            workspace.run("pass", "", work, range(3))
        with workspace.journal("pass") as journal:
            assert list(journal.tables) == [0]
    assert calls == [0, 1]


def test_a_folder_that_cannot_be_created_is_named(tmp_path, at_work):
    with at_work(tmp_path) as workspace:
        (tmp_path / "state").touch()
        with pytest.raises(DataError, match="state' cannot be written: File exists"):
            workspace.state("pass.journal")


def test_blocks_at_work_never_take_more_than_the_budget_of_the_run(tmp_path, at_work):
    running, peaks, gate = [], [], Lock()

    def work(item):
        with gate:
            running.append(item)
            peaks.append(len(running))
        time.sleep(0.005)
        with gate:
            running.remove(item)
        return squares(item)

    with at_work(tmp_path, executor=Threads(4), budget=25.0) as workspace:
        workspace.run("pass", "", work, range(12), cost=lambda _: 10.0)
    assert max(peaks) <= 2
