"""Pairs of objects, listed the worst first; scores of objects from outside; scores that need objects whole."""

import csv
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mitocore import VoxelSize, evaluate
from mitocore.builtin.metrics import AveragePrecision, SkeletonAccuracy, Surface
from mitocore.cli.main import app
from mitocore.errors import ConfigError, DataError, WiringError
from mitocore.evaluation import compared
from mitocore.evaluation import evaluate as blockwise
from mitocore.testing import MemoryVolume

SIZE = VoxelSize(30, 8, 8)
TRUTH, PREDICTED, HEAT = np.zeros((8, 24, 30), "u2"), np.zeros((8, 24, 30), "u4"), np.full((8, 24, 30), 0.2, "f4")
TRUTH[1:5, 2:10, 2:12] = 4
TRUTH[1:5, 12:20, 2:12] = 5
TRUTH[6:8, 2:6, 20:28] = 6  # nobody finds it
TRUTH[:, 22:, :] = 65535
PREDICTED[1:5, 2:10, 2:12] = 70_000  # all of 4
PREDICTED[1:5, 12:16, 2:12] = 12  # half of 5
PREDICTED[1:5, 16:20, 2:12] = 13  # the other half
PREDICTED[6:8, 10:20, 14:28] = 9  # alone, and large
HEAT[PREDICTED == 70_000] = 0.9


def listed(path, **options):
    evaluate(MemoryVolume(PREDICTED), MemoryVolume(TRUTH, SIZE), ["instance"], matches=path, **options)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_pairs_are_listed_the_worst_first(tmp_path):
    rows = listed(tmp_path / "matches.csv")
    assert [(row["predicted"], row["truth"]) for row in rows] == [
        ("9", ""), ("", "6"), ("12", "5"), ("13", "5"), ("70000", "4"),
    ]  # fmt: skip
    assert [row["iou"] for row in rows] == ["0.0", "0.0", "0.5", "0.5", "1.0"]
    assert [row["matched"] for row in rows].count("1") == 2
    alone, missed, half = rows[:3]
    assert (alone["voxels"], alone["predicted_voxels"], alone["true_voxels"]) == ("0", "280", "0")
    assert [missed[name] for name in ("z", "y", "x", "z_nm")] == ["6.5", "3.5", "23.5", "195.0"]
    assert (half["voxels"], half["predicted_voxels"], half["true_voxels"]) == ("160", "160", "320")
    corners = ("z_from", "y_from", "x_from", "z_to", "y_to", "x_to")
    assert [int(half[name]) for name in corners] == [1, 12, 2, 5, 20, 12]


def test_a_region_keeps_the_places_of_the_volume(tmp_path):
    rows = listed(tmp_path / "matches.csv", roi="6:8,:,:")
    assert [(row["predicted"], row["truth"], row["z_from"]) for row in rows] == [("9", "", "6"), ("", "6", "6")]


def test_what_cannot_be_listed_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be written") as refused:
        evaluate(PREDICTED, TRUTH, matches=tmp_path / "matches.txt")
    assert refused.value.where == "--matches"
    with pytest.raises(WiringError, match="holds probability"):
        evaluate(HEAT, TRUTH, matches=tmp_path / "matches.csv")


@settings(deadline=None, max_examples=8)
@given(st.tuples(st.integers(1, 8), st.integers(3, 24), st.integers(4, 30)))
def test_blocks_change_no_score_that_looks_at_objects_or_scores(block):
    metrics = {"skeleton": SkeletonAccuracy(lengths=(20, 60)), "surface": Surface(), "ap": AveragePrecision()}
    pair = compared(MemoryVolume(PREDICTED), MemoryVolume(TRUTH, SIZE), scores=MemoryVolume(HEAT))
    found, whole = (blockwise(pair, metrics, block=shape) for shape in (block, PREDICTED.shape))
    for name, scores in whole.items():
        assert found[name] == pytest.approx(scores, nan_ok=True), name
    assert whole["surface"]["matches"] == 2


