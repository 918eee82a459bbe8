"""Pipelines made in Python: whatever the blocks, workers, memory and format, the same voxels come out."""

import sys
from pathlib import Path

import numpy as np
import pytest
from fake_plugin.parts import Above, Labels, Shrunken, TinyNet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from mitocore import (
    ArraySpec,
    ConfigError,
    ContractError,
    DataError,
    Kind,
    Pipeline,
    Step,
    WiringError,
    evaluate,
    load,
    weights,
)
from mitocore import (
    open as open_volume,
)
from mitocore.builtin.postprocess import Median, Threshold
from mitocore.testing import reference
from mitocore_rsunet.instances import ConnectedComponents, FillHoles, SizeFilter

SHAPE = (14, 30, 26)
OBJECTS = (
    Step(Median(size=(1, 3, 3))),
    Step(Threshold(threshold=0.62)),
    Step(ConnectedComponents(connectivity=6), name="cc"),
    Step(SizeFilter(min_size=12, remove_small_mode="neighbor"), name="sized"),
    Step(FillHoles(), name="filled"),
)


@pytest.fixture(scope="module")
def probability(blobs):
    return blobs(SHAPE, 3)


@pytest.fixture(scope="module")
def whole(probability):
    """The objects of the volume in one block."""
    return Pipeline(OBJECTS).run(probability, kind=Kind.PROBABILITY).arrays()["filled.instances"]


def test_what_a_pipeline_gives_is_what_its_steps_give_on_the_whole_array(probability, whole):
    given, arrays = ArraySpec(Kind.PROBABILITY), {"values": probability[None]}
    for step in OBJECTS:
        need = next(iter(step.component.needs()))
        inputs = {need: next(iter(arrays.values()))}
        gives = step.component.gives({need: given})
        run = reference.stitched if step.component.__class__ in (ConnectedComponents, SizeFilter, FillHoles) else None
        arrays = (run or reference.local)(step.component, inputs, gives)
        given = next(iter(gives.values()))
    np.testing.assert_array_equal(whole, arrays["instances"][0])
    assert whole.max() > 3


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.integers(5, 16), st.integers(11, 32), st.integers(9, 28)), st.sampled_from([0, 1, 3]))
def test_neither_blocks_nor_workers_change_a_voxel(probability, whole, block, workers):
    found = Pipeline(OBJECTS, block=block, workers=workers).run(probability, kind=Kind.PROBABILITY)
    np.testing.assert_array_equal(found.arrays()["filled.instances"], whole)


@pytest.mark.parametrize("keep", ["heads", "all", "none"])
@pytest.mark.parametrize("save", ["median.values", "threshold.mask", "cc.instances"])
def test_every_array_of_a_pipeline_can_be_asked_for_whatever_scratch_is_kept(probability, keep, save):
    found = Pipeline(OBJECTS[:3], block=(8, 16, 16), keep=keep).run(probability, kind=Kind.PROBABILITY, save=[save])
    expected = median_filter(probability, size=(1, 3, 3), mode="reflect").astype("f2").astype("f4")
    values = found.arrays()[save]
    if save == "median.values":
        np.testing.assert_array_equal(values, expected)
    elif save == "threshold.mask":
        np.testing.assert_array_equal(values, expected > 0.62)
    else:
        np.testing.assert_array_equal(values > 0, expected > 0.62)


def test_a_step_that_is_computed_where_it_is_read_can_be_the_last_of_a_pipeline_that_keeps_nothing(probability):
    found = Pipeline(OBJECTS[:2], keep="none").run(probability, kind=Kind.PROBABILITY)
    assert found["threshold.mask"].spec.kind is Kind.MASK
    assert 0 < found.arrays()["threshold.mask"].mean() < 1


def test_the_result_of_a_file_can_be_read_after_the_file_was_closed(probability, tmp_path):
    np.save(tmp_path / "p.npy", probability)
    found = Pipeline([Step(Threshold())]).run(tmp_path / "p.npy", kind=Kind.PROBABILITY)
    np.testing.assert_array_equal(found.arrays()["threshold.mask"], probability > 0.5)


def test_saving_another_array_changes_nothing(probability, whole):
    save = ["filled.instances", "cc.instances", "threshold.mask"]
    found = Pipeline(OBJECTS, block=(8, 16, 16)).run(probability, kind=Kind.PROBABILITY, save=save)
    assert list(found) == save
    np.testing.assert_array_equal(found.arrays()["filled.instances"], whole)


