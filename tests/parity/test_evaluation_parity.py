"""Scores beside those of PyTorch Connectomics v1 and mAP_3Dvolume, within 1e-6.

Where a size has no true object, average precision is NaN; mAP_3Dvolume says -1.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mitocore import evaluate

PARITY = Path(__file__).parents[3] / "shared" / "parity" / "connectomics"
pytestmark = pytest.mark.skipif(not PARITY.exists(), reason="needs ../shared/parity")
CLOSE = {"abs": 1e-6, "nan_ok": True}
CROP = (slice(8, 24), slice(20, 84), slice(20, 84))
RANGES = {"default_5e3_1.5e4": (5000, 15000), "small_200_1000": (200, 1000)}


@pytest.fixture(scope="module")
def expected():
    return json.loads((PARITY / "evaluation_expected_iso.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def volumes():
    with np.load(PARITY / "evaluation_inputs_iso.npz") as data, np.load(PARITY / "inputs_iso.npz") as inputs:
        return {
            "ws": data["iso_seg_ws"],
            "cc": data["iso_seg_cc"],
            "truth": data["iso_gt"],
            "heat": inputs["pred_uint8"][0] / 255.0,
            "labels": inputs["labels"],
        }


def test_binary_jaccard(expected, volumes):
    case = expected["iso.jaccard"]
    options = {"voxel": {"thresholds": case["thres"]}}
    found = evaluate(volumes["heat"], volumes["labels"], ["voxel"], options=options)["voxel"]
    for threshold, row in zip(case["thres"], case["scores"], strict=True):
        names = ("iou", "mean_iou", "precision", "recall")
        assert [found[f"{name}_{100 * threshold:g}"] for name in names] == pytest.approx(row, **CLOSE)


def test_binary_jaccard_after_a_median(expected, volumes):
    case = expected["iso.jaccard_median777_t08"]
    with np.load(PARITY / "median_v1_iso.npz") as data:
        found = evaluate(data["iso_med_7x7x7_t0.8"], volumes["labels"], ["voxel"], kind="mask")["voxel"]
    assert [found[n] for n in ("iou", "mean_iou", "precision", "recall")] == pytest.approx(case["scores"][0], **CLOSE)


@pytest.mark.parametrize("name", ["ws", "cc"])
def test_adapted_rand_and_variation_of_information(name, expected, volumes):
    found = evaluate(volumes[name], volumes["truth"], ["adapted_rand", "voi"])
    assert list(found["adapted_rand"].values()) == pytest.approx(expected[f"iso.{name}.adapted_rand"], **CLOSE)
    split_merge = [found["voi"]["split"], found["voi"]["merge"]]
    assert split_merge == pytest.approx(expected[f"iso.{name}.voi_split_merge"], **CLOSE)


@pytest.mark.parametrize("criterion", ["iou", "iot", "iop"])
@pytest.mark.parametrize("name", ["ws", "cc"])
def test_instance_matching(name, criterion, expected, volumes):
    options = {"instance": {"criterion": criterion}}
    found = evaluate(volumes[name][CROP], volumes["truth"][CROP], ["instance"], options=options)["instance"]
    theirs = {"pq": "panoptic_quality", "mean_true": "mean_true_score", "mean_matched": "mean_matched_score"}
    for threshold in (0.5, 0.75):
        case = expected[f"iso.{name}.instance_matching.{criterion}.{threshold} (crop [8:24,20:84,20:84])"]
        for score in ("precision", "recall", "f1", "accuracy", "pq", "mean_true", "mean_matched"):
            value = found[f"{score}_{100 * threshold:g}"]
            assert value == pytest.approx(case[theirs.get(score, score)], **CLOSE), score
        assert (found["predicted"], found["true"]) == (case["n_pred"], case["n_true"])


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("score", ["size", "heat"])
@pytest.mark.parametrize("name", ["ws", "cc"])
def test_average_precision(name, score, ranges, expected, volumes):
    found = evaluate(
        volumes[name],
        volumes["truth"],
        ["average_precision"],
        options={"average_precision": {"ranges": RANGES[ranges]}},
        scores=volumes["heat"] if score == "heat" else None,
    )["average_precision"]
    stats = expected[f"iso.{name}.ap3d.score={score}.ranges={ranges}"]["stats"]
    assert list(found.values()) == pytest.approx([np.nan if one == -1 else one for one in stats], **CLOSE)
