"""Planning refuses what cannot run before a voxel is read: the input here is a header whose voxels cannot be read."""

import sys
from importlib.metadata import distributions, entry_points
from pathlib import Path

import numpy as np
import pytest

from mitocore import Kind, Pipeline, Step
from mitocore.builtin.postprocess import Threshold
from mitocore.config.pipeline import configure
from mitocore.config.toml import read
from mitocore.errors import ConfigError, DataError, PluginError, ResourceError, WiringError
from mitocore.geometry import VoxelSize
from mitocore.header import WeightsHeader
from mitocore.pipeline import costs, plan
from mitocore.registry import API_GROUP, discover
from mitocore.specs import VolumeSpec, Window
from mitocore_rsunet.instances import ConnectedComponents

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.insert(0, str(FIXTURES / "modules"))

INPUT = '[input]\npath = "raw.sealed"\n'
PROBABILITY = INPUT + 'holds = "probability"\n'
MASK = '[[step]]\nname = "mask"\npostprocessor = "builtin/threshold"\n'
OBJECTS = '[[step]]\nname = "mito"\npostprocessor = "connected_components"\n'
OUTPUT = '[output]\npath = "out.npy"\n'


@pytest.fixture(scope="module")
def registry():
    (fake,) = distributions(path=[str(FIXTURES)])
    return discover([*entry_points(group=API_GROUP), *(p for p in fake.entry_points if p.name == "fake")])


@pytest.fixture
def planned(tmp_path, registry):
    """Plans the TOML text made of these parts."""

    def make(*parts, data=True, overrides=()):
        (tmp_path / "p.toml").write_text("mitocore = 1\n" + "".join(parts), "utf-8")
        return plan(configure(read(tmp_path / "p.toml", overrides), registry, data=data), registry, data=data)

    return make


@pytest.fixture
def refused(planned):
    def make(*parts, family=WiringError, **options):
        with pytest.raises(family) as error:
            planned(*parts, **options)
        assert all(str(e).count("\n") <= 2 for e in (error.value, *error.value.others))
        return error.value

    return make


@pytest.fixture
def weights(tmp_path, registry):
    """Writes a header without tensors, which planning must not need; gives the step that names it."""

    def write(model="tinynet", file="best.safetensors", extra="", **fields):
        import json

        component = registry.find("model", f"fake/{model}").load()(**fields.pop("options", {}))
        header = WeightsHeader(
            component=f"fake/{model}",
            options=component.model_dump(),
            channels=component.channels(),
            heads=component.heads(),
            **{"window": component.window(), "normalizer": {"normalizer": "builtin/minmax"}, **fields},
        )
        text = json.dumps({"__metadata__": {"mitocore": header.model_dump_json()}}).encode()
        (tmp_path / file).write_bytes(len(text).to_bytes(8, "little") + text)
        return f'[[step]]\nname = "net"\nweights = "{file}"\n{extra}\n'

    return write


def test_a_plan_shows_every_step_wire_and_output(planned, weights):
    text = str(planned(INPUT, "voxel_size = 8\n", weights(), MASK, OBJECTS, 'min_size = "0.0001 um3"\n', OUTPUT))
    for line in (
        "p: volume (24, 64, 64) (z, y, x) of uint8, voxel size 8 x 8 x 8 nm, memory ",
        "net              fake/tinynet 0.1 · model · window (4, 16, 16) overlap (1, 4, 4)",
        "image ← input.image → foreground (probability float16) · 2 B/voxel of scratch",
        "mask             builtin/threshold",
        "probability ← net.foreground → mask (mask bool) · 0 B/voxel of scratch",
        "mito             rsunet/connected_components",
        "mask ← mask.mask → instances (instance uint64)",
        "output           mito.instances → ",
    ):
        assert line in text


def test_the_physical_options_of_a_planned_step_are_in_voxels(planned):
    ready = planned(PROBABILITY, "voxel_size = [40, 8, 8]\n", MASK, OBJECTS, 'min_size = "0.0001 um3"\n')
    assert ready.steps[1].component.min_size == 40  # 100 000 nm3 of 2 560 nm3 per voxel


def test_an_unknown_component_is_refused(refused):
    error = refused(PROBABILITY, MASK.replace("builtin/threshold", "thresold"), family=PluginError)
    assert "no postprocessor is called 'thresold'" in error.problem
    assert "p.toml:5 [[step]] 'mask'" in error.where


