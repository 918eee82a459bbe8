"""Segmenting without a TOML file, and the files that say what was done."""

import json
import re
import tomllib

import numpy as np
import pytest

WEIGHTS = ("--weights", "net.safetensors")


def test_a_volume_is_segmented_with_nothing_but_its_weights(network, succeeds):
    printed = succeeds("segment", "small.npy", *WEIGHTS, "-o", "out/mito.zarr", "--voxel-size", "8nm")
    assert "mito.instances  instance uint32 12 x 40 x 40, 8 x 8 x 8 nm" in printed
    assert "objects" in printed
    assert (network / "out/runs/mito/record.json").exists()
    record = json.loads((network / "out/runs/mito/record.json").read_text())
    assert record["options"]["mito"]["threshold"] == 0.45  # of the header


def test_the_pipeline_that_ran_is_kept_and_gives_the_same_again(network, succeeds):
    arguments = (
        "segment",
        "small.npy",
        *WEIGHTS,
        "-o",
        "mito.npy",
        "--set",
        "mito.min_size=3",
        "--keep-config",
        "p.toml",
    )
    succeeds(*arguments)
    record, kept = network / "runs/mito/record.json", network / "p.toml"
    digests = json.loads(record.read_text())["digests"]
    assert tomllib.loads(kept.read_text())["step"][1]["min_size"] == 3
    succeeds("run", "p.toml", "--set", "run.folder=again", "--set", "output.path=again.npy")
    assert json.loads((network / "again/record.json").read_text())["digests"] == digests
    np.testing.assert_array_equal(np.load("again.npy"), np.load("mito.npy"))
    before = record.read_text()
    succeeds("run", "p.toml")
    succeeds(*arguments)  # the kept file says the same, so it may stay
    assert record.read_text() == before


def test_a_kept_pipeline_does_not_overwrite_another_file(network, refused):
    arguments = ("segment", "small.npy", *WEIGHTS, "-o", "mito.npy", "--keep-config")
    assert "says something else" in refused(5, *arguments, "seg.toml")
    assert "cannot be written" in refused(5, *arguments, "none/p.toml")
    assert "hint: --keep-config prob_new.toml" in refused(5, *arguments, "prob.npy")


def test_a_region_is_segmented_and_the_kept_pipeline_says_how(network, succeeds):
    succeeds("segment", "small.npy", *WEIGHTS, "-o", "m.npy", "--roi", "2:8,:,0:32", "--keep-config", "p.toml")
    assert np.load("m.npy").shape == (6, 40, 32)
    assert (network / "p.toml").read_text().startswith("# mitocore run p.toml --roi 2:8,:,0:32\n")


def test_another_option_is_resumed_and_a_dry_run_writes_nothing(network, succeeds, refused):
    arguments = ("segment", "small.npy", *WEIGHTS, "-o", "mito.npy", "--set", "mito.min_size=5")
    before = sorted(path.name for path in network.iterdir())
    assert "mito.instances" in succeeds(*arguments, "--dry-run", "--keep-config", "p.toml")
    assert sorted(path.name for path in network.iterdir()) == before
    succeeds(*arguments)
    changed = (*arguments[:-1], "mito.min_size=9")
    assert "mito.min_size was 5, now 9" in refused(8, *changed)
    succeeds(*changed, "--resume")


def test_what_a_run_gave_is_told_to_machines(network, succeeds):
    told = json.loads(succeeds("segment", "small.npy", *WEIGHTS, "-o", "mito.npy", "--json"))
    assert told["output"] == str(network / "mito.npy")
    assert told["folder"] == str(network / "runs/mito")
    found = told["arrays"]["mito.instances"]
    assert (found["kind"], found["shape"], found["voxel_size_nm"]) == ("instance", [12, 40, 40], None)
    assert found["objects"] == np.load("mito.npy").max()


def test_many_volumes_are_segmented_and_summed_up(network, succeeds, refused):
    arguments = ("segment", "raw.npy", "small.npy", *WEIGHTS, "-o")
    assert "2 inputs cannot share one output" in refused(3, *arguments, "mito.npy")
    printed = succeeds(*arguments, "out/{stem}_mito.npy")
    assert printed.splitlines()[0].split()[:2] == ["input", "status"]
    assert (network / "out/runs/small_mito/record.json").exists()
    assert np.load("out/raw_mito.npy").shape == (24, 40, 40)
    told = json.loads(succeeds(*arguments, "out/{stem}_mito.npy", "--json"))
    assert told["summary"] == str(network / "out/runs/summary.csv")
    assert [row["status"] for row in told["inputs"]] == ["kept", "kept"]


def test_one_network_serves_all_volumes(network, succeeds, monkeypatch):
    from mitocore.learn import checkpoint

    read, load = [], checkpoint.load_weights
    monkeypatch.setattr(checkpoint, "load_weights", lambda path: read.append(path) or load(path))
    succeeds("segment", "raw.npy", "small.npy", *WEIGHTS, "-o", "{stem}_mito.npy")
    assert len(read) == 1


def test_weights_that_recommend_nothing_are_refused_with_what_to_type(network, weights_of, refused):
    weights_of(network / "bare.safetensors")
    text = refused(3, "segment", "small.npy", "--weights", "bare.safetensors", "-o", "mito.npy")
    assert "hint: mitocore init small.npy --weights bare.safetensors > pipeline.toml" in text


