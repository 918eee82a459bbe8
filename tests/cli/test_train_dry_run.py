"""What a look at a training tells before an hour is spent, and what is told at its end."""

import json

import numpy as np
import pytest

from mitocore.header import read_header

pytest.importorskip("torch")
PNG = b"\x89PNG\r\n"


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_says_what_every_part_holds_and_writes_one_picture(work, succeeds):
    pytest.importorskip("matplotlib")
    before, truth = files(work), np.load("truth.npy")
    printed = succeeds("train", "train.toml", "--dry-run")
    assert "objective foreground" in printed
    assert f"{(truth[:17] > 0).mean():.2%}" in printed
    assert f"{len(np.unique(truth[17:])) - 1} id" in printed
    assert "for 2 steps" in printed
    added = {name: content for name, content in files(work).items() if name not in before}
    assert list(added) == ["runs/train/samples.png"]
    assert added["runs/train/samples.png"].startswith(PNG)


def test_a_dry_run_leaves_a_training_as_it_is(work, succeeds):
    succeeds("train", "train.toml")
    before = files(work)
    succeeds("train", "train.toml", "--dry-run", "--picture", "look/samples.png")
    assert {name: content for name, content in files(work).items() if name != "look/samples.png"} == before


def test_the_numbers_of_a_dry_run_are_json_that_agrees_with_the_labels(work, mitocore):
    gap = 'volume.split={ validation = "z:16-24", gap = 4 }'
    result = mitocore("train", "train.toml", "--dry-run", "--json", "-q", "--set", gap)
    assert result.stderr == ""
    found, truth = json.loads(result.stdout), np.load("truth.npy")
    for one, part in zip(found["parts"], (truth[:12], truth[16:]), strict=True):
        held = one["labels"]["instances"]
        assert one["voxels"] == held["labelled_voxels"] == part.size
        assert held["foreground"] == pytest.approx((part > 0).mean())
        assert held["ids"] == len(np.unique(part)) - 1
    assert [one["part"] for one in found["parts"]] == ["train", "validation"]
    assert found["unused_voxels"] == {"raw.npy": 4 * 40 * 40}
    assert found["memory_bytes"] > found["state_bytes"] > 4 * found["parameters"]
    assert found["seconds"] > 2 * found["seconds_per_step"]["network"] > 0


def test_a_dry_run_refuses_what_training_would_refuse(work, refused):
    empty = np.load("truth.npy")
    empty[16:] = 0
    np.save("truth.npy", empty)
    assert "holds no foreground" in refused(5, "-q", "train", "train.toml", "--dry-run")
    assert not (work / "runs").exists()


def test_a_picture_that_cannot_be_written_is_an_error_for_people(work, refused):
    (work / "file").write_text("no folder")
    assert "'file/samples.png' cannot be written" in refused(
        5, "-q", "train", "train.toml", "--dry-run", "--picture", "file/samples.png"
    )


def test_a_picture_without_a_dry_run_is_a_mistake(work, mitocore):
    result = mitocore("train", "train.toml", "--picture", "samples.png")
    assert result.exit_code == 2
    assert not (work / "runs").exists()


def test_without_matplotlib_the_numbers_are_told_and_the_extra_is_named(work, succeeds, monkeypatch):
    monkeypatch.setattr("mitocore.pictures.installed", lambda: False)
    assert 'no picture: pip install "mitocore[report]"' in succeeds("train", "train.toml", "--dry-run")
    assert not (work / "runs").exists()


def test_a_training_ends_with_its_scores_and_what_to_type_next(work, mitocore):
    held = 'volume.split={ validation = "z:16-20", test = "z:20-24" }'
    result = mitocore("train", "train.toml", "--json", "--set", held, "--set", "train.validate_every=1")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    header = read_header(work / found["best"])
    assert found["scores"] == header.scores
    assert found["thresholds"] == header.thresholds
    assert found["best_step"] == header.provenance["step"]
    assert found["next"].split()[:4] == ["mitocore", "init", "IMAGE", "--weights"]  # no [[step]] is recommended
    printed = mitocore("-q", "train", "train.toml", "--resume", "--set", held, "--set", "train.validate_every=1")
    assert printed.exit_code == 0, printed.stderr
    assert printed.stderr == ""
    rows = [line.split() for line in printed.stdout.splitlines()]
    assert ["score", "validation", "test"] in rows
    assert ["loss", *(f"{header.scores[f'{part}.loss']:.4f}" for part in ("validation", "test"))] in rows


def test_progress_of_a_training_tells_loss_and_pace(work, mitocore):
    result = mitocore("train", "train.toml")
    last = next(line for line in result.stderr.splitlines() if line.startswith("training  2/2"))
    assert " · loss " in last
    assert " · crops/s " in last
