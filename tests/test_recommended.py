"""What weights recommend: composed, completed with thresholds, run from arrays and files."""

import tomllib

import numpy as np
import pytest

import mitocore
from mitocore import recommended, runs
from mitocore.config import written
from mitocore.config.components import build
from mitocore.errors import ConfigError, DataError, WiringError
from mitocore.header import WeightsHeader
from mitocore.interfaces import Volume
from mitocore.specs import Kind, Window
from mitocore.volumes import ArrayVolume, installed

pytest.importorskip("torch")
pytest.importorskip("mitocore_rsunet")

MASK = {"postprocessor": "threshold", "name": "mask"}
OBJECTS = {"postprocessor": "connected_components", "name": "mito", "connectivity": 6}
SHAPE = (10, 20, 24)


@pytest.fixture(scope="session")
def tensors():
    """A small model, its entry and the tensors of an untrained network."""
    import torch

    model, entry = build("model", {"model": "rsunet", "widths": [4, 4, 6]}, installed())
    torch.manual_seed(0)
    return model, entry, {name: tensor.contiguous() for name, tensor in model.build().state_dict().items()}


@pytest.fixture
def weights(tensors, tmp_path, monkeypatch):
    """Writes net.safetensors in the current folder, with a header that recommends `pipeline`."""
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    model, entry, state = tensors

    def write(*pipeline, thresholds=None, **header):
        found = WeightsHeader(
            component=entry.qualified,
            options=model.model_dump(mode="json"),
            channels=model.channels(),
            heads=model.heads(),
            window=Window((8, 16, 16), divisor=model.window().divisor),
            normalizer={"normalizer": "builtin/percentile"},
            pipeline=pipeline,
            thresholds=thresholds or {},
            **header,
        )
        save_file(state, "net.safetensors", {"mitocore": found.model_dump_json()})
        return "net.safetensors"

    return write


@pytest.fixture
def volume():
    return np.random.default_rng(1).integers(0, 255, SHAPE, "u1")


def test_a_threshold_that_is_left_open_is_that_of_the_header(weights):
    _, mask, objects = recommended.steps(weights(MASK, OBJECTS, thresholds={"foreground": 0.4}))
    assert mask["threshold"] == 0.4
    assert "threshold" not in objects  # it reads a mask


def test_a_threshold_that_is_stated_stays(weights):
    *_, mask = recommended.steps(weights({**MASK, "threshold": 0.7}, thresholds={"foreground": 0.4}))
    assert mask["threshold"] == 0.7


def test_a_threshold_of_another_head_is_not_taken(weights):
    *_, mask = recommended.steps(weights(MASK, thresholds={"boundary": 0.4}))
    assert "threshold" not in mask


def test_a_threshold_reaches_any_step_that_reads_the_head_itself(weights):
    tables = recommended.steps(weights({**OBJECTS}, thresholds={"foreground": 0.4}))
    assert tables[1]["threshold"] == 0.4


def test_recommended_steps_name_the_heads_of_the_network_as_net(weights):
    stated = {**MASK, "inputs": {"probability": "net.foreground"}}
    *_, mask = recommended.steps(weights(stated, thresholds={"foreground": 0.4}))
    assert mask["threshold"] == 0.4


def test_what_a_header_recommends_must_fit_its_network(weights):
    with pytest.raises(WiringError):
        recommended.steps(weights({**MASK, "inputs": {"probability": "net.front"}}, thresholds={"foreground": 0.4}))


def test_weights_that_recommend_nothing_are_refused_with_the_command_that_helps(weights, tmp_path):
    place = weights()
    with pytest.raises(DataError, match=r"'em.zarr' does not exist"):
        recommended.pipeline(place, ["em.zarr"])
    (tmp_path / "em.zarr").mkdir()
    with pytest.raises(ConfigError, match="recommend no post-processing") as refused:
        recommended.pipeline(place, ["em.zarr"])
    assert "mitocore init em.zarr --weights net.safetensors" in refused.value.hint


def test_paths_are_absolute_and_the_run_folder_lies_beside_the_output(weights, tmp_path):
    found = recommended.pipeline(weights(MASK), ["a.tif::x"], output="out/seg.zarr", voxel_size="8 nm").data
    assert found["input"] == {"path": f"{tmp_path}/a.tif::x", "voxel_size": [8.0, 8.0, 8.0]}
    assert found["step"][0] == {"name": "net", "weights": f"{tmp_path}/net.safetensors"}
    assert found["output"]["path"] == f"{tmp_path}/out/seg.zarr"
    assert found["run"]["folder"] == f"{tmp_path}/out/runs/seg"


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("{stem}_mito.zarr", "runs/{stem}_mito"),
        ("out/{stem}_{name}.npy", "out/runs/{stem}"),
        ("out/{name}.npy", "out/runs/segmentation"),
        ("slices/", "runs/slices"),
        ("s3://bucket/mito.zarr", "runs/mito"),
    ],
)
def test_the_run_folder_is_called_like_the_output(output, folder, weights, tmp_path):
    found = recommended.pipeline(weights(MASK), ["a.tif"], output=output).data
    assert found["run"]["folder"] == f"{tmp_path}/{folder}"


def test_weights_with_a_name_keep_it(weights, monkeypatch, tmp_path):
    from mitocore import weights as store

    monkeypatch.setenv("MITOCORE_HOME", str(tmp_path / "home"))
    store.add(tmp_path / weights(MASK), "mine")
    assert recommended.pipeline("mine").data["step"][0]["weights"] == "mine"
    with pytest.raises(DataError, match="no weights are called 'mina'"):
        recommended.pipeline("mina")


