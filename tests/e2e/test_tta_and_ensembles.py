"""Test-time augmentation and ensembles, from a pipeline to its result."""

import numpy as np
import pytest
from fake_plugin.parts import CALLS

from mitocore import ConfigError, Pipeline, RunError, Step, WiringError, load
from mitocore.builtin.postprocess import Threshold

PIPELINE = """\
mitocore = 1
[input]
path = "raw.npy"
voxel_size = 8

[[step]]
name = "net"
weights = {weights}
predict = {{ tta = "{tta}" }}
storage = "float32"

[output]
path = "out.npy"

[run]
folder = "run"
workers = 0
"""


@pytest.fixture
def planned(tmp_path, image, registry, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where paths of --set begin

    def make(weights, tta="none", *overrides):
        text = PIPELINE.format(weights=weights, tta=tta)
        (tmp_path / "pipeline.toml").write_text(text, "utf-8")
        return load(tmp_path / "pipeline.toml", overrides, registry=registry)

    return make


def probability(run):
    with run.run() as result:
        return result.arrays()["net.foreground"]


def test_turning_the_input_of_a_blur_changes_nothing_and_costs_a_pass_for_each_symmetry(planned, trained):
    weights = f'"{trained()}"'
    CALLS.clear()
    plain = probability(planned(weights))
    once = len(CALLS)
    for tta, times in (("flips", 4), ("plane", 8), ("all", 16)):
        CALLS.clear()
        turned = probability(planned(weights, tta, f"run.folder={tta}", f"output.path={tta}.npy"))
        assert len(CALLS) == times * once
        np.testing.assert_allclose(turned, plain, atol=1e-6)


def test_another_augmentation_is_another_result_that_resuming_does_not_mix(planned, trained):
    weights = f'"{trained()}"'
    probability(planned(weights))
    with pytest.raises(RunError, match="tta"):
        planned(weights, "flips").run()


def test_the_values_of_an_ensemble_are_the_mean_or_an_extreme_of_its_networks(planned, trained):
    files = [trained(gain=gain) for gain in (12.0, 24.0, 40.0)]
    whole = "step.0.predict.window=[12, 40, 40]"  # one tile: what is reduced is what a network gives for a tile
    alone = [
        probability(planned(f'"{file}"', "none", whole, f"run.folder=run{n}", f"output.path={n}.npy"))
        for n, file in enumerate(files)
    ]
    for reduce in ("mean", "min", "max"):
        settings = [whole, f"run.folder={reduce}", f"output.path={reduce}.npy", f"step.0.predict.reduce={reduce}"]
        together = probability(planned([str(file) for file in files], "none", *settings))
        np.testing.assert_allclose(together, getattr(np, reduce)(alone, axis=0), atol=1e-6)


def test_networks_that_were_not_trained_alike_are_no_ensemble(planned, trained):
    files = [str(trained()), str(trained(normalizer={"normalizer": "builtin/zscore"}))]
    with pytest.raises(ConfigError, match="differ in normaliser"):
        planned(files)
    with pytest.raises(ConfigError, match="twice"):
        planned([files[0], files[0]])


def test_transposes_need_a_square_window_and_square_voxels(planned, trained):
    weights = f'"{trained()}"'
    with pytest.raises(WiringError, match="square"):
        planned(weights, "plane", "step.0.predict.window=[4, 16, 32]")
    with pytest.raises(WiringError, match="voxels differ"):
        planned(weights, "plane", "input.voxel_size=[8, 8, 8.5]")


def test_a_pipeline_in_python_takes_several_weights(registry, trained, image):
    files = [trained(gain=gain) for gain in (12.0, 40.0)]
    model = registry.find("model", "fake/tinynet").load()(gain=12.0)
    step = Step(model, weights=files, predict={"tta": "flips"}, name="net")
    with Pipeline([step, Threshold(threshold=0.5)]).run(np.load(image), voxel_size=8) as result:
        assert result.record["steps"]["net"]["networks"] == 2
