"""TOML that knows its lines: where things stand, what is refused, what `--set` changes."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from mitocore.config.toml import Document, locate, near, override, parse, read
from mitocore.config.training import Training
from mitocore.errors import ConfigError, DataError

TEXT = """\
# a comment
mitocore = 1
seed = 3           # another

[run]
workers = 2
predict.window = [
  1,
  2,
]
"quoted key" = 1

[[step]]
name = 'net'
options = { a = 1 }

[[step]]  # the second
name = "mask"
threshold = 0.5
[step.predict]
batch = 2

[run.nested]
deep = 1
"""


def test_tables_arrays_of_tables_and_dotted_keys_know_their_lines():
    lines = locate(TEXT)
    assert lines["mitocore",] == 2
    assert lines["seed",] == 3
    assert lines["run",] == 5
    assert lines["run", "workers"] == 6
    assert lines["run", "predict", "window"] == 7
    assert lines["run", "quoted key"] == 11
    assert lines["step", 0] == 13
    assert lines["step", 0, "options"] == 15
    assert lines["step", 1] == 17
    assert lines["step", 1, "threshold"] == 19
    assert lines["step", 1, "predict"] == 20
    assert lines["step", 1, "predict", "batch"] == 21
    assert lines["run", "nested", "deep"] == 24


def test_what_stands_inside_a_value_of_several_lines_is_no_key_and_no_table():
    text = '[train]\nwindow = [\n  [1, 2],\n  [3]\n]\ntext = """\nsteps = 1\n[model]\n"""\nsteps = "x"\n'
    assert locate(text) == {("train",): 1, ("train", "window"): 2, ("train", "text"): 6, ("train", "steps"): 10}


def test_keys_of_an_inline_table_that_spans_lines_are_found_by_their_table():
    document = Document(
        {"volume": [{"path": "a", "split": {"gap": 1}}]}, Path("t.toml"), locate("volume = [\n  { path = 'a' },\n]\n")
    )
    assert document.where("volume", 0, "path").startswith("t.toml:1 ")


names = st.text("abcdefgh_-", min_size=1, max_size=6)


@given(
    st.lists(
        st.tuples(names, st.sampled_from(["1", "[1,\n 2]", "'x'", '"""a\nb = 1\n"""', "[\n[1],\n[2]\n]"])),
        min_size=1,
        unique_by=lambda p: p[0],
    )
)
def test_every_key_is_found_on_the_line_where_it_is_written(entries):
    text, expected = "[table]\n", {("table",): 1}
    for key, value in entries:
        expected["table", key] = text.count("\n") + 1
        text += f"{key} = {value}\n"
    assert locate(text) == expected


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    batch: int = 1


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid")
    workers: Annotated[int, Field(ge=0)] = 0
    keep: Literal["heads", "all", "none"] = "heads"
    folder: str
    predict: Inner = Inner()


def written(tmp_path, text, *overrides):
    path = tmp_path / "pipeline.toml"
    path.write_text(text, "utf-8")
    return read(path, overrides)


def findings(error):
    return [error, *error.others]


def test_an_error_quotes_file_line_key_value_and_what_is_allowed(tmp_path):
    document = written(tmp_path, "[run]\nfolder = 'x'\n\nkeep = 'some'\n")
    with pytest.raises(ConfigError) as refused:
        parse(Table, document.data["run"], document, "run")
    assert refused.value.where == f"{tmp_path / 'pipeline.toml'}:4 [run]"
    assert refused.value.problem == "keep = 'some': this takes 'heads', 'all' or 'none'"


def test_an_unknown_key_gets_a_near_miss_even_in_a_nested_table(tmp_path):
    document = written(tmp_path, "[run]\nfolder = 'x'\n[run.predict]\nbacth = 3\n")
    with pytest.raises(ConfigError) as refused:
        parse(Table, document.data["run"], document, "run")
    assert refused.value.where.endswith("pipeline.toml:4 [run]")
    assert "no option 'predict.bacth'" in refused.value.problem
    assert refused.value.hint == "did you mean 'batch'?"


def test_all_findings_of_a_table_come_together_in_the_order_of_their_lines(tmp_path):
    document = written(tmp_path, "[run]\nzzz = 1\nkeep = 'some'\nworkers = -1\n")
    with pytest.raises(ConfigError) as refused:
        parse(Table, document.data["run"], document, "run")
    places = [error.where for error in findings(refused.value)]
    assert [place.partition("pipeline.toml:")[2].split()[0] for place in places] == ["1", "2", "3", "4"]
    assert any("needs 'folder'" in error.problem for error in findings(refused.value))


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({"instances": {"kind": "semantic"}}, "the training needs 'volume.0.labels.instances.path'"),
        ({"instances": {"path": "a.npy", "kind": "x"}}, "volume.0.labels.instances.kind = 'x'"),
        ({}, "volume.0.labels = {}: this names no labels"),
    ],
)
def test_what_only_follows_from_another_finding_is_not_said(labels, problem):
    data = {
        "mitocore": 1,
        "model": "net",
        "volume": [{"path": "raw.npy", "labels": labels}],
        "objective": [{"head": "a", "target": "b", "loss": "c"}],
    }
    with pytest.raises(ConfigError) as refused:
        parse(Training, data, Document(data), what="the training")
    assert problem in refused.value.problem
    assert not refused.value.others


def test_a_table_that_should_be_one_of_several_is_answered_with_how_to_write_it():
    class File(BaseModel):
        step: tuple[dict[str, int], ...] = ()

    with pytest.raises(ConfigError, match="stands for one of several") as refused:
        parse(File, {"step": {"a": 1}}, Document({"step": {"a": 1}}))
    assert refused.value.hint == "write [[step]]"


def test_an_argument_of_a_command_is_named_instead_of_the_key_it_stands_for():
    document = Document({"output": {"save": ["a"]}}, flags={("output", "save"): "--save"})
    assert document.where("output", "save") == "--save"
    assert document.where("output", "path") == "[output]"
    assert override(document, ["output.path=b"]).where("output", "save") == "--save"


def test_no_error_has_more_than_three_lines(tmp_path):
    document = written(tmp_path, "[run]\nfolder = '''\na\nb'''\nkeep = '''some\nthing'''\nworkers = 'x'\n")
    with pytest.raises(ConfigError) as refused:
        parse(Table, document.data["run"], document, "run")
    assert all(str(error).count("\n") <= 2 for error in findings(refused.value))


def test_a_missing_file_is_a_data_error_and_broken_toml_says_where(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.toml")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"this is not TOML.*line 2"):
        written(tmp_path, "a = 1\nb = \n")
    (tmp_path / "latin.toml").write_bytes("a = 'é'".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not text in UTF-8"):
        read(tmp_path / "latin.toml")


BASE = """\
mitocore = 1
[input]
path = "raw.npy"
[[step]]
name = "mask"
postprocessor = "threshold"
[[step]]
postprocessor = "rsunet/size_filter"
[[volume]]
path = "v.npy"
"""


@pytest.mark.parametrize(
    ("text", "keys", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("input.path=other.npy", ("input", "path"), "other.npy"),
        ("input.path='a=b.npy'", ("input", "path"), "a=b.npy"),
        ("input.voxel_size=[40, 8, 8]", ("input", "voxel_size"), [40, 8, 8]),
        ("input.voxel_size=8 nm", ("input", "voxel_size"), "8 nm"),
        ("run.workers=2", ("run", "workers"), 2),
        ("run.deep.er=true", ("run", "deep", "er"), True),
        ("mask.threshold=0.7", ("step", 0, "threshold"), 0.7),
        ("size_filter.min_size=10", ("step", 1, "min_size"), 10),
        ("mask.predict.batch=2", ("step", 0, "predict", "batch"), 2),
        ("step.1.min_size=4", ("step", 1, "min_size"), 4),
        ("volume.labels=l.npy", ("volume", 0, "labels"), "l.npy"),
        ("volume.0.labels=l.npy", ("volume", 0, "labels"), "l.npy"),
    ],
)
def test_an_override_names_a_table_a_step_or_an_entry_of_an_array(tmp_path, text, keys, value):
    document = written(tmp_path, BASE, text)
    found = document.data
    for key in keys:
        found = found[key]
    assert found == value
    assert document.where(*keys).startswith("--set")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nothing", "'nothing' sets nothing"),
        ("=3", "'=3' sets nothing"),
        ("msak.threshold=1", "no table or step is called 'msak'"),
        ("step.threshold=1", "there are 2 tables \\[\\[step\\]\\]"),
        ("step.7.threshold=1", "there are 2 tables \\[\\[step\\]\\]"),
        ("input.path.x=1", "is inside a value"),
        ("input.path.x.y=1", "is inside a value"),
        ("seed.x=1", "no table or step is called 'seed'"),
        ("mitocore.x.y=1", "no table or step is called 'mitocore'"),
        ("..=1", "sets nothing"),
        ("input.=1", "sets nothing"),
        (".x=1", "sets nothing"),
    ],
)
def test_an_override_that_names_nothing_is_refused(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem) as refused:
        written(tmp_path, BASE, text)
    assert refused.value.where.startswith("--set")


@pytest.mark.parametrize("text", ["step = 5", "step = ['a']", "step = [[1]]", "input = 3"])
def test_an_override_of_a_file_of_another_form_is_no_traceback(tmp_path, text):
    with pytest.raises(ConfigError):
        written(tmp_path, text, "mask.threshold=1")


def test_later_overrides_win(tmp_path):
    assert written(tmp_path, BASE, "seed=1", "seed=2").data["seed"] == 2


def test_paths_in_the_file_start_at_its_folder_and_overridden_ones_in_the_current(tmp_path):
    document = written(tmp_path, BASE, "volume.path=w.npy", "run={ folder = 'r' }")
    assert document.folder_of("input", "path") == tmp_path
    assert document.folder_of("volume", 0, "path") == Path()
    assert document.folder_of("run", "folder") == Path()


def test_a_document_made_by_a_program_has_no_lines_and_starts_in_the_current_folder():
    document = Document({"run": {"folder": 3}})
    with pytest.raises(ConfigError) as refused:
        parse(Table, document.data["run"], document, "run")
    assert refused.value.where == "[run]"
    assert document.folder == Path()


def test_the_original_document_is_not_changed_by_an_override():
    document = Document({"run": {"workers": 1}})
    override(document, ["run.workers=2"])
    assert document.data == {"run": {"workers": 1}}


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("treshold", ["threshold", "name"], "did you mean 'threshold'?"),
        ("x", ["a", "b"], "known: a, b"),
        ("x", [], "known: none"),
    ],
)
def test_a_hint_names_the_nearest_word_or_all(word, known, hint):
    assert near(word, known) == hint
