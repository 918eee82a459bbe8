"""Tables of a TOML file become components; what does not fit is refused with its line."""

import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from mitocore.builtin import plugin
from mitocore.config.components import build, check_exists, nearest_hinted, opened_by, resolved
from mitocore.config.toml import read
from mitocore.errors import ConfigError, DataError, PluginError
from mitocore.registry import API_GROUP, Registry, discover

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.insert(0, str(FIXTURES / "modules"))


@pytest.fixture(scope="module")
def registry():
    (fake,) = distributions(path=[str(FIXTURES)])
    builtin = Registry(versions={"builtin": "0"}, _plugin="builtin")
    plugin.mitocore_register(builtin)
    found = discover([point for point in fake.entry_points.select(group=API_GROUP) if point.name == "fake"])
    builtin.entries += found.entries
    return builtin


@pytest.fixture
def document(tmp_path):
    def write(text, *overrides):
        (tmp_path / "t.toml").write_text(text, "utf-8")
        return read(tmp_path / "t.toml", overrides)

    return write


def test_a_string_is_the_component_with_its_defaults(registry):
    component, entry = build("normalizer", "percentile", registry)
    assert component.model_dump() == type(component)().model_dump()
    assert entry.qualified == "builtin/percentile"


def test_a_table_names_the_component_beside_its_options(registry):
    component, _ = build("postprocessor", {"postprocessor": "median", "size": [1, 3, 3]}, registry)
    assert component.size == (1, 3, 3)


def test_keys_of_the_engine_are_left_out(registry):
    table = {"postprocessor": "median", "name": "smooth", "inputs": {}}
    assert build("postprocessor", table, registry, allow=("name", "inputs"))[0].size == (3, 3, 3)
    with pytest.raises(ConfigError, match="has no option 'inputs'"):
        build("postprocessor", table, registry, allow=("name",))


@pytest.mark.parametrize("value", [None, 3, [], {}, {"size": 3}, {"postprocessor": 3}])
def test_a_value_that_names_no_component_is_refused(registry, value):
    with pytest.raises(ConfigError, match="this names no postprocessor") as refused:
        build("postprocessor", value, registry)
    assert refused.value.hint == 'postprocessor = "…"; `mitocore describe postprocessor` lists them'


def test_an_unknown_component_is_refused_where_it_stands(registry, document):
    text = document('\n[normalizer]\nnormalizer = "percentil"\n')
    with pytest.raises(PluginError) as refused:
        build("normalizer", text.data["normalizer"], registry, text, "normalizer")
    assert refused.value.where.endswith("t.toml:2 [normalizer]")
    assert refused.value.hint == "did you mean 'percentile'?"


def test_wrong_options_are_refused_together_with_line_value_and_near_miss(registry, document):
    text = document('[normalizer]\nnormalizer = "percentile"\nlow = "x"\nhihg = 99\n')
    with pytest.raises(ConfigError) as refused:
        build("normalizer", text.data["normalizer"], registry, text, "normalizer")
    first, second = refused.value, *refused.value.others
    assert first.where.endswith("t.toml:3 [normalizer]")
    assert first.problem.startswith("low = 'x': ")
    assert second.where.endswith("t.toml:4 [normalizer]")
    assert second.problem == "normalizer 'percentile' has no option 'hihg'"
    assert second.hint == "did you mean 'high'?"


def test_a_rule_of_the_component_itself_is_quoted(registry):
    with pytest.raises(ConfigError) as refused:
        build("postprocessor", {"postprocessor": "median", "size": [2, 3, 3]}, registry)
    assert (
        refused.value.problem
        == "size = [2, 3, 3]: [2, 3, 3] are not three odd numbers of voxels (z, y, x), such as [3, 1, 1]"
    )


def test_paths_start_at_the_folder_of_the_file_or_of_the_command(registry, document, tmp_path):
    text = '[input]\nreader = "npy"\npath = "raw.npy"\n'
    inside = document(text)
    assert build("reader", inside.data["input"], registry, inside, "input")[0].path == str(tmp_path / "raw.npy")
    stated = document(text, "input.path=other.npy")
    assert build("reader", stated.data["input"], registry, stated, "input")[0].path == "other.npy"
    absolute = document(text, "input.path=/data/raw.npy")
    assert build("reader", absolute.data["input"], registry, absolute, "input")[0].path == "/data/raw.npy"


