"""A run folder used again: for another output, another reading of the input, after damage."""

import shutil

import numpy as np
import pytest

from mitocore import DataError, Pipeline, RunError, Step, WiringError, load
from mitocore import open as open_volume
from mitocore.builtin.postprocess import Median, Threshold

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


def killed(planned, label, **options):
    """Run it until the first commit of a pass."""

    def stop(found, done, _total):
        if found == label and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned.run(progress=stop, **options)


def test_a_killed_run_into_another_output_is_not_taken_for_the_finished_one(toml, tmp_path):
    with load(toml).run() as whole:
        expected = whole.arrays()["cc.instances"]
    other = [f"output.path={tmp_path / 'two.zarr'}"]
    killed(load(toml, other), "cc: relabel")
    with load(toml, other).run() as result:
        np.testing.assert_array_equal(result.arrays()["cc.instances"], expected)


def test_a_removed_output_is_written_anew_even_if_that_run_is_killed_too(toml, tmp_path):
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


LABELS = "cc.instances"
PLACES = ["one.zarr", "one.h5", "one.npy", "one.tif"]
WRITING = {"one.zarr": "cc: relabel", "one.h5": "output", "one.npy": "cc: relabel", "one.tif": "output"}
"""The pass that writes the output."""


def elsewhere(tmp_path, place, *options):
    """Overrides of a run in another folder, into the same output."""
    return [f"run.folder={tmp_path / 'elsewhere'}", f"output.path={tmp_path / place}", *options]


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("place", PLACES)
def test_an_output_that_another_run_has_written_anew_is_not_handed_over(toml, tmp_path, place):
    mine = load(toml, [f"output.path={tmp_path / place}"])
    with mine.run() as result:
        expected = result.arrays()[LABELS]
    remove(tmp_path / place)
    with load(toml, elsewhere(tmp_path, place, "cc.threshold=0.8")).run() as result:
        others = result.arrays()[LABELS]
    assert (others != expected).any()
    for policy in ("continue", "resume", "fresh"):
        with pytest.raises(DataError, match="has changed since this run folder wrote it") as refused:
            mine.run(policy=policy)
        assert len(str(refused.value).splitlines()) == 3
    remove(tmp_path / place)
    with mine.run() as result:
        np.testing.assert_array_equal(result.arrays()[LABELS], expected)


def test_what_a_copy_of_the_run_folder_wrote_is_not_handed_over(toml, tmp_path):
    load(toml).run().close()
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere")
    load(toml, elsewhere(tmp_path, "one.zarr", "cc.threshold=0.8")).run(policy="resume").close()
    with pytest.raises(DataError, match="has changed since"):
        load(toml).run()


@pytest.mark.parametrize("place", PLACES)
def test_an_output_that_a_killed_run_left_half_written_does_not_count_as_finished(toml, tmp_path, place):
    mine = load(toml, [f"output.path={tmp_path / place}"])
    mine.run().close()
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere")
    other = load(toml, elsewhere(tmp_path, place, "cc.threshold=0.8"))

    killed(other, WRITING[place], policy="resume")
    with pytest.raises(DataError, match="has changed since"):
        mine.run()


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_run_does_not_go_on_in_what_another_has_finished(toml, tmp_path, place):
    mine = load(toml, [f"output.path={tmp_path / place}"])

    killed(mine, WRITING[place])
    for path in tmp_path.glob("one.*"):
        remove(path)
    load(toml, elsewhere(tmp_path, place, "cc.threshold=0.8")).run().close()
    with pytest.raises(DataError, match="has changed since"):
        mine.run()


@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_is_killed_between_the_last_voxel_and_the_record_goes_on(toml, tmp_path, place, monkeypatch):
    mine = load(toml, [f"output.path={tmp_path / place}"])
    with load(toml, elsewhere(tmp_path, "other.npy")).run() as result:
        expected = result.arrays()[LABELS]

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mitocore.outputs.stamp_of", killed)
    with pytest.raises(KeyboardInterrupt):
        mine.run()
    monkeypatch.undo()
    with mine.run() as result:
        np.testing.assert_array_equal(result.arrays()[LABELS], expected)