def test_a_pipeline_without_an_input_is_refused_unless_it_is_planned_without_data(refused, planned):
    assert refused(MASK, family=ConfigError).problem == "the pipeline has no input"
    with pytest.raises(WiringError, match="needs a probability array"):
        planned(MASK, data=False)


def test_an_input_that_does_not_exist_is_refused_where_it_stands(refused):
    error = refused('[input]\npath = "raw.npy"\nkind = "probability"\n', MASK, family=DataError)
    assert "does not exist" in error.problem
    assert "p.toml:3 [input]" in error.where


@pytest.mark.parametrize("name", ["a.b", "a/b", "../out", "ä b", "input", "run", "output", "step"])
def test_a_step_whose_arrays_could_not_be_named_is_refused(refused, name):
    error = refused(PROBABILITY, MASK.replace('"mask"', f'"{name}"'))
    assert error.problem.startswith(repr(name))
    assert "p.toml:5" in error.where


def test_two_steps_of_one_name_are_refused_at_the_second(refused):
    error = refused(PROBABILITY, MASK, MASK)
    assert error.problem == "'mask' is the name of two steps"
    assert "p.toml:8" in error.where
    assert not error.others


def test_a_step_that_needs_what_nothing_above_gives_is_refused_with_what_there_is(refused):
    error = refused(PROBABILITY, '[[step]]\npostprocessor = "size_filter"\n')
    assert error.problem == (
        "'size_filter' needs an instance array for 'instances'; above it are only input.image (probability)"
    )
    assert "p.toml:5 [[step]]" in error.where
    assert error.hint == "a step before it that gives an instance array"


def test_what_stands_below_is_not_above(refused):
    sized = '[[step]]\npostprocessor = "size_filter"\n'
    assert "'size_filter' needs an instance array" in refused(PROBABILITY, sized, MASK, OBJECTS).problem


def test_an_unwired_need_takes_the_nearest_step_above_that_fits(planned):
    ready = planned(PROBABILITY, MASK, '[[step]]\npostprocessor = "median"\n', OBJECTS)
    assert str(ready.steps[1].wires["values"]) == "mask.mask"
    assert str(ready.steps[2].wires["mask"]) == "median.values"


def test_two_arrays_of_one_step_are_an_ambiguity_and_an_explicit_wire_settles_it(refused, planned, weights):
    net = weights("othernet")
    error = refused(INPUT, net, MASK)
    assert error.problem == ("'mask' needs a probability array for 'probability'; 2 fit: net.foreground, net.boundary")
    assert error.hint == 'inputs = { probability = "net.foreground" }'
    ready = planned(INPUT, net, MASK, 'inputs = { probability = "net.boundary" }\n')
    assert str(ready.steps[1].wires["probability"]) == "net.boundary"


@pytest.mark.parametrize(
    ("inputs", "problem", "hint"),
    [
        ('probabilty = "net.boundary"', "'mask' has no input 'probabilty'", "did you mean 'probability'?"),
        ('probability = "net.bondary"', "no array 'net.bondary' stands above it", "did you mean 'net.boundary'?"),
        ('probability = "mito.instances"', "no array 'mito.instances' stands above it", "known: "),
        ('probability = "input.image"', "does not fit 'probability': it holds image", "it needs a probability array"),
        ('probability = "net.boundary:mito"', "'net.boundary' has no channel 'mito'", "membrane"),
    ],
)
def test_an_explicit_wire_that_does_not_fit_is_refused(refused, weights, inputs, problem, hint):
    error = refused(INPUT, weights("othernet"), MASK, f"inputs = {{ {inputs} }}\n", OBJECTS)
    assert problem in error.problem
    assert hint in error.hint


CHANNELS = PROBABILITY + 'channels = ["mito", "membrane"]\n'


def test_a_need_of_one_channel_is_met_by_naming_one(refused, planned):
    error = refused(CHANNELS, OBJECTS)
    assert "above it are only input.image (probability)" in error.problem
    error = refused(CHANNELS, OBJECTS, 'inputs = { mask = "input.image" }\n')
    assert "it has 2 channels, not 1; name one as step.array:channel" in error.problem
    ready = planned(CHANNELS, OBJECTS, 'inputs = { mask = "input.image:membrane" }\n')
    assert ready.steps[0].wires["mask"].channels == (1,)