def test_the_surer_object_is_ranked_first_from_a_volume_or_from_a_list(tmp_path):
    rows = {70_000: 0.9, 12: 0.5, 13: 0.4, 9: 0.1}
    (tmp_path / "sure.csv").write_text("id,score\n" + "".join(f"{i},{s}\n" for i, s in rows.items()))
    volume = np.zeros_like(HEAT)
    for number, score in rows.items():
        volume[number == PREDICTED] = score
    found = [
        evaluate(PREDICTED, TRUTH, ["average_precision"], scores=scores)["average_precision"]["ap_75"]
        for scores in (rows, tmp_path / "sure.csv", volume)
    ]
    unranked = evaluate(PREDICTED, TRUTH, ["average_precision"])["average_precision"]["ap_75"]
    assert found[0] == found[1] == found[2] == pytest.approx(34 / 101)
    assert unranked == pytest.approx(34 / 101)  # the largest is right here
    worst = {**rows, 9: 1.0}
    assert evaluate(PREDICTED, TRUTH, ["average_precision"], scores=worst)["average_precision"]["ap_75"] < 0.2


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ({12: 0.5}, "no score of object"),
        (HEAT[1:], "the scores have"),
        ("id,points\n1,2\n", "no column 'score'"),
        ("id,score\n1,high\n", "could not convert"),
        (None, "No such file"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores, word, tmp_path):
    path = tmp_path / "sure.csv"
    if isinstance(scores, str):
        path.write_text(scores)
    with pytest.raises(DataError, match=word) as refused:
        evaluate(PREDICTED, TRUTH, scores=path if scores is None or isinstance(scores, str) else scores)
    assert refused.value.where == "--scores"


def test_scores_that_nothing_looks_at_are_refused():
    with pytest.raises(WiringError, match="looks at scores"):
        evaluate(PREDICTED, TRUTH, ["voi"], scores=HEAT)


def test_metrics_that_look_at_every_object_are_computed_when_they_are_named():
    truth = MemoryVolume(TRUTH, SIZE)
    assert "surface" not in evaluate(PREDICTED, truth)
    assert evaluate(PREDICTED, truth, ["surface"])["surface"]["nsd"] > 0
    assert "surface" in evaluate(PREDICTED, truth, options={"surface": {"tolerance": 8}})
    with pytest.raises(ConfigError, match="voxel size"):
        evaluate(PREDICTED, TRUTH, ["skeleton"])


def test_the_command_takes_options_of_metrics_and_says_where_there_is_nothing_to_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, array in (("predicted", PREDICTED), ("truth", TRUTH), ("heat", HEAT)):
        np.save(f"{name}.npy", array)
    command = ["-q", "evaluate", "predicted.npy", "truth.npy", "--metric", "average_precision", "--metric", "instance"]
    chosen = ["--set", "instance.thresholds=[0.9]", "--set", "average_precision.ranges=[10, 200]"]
    told = CliRunner().invoke(app, [*command, *chosen, "--scores", "heat.npy", "--matches", "m.csv", "--json"])
    assert told.exit_code == 0, told.output
    scores = json.loads(told.stdout)
    assert scores["average_precision"]["ap_75_small"] is None
    assert scores["instance"]["f1_90"] == pytest.approx(2 / 7)
    assert (tmp_path / "m.csv").exists()
    told = CliRunner().invoke(app, [*command, *chosen, "-o", "scores.csv"])
    assert re.search(r"ap_75_small +–\n", told.stdout)
    assert "average_precision,ap_75_small,\n" in (tmp_path / "scores.csv").read_text()
    for wrong in ("instance.treshold=1", "voi.form=1", "nothing"):
        assert CliRunner().invoke(app, [*command, "--set", wrong]).exit_code == 3


def test_a_score_of_nothing_is_not_a_number():
    found = evaluate(np.zeros_like(PREDICTED), MemoryVolume(TRUTH, SIZE), ["surface"])["surface"]
    assert math.isnan(found["assd_nm"])
    assert found["matches"] == 0