def test_a_component_that_no_plugin_declares_runs_from_python(probability):
    found = Pipeline([Step(Above(level=0.6)), Step(Labels())], block=(7, 16, 16)).run(probability, kind="probability")
    np.testing.assert_array_equal(found.arrays()["labels.instances"] > 0, probability > 0.6)


def test_a_component_that_breaks_its_declaration_is_named(probability):
    with pytest.raises(ContractError, match=r"Shrunken of '.*fake_plugin.parts' returned 'mask' of shape"):
        Pipeline([Step(Shrunken())]).run(probability, kind=Kind.PROBABILITY).arrays()


def test_the_settled_value_is_compared_with_the_threshold_stored_or_not(probability):
    """A threshold between a value and its float16: both paths must round first."""
    direct = Pipeline([Step(Median(size=(1, 1, 3))), Step(Threshold(threshold=0.5))])
    saved = direct.run(probability, kind=Kind.PROBABILITY, save=["threshold.mask", "median.values"]).arrays()
    np.testing.assert_array_equal(saved["threshold.mask"], saved["median.values"] > 0.5)


def test_two_steps_of_one_name_are_refused(probability):
    with pytest.raises(WiringError, match="'median' is the name of two steps"):
        Pipeline([Step(Median()), Step(Median(size=(1, 1, 3)))]).run(probability, kind=Kind.PROBABILITY)


def test_an_unknown_result_is_refused_with_those_there_are(probability):
    found = Pipeline([Step(Threshold())]).run(probability, kind=Kind.PROBABILITY)
    with pytest.raises(ConfigError) as refused:
        found["treshold.mask"]
    assert refused.value.hint == "did you mean 'threshold.mask'?"
    assert "net.foreground" not in found
    assert found.get("net.foreground") is None


def test_an_unknown_option_of_the_run_is_refused_with_a_near_miss():
    with pytest.raises(ConfigError, match="no option 'worker'") as refused:
        Pipeline([Step(Threshold())], worker=3)
    assert refused.value.hint == "did you mean 'workers'?"


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((1, 1, 2, 2, 2))], ids=["1-D", "5-D"])
def test_an_array_that_is_no_volume_is_refused(array):
    with pytest.raises(DataError, match="axes is no volume"):
        Pipeline([Step(Threshold())]).run(array, kind=Kind.PROBABILITY)


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 4, 4)), np.zeros((2, 2, 2), object), np.zeros((2, 2, 2), complex), np.zeros((2, 2, 2), "U3")],
    ids=["empty", "objects", "complex", "text"],
)
def test_an_array_without_real_numbers_is_refused(array):
    with pytest.raises(DataError, match=r"has no voxels|the array holds") as refused:
        Pipeline([Threshold()]).run(array, kind=Kind.PROBABILITY)
    assert len(str(refused.value).splitlines()) <= 3


def test_an_array_of_another_byte_order_is_read_as_what_it_says(probability):
    pipeline = Pipeline([Threshold(threshold=0.62)])
    found = pipeline.run(probability.astype(">f4"), kind=Kind.PROBABILITY).arrays()["threshold.mask"]
    np.testing.assert_array_equal(found, probability > 0.62)


@pytest.mark.parametrize("source", [None, 3, [[[0.5]]]], ids=["nothing", "a number", "a list"])
def test_what_is_no_volume_is_refused_at_every_door(source):
    for door in (Pipeline([Threshold()]).run, open_volume, lambda given: evaluate(given, np.ones((2, 2, 2), "u1"))):
        with pytest.raises(DataError, match=r"is no volume|is no path") as refused:
            door(source)
        assert len(str(refused.value).splitlines()) <= 3


def test_a_voxel_size_that_is_none_is_refused(probability):
    with pytest.raises(ConfigError, match="is not a length"):
        Pipeline([Threshold()]).run(probability, voxel_size="eight", kind=Kind.PROBABILITY)


def test_a_component_alone_is_a_step(probability):
    alone = Pipeline([Median(), Threshold()]).run(probability, kind=Kind.PROBABILITY).arrays()
    steps = Pipeline([Step(Median()), Step(Threshold())]).run(probability, kind=Kind.PROBABILITY).arrays()
    np.testing.assert_array_equal(alone["threshold.mask"], steps["threshold.mask"])


@pytest.mark.parametrize("steps", [Threshold(), [Threshold], ["threshold"], None])
def test_what_is_no_step_is_refused(steps):
    with pytest.raises(ConfigError, match=r"neither a model nor|takes a list of steps"):
        Pipeline(steps)


