"""Runs that stop early, save more, are cleaned, or are run again with another option."""

import json

import numpy as np
import pytest
from fake_plugin.parts import LevelFromFile

from mitocore import ConfigError, DataError, Kind, Pipeline, RunError, Step, WiringError, load, run_folder
from mitocore.blockwise.lock import RunLock
from mitocore.builtin.postprocess import Median, Threshold
from mitocore_rsunet.instances import ConnectedComponents, SizeFilter

SHAPE = (12, 40, 40)
STEPS = (
    Step(Median(size=(3, 3, 3)), name="smooth"),
    Step(Threshold(threshold=0.55), name="mask"),
    Step(ConnectedComponents(), name="cc"),
    Step(SizeFilter(min_size=20), name="sized"),
)
PIPELINE = """\
mitocore = 1
[input]
path = "raw.npy"

[[step]]
name = "net"
weights = "{weights}"

[[step]]
name = "smooth"
postprocessor = "median"
size = [1, 3, 3]

[[step]]
name = "cc"
postprocessor = "connected_components"
threshold = 0.5

[[step]]
name = "sized"
postprocessor = "size_filter"
min_size = 5

[output]
path = "out.zarr"

[run]
folder = "run"
workers = 0
block = [8, 16, 16]
"""


@pytest.fixture
def toml(tmp_path, image, trained):
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(weights=trained(gain=24.0)), "utf-8")
    return tmp_path / "pipeline.toml"


@pytest.fixture(autouse=True)
def _plugins(registry, monkeypatch):
    monkeypatch.setattr("mitocore.runs.installed", lambda: registry)


@pytest.fixture
def probability(blobs):
    return blobs(SHAPE, 3)


def passes(run, **options):
    """A result, and the passes that had something left to do when it was made."""
    labels = set()
    result = run(progress=lambda label, done, total: labels.add(label) if done < total else None, **options)
    return result, labels


def scratch(folder):
    return {path.name.partition(".")[0] for path in (folder / "scratch").glob("*") if any(path.iterdir())}


def test_a_run_stops_after_a_step_and_goes_on_from_there(toml, tmp_path):
    first, done = passes(load(toml, until="net").run)
    assert list(first) == []
    assert {label.partition(":")[0] for label in done} <= {"net", "input"}
    assert scratch(tmp_path / "run") == {"net"}
    result, done = passes(load(toml).run)
    assert "net: tiles" not in done
    with result:
        assert result.arrays()["sized.instances"].max() > 0


def test_what_a_run_that_stops_early_gives_can_be_saved(toml):
    with load(toml, until="net", save=["net.foreground", "sized.instances"]).run() as result:
        assert list(result) == ["net.foreground"]
        values = result.arrays()["net.foreground"]
    with load(toml, save=["net.foreground", "sized.instances"]).run() as result:
        np.testing.assert_array_equal(result.arrays()["net.foreground"], values)
        assert len(result) == 2


def test_without_an_output_the_last_step_that_is_run_is_the_result(probability):
    found = Pipeline(STEPS).run(probability, kind=Kind.PROBABILITY, until="mask")
    assert list(found) == ["mask.mask"]
    assert found.arrays()["mask.mask"].any()


def test_every_array_can_be_saved_at_once(toml):
    with load(toml, save=["all"]).run() as result:
        assert list(result) == ["net.foreground", "smooth.values", "cc.instances", "sized.instances"]


def test_an_unknown_step_to_stop_after_is_refused_with_the_nearest(toml):
    with pytest.raises(WiringError, match="no step is called 'nets'") as refused:
        load(toml, until="nets")
    assert refused.value.hint == "did you mean 'net'?"


def test_scratch_goes_with_its_last_reader_and_heads_stay(toml, tmp_path):
    seen = {}

    def watch(label, done, total):
        seen.setdefault(label, scratch(tmp_path / "run"))

    load(toml).run(progress=watch).close()
    assert "smooth" in seen["cc: label"]
    assert "smooth" not in seen["sized: label"]
    assert scratch(tmp_path / "run") == {"net"}


@pytest.mark.parametrize("keep", ["heads", "none", "all"])
def test_a_run_killed_anywhere_is_the_same_whatever_was_freed(toml, tmp_path, keep):
    with load(toml, [f"run.folder={tmp_path / 'calm'}", f"output.path={tmp_path / 'calm.zarr'}"]).run() as result:
        expected = result.arrays()["sized.instances"]
    for kill in range(1, 200):
        calls = iter(range(1, 10_000))

        def stop(_label, _done, _total, calls=calls, kill=kill):
            if next(calls) == kill:
                raise KeyboardInterrupt

        try:
            result = load(toml, [f"run.keep={keep}"]).run(progress=stop)
            break
        except KeyboardInterrupt:
            continue
    assert kill > 8
    with result:
        np.testing.assert_array_equal(result.arrays()["sized.instances"], expected)
        steps = json.loads((tmp_path / "run" / "record.json").read_text("utf-8"))["steps"]
        assert {name: "seconds" in info for name, info in steps.items()} == dict.fromkeys(
            ["net", "smooth", "cc", "sized"], True
        )