def test_an_address_is_no_path(registry, document):
    text = document('[input]\nreader = "sealed"\npath = "s3://bucket/a.sealed"\n')
    assert build("reader", text.data["input"], registry, text, "input")[0].path == "s3://bucket/a.sealed"
    assert opened_by("reader", "s3://bucket/a.sealed", registry)[0].path == "s3://bucket/a.sealed"


def test_the_slash_that_marks_a_folder_of_slices_is_kept():
    assert resolved("slices/", Path("data")) == "data/slices/"
    assert resolved("raw.npy", Path("data")) == "data/raw.npy"


def test_a_volume_is_opened_by_its_suffix_or_by_the_reader_that_is_named(registry, tmp_path):
    reader, entry = opened_by("reader", str(tmp_path / "a.sealed"), registry, options={"shape": (2, 2, 2)})
    assert (entry.name, reader.shape, reader.path) == ("sealed", (2, 2, 2), str(tmp_path / "a.sealed"))
    assert opened_by("reader", "b.raw", registry, named="sealed")[1].name == "sealed"


def test_a_key_behind_two_colons_is_refused_by_a_format_without_names(registry):
    with pytest.raises(DataError, match=r"'a\.sealed' has no arrays with names") as refused:
        opened_by("reader", "a.sealed::raw", registry)
    assert refused.value.hint == "leave ::raw out"


def test_what_does_not_exist_and_has_no_known_suffix_is_missing_rather_than_unknown(registry, document, tmp_path):
    text = document('[input]\npath = "nothing.xyz"\n')
    with pytest.raises(DataError, match=r"'nothing.xyz' does not exist") as refused:
        opened_by("reader", "nothing.xyz", registry, text, "input")
    assert refused.value.where.endswith("t.toml:2 [input]")
    (tmp_path / "there.xyz").touch()
    with pytest.raises(PluginError, match="no reader is known") as refused:
        opened_by("reader", "there.xyz", registry, text, "input")
    assert refused.value.where.endswith("t.toml:2 [input]")


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("rwa.npy::key", "did you mean 'raw.npy'?"),
        ("data/rwa.npy", "there is no folder"),
        ("half.npy", "half.npy.part is there: resume the run that writes it"),
        ("nothing", "ls "),
    ],
)
def test_what_is_missing_is_answered_with_what_is_there(place, hint, tmp_path):
    for name in ("raw.npy", "half.npy.part"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="does not exist") as refused:
        check_exists(place, tmp_path)
    assert refused.value.hint.startswith(hint)
    problem = DataError(f"cannot open {place.partition('::')[0]}", hint="check the path")
    with pytest.raises(DataError) as refused, nearest_hinted(place, folder=tmp_path):
        raise problem
    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize("place", ["raw.npy::key", "s3://bucket/rwa.npy", "rw?.npy"])
def test_what_is_there_or_nobody_can_tell_keeps_its_hint(place, tmp_path):
    (tmp_path / "raw.npy").touch()
    check_exists(place, tmp_path)
    with pytest.raises(DataError) as refused, nearest_hinted(place, folder=tmp_path):
        raise DataError(f"{place} is damaged", hint="copy it again")
    assert refused.value.hint == "copy it again"


def test_what_no_writer_is_known_for_is_answered_with_both_forms(registry):
    with pytest.raises(PluginError, match="no writer is known") as refused:
        opened_by("writer", "out.xyz", registry)
    assert 'writer = "…" in [output], or --writer NAME of convert' in refused.value.hint


def test_one_image_as_an_output_is_answered_with_a_folder_of_slices():
    pytest.importorskip("mitocore_io")
    with pytest.raises(PluginError, match="no writer is known") as refused:
        opened_by("writer", "masks/out.png", discover())
    assert refused.value.hint.endswith("masks/out/ writes a folder of slices")
