import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.errors import DataError
from mitocore.geometry import VoxelSize
from mitocore.header import WeightsHeader, header_beside, read_header
from mitocore.specs import Head, Kind, Window


def a_header(**more: Any) -> WeightsHeader:
    fields = {
        "component": "rsunet/rsunet",
        "options": {"widths": [4, 8]},
        "channels": ("image",),
        "heads": (Head("foreground", ("mito",)), Head("links", ("z",), kind=Kind.AFFINITY, offsets=((-1, 0, 0),))),
        "window": Window((32, "all", 160), overlap=(8, 0, 40), divisor=(8, 16, 16)),
        "normalizer": {"normalizer": "builtin/percentile", "low": 1.0},
    }
    return WeightsHeader.model_validate({**fields, **more})


def safetensors(path: Path, header: str | None, tensor: bytes = b"\0" * 8) -> Path:
    """A file as the format's specification describes it: length, JSON, data."""
    table: dict[str, Any] = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, len(tensor)]}}
    if header is not None:
        table["__metadata__"] = {"mitocore": header}
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensor)
    return path


edges = st.floats(0.1, 1000).map(lambda v: round(v, 3))
sizes = st.builds(VoxelSize, edges, edges, edges)


@settings(deadline=None, max_examples=30)
@given(st.none() | sizes | st.tuples(sizes, sizes), st.dictionaries(st.text(max_size=5), st.floats(0, 1)))
def test_a_header_survives_json(voxel_size: Any, scores: dict[str, float]) -> None:
    header = a_header(voxel_size=voxel_size, scores=scores, provenance={"seed": 3}, pipeline=({"min_size": 3},))
    assert WeightsHeader.model_validate_json(header.model_dump_json()) == header


def test_the_header_inside_a_file_is_read_without_any_library(tmp_path: Path) -> None:
    header = a_header(voxel_size=5)
    assert read_header(safetensors(tmp_path / "w.safetensors", header.model_dump_json())) == header


def test_the_header_beside_a_foreign_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    path.write_bytes(b"anything")
    header_beside(path).write_text(a_header().model_dump_json())
    assert read_header(path) == a_header()
    path.unlink()
    with pytest.raises(DataError, match=r"describes 'old\.pth', which is missing"):
        read_header(path)


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    whole = safetensors(tmp_path / "w.safetensors", a_header().model_dump_json()).read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in [*range(0, 40, 3), *range(40, len(whole) - 1, 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"truncated|does not say") as error:
            read_header(path)
        if length > 9:
            assert "truncated" in str(error.value)


def test_a_header_of_a_later_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    text = a_header().model_dump_json().replace("mitocore-weights/1", "mitocore-weights/2")
    with pytest.raises(DataError, match="has header version 'mitocore-weights/2'") as error:
        read_header(safetensors(tmp_path / "w.safetensors", text))
    assert "upgrade" in error.value.hint


@pytest.mark.parametrize("text", ['{"component": "a/b"}', "{", '{"format": "mitocore-weights/1", "extra": 1}'])
def test_a_damaged_header_names_the_key(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is damaged"):
        read_header(safetensors(tmp_path / "w.safetensors", text))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_a_file_that_says_nothing_is_refused_with_the_command_that_helps(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match="does not say what it was trained for") as error:
        read_header(path)
    assert "mitocore weights add" in error.value.hint


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_header(tmp_path / "gone.safetensors")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_header(tmp_path)