def test_rerun_without_names_of_options_is_refused(probability):
    found = Pipeline([Threshold()]).run(probability, kind=Kind.PROBABILITY)
    with pytest.raises(ConfigError, match="takes options by name, not 'x'"):
        found.rerun("x")


def test_weights_of_a_step_are_a_file_or_a_name(probability, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("MITOCORE_HOME", str(tmp_path))
    weights.add(trained(), "mine")
    image = (probability * 255).astype("u1")
    by_file, by_path, by_name = (
        Pipeline([Step(TinyNet(), name="net", weights=given)]).run(image).arrays()
        for given in (str(trained()), trained(), "mine")
    )
    for head in by_file:
        np.testing.assert_array_equal(by_name[head], by_file[head])
        np.testing.assert_array_equal(by_path[head], by_file[head])
    with pytest.raises(DataError, match="no weights are called 'mien'") as refused:
        Pipeline([Step(TinyNet(), weights="mien")]).run(image)
    assert refused.value.hint == "did you mean 'mine'?"


def test_voxels_that_are_not_finite_are_told_and_recorded(probability, trained, caplog):
    image = probability.copy()
    image[3, 4, [5, 6]] = np.nan, np.inf
    found = Pipeline([Step(TinyNet(), name="net", weights=trained())]).run(image)
    assert found.record["statistics"]["net"]["not_finite"] == 2
    assert "NaN or infinite: 2; they count as mid-grey" in caplog.text


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Pipeline([Step(Threshold())]).run(tmp_path / "nothing.npy", kind=Kind.PROBABILITY)


TOML = """\
mitocore = 1
[input]
path = "p.npy"
kind = "probability"
voxel_size = 10

[[step]]
name = "mask"
postprocessor = "builtin/threshold"
threshold = 0.62
[[step]]
postprocessor = "connected_components"
connectivity = 6
[[step]]
postprocessor = "size_filter"
min_size = "0.00001 um3"

[output]
path = "{output}"
save = ["size_filter.instances", "mask.mask"]
{options}

[run]
folder = "run"
workers = 2
block = [8, 16, 16]
"""

FORMATS = {
    "in place": ("out.zarr", "chunks = [4, 16, 16]\nlevels = 1"),
    "blocks that share chunks": ("out.zarr", ""),
    "npy": ("{name}.npy", ""),
    "hdf5": ("out.h5", ""),
    "tiff": ("{name}.tif", ""),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_objects_with_the_voxel_size(name, probability, registry, tmp_path):
    np.save(tmp_path / "p.npy", probability)
    output, options = FORMATS[name]
    (tmp_path / "pipeline.toml").write_text(TOML.format(output=output, options=options), "utf-8")
    steps = (Step(Threshold(threshold=0.62), name="mask"), Step(ConnectedComponents(connectivity=6)))
    expected = Pipeline([*steps, Step(SizeFilter(min_size=10))]).run(probability, kind=Kind.PROBABILITY).arrays()
    with load(tmp_path / "pipeline.toml", registry=registry).run() as found:
        np.testing.assert_array_equal(found.arrays()["size_filter.instances"], expected["sizefilter.instances"])
        np.testing.assert_array_equal(found.arrays()["mask.mask"] > 0, probability > 0.62)
        if name != "npy":
            assert found["mask.mask"].spec.voxel_size.edges == (10, 10, 10)
    if name == "in place":
        assert not list((tmp_path / "run").glob("scratch/size_filter.instances*"))


def test_a_result_saved_by_one_pipeline_is_the_input_of_the_next(probability, tmp_path):
    Pipeline(OBJECTS[:3]).run(probability, kind=Kind.PROBABILITY, output=tmp_path / "cc.npy")
    sized = Pipeline([Step(SizeFilter(min_size=12))]).run(tmp_path / "cc.npy", kind=Kind.INSTANCE).arrays()
    direct = Pipeline([*OBJECTS[:3], Step(SizeFilter(min_size=12))]).run(probability, kind=Kind.PROBABILITY).arrays()
    np.testing.assert_array_equal(sized["sizefilter.instances"], direct["sizefilter.instances"])
    assert open_volume(tmp_path / "cc.npy").spec.dtype == "uint32"


def test_a_pipeline_without_a_network_never_imports_torch(tmp_path):
    import subprocess

    program = """
import sys, numpy as np
from mitocore import Pipeline, Step, Kind
from mitocore.builtin.postprocess import Threshold
Pipeline([Step(Threshold())]).run(np.ones((4, 4, 4), "f4"), kind=Kind.PROBABILITY).arrays()
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
