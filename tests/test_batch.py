"""Several volumes through one pipeline: which they are, and what comes of each."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore import batch
from mitocore.config import toml
from mitocore.config.inputs import inputs_of, with_inputs
from mitocore.errors import ConfigError, DataError, RunError, WiringError
from mitocore.volumes import installed

PIPELINE = """\
mitocore = 1

[input]
path = "raw/*.npy"
kind = "probability"
voxel_size = 8

[[step]]
postprocessor = "threshold"

[output]
path = "out/{stem}.npy"

[run]
workers = 0
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current folder, with raw/a.npy, raw/b.npy and raw/c.npy of different sizes, and pipeline.toml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    for number, name in enumerate("abc", 4):
        volume = np.zeros((number, 6, 7), "f4")
        volume[1, 2:4, 2:4] = 0.9
        np.save(tmp_path / "raw" / f"{name}.npy", volume)
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    return tmp_path


def document(work, *changes, **input_):
    found = toml.read(work / "pipeline.toml", changes)
    found.data["input"] |= input_
    return found


def places(found):
    return [one.place for one in inputs_of(found, installed())]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_match_of_a_pattern_is_an_input_with_a_run_folder_and_an_output_of_its_own(work):
    found = inputs_of(document(work), installed())
    assert [one.place for one in found] == ["raw/a.npy", "raw/b.npy", "raw/c.npy"]
    assert [one.stem for one in found] == ["a", "b", "c"]
    assert [one.folder for one in found] == [work / "runs/pipeline" / stem for stem in "abc"]
    assert found[1].document.data["output"]["path"] == "out/b.npy"


def test_a_list_names_volumes_and_patterns(work):
    assert places(document(work, path=["raw/c.npy", "raw/[ab].npy"])) == ["raw/a.npy", "raw/b.npy", "raw/c.npy"]


def test_a_key_goes_to_every_match(work):
    assert places(document(work, path="raw/*.npy::em")) == [f"raw/{name}.npy::em" for name in "abc"]


def test_paths_of_a_file_start_from_its_folder_and_those_of_a_command_from_the_current_one(work, monkeypatch):
    (work / "here").mkdir()
    monkeypatch.chdir(work / "here")
    np.save("d.npy", np.zeros((2, 2, 2), "f4"))
    assert len(places(document(work))) == 3
    assert places(with_inputs(document(work), ["*.npy"])) == ["d.npy"]
    (one,) = batch.check(batch.batch_of(with_inputs(document(work), ["d.npy"])))
    assert one.plan.volume.shape == (2, 2, 2)


def test_what_no_reader_is_known_for_is_left_out_of_a_pattern(work, caplog):
    (work / "raw" / "notes.docx").write_text("?")
    assert len(places(document(work, path="raw/*"))) == 3
    assert "1 matches of 'raw/*'" in caplog.text
    with pytest.raises(DataError, match=r"'raw/notes.docx', which no reader is known for"):
        places(document(work, path="raw/*.docx"))


def test_outputs_beside_the_inputs_are_not_taken_for_inputs(work):
    found = document(work, "output.path=raw/{stem}_mask.npy")
    for one in inputs_of(found, installed()):
        np.save(work / one.document.data["output"]["path"], np.zeros((2, 2, 2)))
    assert len(places(found)) == 3


def test_a_folder_is_one_volume_and_a_pattern_of_folders_is_many(work):
    pytest.importorskip("mitocore_io")
    from mitocore.conversion import convert

    for name in "ab":
        np.save("slices.npy", np.zeros((3, 4, 5), "u1"))
        convert("slices.npy", f"stacks/{name}.v1/")
    assert places(document(work, path="stacks/a.v1/")) == ["stacks/a.v1/"]
    found = inputs_of(document(work, path="stacks/*/", kind="image"), installed())
    assert [one.stem for one in found] == ["a.v1", "b.v1"]


def test_slices_that_match_a_pattern_are_one_volume_unless_the_output_says_stem(work):
    pytest.importorskip("mitocore_io")
    pattern = {"path": "raw/*.tif"}
    assert inputs_of(document(work, "output.path=out.npy", **pattern), installed()) is None
    (work / "raw/a.tif").touch()
    assert places(document(work, **pattern)) == ["raw/a.tif"]


