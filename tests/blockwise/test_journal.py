import os

import numpy as np
import pytest

from mitocore import DataError, ResourceError
from mitocore.blockwise.journal import Journal
from mitocore.interfaces import OBJECT

TABLES = {3: np.array([(5, 2)], OBJECT), 0: np.zeros(0, OBJECT), 7: np.arange(4)}


def written(path):
    """Commit three tables in two groups; where each record ends."""
    ends = [0]
    with Journal(path) as journal:
        for block, table in TABLES.items():
            journal.commit({block: table})
            ends.append(path.stat().st_size)
    return ends


def test_tables_are_read_back_as_they_were_committed(tmp_path):
    written(tmp_path / "a.journal")
    with Journal(tmp_path / "a.journal") as journal:
        assert list(journal.tables) == [3, 0, 7]
        for block, table in TABLES.items():
            assert journal.tables[block].dtype == table.dtype
            np.testing.assert_array_equal(journal.tables[block], table)


def test_a_journal_cut_at_any_byte_opens_with_the_records_that_are_whole_and_goes_on(tmp_path):
    path = tmp_path / "a.journal"
    ends = written(path)
    text = path.read_bytes()
    for cut in range(len(text) + 1):
        path.write_bytes(text[:cut])
        whole = sum(end <= cut for end in ends[1:])
        with Journal(path) as journal:
            assert list(journal.tables) == list(TABLES)[:whole]
            if cut % 8 == 0:
                journal.commit({9: np.ones(2)})
                with Journal(path) as again:
                    assert list(again.tables) == [*list(TABLES)[:whole], 9]


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\xff" * 100, b"x", os.urandom(333)])
def test_garbage_after_the_last_record_is_cut_off(tmp_path, garbage):
    path = tmp_path / "a.journal"
    written(path)
    with path.open("ab") as file:
        file.write(garbage)
    for extra in ([], [9]):
        with Journal(path) as journal:
            assert list(journal.tables) == [*TABLES, *extra]
            journal.commit({9: np.ones(2)})


def test_a_record_with_a_flipped_bit_and_all_after_it_never_happened(tmp_path):
    path = tmp_path / "a.journal"
    ends = written(path)
    for position in range(ends[1], ends[2]):
        text = bytearray(path.read_bytes())
        text[position] ^= 4
        (tmp_path / "b.journal").write_bytes(text)
        with Journal(tmp_path / "b.journal") as journal:
            assert list(journal.tables) == [3]


def test_a_commit_that_was_interrupted_leaves_no_hole_for_the_next(tmp_path, monkeypatch):
    path = tmp_path / "a.journal"
    with Journal(path) as journal:
        journal.commit({1: np.ones(3)})
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            journal.commit({2: np.ones(3)})
        monkeypatch.undo()
        assert list(journal.tables) == [1]
        journal.commit({3: np.ones(3)})
    with Journal(path) as journal:
        assert list(journal.tables) == [1, 3]


def test_a_full_disk_is_reported_with_the_journal_and_the_remedy(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / "a.journal") as journal:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match=r"a.journal' cannot be written: No space left") as caught:
            journal.commit({1: np.ones(3)})
    assert "run again" in caught.value.hint


def test_closing_twice_is_allowed(tmp_path):
    journal = Journal(tmp_path / "a.journal")
    journal.close()
    journal.close()


def test_a_journal_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "a.journal").mkdir()
    with pytest.raises(DataError, match=r"a\.journal' cannot be written: Is a directory"):
        Journal(tmp_path / "a.journal")
