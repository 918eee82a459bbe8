"""What a run folder remembers, keeps and refuses."""

import json
import logging
import os
from functools import partial

import numpy as np
import pytest
from fake_plugin.parts import CALLS

from mitocore import ConfigError, DataError, Kind, Pipeline, ResourceError, RunError, Step, convert, load, runs
from mitocore import open as open_volume
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.builtin.postprocess import Median, Threshold
from mitocore.interfaces import Volume
from mitocore_rsunet.instances import ConnectedComponents

PIPELINE = """\
mitocore = 1
[input]
path = "raw.npy"
voxel_size = 8

[[step]]
name = "net"
weights = "{weights}"

[[step]]
name = "mask"
postprocessor = "builtin/threshold"
threshold = 0.9999999

[[step]]
name = "cc"
postprocessor = "connected_components"
min_size = 10

[output]
path = "out/{{name}}.npy"

[run]
folder = "run"
workers = 0
block = [8, 24, 48]
"""

LABELS = "cc.instances"


@pytest.fixture
def toml(tmp_path, trained, image):
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(weights=trained()), "utf-8")
    return tmp_path / "pipeline.toml"


@pytest.fixture
def planned(toml, registry):
    return lambda *overrides: load(toml, overrides, registry=registry)


def arrays(ready, **options):
    with ready.run(**options) as result:
        return result.arrays()


class Reports(list):
    """What a run reported."""

    def __call__(self, label, done, total):
        self.append((label, done, total))

    @property
    def computed(self):
        """Labels of the passes in which something was left to do."""
        first = {}
        for label, done, total in self:
            first.setdefault(label, done < total)
        return {label for label, left in first.items() if left}


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_finished_run_called_again_computes_nothing_and_gives_the_same(planned):
    first = arrays(planned())
    CALLS.clear()
    reports = Reports()
    again = arrays(planned(), progress=reports)
    assert (CALLS, reports) == ([], [])
    np.testing.assert_array_equal(again[LABELS], first[LABELS])


def test_the_record_of_a_finished_run_says_all_that_was_done(planned, tmp_path):
    with planned().run() as result:
        record = json.loads((tmp_path / "run/record.json").read_text("utf-8"))
        assert json.loads(json.dumps(result.record)) == record
        objects = int(result.arrays()[LABELS].max())
    assert record["pipeline"] == "pipeline"
    assert record["input"] == {
        "path": str(tmp_path / "raw.npy"),
        "shape": [12, 40, 40],
        "dtype": "uint8",
        "voxel_size_nm": [8, 8, 8],
    }
    assert record["steps"]["cc"]["objects"] == objects > 1
    assert record["steps"]["net"]["tiles"] == 36
    assert record["steps"]["net"]["device"] == "cpu"
    low, high = record["steps"]["net"]["range"]["net.foreground"]
    assert 0 <= low < high <= 1
    assert record["options"]["mask"]["threshold"] == 0.9999999
    assert record["options"]["cc"]["component"] == "rsunet/connected_components"
    assert record["versions"]["fake"] == "0.1"
    assert record["weights"]["net"].endswith("tinynet.safetensors")
    assert record["seconds"] >= 0
    assert record["statistics"]["net"]


def test_the_plan_of_a_run_holds_digests_options_and_how_it_was_cut(planned, tmp_path):
    planned().run().close()
    plan = json.loads((tmp_path / "run/plan.json").read_text("utf-8"))
    assert plan["mitocore"] == 1
    assert list(plan["digests"]) == ["input", "net", "mask", "cc"]
    assert str(tmp_path) not in json.dumps(plan["digests"])
    (cut,) = [own for key, own in plan["schedule"].items() if key.startswith("cc.")]
    assert cut["block"] == [8, 24, 40]


@pytest.mark.parametrize(
    ("keep", "left"),
    [("heads", {"net.foreground"}), ("none", set()), ("all", {"net.foreground", "cc.ids"})],
)
def test_scratch_is_kept_as_the_run_says(planned, tmp_path, keep, left):
    arrays(planned(f"run.keep={keep}"))
    folders = {path.name for path in (tmp_path / "run/scratch").iterdir() if any(path.iterdir())}
    assert {name.rsplit(".", 1)[0] for name in folders} == left
    assert not (tmp_path / "run/run.lock").exists()
    assert not [name for name in tree(tmp_path / "run") if name.endswith(".tmp")]