def test_a_folder_of_volumes_is_a_volume_for_each(work):
    assert places(document(work, path="raw")) == ["raw/a.npy", "raw/b.npy", "raw/c.npy"]
    assert [one.stem for one in inputs_of(document(work, path="raw/"), installed())] == ["a", "b", "c"]
    assert inputs_of(document(work, "output.path=out.npy", path="raw"), installed()) is None


def test_what_is_broken_in_a_folder_is_told_of_and_what_is_no_volume_is_left_out(work):
    np.save("raw/b.npy", np.array([["x"]]))
    (work / "raw/notes.json").write_text("{}")
    (work / "raw/runs").mkdir()
    assert places(document(work, path="raw")) == ["raw/a.npy", "raw/b.npy", "raw/c.npy"]


@pytest.mark.parametrize("template", ["raw/{stem}_{name}.npy", "raw/{stem}_mask.npy"])
def test_outputs_in_a_folder_of_volumes_are_not_taken_for_inputs(template, work):
    found = document(work, f"output.path={template}", path="raw")
    for one in inputs_of(found, installed()):
        np.save(work / one.document.data["output"]["path"].replace("{name}", "mask.mask"), np.zeros((2, 2, 2)))
    assert len(places(found)) == 3


@pytest.mark.parametrize("path", ["raw", "raw/*.npy"])
def test_outputs_that_would_replace_their_inputs_are_refused(path, work):
    with pytest.raises(ConfigError, match="would be written over the inputs"):
        places(document(work, "output.path=raw/{stem}.npy", path=path))


def test_a_folder_of_stacks_or_stores_is_many_volumes_and_a_folder_of_slices_is_one(work):
    pytest.importorskip("mitocore_io")
    from mitocore.conversion import convert

    np.save("volume.npy", np.zeros((3, 4, 5), "u1"))
    np.save("plane.npy", np.zeros((1, 4, 5), "u1"))
    for name in ("one", "two"):
        convert("volume.npy", f"stacks/{name}.tif")
        convert("volume.npy", f"stores/{name}.zarr")
        convert("volume.npy", f"folders/{name}.v1/")
        convert("plane.npy", f"planes/{name}.tif")
    (work / "stacks/preview").mkdir()
    assert places(document(work, path="stacks")) == ["stacks/one.tif", "stacks/two.tif"]
    assert places(document(work, path="stores")) == ["stores/one.zarr", "stores/two.zarr"]
    assert [one.stem for one in inputs_of(document(work, path="folders"), installed())] == ["one.v1", "two.v1"]
    for whole in ("folders/one.v1", "stores/one.zarr", "planes"):
        assert places(document(work, path=whole)) == [whole]
    assert places(document(work, path="stacks", reader="tiff")) == ["stacks/one.tif", "stacks/two.tif"]


def test_a_folder_without_volumes_is_left_to_its_reader(work):
    (work / "empty").mkdir()
    assert places(document(work, path="empty")) == ["empty"]


@pytest.mark.parametrize("path", ["x{stm}.npy", "x{}.npy", "{stem}_{nmae}.npy"])
def test_words_in_braces_that_stand_for_nothing_are_refused(path, work):
    with pytest.raises(ConfigError, match="stands for nothing") as refused:
        places(document(work, f"output.path={path}"))
    assert "'{stem}'" in refused.value.hint or "'{name}'" in refused.value.hint or "{stem}" in refused.value.hint


def test_braces_of_an_input_may_come_back_in_its_output(work):
    np.save("raw/a{1}.npy", np.zeros((3, 3, 3), "f4"))
    outcomes = batch.run(batch.batch_of(document(work, path=["raw/a{1}.npy"])))
    assert outcomes[0].status == "done"
    assert (work / "out/a{1}.npy").exists()


def test_one_volume_is_no_batch(work):
    assert batch.batch_of(document(work, "output.path=out.npy", path="raw/a.npy")) is None


def test_a_name_with_brackets_that_is_there_is_no_pattern(work):
    np.save("raw/a[1].npy", np.zeros((2, 2, 2), "f4"))
    assert places(document(work, path="raw/a[1].npy")) == ["raw/a[1].npy"]


def test_an_address_is_no_pattern(work):
    assert places(document(work, path=["https://host/a*b.zarr"])) == ["https://host/a*b.zarr"]


def test_one_output_for_many_inputs_is_refused(work):
    with pytest.raises(ConfigError, match="3 inputs cannot share one output") as refused:
        inputs_of(document(work, "output.path=out.npy"), installed())
    assert "{stem}" in refused.value.hint
    assert "[output]" in refused.value.where