def test_a_draft_explains_every_option_and_runs_as_it_is(network, succeeds):
    text = succeeds("init", "small.npy", *WEIGHTS)
    assert "# 12 x 40 x 40 voxels (z, y, x) of uint8" in text
    assert "threshold = 0.45" in text
    assert "# Smaller objects become background" in text
    assert "# min_size = 0" in text
    assert "# workers = " in text
    assert [table.get("weights") for table in tomllib.loads(text)["step"]] == ["net.safetensors", None]
    (network / "pipeline.toml").write_text(text)
    assert "mito.instances" in succeeds("validate", "pipeline.toml")
    assert "objects" in succeeds("run", "pipeline.toml")


def test_every_default_in_a_draft_may_be_stated(network, succeeds):
    lines = succeeds("init", "small.npy", *WEIGHTS).splitlines()
    defaults = [re.sub(r"^# (?=[a-z_.]+ = [^…])", "", line) for line in lines]
    assert len([line for line in defaults if line and line[0] not in "#["]) > 20
    (network / "all.toml").write_text("\n".join(line for line in defaults if not line.startswith("voxel_size")))
    assert succeeds("validate", "all.toml").splitlines()[1:] == _plan(lines, network, succeeds)


def _plan(lines, network, succeeds):
    (network / "draft.toml").write_text("\n".join(lines))
    return succeeds("validate", "draft.toml").splitlines()[1:]


def test_a_draft_in_another_folder_still_finds_its_files(network, succeeds, refused):
    (network / "pipelines").mkdir()
    succeeds("init", "small.npy", *WEIGHTS, "-o", "pipelines/p.toml")
    assert tomllib.loads((network / "pipelines/p.toml").read_text())["input"]["path"] == "../small.npy"
    succeeds("validate", "pipelines/p.toml")
    (network / "pipelines/p.toml").write_text("mine")
    text = refused(5, "init", "small.npy", *WEIGHTS, "-o", "pipelines/p.toml")
    assert "says something else" in text
    assert "hint: --output pipelines/p_new.toml" in text
    assert "says something else" in refused(5, "init", "small.npy", *WEIGHTS, "-o", "small.npy")


def test_a_draft_says_the_voxel_size_that_the_file_says(network, succeeds):
    succeeds("convert", "small.npy", "small.zarr", "--voxel-size", "8nm")
    text = succeeds("init", "small.zarr", *WEIGHTS)
    assert "# voxel_size = [8.0, 8.0, 8.0]  # nm (z, y, x), as the file says" in text


def test_a_draft_states_the_voxel_size_of_the_command_or_proposes_that_of_the_weights(network, weights_of, succeeds):
    from mitocore.geometry import VoxelSize

    text = succeeds("init", "small.npy", *WEIGHTS, "--voxel-size", "40,8,8")
    assert tomllib.loads(text)["input"]["voxel_size"] == [40, 8, 8]
    weights_of(network / "fine.safetensors", header={"voxel_size": VoxelSize(30, 6, 6)})
    text = succeeds("init", "small.npy", "--weights", "fine.safetensors")
    assert "# voxel_size = [30.0, 6.0, 6.0]  # nm (z, y, x): the file does not say it, the weights" in text


def test_a_draft_of_weights_that_recommend_nothing_says_where_steps_are_listed(network, weights_of, succeeds):
    weights_of(network / "bare.safetensors")
    text = succeeds("init", "small.npy", "--weights", "bare.safetensors")
    assert "mitocore describe postprocessor" in text
    (network / "bare.toml").write_text(text)
    succeeds("validate", "bare.toml")


def test_a_draft_that_needs_editing_says_what(network, weights_of, mitocore):
    from mitocore.geometry import VoxelSize

    weights_of(network / "coarse.safetensors", header={"voxel_size": VoxelSize(40, 40, 40)})
    mitocore("convert", "small.npy", "fine.zarr", "--voxel-size", "8nm")
    result = mitocore("init", "fine.zarr", "--weights", "coarse.safetensors")
    assert result.exit_code == 0
    assert "trained at 40 x 40 x 40 nm" in result.stderr
    assert tomllib.loads(result.stdout)["input"]["path"] == "fine.zarr"


@pytest.mark.parametrize("command", ["segment", "init"])
def test_weights_that_are_missing(command, network, refused):
    output = ["-o", "mito.npy"] if command == "segment" else []
    assert "no weights are called 'nett'" in refused(5, command, "small.npy", "--weights", "nett", *output)
    assert "there is no weights file" in refused(5, command, "small.npy", "--weights", "nett.safetensors", *output)


def test_an_input_that_is_missing(network, refused):
    assert "none.npy" in refused(5, "segment", "none.npy", *WEIGHTS, "-o", "mito.npy")
    assert "none.npy" in refused(5, "init", "none.npy", *WEIGHTS)


def test_an_input_that_is_missing_is_told_before_what_weights_lack(network, weights_of, refused):
    weights_of(network / "bare.safetensors")
    text = refused(5, "segment", "smal.npy", "--weights", "bare.safetensors", "-o", "mito.npy")
    assert "'smal.npy' does not exist" in text
    assert "did you mean 'small.npy'?" in text


def test_refusals_name_the_argument_that_is_wrong(network, refused):
    assert "in INPUT" in refused(5, "segment", "none.npy", *WEIGHTS, "-o", "mito.npy")
    text = refused(3, "segment", "small.npy", *WEIGHTS, "-o", "x{stm}.npy")
    assert "in --output" in text
    assert "is the input itself" in refused(3, "segment", "small.npy", *WEIGHTS, "-o", "small.npy")