def test_a_normaliser_that_looks_at_planes_is_a_pass_whose_scratch_goes(planned, toml, trained, tmp_path):
    weights = trained(normalizer={"normalizer": "fake/sections"})
    toml.write_text(PIPELINE.format(weights=weights), "utf-8")
    ready = planned("mask.threshold=0.5")
    first = arrays(ready)
    assert not list((tmp_path / "run/scratch").glob("normalised.*"))
    assert first[LABELS].any()
    np.testing.assert_array_equal(
        arrays(
            planned(
                "mask.threshold=0.5",
                f"run.folder={tmp_path}/other",
                "run.block=[5, 9, 40]",
                f"output.path={tmp_path}/o.npy",
            )
        )[LABELS],
        first[LABELS],
    )


def test_a_changed_threshold_is_refused_with_the_old_and_the_new_value(planned):
    arrays(planned())
    with pytest.raises(RunError) as refused:
        planned("mask.threshold=0.99").run()
    assert refused.value.problem == ("the run folder holds another run: mask.threshold was 0.9999999, now 0.99")
    assert "--resume" in refused.value.hint
    assert "--fresh" in refused.value.hint


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("cc.min_size=5", "cc.min_size was 10, now 5"),
        ('net.storage="uint8"', "net.stored as was {'foreground': 'float16'}, now {'foreground': 'uint8'}"),
        ("net.predict.window=[4, 24, 24]", "net.window was [4, 16, 16], now [4, 24, 24]"),
        ("net.predict.overlap=[1, 2, 2]", "net.overlap was [1, 4, 4], now [1, 2, 2]"),
        ("net.predict.precision=bf16", "net.precision was 'float32', now 'bf16'"),
        ("mask.postprocessor=fake/threshold", "mask.component was 'builtin/threshold', now 'fake/threshold'"),
        ("input.voxel_size=9", "the input is another, or has changed"),
    ],
)
def test_every_change_that_can_move_a_voxel_is_named(planned, toml, override, problem):
    arrays(planned())
    if override.startswith("mask.postprocessor"):
        toml.write_text(toml.read_text("utf-8").replace("threshold = 0.9999999\n", ""), "utf-8")
    with pytest.raises(RunError) as refused:
        planned(override, "output.path=other.npy").run()
    assert refused.value.problem == f"the run folder holds another run: {problem}"


def test_other_weights_are_named(planned, toml, trained):
    arrays(planned())
    text = toml.read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("weights")]
    toml.write_text(text.replace(line, f'weights = "{trained(gain=20)}"'), "utf-8")
    with pytest.raises(RunError, match=r"net.gain was 24.0, now 20.0|the weights of step 'net' are others"):
        planned().run()


def test_speed_alone_changes_nothing_and_is_not_refused(planned):
    first = arrays(planned())
    again = arrays(planned("run.workers=2", "run.block=[4, 8, 8]", "run.memory=2 GB", "run.retries=0"))
    np.testing.assert_array_equal(first[LABELS], again[LABELS])


@pytest.mark.parametrize("options", [("mask.threshold=0.99",), ("cc.min_size=200",)], ids=["early", "late"])
def test_resuming_with_another_option_keeps_the_heads_and_gives_what_a_new_run_gives(planned, tmp_path, options):
    arrays(planned())
    CALLS.clear()
    found = arrays(planned(*options), policy="resume")
    assert CALLS == []
    other = arrays(planned(*options, f"run.folder={tmp_path}/elsewhere", f"output.path={tmp_path}/new.npy"))
    assert CALLS != []
    np.testing.assert_array_equal(found[LABELS], other[LABELS])


def test_resuming_with_a_late_option_repeats_only_the_late_passes_if_all_is_kept(planned):
    arrays(planned("run.keep=all"))
    reports = Reports()
    arrays(planned("run.keep=all", "cc.min_size=200"), policy="resume", progress=reports)
    assert {label for label in reports.computed if label.startswith("cc")} == {"cc: relabel"}