def test_inputs_of_one_name_are_refused(work):
    (work / "more").mkdir()
    np.save("more/a.npy", np.zeros((2, 2, 2)))
    with pytest.raises(ConfigError, match=r"'more/a.npy' and 'raw/a.npy' would write to one place"):
        inputs_of(document(work, path=["raw/a.npy", "more/a.npy"]), installed())


@pytest.mark.parametrize("path", [[], ["a.npy", 3], [["a.npy"]]])
def test_a_list_that_names_no_volumes_is_refused(path, work):
    with pytest.raises(ConfigError, match="path names no volumes"):
        inputs_of(document(work, path=path), installed())


def test_a_pattern_that_matches_nothing_is_refused(work):
    with pytest.raises(DataError, match=r"nothing matches 'raw/\*.h5'"):
        inputs_of(document(work, path="raw/*.h5"), installed())


def test_an_input_without_a_path_has_no_stem(work):
    found = document(work, reader="sample")
    del found.data["input"]["path"]
    with pytest.raises(ConfigError, match="no path that gives"):
        inputs_of(found, installed())


@given(count=st.integers(1, 30), parts=st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_every_input_is_in_exactly_one_part(count, parts):
    paths = [f"{number:02}.npy" for number in range(count)]
    found = toml.Document({"input": {"path": paths}, "output": {"path": "{stem}.npy"}})
    shares = [batch.batch_of(found, part=f"{number}/{parts}").inputs for number in range(1, parts + 1)]
    assert [one.place for share in shares for one in share] == paths
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("part", ["5/3", "0/3", "a/b", "3", "-1/3"])
def test_a_part_that_is_none_is_refused(part, work):
    with pytest.raises(ConfigError, match="is no share of the inputs"):
        batch.batch_of(document(work), part=part)


def test_one_volume_has_no_parts(work):
    with pytest.raises(ConfigError, match="there is one input"):
        batch.batch_of(document(work, "output.path=out.npy", path="raw/a.npy"), part="1/2")


def test_volumes_of_different_sizes_are_run_and_summed_up(work):
    outcomes = batch.run(batch.batch_of(document(work)))
    assert [(outcome.status, outcome.exit_code) for outcome in outcomes] == [("done", 0)] * 3
    for number, name in enumerate("abc", 4):
        assert np.load(work / f"out/{name}.npy").shape == (number, 6, 7)
        assert (work / f"runs/pipeline/{name}/record.json").exists()
    rows = rows_of(work / "runs/pipeline/summary.csv")
    assert [row["input"] for row in rows] == ["raw/a.npy", "raw/b.npy", "raw/c.npy"]
    assert rows[0]["output"] == str(work / "out/a.npy")


def test_instances_are_counted_in_the_summary(work):
    pytest.importorskip("mitocore_rsunet")
    found = document(work)
    found.data["step"].append({"postprocessor": "connected_components", "name": "cells"})
    found.data["output"]["save"] = ["cells.instances", "threshold.mask"]
    found.data["output"]["path"] = "out/{stem}_{name}.npy"
    (first, *_) = batch.run(batch.batch_of(found))
    assert first.objects == {"cells.instances": 1}
    assert rows_of(work / "runs/pipeline/summary.csv")[0]["objects in cells.instances"] == "1"


def test_an_input_that_fails_does_not_stop_the_others(work):
    np.save("raw/b.npy", np.array([["no", "numbers"]]))
    outcomes = batch.run(batch.batch_of(document(work)))
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].exit_code == 5
    failed = rows_of(work / "runs/pipeline/summary.csv")[1]
    assert (failed["status"], failed["exit_code"]) == ("failed", "5")
    assert "holds <U7" in failed["error"]


def test_the_same_batch_again_computes_only_what_is_not_finished(work):
    np.save("raw/b.npy", np.array([["no", "numbers"]]))
    batch.run(batch.batch_of(document(work)))
    before = (work / "runs/pipeline/a/record.json").stat().st_mtime_ns
    np.save("raw/b.npy", np.zeros((3, 3, 3), "f4"))
    outcomes = batch.run(batch.batch_of(document(work)))
    assert [outcome.status for outcome in outcomes] == ["kept", "done", "kept"]
    assert (work / "runs/pipeline/a/record.json").stat().st_mtime_ns == before