def test_a_need_of_named_channels_takes_those(planned, refused):
    contour = '[[step]]\nname = "c"\npostprocessor = "contour"\n'
    assert planned(CHANNELS, contour).steps[0].wires["probability"].channels == (1,)
    assert "needs a probability array" in refused(PROBABILITY, 'channels = ["a", "b"]\n', contour).problem


def test_an_optional_need_may_stay_open_and_is_wired_if_something_fits(planned):
    seeded = '[[step]]\nname = "s"\npostprocessor = "seeded"\n'
    assert list(planned(PROBABILITY, MASK, seeded).steps[1].wires) == ["mask"]
    wires = planned(PROBABILITY, MASK, OBJECTS, seeded).steps[2].wires
    assert {need: str(wire) for need, wire in wires.items()} == {"mask": "mask.mask", "seeds": "mito.instances"}


def test_storage_applies_to_probabilities_alone(refused, planned, weights):
    error = refused(PROBABILITY, MASK, 'storage = "float32"\n')
    assert "storage does not apply to 'mask': it gives no probability" in error.problem
    assert planned(INPUT, weights(extra='storage = "uint8"')).steps[0].gives["foreground"].stored == "uint8"


def test_a_threshold_for_a_mask_is_refused_by_the_component_itself(refused):
    error = refused(PROBABILITY, MASK, OBJECTS, "threshold = 0.5\n")
    assert "threshold = 0.5 does not apply to a mask" in error.problem
    assert "p.toml:8 [[step]] 'mito'" in error.where


def test_an_array_to_save_that_no_step_gives_is_refused_with_a_near_miss(refused):
    error = refused(PROBABILITY, MASK, OUTPUT, 'save = ["mask.mask", "maks.mask"]\n')
    assert error.problem == "no step gives 'maks.mask'"
    assert error.hint == "did you mean 'mask.mask'?"
    assert "p.toml:10 [output]" in error.where


def test_one_array_saved_twice_is_saved_once(planned):
    ready = planned(PROBABILITY, MASK, OUTPUT, 'save = ["mask.mask", "mask.mask"]\n')
    assert [saved.name for saved in ready.saved] == ["mask.mask"]


def test_labels_are_refused_by_a_format_that_changes_values(refused, planned):
    error = refused(PROBABILITY, MASK, OBJECTS, '[output]\npath = "out.lossy"\n')
    assert "'mito.instances' holds instance, and this format changes values" in error.problem
    planned(PROBABILITY, '[[step]]\npostprocessor = "median"\n', '[output]\npath = "out.lossy"\n')


def test_an_array_that_a_format_cannot_hold_is_refused_with_what_it_can(refused, planned):
    error = refused(PROBABILITY, '[[step]]\npostprocessor = "median"\n', '[output]\npath = "out.narrow"\n')
    assert error.problem == "'median.values' is float16; this format holds only uint16"
    assert planned(PROBABILITY, MASK, OBJECTS, '[output]\npath = "out.narrow"\n').saved[0].dtype == "uint16"


def test_a_network_is_refused_for_an_input_that_is_no_image(refused, weights):
    assert "'net' needs an image, but the input holds probability" in refused(PROBABILITY, weights()).problem


def test_a_network_is_refused_for_another_number_of_channels(refused, weights):
    error = refused(INPUT, 'channels = ["a", "b"]\n', weights(), family=DataError)
    assert error.problem == "the network takes 1 channels (image), the input has 2"


@pytest.mark.parametrize(
    ("trained", "size", "fits"),
    [
        (VoxelSize(8, 8, 8), [8, 8, 8], True),
        (VoxelSize(8, 8, 8), [9.1, 8, 7], True),
        (VoxelSize(8, 8, 8), [9.3, 8, 8], False),
        (VoxelSize(8, 8, 8), [8, 8, 6], False),
        ((VoxelSize(8, 8, 8), VoxelSize(16, 16, 16)), [12, 8, 16], True),
        ((VoxelSize(8, 8, 8), VoxelSize(16, 16, 16)), [12, 8, 19], False),
    ],
)
def test_the_voxel_size_may_differ_from_that_of_training_by_fifteen_percent(
    planned, refused, weights, trained, size, fits
):
    parts = INPUT, f"voxel_size = {size}\n", weights(voxel_size=trained)
    if fits:
        planned(*parts)
        return
    error = refused(*parts, family=ConfigError)
    assert f"the input has voxels of {VoxelSize(*size)}, the network was trained at 8 x 8 x 8 nm" in error.problem