def test_resuming_back_and_forth_gives_each_time_what_a_new_run_gives(planned):
    first = arrays(planned("run.keep=all"))
    second = arrays(planned("run.keep=all", "cc.min_size=200"), policy="resume")
    assert (second[LABELS] != first[LABELS]).any()
    np.testing.assert_array_equal(arrays(planned("run.keep=all"), policy="resume")[LABELS], first[LABELS])


def test_starting_over_computes_everything_again(planned):
    first = arrays(planned())
    CALLS.clear()
    again = arrays(planned(), policy="fresh")
    assert sum(CALLS) == 36
    np.testing.assert_array_equal(first[LABELS], again[LABELS])


def test_a_changed_input_is_refused_and_a_moved_one_is_not(planned, tmp_path):
    arrays(planned())
    raw = tmp_path / "raw.npy"
    raw.rename(tmp_path / "moved.npy")
    CALLS.clear()
    arrays(planned(f"input.path={tmp_path / 'moved.npy'}"))
    assert CALLS == []
    (tmp_path / "moved.npy").rename(raw)
    values = np.load(raw)
    np.save(raw, 255 - values)
    os.utime(raw, ns=(1, 1))
    with pytest.raises(RunError, match="the input is another, or has changed"):
        planned().run()


def test_an_output_beside_the_input_in_one_store_does_not_change_the_input(planned, toml, registry, tmp_path):
    values = np.load(tmp_path / "raw.npy")
    convert(tmp_path / "raw.npy", tmp_path / "em.zarr::raw")
    both = 'input.path="{0}/em.zarr::raw"', 'output={{ path = "{0}/em.zarr" }}'
    overrides = [text.format(tmp_path) for text in both]
    first = arrays(planned(*overrides))
    CALLS.clear()
    np.testing.assert_array_equal(arrays(planned(*overrides))[LABELS], first[LABELS])
    assert CALLS == []
    with open_volume(f"{tmp_path}/em.zarr::raw") as volume:
        np.testing.assert_array_equal(volume.read(runs.Roi.whole(volume.spec.shape))[0], values)


class Unread(Volume):
    """Whose voxels nobody may read."""

    def __init__(self, spec):
        self._spec = spec

    @property
    def spec(self):
        return self._spec

    def read(self, roi):
        raise AssertionError("a voxel was read")