def test_what_is_wrong_for_all_is_raised_once_before_anything_runs(work):
    with pytest.raises(ConfigError, match="no option 'treshold'"):
        batch.run(batch.batch_of(document(work, "threshold.treshold=0.2")))
    assert not (work / "runs").exists()


def test_what_is_wrong_with_every_input_in_its_own_way_is_told_of_each(work):
    for number, name in enumerate("abc"):
        np.save(f"raw/{name}.npy", np.array([["x" * (number + 1)]]))
    assert [outcome.status for outcome in batch.run(batch.batch_of(document(work)))] == ["failed"] * 3


def test_a_run_folder_may_say_where_the_name_goes(work):
    found = batch.batch_of(document(work, "run.folder=scratch/{stem}/mask", "output.path={stem}/mask.npy"))
    assert found.summary == work / "scratch/summary.csv"
    batch.run(found)
    assert (work / "scratch/b/mask/record.json").exists()
    assert (work / "b/mask.npy").exists()


def test_parts_write_summaries_of_their_own(work):
    for part in ("1/2", "2/2"):
        batch.run(batch.batch_of(document(work), part=part))
    folder = work / "runs/pipeline"
    assert [row["input"] for row in rows_of(folder / "summary.1-of-2.csv")] == ["raw/a.npy"]
    assert [row["input"] for row in rows_of(folder / "summary.2-of-2.csv")] == ["raw/b.npy", "raw/c.npy"]


def test_a_part_without_inputs_is_finished_at_once(work):
    assert batch.run(batch.batch_of(document(work), part="1/9")) == ()


def test_cancelling_begins_no_other_input(work):
    begun = []

    def told(label, done, total):
        begun.append(label.partition(" ")[0])

    with pytest.raises(KeyboardInterrupt):
        batch.run(batch.batch_of(document(work)), progress=told, cancel=lambda: "a" in begun)
    assert not (work / "out/b.npy").exists()


def test_progress_says_which_input_and_how_many_are_done(work):
    told = []
    batch.run(batch.batch_of(document(work)), progress=lambda *call: told.append(call))
    assert [call for call in told if call[0] == "inputs"] == [("inputs", n, 3) for n in range(4)]
    assert {label.partition(" · ")[0] for label, _, _ in told} == {"a", "b", "c", "inputs"}


def test_another_configuration_is_refused_for_each_input_then_resumed(work):
    batch.run(batch.batch_of(document(work)))
    changed = batch.batch_of(document(work, "threshold.threshold=0.95"))
    refused = batch.run(changed)
    assert {type(outcome.error) for outcome in refused} == {RunError}
    assert {outcome.status for outcome in batch.run(changed, policy="resume")} == {"done"}
    assert not np.load(work / "out/a.npy").any()


def test_a_region_of_each_input_is_run(work):
    batch.run(batch.batch_of(document(work)), roi="0:2,:,:")
    assert np.load(work / "out/c.npy").shape == (2, 6, 7)


def test_the_inputs_are_checked_without_running_and_all_findings_told(work):
    plans = batch.check(batch.batch_of(document(work)))
    assert [plan.plan.volume.shape[0] for plan in plans] == [4, 5, 6]
    np.save("raw/a.npy", np.array([["x"]]))
    np.save("raw/c.npy", np.array([["x"]]))
    first, good, last = batch.check(batch.batch_of(document(work)))
    assert isinstance(first, DataError)
    assert good.plan.volume.shape[0] == 5
    assert isinstance(last, DataError)
    assert not (work / "runs").exists()


def test_what_is_wrong_with_all_inputs_is_raised_once_when_they_are_checked(work):
    with pytest.raises(ConfigError, match="no option 'treshold'"):
        batch.check(batch.batch_of(document(work, "threshold.treshold=0.2")))


def test_wiring_that_fits_no_input_is_refused_once(work):
    with pytest.raises(WiringError, match="needs a probability array"):
        batch.run(batch.batch_of(document(work, "input.kind=image")))


def test_a_finding_names_its_input_once():
    assert batch.told("raw/a.npy", DataError("is damaged")).problem == "raw/a.npy: is damaged"
    assert batch.told("raw/a.npy", DataError("'raw/a.npy' is damaged")).problem == "'raw/a.npy' is damaged"


def test_a_summary_that_cannot_be_written_names_its_folder(work):
    (work / "file").touch()
    with pytest.raises(DataError, match="cannot hold the summary"):
        batch.write_summary(work / "file/summary.csv", [])
