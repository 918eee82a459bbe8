"""What a user does with the command line, one command after the other."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest


def test_a_pipeline_runs_is_scored_and_its_result_converted(work, succeeds):
    printed = succeeds("run", "seg.toml")
    assert "cells.instances" in printed
    assert "4 objects" in printed
    assert "cells: 4 objects" in (work / "runs/seg/run.log").read_text()
    scores = json.loads(succeeds("evaluate", "out.zarr::cells.instances", "truth.npy", "--json"))
    assert scores["instance"]["f1_75"] == scores["voxel"]["iou"] == 1
    printed = succeeds("convert", "out.zarr::cells.instances", "labels.tif", "--roi", "0:12,:,:")
    assert "uint32 12 x 40 x 40, 8 x 8 x 8 nm" in printed
    succeeds("convert", "labels.tif", "labels.npy")
    np.testing.assert_array_equal(np.load("labels.npy") > 0, np.load("truth.npy")[:12] > 0)


def test_the_real_program_separates_results_from_everything_else(work):
    def call(*arguments):
        command = [sys.executable, "-m", "mitocore", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)

    done = call("run", "seg.toml")
    assert (done.returncode, done.stdout.count("cells.instances")) == (0, 1)
    assert "cells: label  18/18" in done.stderr
    assert not any(character in done.stderr for character in "\r\x1b")
    done = call("-q", "evaluate", "out.zarr::cells.instances", "truth.npy", "--metric", "voi", "--json")
    assert done.stderr == ""
    assert json.loads(done.stdout)["voi"]["voi"] == 0


def test_a_finished_run_is_not_computed_again(work, succeeds):
    succeeds("run", "seg.toml")
    before = (work / "runs/seg/record.json").read_text()
    assert "4 objects" in succeeds("run", "seg.toml")
    assert (work / "runs/seg/record.json").read_text() == before


def test_another_configuration_is_refused_then_resumed_or_begun_again(work, refused, succeeds):
    succeeds("run", "seg.toml")
    change = ("--set", "cells.min_size=400")
    text = refused(8, "run", "seg.toml", *change)
    assert "cells.min_size was 20, now 400" in text
    assert "cells.min_size was 20, now 400" in (work / "runs/seg/run.log").read_text()
    assert "--resume" in text
    assert "2 objects" in succeeds("run", "seg.toml", "--resume", *change)
    assert "4 objects" in succeeds("run", "seg.toml", "--fresh")


def test_a_dry_run_prints_the_plan_and_writes_nothing(work, succeeds):
    before = sorted(path.name for path in work.iterdir())
    plan = succeeds("run", "seg.toml", "--dry-run")
    assert plan == succeeds("validate", "seg.toml")
    assert "mask ← threshold.mask" in plan
    assert sorted(path.name for path in work.iterdir()) == before


def test_a_pipeline_is_checked_without_its_data(work, succeeds):
    (work / "prob.npy").unlink()
    assert "planned without data" in succeeds("validate", "seg.toml", "--no-data")


def test_a_training_file_is_told_from_a_pipeline(work, succeeds):
    plan = succeeds("validate", "train.toml")
    assert "objective foreground" in plan
    (work / "raw.npy").unlink()
    assert "objective foreground" in succeeds("validate", "train.toml", "--no-data")


@pytest.mark.parametrize("name", ["scores.csv", "scores.json"])
def test_scores_are_written_to_a_file(name, work, succeeds):
    printed = succeeds("evaluate", "prob.npy", "truth.npy", "--kind", "probability", "--metric", "voxel", "-o", name)
    assert "iou" in printed
    if name.endswith("json"):
        assert json.loads((work / name).read_text())["voxel"]["iou"] > 0.9
    else:
        with (work / name).open() as file:
            rows = list(csv.DictReader(file))
        assert (rows[0]["metric"], rows[0]["score"]) == ("voxel", "iou")
        assert float(rows[0]["value"]) > 0.9


def test_a_region_of_two_volumes_is_compared(work, succeeds):
    labels = np.load("truth.npy")
    labels[12:] = 0
    np.save("half.npy", labels)
    arguments = ("evaluate", "half.npy", "truth.npy", "--metric", "voxel", "--json")
    assert json.loads(succeeds(*arguments))["voxel"]["iou"] < 1
    assert json.loads(succeeds(*arguments, "--roi", "0:12,:,:"))["voxel"]["iou"] == 1


def test_a_value_of_the_truth_can_be_left_out(work, succeeds):
    predicted = (np.load("truth.npy") > 0).astype("u1")
    truth = predicted.copy()
    truth[:4] = 255
    np.save("predicted.npy", predicted)
    np.save("partly.npy", truth)
    arguments = ("evaluate", "predicted.npy", "partly.npy", "--metric", "voxel", "--kind", "mask", "--json")
    assert json.loads(succeeds(*arguments))["voxel"]["iou"] < 1
    assert json.loads(succeeds(*arguments, "--ignore", "255"))["voxel"]["iou"] == 1


def test_weights_are_added_listed_shown_and_removed(work, weights_of, succeeds, refused):
    weights_of(work / "best.safetensors", widths=[4, 4, 6])
    assert "mine" in succeeds("weights", "add", "best.safetensors", "--name", "mine")
    assert "rsunet/rsunet" in succeeds("weights", "list")
    assert json.loads(succeeds("weights", "list", "--json"))[0]["name"] == "mine"
    shown = succeeds("weights", "info", "mine")
    assert "widths = [4, 4, 6]" in shown
    assert "validation.foreground.iou 0.5000" in shown
    assert json.loads(succeeds("weights", "info", "best.safetensors", "--json"))["component"] == "rsunet/rsunet"
    assert "exist already" in refused(5, "weights", "add", "best.safetensors", "--name", "mine")
    succeeds("weights", "remove", "mine")
    assert "no weights are called 'mine'" in refused(5, "weights", "info", "mine")


def test_a_state_dict_of_another_program_becomes_weights_that_describe_themselves(work, succeeds, refused):
    torch = pytest.importorskip("torch")
    from mitocore_rsunet.models import RSUNet

    torch.save(RSUNet(widths=(4, 4, 6)).build().state_dict(), "foreign.pth")
    add = ("weights", "add", "foreign.pth", "--name", "foreign", "--model", "rsunet")
    assert "--normalizer" in refused(3, *add)
    assert "fit 'rsunet/rsunet' in no form" in refused(5, *add, "--normalizer", "percentile")
    table = '{ normalizer = "percentile", low = 2 }'
    succeeds(*add, "--set", "widths=[4, 4, 6]", "--normalizer", table, "--voxel-size", "40,8,8")
    header = json.loads(succeeds("weights", "info", "foreign", "--json"))
    assert header["normalizer"]["low"] == 2
    assert header["voxel_size"] == [40, 8, 8]
    assert header["options"]["widths"] == [4, 4, 6]


def test_a_network_is_trained_and_its_weights_segment_a_volume(work, succeeds, mitocore):
    pytest.importorskip("torch")
    printed = succeeds("train", "train.toml")
    assert "best.safetensors" in printed
    assert "of step 2 of 2" in printed
    assert "next: mitocore init IMAGE --weights" in printed
    result = mitocore("train", "train.toml")
    assert result.exit_code == 5
    assert "--resume" in result.stderr
    (work / "net.toml").write_text(
        'mitocore = 1\n[input]\npath = "raw.npy"\n[[step]]\nname = "net"\nweights = "runs/train/best.safetensors"\n'
        '[output]\npath = "net.zarr"\n'
    )
    assert "probability float16 24 x 40 x 40" in succeeds("run", "net.toml")


def test_the_version_is_printed(succeeds):
    from mitocore import __version__

    assert succeeds("--version").strip() == __version__