def test_a_cleaned_run_keeps_its_output_and_stays_finished(toml, tmp_path):
    load(toml).run().close()
    assert run_folder.clean(tmp_path / "run") > 0
    assert scratch(tmp_path / "run") == set()
    result, done = passes(load(toml).run)
    with result:
        assert done == set()
        assert result.arrays()["sized.instances"].max() > 0


def test_a_cleaned_run_computes_again_what_another_option_needs(toml, tmp_path):
    load(toml).run().close()
    run_folder.clean(tmp_path / "run")
    result, done = passes(load(toml, ["cc.threshold=0.7"]).run, policy="resume")
    assert "net: tiles" in done
    other = ["cc.threshold=0.7", f"run.folder={tmp_path / 'other'}", f"output.path={tmp_path / 'other.zarr'}"]
    with result, load(toml, other).run() as anew:
        np.testing.assert_array_equal(result.arrays()["sized.instances"], anew.arrays()["sized.instances"])


def names(folder):
    return {path.name for part in ("scratch", "state") for path in (folder / part).glob("*")}


def test_nothing_of_what_is_no_longer_kept_stays(toml, tmp_path):
    load(toml, ["run.keep=all"]).run().close()
    everything = names(tmp_path / "run")
    load(toml).run().close()
    left = names(tmp_path / "run")
    assert {name.partition(".")[0] for name in left if not name.endswith(".json")} == {"net"}
    assert any(".ids." in name for name in everything)


def test_a_finished_run_without_an_output_computes_nothing_again(probability, tmp_path):
    for keep in ("heads", "none"):
        pipeline = Pipeline(STEPS[:2], folder=str(tmp_path / keep), keep=keep)
        first = pipeline.run(probability, kind=Kind.PROBABILITY)
        again, done = passes(pipeline.plan(probability, kind=Kind.PROBABILITY).run)
        assert done == set()
        np.testing.assert_array_equal(first.arrays()["mask.mask"], again.arrays()["mask.mask"])


def test_another_content_of_a_file_that_an_option_names_is_another_run(probability, tmp_path):
    (tmp_path / "level.txt").write_text("0.5", "ascii")
    pipeline = Pipeline([Step(LevelFromFile(level_file=str(tmp_path / "level.txt")))], folder=str(tmp_path / "run"))
    with pipeline.run(probability, kind="probability") as result:
        np.testing.assert_array_equal(result.arrays()["levelfromfile.mask"], probability >= np.float32(0.5))
    (tmp_path / "level.txt").write_text("0.7", "ascii")
    planned = pipeline.plan(probability, kind="probability")
    with pytest.raises(RunError, match="holds another run"):
        planned.run()
    with planned.run(policy="resume") as result:
        np.testing.assert_array_equal(result.arrays()["levelfromfile.mask"], probability >= np.float32(0.7))


def test_ignored_voxels_of_labels_are_background_to_post_processing():
    labels = np.zeros((4, 12, 12), np.uint64)
    labels[:, :5], labels[:, 6:] = 7, np.iinfo(np.uint64).max
    found = Pipeline([Step(SizeFilter(min_size=2))]).run(labels, kind=Kind.INSTANCE).arrays()["sizefilter.instances"]
    np.testing.assert_array_equal(found, labels == 7)


def test_only_a_run_folder_that_nobody_uses_is_cleaned(toml, tmp_path):
    with pytest.raises(DataError, match="is not a run folder"):
        run_folder.clean(tmp_path)
    load(toml).run().close()
    with RunLock(tmp_path / "run"), pytest.raises(RunError, match="in use"):
        run_folder.clean(tmp_path / "run")


def test_a_result_is_run_again_with_another_option_and_stays_as_it_is(toml, monkeypatch, tmp_path):
    with load(toml).run() as first:
        before = first.arrays()["sized.instances"]
        again, done = passes(lambda **options: first.rerun({"cc.threshold": 0.7}, **options))
        assert "net: tiles" not in done
        other = [f"run.folder={tmp_path / 'o'}", f"output.path={tmp_path / 'o.zarr'}", "cc.threshold=0.7"]
        with load(toml, other).run() as anew:
            np.testing.assert_array_equal(again.arrays()["sized.instances"], anew.arrays()["sized.instances"])
        np.testing.assert_array_equal(first.arrays()["sized.instances"], before)
        assert (again.arrays()["sized.instances"] > 0).sum() < (before > 0).sum()
    assert load(toml).run().arrays()["sized.instances"].max() == before.max()


def test_arrays_in_memory_are_run_again_too(probability):
    first = Pipeline(STEPS).run(probability, kind=Kind.PROBABILITY)
    less = first.rerun({"sized.min_size": 60}).arrays()["sized.instances"]
    expected = Pipeline((*STEPS[:3], Step(SizeFilter(min_size=60), name="sized")))
    np.testing.assert_array_equal(less, expected.run(probability, kind=Kind.PROBABILITY).arrays()["sized.instances"])


@pytest.mark.parametrize(
    ("setting", "value", "hint"),
    [("maks.threshold", 0.4, "did you mean 'mask'?"), ("mask.treshold", 0.4, "did you mean 'threshold'?")],
)
def test_an_unknown_option_of_a_rerun_is_refused_with_the_nearest(probability, setting, value, hint):
    result = Pipeline(STEPS).run(probability, kind=Kind.PROBABILITY)
    with pytest.raises(ConfigError) as refused:
        result.rerun({setting: value})
    assert refused.value.hint == hint