def test_across_the_planes_a_planar_network_accepts_any_voxel_size(planned, weights):
    planar = weights(voxel_size=VoxelSize(8, 8, 8), window=Window((1, 16, 16), divisor=(1, 2, 2)))
    planned(INPUT, "voxel_size = [50, 8, 8]\n", planar)


def test_an_unknown_voxel_size_is_a_note(planned, weights):
    ready = planned(INPUT, weights(voxel_size=VoxelSize(8, 8, 8)))
    assert ready.notes == ("the weights of 'net' were trained at 8 x 8 x 8 nm; the input does not say its voxel size",)
    assert "note: the weights of 'net'" in str(ready)


def test_a_physical_size_needs_the_voxel_size(refused, planned):
    parts = PROBABILITY, 'kind = "probability"\n', MASK, OBJECTS, 'min_size = "0.001 um3"\n'
    error = refused(*parts, family=ConfigError)
    assert "size '0.001 um3' needs the voxel size of the volume, which is not known" in error.problem
    assert "p.toml:9 [[step]] 'mito'" in error.where
    assert planned(*parts, data=False).steps[1].component.min_size == "0.001 um3"


def test_more_memory_than_the_run_may_use_is_refused_with_what_to_make_smaller(refused, weights):
    error = refused(PROBABILITY, MASK, OBJECTS, '[run]\nmemory = "1 MB"\n', family=ResourceError)
    assert error.problem == "'mask' needs 1.18 MB of memory, the run may use 1 MB"
    assert "run.block" in error.hint
    error = refused(INPUT, weights(), '[run]\nmemory = "100 kB"\n', family=ResourceError)
    assert "predict.window" in error.hint


def test_more_scratch_than_the_disk_has_is_refused(refused, tmp_path):
    text = PROBABILITY + "shape = [100000, 200000, 200000]\n"
    error = refused(text, MASK, OBJECTS, OUTPUT, f'[run]\nfolder = "{tmp_path}/run"\n', family=ResourceError)
    assert "scratch and output may need" in error.problem
    assert error.where == str(tmp_path / "run")
    assert 'folder = "…" in [run]' in error.hint


def test_a_run_may_use_half_of_what_is_free_unless_it_is_told(planned, monkeypatch):
    monkeypatch.setattr(costs, "available_memory", lambda: 8 * 10**9)
    assert planned(PROBABILITY, MASK).memory == 4 * 10**9
    assert planned(PROBABILITY, MASK, '[run]\nmemory = "1 GB"\n').memory == 10**9
    assert costs.available_memory() > 0


@pytest.mark.parametrize(
    ("predict", "problem"),
    [
        ("window = [4, 15, 16]", "window axis of 15: not a multiple of 2"),
        ("window = [0, 16, 16]", "window axis of 0"),
        ("overlap = [4, 4, 4]", "window axis of 4"),
        ("overlap = [-1, 4, 4]", "overlap -1"),
    ],
)
def test_a_window_that_the_network_cannot_take_is_refused_with_the_one_it_was_trained_with(
    refused, weights, predict, problem
):
    error = refused(INPUT, weights(extra=f"predict = {{ {predict} }}"))
    assert problem in error.problem
    assert error.hint == "predict = { window = [4, 16, 16], overlap = [1, 4, 4] }"


def test_another_window_keeps_its_share_of_overlap_and_may_take_a_whole_axis(planned, weights):
    assert planned(INPUT, weights(extra="predict = { window = [4, 32, 32] }")).steps[0].window.overlap == (1, 4, 4)
    assert planned(INPUT, weights(extra='predict = { window = [1, "all", 4] }')).steps[0].window == Window(
        (1, "all", 4), overlap=(0, 0, 2), divisor=(1, 2, 2)
    )


def test_an_option_beside_the_weights_must_be_the_one_they_were_trained_with(refused, planned, weights):
    error = refused(INPUT, weights(extra="gain = 3.0"), family=ConfigError)
    assert error.problem == "gain = 3.0, but the weights were trained with 24.0"
    assert "p.toml:7 [[step]] 'net'" in error.where
    assert error.hint == "leave gain out: the weights know it"
    assert planned(INPUT, weights(extra="gain = 24.0")).steps[0].component.gain == 24


def test_an_option_that_the_weights_do_not_depend_on_may_be_stated(planned, weights):
    assert planned(INPUT, weights(extra="sharpness = 3.0")).steps[0].component.sharpness == 3


