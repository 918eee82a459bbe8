"""A run folder used again: for another output, another reading of the input, after damage."""

import numpy as np
import pytest

from mitocore import DataError, Pipeline, RunError, Step, WiringError, load
from mitocore import open as open_volume
from mitocore.builtin.postprocess import Median

PIPELINE = """\
mitocore = 1
[input]
path = "blobs.npy"
kind = "probability"

[[step]]
name = "cc"
postprocessor = "connected_components"
threshold = 0.6

[output]
path = "one.zarr"

[run]
folder = "run"
workers = 0
block = [8, 16, 16]
"""

SHAPE = (16, 48, 48)


@pytest.fixture
def toml(tmp_path, blobs):
    np.save(tmp_path / "blobs.npy", blobs(SHAPE, 3))
    (tmp_path / "pipeline.toml").write_text(PIPELINE, "utf-8")
    return tmp_path / "pipeline.toml"


def killed(planned, label):
    """Run it until the first commit of a pass."""

    def stop(found, done, _total):
        if found == label and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned.run(progress=stop)


def test_a_killed_run_into_another_output_is_not_taken_for_the_finished_one(toml, tmp_path):
    with load(toml).run() as whole:
        expected = whole.arrays()["cc.instances"]
    other = [f"output.path={tmp_path / 'two.zarr'}"]
    killed(load(toml, other), "cc: relabel")
    with load(toml, other).run() as result:
        np.testing.assert_array_equal(result.arrays()["cc.instances"], expected)


def test_a_removed_output_is_written_anew_even_if_that_run_is_killed_too(toml, tmp_path):
    import shutil

    with load(toml).run() as whole:
        expected = whole.arrays()["cc.instances"]
    shutil.rmtree(tmp_path / "one.zarr")
    killed(load(toml), "cc: relabel")
    with load(toml).run() as result:
        np.testing.assert_array_equal(result.arrays()["cc.instances"], expected)


def test_reading_the_input_as_something_else_is_another_run(toml):
    load(toml, ["step.0.threshold=0.6"]).run().close()
    text = toml.read_text("utf-8").replace('kind = "probability"', 'kind = "mask"').replace("threshold = 0.6\n", "")
    toml.write_text(text, "utf-8")
    with pytest.raises(RunError, match="holds another run"):
        load(toml).run()


def test_a_damaged_plan_is_refused_and_fresh_starts_over(toml, tmp_path):
    with load(toml).run() as whole:
        expected = whole.arrays()["cc.instances"]
    (tmp_path / "run" / "plan.json").write_text('{"mitocore": 1, "dig', "utf-8")
    with pytest.raises(RunError, match="damaged") as refused:
        load(toml).run()
    assert "--fresh" in refused.value.hint
    fresh = load(toml, [f"output.path={tmp_path / 'again.zarr'}"])
    with fresh.run(policy="fresh") as result:
        np.testing.assert_array_equal(result.arrays()["cc.instances"], expected)


def test_a_change_for_which_the_output_is_written_again_never_leaves_a_mixture(toml, tmp_path):
    load(toml).run().close()
    changed = load(toml, ["cc.min_size=40"])

    def stop(label, done, _total):
        if label == "cc: relabel" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        changed.run(policy="resume", progress=stop)
    with pytest.raises(Exception, match=r"writ|finish|whole"):
        open_volume(tmp_path / "one.zarr::cc.instances")


def test_an_output_of_another_voxel_size_is_not_written_over(toml):
    load(toml, ["input.voxel_size=8"]).run().close()
    with pytest.raises(DataError, match="8 x 8 x 8 nm") as refused:
        load(toml, ["input.voxel_size=16"]).run(policy="fresh")
    assert "remove it" in refused.value.hint


def test_a_model_that_is_wired_by_hand_is_refused(tmp_path, trained, registry, image):
    (tmp_path / "wired.toml").write_text(
        f'mitocore = 1\n[input]\npath = "{image}"\n[[step]]\nname = "net"\nweights = "{trained()}"\n'
        'inputs = { image = "no.such" }\n',
        "utf-8",
    )
    with pytest.raises(WiringError, match="reads the input of the pipeline"):
        load(tmp_path / "wired.toml", registry=registry)


def test_a_local_step_may_smooth_the_image_itself():
    image = np.random.default_rng(0).integers(0, 255, (4, 8, 8), dtype="u1")
    with Pipeline([Step(Median(size=(1, 3, 3)), name="smooth")]).run(image) as result:
        (smoothed,) = result.arrays().values()
    assert smoothed.dtype == np.float32
    assert smoothed[2, 4, 4] == np.median(image[2, 3:6, 3:6])