def test_an_output_that_exists_is_refused_before_a_voxel_is_read(planned, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out/cc.instances.npy", np.zeros((2, 2, 2), "u1"))
    ready = planned()
    volume = open_volume(tmp_path / "raw.npy", voxel_size=8)
    monkeypatch.setattr(type(ready.plan.config.reader), "open", lambda _: Unread(volume.spec))
    for _ in range(2):  # and so is the second try
        with pytest.raises(DataError) as refused:
            ready.run()
        assert refused.value.problem == f"'{tmp_path}/out/{{name}}.npy' already holds 'cc.instances'"
        assert "pipeline.toml:21 [output]" in refused.value.where
    assert np.load(tmp_path / "out/cc.instances.npy").shape == (2, 2, 2)


def test_another_output_that_exists_is_refused_by_a_folder_that_wrote_the_first(planned, tmp_path):
    arrays(planned())
    np.save(tmp_path / "mine.npy", np.ones((12, 40, 40), "u4"))
    for policy in ("continue", "resume", "fresh"):
        with pytest.raises(DataError, match="already holds"):
            planned(f"output.path={tmp_path}/mine.npy").run(policy=policy)
    assert (np.load(tmp_path / "mine.npy") == 1).all()


ZARR = 'output={{ path = "{0}/{1}.zarr", chunks = [8, 24, 40], levels = 1 }}'


@pytest.mark.parametrize("keep", ["heads", "all", "none"])
@pytest.mark.parametrize("kind", ["exported", "in place"])
def test_an_output_that_was_removed_or_is_wanted_elsewhere_is_written_again(planned, tmp_path, kind, keep):
    def wanted(name):
        path = f"output.path={tmp_path}/{name}.npy" if kind == "exported" else ZARR.format(tmp_path, name)
        return planned(path, f"run.keep={keep}")

    first = arrays(wanted("a"))
    assert first[LABELS].any()
    np.testing.assert_array_equal(arrays(wanted("b"))[LABELS], first[LABELS])
    for path in (tmp_path / "b.npy", tmp_path / "b.zarr"):
        if path.exists():
            path.rename(path.with_name("gone"))
    np.testing.assert_array_equal(arrays(wanted("b"))[LABELS], first[LABELS])


@pytest.mark.parametrize(("one", "other"), [("zarr", "npy"), ("npy", "zarr"), ("zarr", "zarr")])
def test_a_run_killed_while_it_wrote_to_one_file_goes_on_to_another(planned, tmp_path, monkeypatch, one, other):
    monkeypatch.setattr(runs, "Workspace", partial(Workspace, every=0.0))

    def wanted(kind, name):
        return planned(f"output.path={tmp_path}/{name}.npy" if kind == "npy" else ZARR.format(tmp_path, name))

    def stop(label, done, total):
        if label == "cc: relabel" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wanted(one, "first").run(progress=stop)
    expected = arrays(planned(f"run.folder={tmp_path}/elsewhere", f"output.path={tmp_path}/expected.npy"))
    np.testing.assert_array_equal(arrays(wanted(other, "second"))[LABELS], expected[LABELS])


@pytest.mark.parametrize("output", ["{0}/out.h5", "{0}/out.zarr"])
def test_an_output_that_was_removed_after_a_killed_export_is_written_again(planned, tmp_path, output):
    def stop(label, done, total):
        if label == "output" and done:
            raise KeyboardInterrupt

    ready = planned(f"output.path={output.format(tmp_path)}")
    with pytest.raises(KeyboardInterrupt):
        ready.run(progress=stop)
    for path in tmp_path.glob("out.*"):
        path.rename(tmp_path / "gone")
    expected = arrays(planned(f"run.folder={tmp_path}/elsewhere", f"output.path={tmp_path}/expected.npy"))
    np.testing.assert_array_equal(arrays(ready)[LABELS], expected[LABELS])


def test_a_second_run_in_a_folder_is_refused_while_the_first_is_at_work(planned, tmp_path):
    (tmp_path / "run").mkdir()
    with RunLock(tmp_path / "run"), pytest.raises(RunError, match="is in use by process") as refused:
        planned().run()
    assert "--take-over" in refused.value.hint
    arrays(planned())


def test_a_run_whose_folder_is_taken_over_stops_at_its_next_commit(planned, tmp_path):
    taken = []

    def take_over(label, done, total):
        if label.startswith("cc") and not taken:
            os.utime(tmp_path / "run/run.lock", (0, 0))  # as if it had been silent for long
            taken.append(RunLock(tmp_path / "run", take_over=True))

    with pytest.raises(RunError, match="was taken over by another run"):
        planned().run(progress=take_over)
    taken[0].release()
    assert arrays(planned())[LABELS].any()


def test_a_folder_that_cannot_be_made_is_refused(planned, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"the run folder '.*file/run' cannot be made"):
        planned(f"run.folder={tmp_path}/file/run").run()
    with pytest.raises(ConfigError, match="cannot be made"):
        planned(f"run.folder={tmp_path}/file").run()


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[1]", "{}x", '{"mitocore": 7}', '{"mitocore": 1}'),
        '{"mitocore": 1, "digests": {}, "options": {}, "schedule": []}',
        '{"mitocore": 1, "digests": [], "options": {}, "schedule": {}}',
        '{"mitocore": 1, "digests": {}, "options": {"cc": 1}, "schedule": {}}',
        '{"mitocore": 1, "digests": {}, "options": {}, "schedule": {"outputs": {"cc.instances": "out.zarr"}}}',
    ],
)
def test_a_damaged_plan_is_refused(planned, tmp_path, text):
    arrays(planned())
    (tmp_path / "run/plan.json").write_text(text, "utf-8")
    with pytest.raises(RunError) as refused:
        planned().run()
    assert "plan.json" in refused.value.problem


def test_a_device_that_is_not_there_is_refused_before_a_voxel_is_read(planned, monkeypatch, tmp_path):
    ready = planned("run.devices=cuda:99")
    volume = open_volume(tmp_path / "raw.npy", voxel_size=8)
    monkeypatch.setattr(type(ready.plan.config.reader), "open", lambda _: Unread(volume.spec))
    with pytest.raises(ResourceError, match="there is no device 'cuda:99'"):
        ready.run()


