import json
from pathlib import Path

import pytest

from mitocore import weights
from mitocore.errors import DataError
from mitocore.header import WeightsHeader, header_beside
from mitocore.specs import Head, Window

HEADER = WeightsHeader(
    component="rsunet/rsunet",
    options={},
    channels=("image",),
    heads=(Head("foreground", ("mito",)),),
    window=Window((32, 64, 64)),
    normalizer={"normalizer": "builtin/percentile"},
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MITOCORE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    text = json.dumps({"__metadata__": {"mitocore": HEADER.model_dump_json()}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


def test_added_weights_are_found_by_name_and_outlive_the_file(file: Path, tmp_path: Path) -> None:
    known = weights.add(file, "mito_v1", source="https://example.org", licence="CC-BY-4.0")
    content = file.read_bytes()
    file.unlink()
    assert weights.resolve("mito_v1", tmp_path).read_bytes() == content
    assert weights.info("mito_v1") == known
    assert known.licence == "CC-BY-4.0"
    assert weights.header("mito_v1") == HEADER


def test_weights_are_listed_by_name_and_can_be_removed(file: Path) -> None:
    assert weights.listed() == ()
    for name in ("b", "a"):
        weights.add(file, name)
    assert [known.name for known in weights.listed()] == ["a", "b"]
    weights.remove("a")
    assert [known.name for known in weights.listed()] == ["b"]
    with pytest.raises(DataError, match="no weights are called 'a'"):
        weights.remove("a")


def test_a_path_is_relative_to_the_folder_and_must_exist(file: Path, tmp_path: Path) -> None:
    assert weights.resolve("best.safetensors", tmp_path) == file
    assert weights.resolve(str(file), Path("/")) == file
    with pytest.raises(DataError, match=r"no weights file '.*gone\.safetensors'"):
        weights.resolve("gone.safetensors", tmp_path)


def test_an_unknown_name_gets_the_nearest_one_as_a_hint(file: Path, tmp_path: Path) -> None:
    weights.add(file, "mito_v1")
    with pytest.raises(DataError, match="no weights are called 'mito_v2'") as error:
        weights.resolve("mito_v2", tmp_path)
    assert error.value.hint == "did you mean 'mito_v1'?"


def test_a_changed_copy_is_refused_on_use(file: Path, tmp_path: Path) -> None:
    weights.add(file, "mito")
    weights.info("mito").path.write_bytes(b"other")
    with pytest.raises(DataError, match="was changed since it was added"):
        weights.resolve("mito", tmp_path)
    weights.info("mito").path.unlink()
    with pytest.raises(DataError, match="missing"):
        weights.resolve("mito", tmp_path)


def test_a_taken_name_and_a_name_that_is_none_are_refused(file: Path) -> None:
    weights.add(file, "mito")
    with pytest.raises(DataError, match="weights 'mito' exist already"):
        weights.add(file, "mito")
    for name in ("a.b", "../up", "", ".hidden"):
        with pytest.raises(DataError, match="is not a name"):
            weights.add(file, name)


def test_a_file_without_header_is_refused_and_leaves_nothing(tmp_path: Path, home: Path) -> None:
    (tmp_path / "old.pth").write_bytes(b"x")
    with pytest.raises(DataError, match="does not say"):
        weights.add(tmp_path / "old.pth", "old")
    assert weights.listed() == ()
    assert not list(home.glob("**/*"))


def test_the_header_beside_a_foreign_file_is_copied_too(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    path.write_bytes(b"x")
    header_beside(path).write_text(HEADER.model_dump_json())
    weights.add(path, "scripted")
    assert weights.header("scripted") == HEADER


def test_a_damaged_record_is_named(file: Path, tmp_path: Path) -> None:
    weights.add(file, "mito")
    weights.info("mito").path.with_name("about.json").write_text("{")
    with pytest.raises(DataError, match="record of weights 'mito' cannot be read"):
        weights.resolve("mito", tmp_path)
