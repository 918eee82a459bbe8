"""What pipeline.toml may say: stages 1 to 5 of planning."""

import sys
from importlib.metadata import distributions, entry_points
from pathlib import Path

import pytest

from mitocore.config.pipeline import bytes_of, configure
from mitocore.config.toml import read
from mitocore.errors import ConfigError, DataError, PluginError
from mitocore.registry import API_GROUP, discover

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.insert(0, str(FIXTURES / "modules"))

GOOD = """\
mitocore = 1
[input]
path = "raw.npy"
voxel_size = [40, 8, 8]
kind = "probability"

[[step]]
name = "mask"
postprocessor = "builtin/threshold"
threshold = 0.7
[[step]]
postprocessor = "connected_components"

[output]
path = "out/mito.npy"
save = ["mask.mask"]

[run]
workers = 2
memory = "2 GB"
"""


@pytest.fixture(scope="module")
def registry():
    (fake,) = distributions(path=[str(FIXTURES)])
    return discover([*entry_points(group=API_GROUP), *(p for p in fake.entry_points if p.name == "fake")])


@pytest.fixture
def configured(tmp_path, registry):
    def read_and_configure(text, *overrides, data=True):
        (tmp_path / "pipeline.toml").write_text(text, "utf-8")
        return configure(read(tmp_path / "pipeline.toml", overrides), registry, data=data)

    return read_and_configure


def refusal(configured, text, *overrides, data=True, family=ConfigError):
    with pytest.raises(family) as refused:
        configured(text, *overrides, data=data)
    for error in (refused.value, *refused.value.others):
        assert str(error).count("\n") <= 2
    return refused.value


def test_a_pipeline_is_read_with_its_components_built(configured, tmp_path):
    config = configured(GOOD)
    assert [step.name for step in config.steps] == ["mask", "connected_components"]
    assert config.steps[0].component.threshold == 0.7
    assert config.steps[0].entry.qualified == "builtin/threshold"
    assert config.reader.path == str(tmp_path / "raw.npy")
    assert config.reader.voxel_size.edges == (40, 8, 8)
    assert config.kind == "probability"
    assert config.writer.path == str(tmp_path / "out/mito.npy")
    assert config.save == ("mask.mask",)
    assert (config.run.workers, config.run.memory, config.name) == (2, 2_000_000_000, "pipeline")


def test_overrides_reach_steps_by_name(configured, tmp_path):
    config = configured(GOOD, "mask.threshold=0.9", "connected_components.min_size=0.001 um3", "output.path=o.npy")
    assert config.steps[0].component.threshold == 0.9
    assert config.steps[1].component.min_size == "0.001 um3"
    assert config.writer.path == str(Path("o.npy").absolute())