def test_weights_of_another_model_are_refused(refused, planned, weights):
    error = refused(INPUT, weights(extra='model = "fake/othernet"'), family=ConfigError)
    assert error.problem == "the weights are of model 'fake/tinynet', not 'fake/othernet'"
    assert "p.toml:7" in error.where
    assert planned(INPUT, weights(extra='model = "tinynet"')).steps[0].qualified == "fake/tinynet"


def test_weights_of_a_plugin_that_is_not_installed_are_refused(refused, weights, tmp_path):
    step = weights()
    path = tmp_path / "best.safetensors"
    path.write_bytes(path.read_bytes().replace(b"fake/tinynet", b"gone/tinynet"))
    assert "no model is called 'gone/tinynet'" in refused(INPUT, step, family=PluginError).problem


def test_missing_weights_are_an_error_with_data_and_leave_the_rest_unwired_without(refused, planned):
    net = '[[step]]\nname = "net"\nweights = "best.safetensors"\n'
    error = refused(INPUT, net, MASK, family=DataError)
    assert "best.safetensors" in error.problem
    assert "p.toml:6 [[step]] 'net'" in error.where
    ready = planned(INPUT, net, MASK, OUTPUT, data=False)
    assert ready.notes == ("weights 'best.safetensors' are not here: what depends on them is unchecked",)


def test_without_data_neither_the_input_nor_the_disk_is_looked_at(planned):
    ready = planned('[input]\npath = "nowhere.npy"\nkind = "probability"\n', MASK, OBJECTS, OUTPUT, data=False)
    assert [str(wire) for wire in ready.steps[1].wires.values()] == ["mask.mask"]
    assert "planned without data" in str(ready)


def test_an_array_in_memory_is_planned_by_its_header(registry, tmp_path):
    (tmp_path / "p.toml").write_text("mitocore = 1\n" + MASK, "utf-8")
    config = configure(read(tmp_path / "p.toml"), registry)
    spec = VolumeSpec((4, 4, 4), "float32", kind="probability")
    assert plan(config, registry, spec).volume is spec


def test_blocks_are_no_larger_than_the_volume(planned):
    assert planned(PROBABILITY, MASK, OBJECTS).steps[1].block == (24, 64, 64)
    assert planned(PROBABILITY, MASK, OBJECTS, "[run]\nblock = [5, 100, 7]\n").steps[1].block == (5, 64, 7)


def test_several_arrays_for_a_file_of_one_are_refused_before_anything_is_computed(tmp_path):
    steps = [Step(Threshold(), name="mask"), Step(ConnectedComponents(), name="cc")]
    values, save = np.zeros((2, 4, 4), "f4"), ["mask.mask", "cc.instances"]
    with pytest.raises(WiringError, match=r"holds one array") as refused:
        Pipeline(steps).plan(values, kind=Kind.PROBABILITY, save=save, output=tmp_path / "out.npy")
    assert "out.{name}.npy" in refused.value.hint
    Pipeline(steps).plan(values, kind=Kind.PROBABILITY, save=save, output=tmp_path / "out.{name}.npy")
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(DataError, match="is a file"):
        Pipeline(steps).plan(values, kind=Kind.PROBABILITY, output=tmp_path / "file" / "out.npy")


@pytest.mark.parametrize("output", ["out.npy", "out.h5", "out.zarr", "out.tif", "out.nii"])
def test_what_stands_in_the_way_of_the_output_is_refused_before_anything_is_computed(refused, tmp_path, output):
    place = tmp_path / output
    place.write_bytes(b"not an array")
    error = refused(PROBABILITY, MASK, OBJECTS, f'[output]\npath = "{place}"\n', family=DataError)
    assert "cannot become the output" in error.problem
    assert "[output]" in error.where
    assert place.read_bytes() == b"not an array"


def test_the_disk_of_the_output_is_looked_at_where_it_is_another_one(refused, tmp_path):
    apart = Path("/dev/shm")
    if not apart.is_dir() or apart.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk here")
    text = PROBABILITY + "shape = [20000, 20000, 20000]\n"
    output = f'[output]\npath = "{apart}/out.zarr"\nsave = ["mask.mask"]\n'
    error = refused(text, MASK, output, f'[run]\nfolder = "{tmp_path}/run"\n', family=ResourceError)
    assert error.problem.startswith("the output may need 8 TB")
    assert error.where == f"{apart}/out.zarr"