def test_settings_are_those_of_the_command_line(weights):
    found = recommended.pipeline(weights(MASK), settings=["mask.threshold=0.9", "run.workers=1"]).data
    assert found["step"][1]["threshold"] == 0.9
    assert found["run"] == {"workers": 1}
    with pytest.raises(ConfigError, match="no table or step is called 'mesk'"):
        recommended.pipeline(weights(MASK), settings=["mesk.threshold=0.9"])


def test_numbers_in_numbers_out_and_no_file_is_left(weights, volume, tmp_path):
    place = weights(MASK, OBJECTS, thresholds={"foreground": 0.5})
    result = mitocore.segment(volume, place, voxel_size="8 nm")
    found = result.arrays()["mito.instances"]
    assert (found.shape, found.dtype.kind) == (SHAPE, "u")
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    folder = result.folder
    assert folder.exists()
    del result
    assert not folder.exists()


def test_an_array_an_open_volume_and_a_file_give_the_same(weights, volume):
    place = weights(MASK)
    np.save("raw.npy", volume)
    expected = mitocore.segment(volume, place).arrays()["mask.mask"]
    assert expected.any()
    for source in (ArrayVolume(volume), "raw.npy"):
        np.testing.assert_array_equal(mitocore.segment(source, place).arrays()["mask.mask"], expected)


def test_a_threshold_of_the_header_is_used(weights, volume):
    found = mitocore.segment(volume, weights(MASK, thresholds={"foreground": 0.3})).arrays()["mask.mask"]
    stated = mitocore.segment(volume, weights({**MASK, "threshold": 0.3})).arrays()["mask.mask"]
    default = mitocore.segment(volume, weights(MASK)).arrays()["mask.mask"]
    np.testing.assert_array_equal(found, stated)
    assert found.sum() > default.sum()


def test_an_output_is_written_and_the_same_call_reads_it_again(weights, volume, tmp_path):
    place = weights(MASK)
    with mitocore.segment(volume, place, output="out/seg.npy") as result:
        assert result["mask.mask"].spec.shape == SHAPE
    before = (tmp_path / "out/runs/seg/record.json").stat().st_mtime_ns
    mitocore.segment(volume, place, output="out/seg.npy").close()
    assert (tmp_path / "out/runs/seg/record.json").stat().st_mtime_ns == before


def test_a_region_is_that_part_of_the_whole(weights, volume):
    place, roi = weights(MASK), (slice(2, 7), slice(0, 20), slice(4, 20))
    whole = mitocore.segment(volume, place).arrays()["mask.mask"]
    part = mitocore.segment(volume, place, roi="2:7,:,4:20").arrays()["mask.mask"]
    np.testing.assert_array_equal(part, whole[roi])


def test_progress_is_told_and_cancelling_ends(weights, volume):
    told = []
    mitocore.segment(volume, weights(MASK), progress=lambda *call: told.append(call))
    assert any(label == "net: tiles" for label, _, _ in told)
    with pytest.raises(KeyboardInterrupt):
        mitocore.segment(volume, "net.safetensors", cancel=lambda: True)


def test_the_composed_pipeline_survives_being_written_and_gives_the_same_digests(weights, volume, tmp_path):
    np.save("raw.npy", volume)
    found = recommended.pipeline(weights(MASK), ["raw.npy"], output="seg.npy", settings=["run.workers=0"])
    text = written.document(found.data)
    assert tomllib.loads(text) == found.data
    (tmp_path / "kept.toml").write_text(text)
    with runs.planned(found).run() as first, runs.load("kept.toml").run() as second:
        assert first.record["digests"] == second.record["digests"]
        assert first.record["ended"] == second.record["ended"]  # it was finished already


def test_a_volume_of_many_channels_does_not_fit_a_network_of_one(weights, volume):
    with pytest.raises(DataError, match="takes 1 channels"):
        mitocore.segment(np.stack([volume, volume]), weights(MASK))


def test_an_open_volume_that_is_no_image_is_refused(weights, volume):
    source: Volume = ArrayVolume(volume, kind=Kind.MASK)
    with pytest.raises(WiringError, match="needs an image"):
        mitocore.segment(source, weights(MASK))


@pytest.mark.parametrize(
    "data",
    [
        {"mitocore": 1, "step": [{"a b": 'q"\\', "x": [1.5, 1e-9, float("inf")], "y": {"z": {"t": True}}}], "run": {}},
        {"s": "µ \x7f \t\n", "empty": [], "inline": [1, {"a": 1}]},
    ],
)
def test_what_is_written_reads_back_as_it_was(data):
    assert tomllib.loads(written.document(data)) == data


def test_a_step_that_reads_one_channel_gets_the_threshold_of_that_channel(tmp_path):
    from safetensors.torch import save_file

    model, entry = build("model", {"model": "rsunet", "widths": [4, 4, 6], "outputs": "semantic"}, installed())
    header = WeightsHeader(
        component=entry.qualified,
        options=model.model_dump(mode="json"),
        channels=model.channels(),
        heads=model.heads(),
        window=model.window(),
        normalizer={"normalizer": "builtin/percentile"},
        pipeline=[
            {**MASK, "inputs": {"probability": "net.semantic:mitochondrion"}},
            {**MASK, "name": "all", "inputs": {"probability": "net.semantic"}},
        ],
        thresholds={"semantic": 0.4, "semantic:background": 0.1, "semantic:mitochondrion": 0.2},
    )
    save_file(model.build().state_dict(), tmp_path / "net.safetensors", {"mitocore": header.model_dump_json()})
    _, one, every = recommended.steps(tmp_path / "net.safetensors")
    assert (one["threshold"], every["threshold"]) == (0.2, 0.4)