@pytest.mark.parametrize(
    ("old", "new", "line", "problem", "hint"),
    [
        ("mitocore = 1", "mitocore = 2", 1, "mitocore = 2: this takes 1", "mitocore = 1"),
        ("mitocore = 1\n", "", 0, "the pipeline needs 'mitocore'", "mitocore = 1"),
        ("[run]", "[rnu]", 18, "the pipeline has no option 'rnu'", "did you mean 'run'?"),
        ("workers = 2", "wrokers = 2", 19, "no option 'run.wrokers'", "did you mean 'workers'?"),
        ("workers = 2", "workers = 'many'", 19, "this takes a whole number, or 'auto'", "mitocore describe --schema"),
        ("workers = 2", "block = [0, 1, 1]", 19, "an axis needs at least one voxel", "describe"),
        ("workers = 2", "workers = -1", 19, "run.workers", "describe"),
        ("workers = 2", "retries = -1", 19, "run.retries", "describe"),
        ('memory = "2 GB"', 'memory = "2 apples"', 20, "run.memory", "describe"),
        ('memory = "2 GB"', 'keep = "some"', 20, "'heads', 'all' or 'none'", "describe"),
        ('path = "raw.npy"\n', "", 2, "the input has no path", "path ="),
        ('path = "raw.npy"', "path = 5", 2, "the input has no path", "path ="),
        ('kind = "probability"', 'kind = "probabilty"', 5, "'probabilty' is not a kind", "did you mean 'probability'?"),
        ('kind = "probability"', "kind = 3", 5, "3 is not a kind", "known: "),
        ("voxel_size = [40, 8, 8]", "voxel_size = [40, 8]", 4, "has 2 edges", "describe"),
        ("voxel_size = [40, 8, 8]", "voxelsize = 8", 4, "reader 'npy' has no option 'voxelsize'", "'voxel_size'"),
        ("threshold = 0.7", "threshold = 1.5", 10, "1.5: this takes less than 1", "describe postprocessor threshold"),
        ("threshold = 0.7", "treshold = 0.7", 10, "has no option 'treshold'", "did you mean 'threshold'?"),
        ("threshold = 0.7", "inputs = ['a']", 7, "inputs names arrays", 'inputs = { mask = "step.array" }'),
        ("threshold = 0.7", "inputs = { a = 1 }", 7, "inputs names arrays", 'inputs = { mask = "step.array" }'),
        ("threshold = 0.7", "storage = 'half'", 10, "storage = 'half' is unknown", "float16"),
        ("threshold = 0.7", "storage = ['half']", 10, "storage = ['half'] is unknown", "float16"),
        ("threshold = 0.7", "predict = { batch = 2 }", 10, "'predict' is for models only", "remove it"),
        ("threshold = 0.7", "weights = 'a.safetensors'", 10, "'weights' is for models only", "remove it"),
        ("threshold = 0.7", "model = 'tinynet'", 7, "one model or one postprocessor", "postprocessor"),
        ('postprocessor = "builtin/threshold"\n', "", 7, "one model or one postprocessor", "weights ="),
        ('path = "out/mito.npy"\n', "", 14, "the output needs 'path'", "path = …"),
        ('save = ["mask.mask"]', "save = 'mask.mask'", 16, "save = 'mask.mask'", "describe"),
        ("workers = 2", "block = [1, 2]", 19, "run.block = [1, 2]: this takes more values", "describe --schema"),
        ("workers = 2", "block = [1, 2, 3, 4]", 19, "block = [1, 2, 3, 4]: this takes 3 values, not 4", "describe"),
        ('path = "out/mito.npy"', 'path = "out/{stm}.npy"', 15, "'{stm}' in 'out/{stm}.npy' stands for", "'{stem}'?"),
        ('path = "out/mito.npy"', 'path = "raw.npy"', 15, "raw.npy' is the input itself", "another path"),
        ('save = ["mask.mask"]', "compresion = 1", 16, "writer 'npy' has no option 'compresion'", "known"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_line_what_is_allowed_and_a_hint(configured, old, new, line, problem, hint):
    assert old in GOOD
    error = refusal(configured, GOOD.replace(old, new, 1))
    assert problem in error.problem
    assert hint in error.hint
    if line:
        assert f"pipeline.toml:{line}" in error.where


def test_a_window_of_another_form_is_refused_in_one_line_per_axis(configured):
    text = GOOD + '[[step]]\nweights = "a.safetensors"\npredict = { window = [1, "some", 64] }\n'
    error = refusal(configured, text)
    assert error.problem.startswith("window.1 = 'some': ")
    assert error.others == ()
    assert error.where.endswith("pipeline.toml:23 [[step]] number 3")


def test_an_unknown_component_and_a_format_that_nothing_reads_are_plugin_errors(configured):
    error = refusal(configured, GOOD.replace("builtin/threshold", "treshold"), family=PluginError)
    assert "no postprocessor is called 'treshold'" in error.problem
    assert "pipeline.toml:7 [[step]] 'mask'" in error.where
    error = refusal(configured, GOOD.replace("mito.npy", "mito.mrc"), family=PluginError)
    assert "no writer is known" in error.problem
    assert "pipeline.toml:15 [output]" in error.where


def test_a_name_of_several_plugins_is_refused_with_both_spellings(configured):
    error = refusal(configured, GOOD.replace("builtin/threshold", "threshold"), family=PluginError)
    assert '"builtin/threshold"' in error.hint
    assert '"fake/threshold"' in error.hint


def test_all_mistakes_of_a_file_come_together_in_the_order_of_their_lines(configured):
    text = GOOD.replace("threshold = 0.7", "treshold = 0.7").replace("voxel_size", "voxelsize")
    text = text.replace('"connected_components"', '"connected_component"').replace("mito.npy", "mito.mrc")
    with pytest.raises(ConfigError) as refused:
        configured(text)
    places = [error.where for error in (refused.value, *refused.value.others)]
    lines = [int(place.rpartition("pipeline.toml:")[2].split()[0]) for place in places]
    assert lines == [4, 10, 11, 15]


def test_a_pipeline_needs_a_step(configured):
    assert "there is no [[step]]" in refusal(configured, "mitocore = 1\n").problem


def test_a_model_needs_weights(configured):
    text = GOOD + '[[step]]\nmodel = "fake/tinynet"\n'
    error = refusal(configured, text)
    assert error.problem == "a model needs trained weights"
    assert "safetensors" in error.hint


def test_missing_weights_are_an_error_with_data_and_a_note_without(configured):
    text = GOOD.replace("[[step]]", '[[step]]\nweights = "best.safetensors"\n[[step]]', 1)
    error = refusal(configured, text, family=DataError)
    assert "best.safetensors" in error.problem
    config = configured(text, data=False)
    assert config.notes == ("weights 'best.safetensors' are not here: what depends on them is unchecked",)
    assert config.steps[0].component is None


def test_weights_without_their_header_are_refused(configured, tmp_path):
    (tmp_path / "best.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    text = GOOD.replace("[[step]]", '[[step]]\nweights = "best.safetensors"\n[[step]]', 1)
    assert "does not say what it was trained for" in refusal(configured, text, family=DataError).problem


@pytest.mark.parametrize(
    ("text", "number"), [("16 GB", 16 * 10**9), ("1.5 GiB", 3 * 2**29), ("1024", 1024), ("10 mb", 10**7), (5, 5)]
)
def test_memory_is_a_number_of_bytes_or_a_size(text, number):
    assert bytes_of(text) == number
