import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mitocore.durable import read_json, read_npy, replaced, sync_folder, write_json, write_npy
from mitocore.errors import DataError, ResourceError, RunError


@contextmanager
def small_files() -> Iterator[None]:
    """The system refuses files of more than 4 KiB, as a full disk would; the report of the tests may be one of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with replaced(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" whole")
    assert path.read_bytes() == b"half whole"
    assert [*tmp_path.iterdir()] == [path]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), replaced(path) as file:
        file.writelines([b"new", "not bytes"])
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_two_may_write_a_shared_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with replaced(path, shared=True) as one, replaced(path, shared=True) as other:
        one.write(b"same")
        other.write(b"same")
    assert path.read_bytes() == b"same"
    assert [*tmp_path.iterdir()] == [path]


def test_json_is_readable_and_ends_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"where": Path("µ")})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"where": "µ"}
    assert text.endswith("\n")


def test_a_full_disk_is_a_lack_of_resources_that_names_the_file(tmp_path: Path) -> None:
    with small_files(), pytest.raises(ResourceError, match=r"a\.npy' cannot be written") as error:
        write_npy(tmp_path / "a.npy", np.ones(10_000))
    assert "disk space" in error.value.hint
    with small_files(), pytest.raises(ResourceError, match=r"a\.json' cannot be written: File too large"):
        write_json(tmp_path / "a.json", "x" * 10_000)
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing/a\.json' cannot be written: No such file"):
        write_json(tmp_path / "missing" / "a.json", {})
    with pytest.raises(DataError, match="missing' cannot be written"):
        sync_folder(tmp_path / "missing")


def test_only_files_that_hold_something_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    monkeypatch.setattr(os, "fsync", lambda handle: waited.append(os.fstat(handle).st_size))
    with replaced(tmp_path / "a.bin", sync=False) as file:
        file.write(b"abc")
    with replaced(tmp_path / "b.bin", sync=False):
        pass
    assert waited == [3]
    assert (tmp_path / "b.bin").read_bytes() == b""


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, "µ"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, "µ"]}
    for values in (np.arange(6).reshape(2, 3), np.zeros(0, "u8"), np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")])):
        write_npy(tmp_path / "a.npy", values)
        for mapped in (False, True):
            found = read_npy(tmp_path / "a.npy", mapped=mapped)
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("content", ["", "{", '{"a": 1', "[1]", "3", "\0" * 20, "[" * 100_000])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RunError, match=r"'a\.json' is damaged") as caught:
        read_json(tmp_path / "a.json")
    assert (caught.value.where, caught.value.hint) == (str(tmp_path / "a.json"), "--fresh computes it again")


def test_text_that_is_no_utf_8_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(RunError, match="damaged"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("mapped", [False, True])
def test_an_array_that_is_cut_or_overwritten_anywhere_is_damaged(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "a.npy"
    write_npy(path, np.arange(6, dtype="u2"))
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in range(len(whole))]
    damaged += [whole[:place] + b"(" + whole[place + 1 :] for place in range(11, 60)]  # in the header, its length first
    objects = np.lib.format.magic(1, 0) + b"\x46\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    for content in (*damaged, b"PK\x03\x04" + whole, objects.ljust(80) + b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"'a\.npy' is damaged") as caught:
            read_npy(path, mapped=mapped)
        assert caught.value.where == str(path)


def test_a_file_that_is_gone_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"'a\.json' is missing"):
        read_json(tmp_path / "a.json")
    for mapped in (False, True):
        with pytest.raises(RunError, match=r"'a\.npy' is missing"):
            read_npy(tmp_path / "a.npy", mapped=mapped)
