import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mitocore.durable import replaced, sync_folder, write_json, write_npy
from mitocore.errors import DataError, ResourceError


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