@pytest.mark.parametrize("place", PLACES)
def test_a_project_that_was_moved_or_copied_as_a_whole_keeps_its_output(toml, tmp_path, place):
    project, moved, copied = (tmp_path / name for name in ("project", "moved", "copied"))
    project.mkdir()
    text = toml.read_text("utf-8").replace("one.zarr", place)
    (project / "pipeline.toml").write_text(text, "utf-8")
    np.save(project / "blobs.npy", np.load(tmp_path / "blobs.npy"))
    with load(project / "pipeline.toml").run() as result:
        expected = result.arrays()[LABELS]
    project.rename(moved)
    shutil.copytree(moved, copied)
    for folder in (moved, copied):
        seen = []
        with load(folder / "pipeline.toml").run(progress=lambda *told, seen=seen: seen.append(told)) as result:
            np.testing.assert_array_equal(result.arrays()[LABELS], expected)
        assert seen == []
        load(folder / "pipeline.toml", ["cc.min_size=40"]).run(policy="resume").close()


UNLIKE = {
    "origin": ("0:16,:,:", "0:16,:,:", ["input.voxel_size=8"], [], "of voxel size 8 x 8 x 8 nm, where unknown"),
    "region": ("0:8,:,:", "8:16,:,:", ["input.voxel_size=8"], ["input.voxel_size=8"], "of origin"),
    "size": ("0:8,:,:", "0:16,:,:", [], [], r"of shape \[8, 48, 48\], where \[16, 48, 48\]"),
}


@pytest.mark.parametrize("place", ["one.zarr", "one.npy"])
@pytest.mark.parametrize("case", UNLIKE)
def test_an_output_with_another_header_is_refused_before_anything_is_computed_or_wiped(toml, tmp_path, case, place):
    first, second, before, after, said = UNLIKE[case]
    output = f"output.path={tmp_path / place}"
    load(toml, [output, *before], roi=first).run().close()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for policy in ("continue", "resume", "fresh"):
        seen = []
        with pytest.raises(DataError, match=f"holds 'cc.instances' {said}") as refused:
            load(toml, [output, *after], roi=second).run(policy=policy, progress=lambda *told: seen.append(told))  # noqa: B023 - called here
        assert seen == []
        assert "another path in [output], or remove it first" in refused.value.hint
        assert len(str(refused.value).splitlines()) == 3
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("place", ["{name}.zarr", "{name}.npy"])
def test_an_output_of_another_storage_is_refused_before_anything_is_computed(tmp_path, trained, registry, image, place):
    (tmp_path / "net.toml").write_text(
        f'mitocore = 1\n[input]\npath = "{image}"\n[[step]]\nname = "net"\nweights = "{trained()}"\n'
        f'[output]\npath = "{place}"\n[run]\nfolder = "net"\nworkers = 0\n',
        "utf-8",
    )
    load(tmp_path / "net.toml", registry=registry).run().close()
    other = load(tmp_path / "net.toml", ["net.storage=uint8"], registry=registry)
    for policy in ("resume", "fresh"):
        seen = []
        with pytest.raises(DataError, match="of dtype float16, where uint8 will be written"):
            other.run(policy=policy, progress=lambda *told, seen=seen: seen.append(told))
        assert seen == []


def test_options_of_the_writer_are_part_of_the_place(toml):
    load(toml).run().close()
    with pytest.raises(DataError, match=r"already holds 'cc\.instances': this run folder wrote it elsewhere, or with"):
        load(toml, ["output.compression=gzip"]).run(policy="resume")


@pytest.mark.parametrize("place", ["o_{name}.npy", "o.zarr", "o.h5", "o_{name}.tif"])
def test_an_array_that_is_computed_from_another_output_is_copied_before_that_is_closed(toml, tmp_path, blobs, place):
    image = blobs((8, 16, 16), 3)
    steps = [Step(Median(size=(1, 3, 3)), name="median"), Step(Threshold(threshold=0.5), name="mask")]
    pipeline = Pipeline(steps, workers=0, block=(4, 8, 8), folder=str(tmp_path / "f"))
    save = ["median.values", "mask.mask"]
    with pipeline.run(image, kind="probability", save=save, output=tmp_path / place) as result:
        found = result.arrays()
    np.testing.assert_array_equal(found["mask.mask"].astype(bool), found["median.values"] > 0.5)
    assert 0 < found["mask.mask"].sum() < found["mask.mask"].size


def test_a_result_whose_run_folder_is_gone_says_so_when_it_is_run_again(tmp_path, blobs):
    steps = [Step(Threshold(threshold=0.5), name="mask")]
    result = Pipeline(steps, folder=str(tmp_path / "f")).run(blobs((4, 8, 8), 3), kind="probability")
    shutil.rmtree(tmp_path / "f")
    with pytest.raises(RunError, match=r"the run folder '.*f' is gone") as refused:
        result.rerun({"mask.threshold": 0.4})
    assert len(str(refused.value).splitlines()) <= 3
