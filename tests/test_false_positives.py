"""The list of false positives: which objects it holds, where they lie, and that a training can be aimed at them."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mitocore import Roi, VoxelSize, evaluate
from mitocore.builtin.samplers.foreground import Foreground
from mitocore.cli.main import app
from mitocore.errors import DataError, WiringError
from mitocore.evaluation import compared, summed
from mitocore.false_positives import Unmatched, found
from mitocore.interfaces import LabelledVolume
from mitocore.testing import MemoryVolume

SIZE = VoxelSize(30, 8, 8)
TRUTH = np.zeros((9, 21, 17), "u2")
TRUTH[1:5, 2:10, 2:10] = 4
TRUTH[6:8, 15:19, 10:14] = 65535
PREDICTED = np.zeros(TRUTH.shape, "u4")
PREDICTED[1:5, 2:10, 2:8] = 70_000  # IoU 0.75
PREDICTED[1:5, 2:10, 8:12] = 12  # half of it in the same object: IoU 0.2
PREDICTED[6:9, 12:15, 0:5] = 9  # alone
PREDICTED[6:8, 15:19, 10:15] = 5  # a fifth of it where the truth is known
PREDICTED[6:8, 16:18, 11:13] = 3  # only where it is not


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def by_hand(predicted, truth, known):
    listed = {}
    for one in np.unique(predicted[known & (predicted > 0)]):
        inside = (predicted == one) & known
        ious = [
            (inside & (truth == other)).sum() / (inside | (known & (truth == other))).sum()
            for other in np.unique(truth[known & (truth > 0)])
        ]
        if max(ious, default=0) < 0.5:
            overlap = (inside & (truth > 0)).sum() / inside.sum()
            listed[int(one)] = (inside.sum(), *np.argwhere(inside).mean(axis=0), max(ious, default=0), overlap)
    return listed


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.tuples(st.integers(1, 5), st.integers(2, 7), st.integers(2, 9)))
def test_the_list_is_that_of_the_whole_array_whatever_the_blocks(seed, block):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.choice([0, 1, 2, 65535], (3, 3, 4), p=[0.4, 0.3, 0.2, 0.1]), np.ones((2, 3, 2), int))
    truth = truth.astype("u2")
    predicted = np.where(rng.random(truth.shape) < 0.8, truth % 65535, rng.integers(0, 5, truth.shape)).astype("u8")
    sums = summed(compared(MemoryVolume(predicted), MemoryVolume(truth)), {"fp": Unmatched()}, block=block)["fp"]
    listed = {row.id: (row.voxels, *row.centre, row.iou, row.overlap) for row in found(sums)}
    expected = by_hand(predicted, truth, truth != 65535)
    assert listed.keys() == expected.keys()
    for number, values in expected.items():
        assert listed[number] == pytest.approx(values)


def test_objects_that_match_no_true_one_are_listed_with_their_centre_in_the_frame_of_the_volume(tmp_path):
    path = tmp_path / "errors.csv"
    plain = evaluate(MemoryVolume(PREDICTED), MemoryVolume(TRUTH, SIZE), roi="1:9,1:21,:")
    scores = evaluate(MemoryVolume(PREDICTED), MemoryVolume(TRUTH, SIZE), roi="1:9,1:21,:", false_positives=path)
    assert scores == plain
    five, nine, twelve = rows(path)
    assert nine == {
        "id": "9", "voxels": "45", "z": "7.0", "y": "13.0", "x": "2.0",
        "z_nm": "210.0", "y_nm": "104.0", "x_nm": "16.0", "iou": "0.0", "overlap": "0.0",
    }  # fmt: skip
    assert (five["id"], five["voxels"], five["x"]) == ("5", "8", "14.0")
    assert (twelve["id"], twelve["iou"], twelve["overlap"]) == ("12", "0.2", "0.5")


def test_a_file_without_voxel_size_gives_voxels_alone(tmp_path):
    evaluate(PREDICTED, TRUTH, ["dice"], false_positives=tmp_path / "errors.csv")
    assert "z" in rows(tmp_path / "errors.csv")[0]
    assert "z_nm" not in rows(tmp_path / "errors.csv")[0]


def test_what_cannot_be_listed_is_refused_before_anything_is_scored(tmp_path):
    for path in (tmp_path / "errors.txt", tmp_path / "nowhere" / "errors.csv", tmp_path / "a.csv"):
        (tmp_path / "a.csv").mkdir(exist_ok=True)
        with pytest.raises(DataError, match="cannot be written"):
            evaluate(PREDICTED, TRUTH, false_positives=path)
    with pytest.raises(WiringError, match="the prediction holds probability"):
        evaluate(PREDICTED.astype("f4"), TRUTH, false_positives=tmp_path / "errors.csv")
    assert not (tmp_path / "errors.csv").exists()


def test_a_training_is_aimed_at_the_errors_that_an_evaluation_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("predicted.npy", PREDICTED)
    np.save("truth.npy", TRUTH)
    command = ["evaluate", "predicted.npy", "truth.npy", "--metric", "instance", "--false-positives", "errors.csv"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert "f1_50" in told.output
    sampler = Foreground(probability=0, points="errors.csv", hard_share=1)
    image = MemoryVolume(np.zeros(TRUTH.shape, "u1"))
    volume = LabelledVolume(image, {"instances": MemoryVolume(TRUTH)}, Roi.whole(TRUTH.shape))
    index, rng = sampler.index([volume], (2, 4, 4)), np.random.default_rng(0)
    crops = [sampler.draw(index, (2, 4, 4), number, rng).roi.slices for number in range(200)]
    seen = [set(np.unique(PREDICTED[crop])) for crop in crops]
    assert all(ids & {5, 9, 12} for ids in seen)
    assert all(any(number in ids for ids in seen) for number in (5, 9, 12))
