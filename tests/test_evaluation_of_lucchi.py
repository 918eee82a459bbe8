"""Instances of a real network beside the truth: every score once more, by other means."""

import csv
from pathlib import Path

import numpy as np
import pytest

from mitocore import evaluate

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "lucchi-instances-metrics"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="needs ../shared/data/lucchi-instances-metrics")
FILES = FOLDER / "unet_pred_instances.tif", FOLDER / "gt_instances.tif"


@pytest.fixture(scope="module")
def matrix():
    """Voxels by true and predicted id, 0 background: all that the scores are made of."""
    tifffile = pytest.importorskip("tifffile")
    predicted, truth = (tifffile.imread(path).ravel().astype(np.intp) for path in FILES)
    width = predicted.max() + 1
    return np.bincount(truth * width + predicted, minlength=(truth.max() + 1) * width).reshape(-1, width)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("lucchi") / "matches.csv"
    scores = evaluate(*map(str, FILES), matches=path)
    with path.open(newline="") as file:
        return scores, list(csv.DictReader(file))


def iou_of(matrix):
    """IoU of the objects that occur: true ones along the rows."""
    true, sizes = matrix.sum(axis=1)[1:], matrix.sum(axis=0)[1:]
    iou = matrix[1:, 1:] / np.maximum(true[:, None] + sizes - matrix[1:, 1:], 1)
    return iou[true > 0][:, sizes > 0], true[true > 0], sizes[sizes > 0]


def test_semantic_scores(matrix, found):
    both, everything = matrix[1:, 1:].sum(), matrix.sum()
    true, predicted = matrix[1:].sum(), matrix[:, 1:].sum()
    iou = both / (true + predicted - both)
    background = matrix[0, 0] / (everything - both)
    assert iou == pytest.approx(0.8646, abs=5e-5)
    expected = {
        "iou": iou, "mean_iou": (iou + background) / 2, "dice": 2 * both / (true + predicted),
        "precision": both / predicted, "recall": both / true,
    }  # fmt: skip
    assert found[0]["voxel"] == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_scores_of_objects(threshold, matrix, found):
    iou, true, sizes = iou_of(matrix)
    matched = iou[iou >= threshold]
    # From one half on, an object overlaps no second one as much: what reaches the threshold is the matching.
    assert ((iou >= threshold).sum(axis=0) <= 1).all()
    tp, n, m = len(matched), len(sizes), len(true)
    expected = {
        "f1": 2 * tp / (n + m), "precision": tp / n, "recall": tp / m, "accuracy": tp / (n + m - tp),
        "pq": matched.sum() / ((n + m) / 2), "mean_true": matched.sum() / m, "mean_matched": matched.mean(),
    }  # fmt: skip
    for name, value in expected.items():
        assert found[0]["instance"][f"{name}_{100 * threshold:g}"] == pytest.approx(value), name
    assert (found[0]["instance"]["predicted"], found[0]["instance"]["true"]) == (n, m)


def precision_at(iou, sizes, true, threshold, low=0.0, high=np.inf):
    """Average precision: predictions one after another, as the description of mAP_3Dvolume says."""
    wanted = (true > low) & (true <= high)
    taken, curve, tp, counted = set(), [], 0, 0
    for p in sorted(range(len(sizes)), key=lambda one: -sizes[one]):
        inside = np.where(wanted, iou[:, p], -1)
        t, hit = int(inside.argmax()), inside.max() >= threshold
        if hit and t not in taken:
            taken.add(t)
            tp += 1
        elif not low <= sizes[p] <= high or (not hit and np.where(wanted, -1, iou[:, p]).max() >= threshold):
            continue
        counted += 1
        curve.append((tp / wanted.sum(), tp / counted))
    return np.mean([max((p for r, p in curve if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)])


def test_average_precision(matrix, found):
    iou, true, sizes = iou_of(matrix)
    mean = np.mean([precision_at(iou, sizes, true, percent / 100) for percent in range(50, 100, 5)])
    by_size = [precision_at(iou, sizes, true, 0.75, *ends) for ends in ((0, 5e3), (5e3, 1.5e4), (1.5e4, np.inf))]
    expected = [mean, precision_at(iou, sizes, true, 0.5), precision_at(iou, sizes, true, 0.75), *by_size]
    assert list(found[0]["average_precision"].values()) == pytest.approx(expected)


def test_adapted_rand_and_variation_of_information(matrix, found):
    inside = matrix[1:].astype(float)
    missed = inside[:, 0].sum() / matrix.sum()
    both = np.square(inside[:, 1:]).sum() + missed
    precision = both / (np.square(inside[:, 1:].sum(axis=0)).sum() + missed)
    recall = both / np.square(inside.sum(axis=1)).sum()
    error = 1 - 2 * precision * recall / (precision + recall)
    assert list(found[0]["adapted_rand"].values()) == pytest.approx([error, precision, recall])
    joint, rows, columns = (np.ravel(one) / inside.sum() for one in (inside, inside.sum(axis=1), inside.sum(axis=0)))
    bits = [-sum(p * np.log2(p) for p in shares if p) for shares in (joint, rows, columns)]
    expected = {"voi": 2 * bits[0] - bits[1] - bits[2], "split": bits[0] - bits[1], "merge": bits[0] - bits[2]}
    assert found[0]["voi"] == pytest.approx(expected)


def test_every_pair_that_overlaps_is_listed(matrix, found):
    listed = {(int(row["truth"]), int(row["predicted"])): row for row in found[1] if row["truth"] and row["predicted"]}
    pairs = [(int(t), int(p)) for t, p in np.argwhere(matrix) if t and p]
    assert sorted(listed) == sorted(pairs)
    for t, p in pairs:
        union = matrix[t].sum() + matrix[:, p].sum() - matrix[t, p]
        assert float(listed[t, p]["iou"]) == pytest.approx(matrix[t, p] / union, abs=1e-4)
    alone = sum(not matrix[1:, p].any() and matrix[0, p] > 0 for p in range(1, matrix.shape[1]))
    assert sum(not row["truth"] for row in found[1]) == alone
    best = [float(row["best"]) for row in found[1]]
    assert best == sorted(best)