def test_a_result_without_objects_is_a_warning_with_what_may_explain_it(planned, caplog):
    with caplog.at_level(logging.WARNING, "mitocore"):
        found = arrays(planned("cc.min_size=1000000"))
    assert not found[LABELS].any()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("cc: no objects.")
    assert "min_size = 1000000" in warning
    assert "net.foreground" in warning
    assert "8 x 8 x 8 nm" in warning


def test_each_step_is_one_line_with_numbers_in_the_log(planned, caplog):
    with caplog.at_level(logging.INFO, "mitocore"):
        arrays(planned())
    lines = [record.getMessage().split(":")[0] for record in caplog.records if record.name == "mitocore.execution"]
    assert lines == ["net", "cc"]


def test_a_relative_run_folder_starts_at_the_toml_file_and_a_stated_one_at_the_current_folder(toml, registry, tmp_path):
    text = toml.read_text("utf-8").replace('folder = "run"\n', "")
    toml.write_text(text, "utf-8")
    assert load(toml, registry=registry).plan.config.run.folder == str(tmp_path / "runs/pipeline")
    toml.write_text(text.replace("[run]", '[run]\nfolder = "sub/run"'), "utf-8")
    assert load(toml, registry=registry).plan.config.run.folder == str(tmp_path / "sub/run")
    assert load(toml, ["run.folder=mine"], registry=registry).plan.config.run.folder == "mine"


def test_two_networks_with_normalisers_of_their_own_run_in_one_pipeline(toml, registry, trained, tmp_path):
    second = trained(normalizer={"normalizer": "builtin/zscore"})
    step = f'[[step]]\nname = "other"\nweights = "{second}"\n[output]'
    text = toml.read_text("utf-8").replace("[output]", step, 1)
    toml.write_text(text + "keep = 'none'\n", "utf-8")
    both = arrays(load(toml, ['output.save=["net.foreground", "other.foreground"]'], registry=registry))
    alone = Pipeline([Step(registry.find("model", "fake/tinynet").load()(), weights=second)])
    found = alone.run(np.load(tmp_path / "raw.npy")).arrays()["tinynet.foreground"]
    np.testing.assert_array_equal(both["other.foreground"].astype("f4"), found)
    assert (both["net.foreground"] != both["other.foreground"]).any()


def test_a_network_that_no_plugin_declares_runs_from_python(trained, registry, image):
    from fake_plugin.parts import TinyNet

    class Mine(TinyNet):
        """Of a script."""

    found = Pipeline([Step(Mine(), weights=trained(), name="net")]).run(image).arrays()["net.foreground"]
    assert found.shape == (12, 40, 40)
    assert found.min() < found.max()


def test_an_option_that_the_weights_do_not_depend_on_changes_the_result(planned, tmp_path):
    sharp = arrays(planned("net.sharpness=0.5", 'output.save=["net.foreground"]'))
    plain = arrays(
        planned(f"run.folder={tmp_path}/x", f"output.path={tmp_path}/p.npy", 'output.save=["net.foreground"]')
    )
    assert (sharp["net.foreground"] < plain["net.foreground"]).any()


def test_an_array_run_in_a_folder_of_its_own_goes_on_where_it_was_stopped(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "Workspace", partial(Workspace, every=0.0))
    steps = [Step(Median(size=(1, 3, 3))), Step(Threshold()), Step(ConnectedComponents())]
    pipeline, array = Pipeline(steps, folder=str(tmp_path / "run"), block=(4, 8, 8)), blobs((8, 16, 16), 5)

    def stop(label, done, total):
        if label == "connectedcomponents: label" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(array, kind=Kind.PROBABILITY, progress=stop)
    reports = Reports()
    found = pipeline.run(array.copy(), kind=Kind.PROBABILITY, progress=reports).arrays()
    assert ("connectedcomponents: label", 3, 8) in reports
    np.testing.assert_array_equal(
        found["connectedcomponents.instances"] > 0,
        Pipeline(steps).run(array, kind=Kind.PROBABILITY).arrays()["connectedcomponents.instances"] > 0,
    )
    with pytest.raises(RunError, match="the input is another, or has changed"):
        pipeline.run(array + 1, kind=Kind.PROBABILITY)
