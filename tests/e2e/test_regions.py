"""A region of the result is the cut of the whole run, as far as its steps are local."""

import numpy as np
import pytest
from fake_plugin.parts import Above, Labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitocore import ConfigError, Kind, Pipeline, RunError, Step, load
from mitocore import open as open_volume
from mitocore.builtin.postprocess import Median, Threshold
from mitocore.geometry import Roi
from mitocore_rsunet.instances import ConnectedComponents

SHAPE = (14, 30, 26)
LOCAL = (
    Step(Median(size=(3, 3, 1)), name="first"),
    Step(Median(size=(1, 5, 3)), name="second"),
    Step(Threshold(threshold=0.55), name="mask"),
)
regions = st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)).filter(lambda r: r[0] < r[1]) for n in SHAPE))


def text_of(region):
    return ",".join(f"{a}:{b}" for a, b in region)


def cut(region, array):
    return array[tuple(slice(a, b) for a, b in region)]


@pytest.fixture(scope="module")
def probability(blobs):
    return blobs(SHAPE, 3)


@pytest.fixture(scope="module")
def whole(probability):
    save = ["second.values", "mask.mask"]
    return Pipeline(LOCAL).run(probability, kind=Kind.PROBABILITY, save=save).arrays()


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(regions, st.tuples(st.integers(3, 9), st.integers(4, 17), st.integers(4, 15)))
def test_local_steps_give_in_a_region_what_the_whole_run_gives_there(probability, whole, region, block):
    pipeline = Pipeline(LOCAL, block=block, workers=0)
    found = pipeline.run(probability, kind="probability", save=list(whole), roi=text_of(region)).arrays()
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name], cut(region, array))


def test_objects_end_at_the_faces_of_the_region(probability, whole):
    region = ((2, 11), (4, 28), (3, 22))
    pipeline = Pipeline((*LOCAL, Step(ConnectedComponents(), name="cc")), block=(5, 9, 8))
    found = pipeline.run(probability, kind="probability", roi=text_of(region)).arrays()["cc.instances"]
    alone = Pipeline([Step(ConnectedComponents(), name="cc")])
    expected = alone.run(cut(region, whole["mask.mask"]), kind="mask").arrays()["cc.instances"]
    np.testing.assert_array_equal(found, expected)
    assert found.max() > 1


def test_a_local_step_below_objects_takes_the_region_for_its_volume(probability):
    region = ((2, 11), (4, 28), (3, 22))
    steps = (Step(Above(level=0.6)), Step(Labels()), Step(Median(size=(3, 3, 3)), inputs={"values": "input.image"}))
    found = Pipeline(steps, block=(5, 9, 8)).run(probability, kind="probability", roi=text_of(region))
    assert found["median.values"].spec.shape == (9, 24, 19)


PIPELINE = """\
mitocore = 1
[input]
path = "blobs.npy"
kind = "probability"
voxel_size = [40, 8, 4]

[[step]]
name = "smooth"
postprocessor = "median"
size = [1, 3, 3]

[[step]]
name = "mask"
postprocessor = "threshold"
threshold = 0.55

[[step]]
name = "cc"
postprocessor = "connected_components"

[output]
path = "out.zarr"
save = ["cc.instances", "smooth.values"]

[run]
workers = 0
block = [5, 9, 8]
"""


@pytest.fixture
def toml(tmp_path, probability):
    np.save(tmp_path / "blobs.npy", probability)
    (tmp_path / "pipeline.toml").write_text(PIPELINE, "utf-8")
    return tmp_path / "pipeline.toml"


@pytest.mark.parametrize("output", ["out.zarr", "out-{name}.npy"])
def test_the_file_of_a_region_lies_at_its_place_in_the_volume(toml, tmp_path, output):
    overrides = [f"output.path={tmp_path / output}"]
    apart = [f"output.path={tmp_path / f'whole-{output}'}", f"run.folder={tmp_path / 'other'}"]
    with load(toml, overrides, roi="2:11,4:28,3:22").run() as result, load(toml, apart).run() as whole:
        part, everything = result["smooth.values"], whole["smooth.values"]
        values = everything.read(Roi((2, 4, 3), (11, 28, 22)))
        np.testing.assert_array_equal(part.read(Roi.whole(part.spec.shape)), values)
        if output.endswith("zarr"):
            assert part.spec.origin == (80.0, 32.0, 12.0)
            with open_volume(f"{tmp_path / output}::cc.instances") as volume:
                assert volume.spec.shape == (9, 24, 19)


def test_a_region_killed_at_any_commit_is_resumed_exactly(toml, tmp_path):
    with load(toml, roi="2:11,4:28,3:22").run() as result:
        expected = result.arrays()
    other = [f"output.path={tmp_path / 'two.zarr'}", f"run.folder={tmp_path / 'two'}"]
    planned, found = load(toml, other, roi="2:11,4:28,3:22"), {}
    for kill in range(1, 200):
        calls = iter(range(1, 10_000))

        def stop(_label, _done, _total, calls=calls, kill=kill):
            if next(calls) == kill:
                raise KeyboardInterrupt

        try:
            with planned.run(progress=stop) as result:
                found = result.arrays()
            break
        except KeyboardInterrupt:
            continue
    assert kill > 4
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_plan_says_what_a_region_means_for_each_step(toml):
    text = str(load(toml, roi="2:11,4:28,3:22"))
    assert "region 2:11,4:28,3:22" in text
    assert "objects end at its faces" in text


def test_another_region_is_another_run(toml, tmp_path):
    load(toml, roi="2:11,4:28,3:22").run().close()
    with pytest.raises(RunError, match=r"smooth\.region was"):
        load(toml, [f"output.path={tmp_path / 'other.zarr'}"], roi="2:12,4:28,3:22").run()


@pytest.mark.parametrize("roi", ["0:99,:,:", "3:3,:,:", "1:2", "a:b,:,:"])
def test_a_region_that_is_none_is_refused(toml, roi):
    with pytest.raises(ConfigError, match="region") as refused:
        load(toml, roi=roi)
    assert refused.value.where == "--roi"


def test_a_network_gives_in_a_region_what_it_gives_there_in_the_whole_run(
    tmp_path, image, trained, registry, monkeypatch
):
    monkeypatch.setattr("mitocore.runs.installed", lambda: registry)
    text = f'''mitocore = 1
[input]
path = "raw.npy"
[[step]]
name = "net"
weights = "{trained(gain=24.0)}"
predict = {{ batch = 1 }}
[[step]]
name = "smooth"
postprocessor = "median"
size = [3, 3, 3]
[output]
path = "whole.zarr"
save = ["net.foreground", "smooth.values"]
[run]
workers = 0
'''
    (tmp_path / "pipeline.toml").write_text(text, "utf-8")
    with load(tmp_path / "pipeline.toml").run() as result:
        expected = result.arrays()
    other = [f"run.folder={tmp_path / 'part'}", f"output.path={tmp_path / 'part.zarr'}"]
    with load(tmp_path / "pipeline.toml", other, roi="3:9,5:31,11:40").run() as result:
        for name, array in result.arrays().items():
            np.testing.assert_array_equal(array, expected[name][3:9, 5:31, 11:40])
        assert result.record["steps"]["net"]["tiles"] > 0
