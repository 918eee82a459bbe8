"""Scores of a volume are those of the whole array, whatever the blocks; what cannot be compared is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from mitocore import Roi, evaluate
from mitocore import open as open_volume
from mitocore.builtin.metrics import AdaptedRand, Dice, Instance, VariationOfInformation, Voxel
from mitocore.errors import ConfigError, DataError, MitocoreError, PluginError, WiringError
from mitocore.evaluation import compared, fitting
from mitocore.evaluation import evaluate as blockwise
from mitocore.specs import Kind
from mitocore.testing import MemoryVolume

SHAPE = (9, 21, 17)


def smooth(seed):
    values = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.2)
    return ((values - values.min()) / np.ptp(values)).astype("f4")


TRUTH = label(smooth(1) > 0.55)[0].astype("u2")
PREDICTED = label(smooth(1) + 0.15 * smooth(2) > 0.62)[0].astype("u4")
METRICS = {"instance": Instance(), "adapted_rand": AdaptedRand(), "voi": VariationOfInformation(), "dice": Dice()}

blocks = st.tuples(st.integers(1, 9), st.integers(2, 21), st.integers(2, 17))


@st.composite
def regions(draw):
    ends = []
    for n in SHAPE:
        start = draw(st.integers(0, n - 2))
        ends.append((start, draw(st.integers(start + 1, n))))
    return ends


@settings(deadline=None, max_examples=15)
@given(blocks, regions())
def test_neither_blocks_nor_the_frame_of_a_region_change_a_score(block, ends):
    roi = ",".join(f"{a}:{b}" for a, b in ends)
    cut = tuple(slice(a, b) for a, b in ends)
    part = blockwise(compared(MemoryVolume(PREDICTED), MemoryVolume(TRUTH), roi=roi), METRICS, block=block)
    alone = compared(MemoryVolume(PREDICTED[cut].copy()), MemoryVolume(TRUTH[cut].copy()))
    whole = blockwise(alone, METRICS)
    assert part.keys() == whole.keys()
    for name, scores in whole.items():
        assert part[name] == pytest.approx(scores, rel=1e-12), name


@settings(deadline=None, max_examples=15)
@given(blocks, st.floats(0.1, 0.9))
def test_voxel_scores_are_those_of_a_plain_count(block, threshold):
    probability = smooth(3)
    pair = compared(MemoryVolume(probability), MemoryVolume(TRUTH))
    scores = blockwise(pair, {"voxel": Voxel(thresholds=(threshold,))}, block=block)["voxel"]
    found, true = probability > threshold, TRUTH > 0
    both = (found & true).sum()
    assert scores["dice"] == pytest.approx(
        2 * both / max(found.sum() + true.sum(), 1) if found.sum() + true.sum() else 1
    )
    assert scores["iou"] == pytest.approx(both / (found | true).sum())
    assert scores["recall"] == pytest.approx(both / true.sum())


def test_a_perfect_prediction_scores_one_and_ids_do_not_matter():
    renamed = np.where(TRUTH > 0, 1000 - TRUTH.astype("i8"), 0).astype("u8")
    scores = evaluate(renamed, TRUTH)
    assert next(iter(scores["instance"].values())) == 1
    assert scores["dice"]["dice"] == 1
    assert scores["iou"]["iou"] == 1


def test_without_names_all_metrics_that_fit_are_computed():
    assert set(evaluate(smooth(3), TRUTH)) == {"voxel", "dice", "iou"}
    assert set(evaluate(PREDICTED, TRUTH)) == {
        "voxel",
        "dice",
        "iou",
        "instance",
        "average_precision",
        "adapted_rand",
        "voi",
    }


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("bool", Kind.MASK),
        ("float32", Kind.PROBABILITY),
        ("float64", Kind.PROBABILITY),
        ("uint8", Kind.INSTANCE),
        ("int64", Kind.INSTANCE),
    ],
)
def test_a_file_that_does_not_say_what_it_holds_is_judged_by_its_dtype(dtype, kind):
    assert compared(MemoryVolume(np.zeros(SHAPE, dtype)), MemoryVolume(TRUTH)).kind is kind


def test_what_a_file_says_or_a_person_states_goes_first():
    mask = MemoryVolume(np.zeros(SHAPE, "u1"), kind=Kind.MASK)
    assert compared(mask, MemoryVolume(TRUTH)).kind is Kind.MASK
    assert compared(mask, MemoryVolume(TRUTH), kind=Kind.INSTANCE).kind is Kind.INSTANCE


def test_probabilities_of_an_integer_dtype_are_scaled_before_they_are_compared():
    scaled = (smooth(3) * 255).round().astype("u1")
    options = {"voxel": {"thresholds": [0.5]}}
    integer = evaluate(scaled, TRUTH, ["voxel"], kind="probability", options=options)
    assert integer == evaluate(scaled.astype("f4") / 255, TRUTH, ["voxel"], options=options)


def test_a_truth_of_minus_one_or_of_the_largest_id_is_left_out():
    for dtype, ignored in (("i4", -1), ("u2", 65535), ("u8", np.iinfo("u8").max)):
        ignoring = TRUTH.astype(dtype)
        ignoring[:, :10] = ignored
        assert evaluate(PREDICTED, ignoring, ["dice"]) == evaluate(PREDICTED[:, 10:], TRUTH[:, 10:], ["dice"])


def test_a_mask_file_of_zero_and_255_is_foreground_not_ignored():
    mask = np.where(TRUTH > 0, 255, 0).astype("u1")
    assert evaluate(PREDICTED, mask, ["dice"]) == evaluate(PREDICTED, TRUTH, ["dice"])


def test_values_that_are_named_are_left_out():
    ignoring = TRUTH.astype("u1")
    ignoring[:, :10] = 255
    pair = compared(MemoryVolume(PREDICTED), MemoryVolume(ignoring), ignore=[255])
    rest = compared(MemoryVolume(PREDICTED[:, 10:]), MemoryVolume(TRUTH[:, 10:]))
    for name in ("dice", "adapted_rand", "voi"):
        metric = {name: METRICS[name]}
        assert blockwise(pair, metric)[name] == pytest.approx(blockwise(rest, metric)[name])


def test_a_volume_that_was_given_open_stays_open(tmp_path):
    np.save(tmp_path / "p.npy", PREDICTED)
    with open_volume(tmp_path / "p.npy") as prediction:
        evaluate(prediction, TRUTH, ["dice"])
        assert prediction.read(Roi.whole(SHAPE)).any()


def test_volumes_of_different_shape_are_refused_with_both_shapes():
    with pytest.raises(DataError) as refused:
        evaluate(np.zeros((4, 4, 4)), np.zeros((4, 4, 5), "u1"))
    assert refused.value.problem == "the prediction has (4, 4, 4) voxels (z, y, x), the truth (4, 4, 5)"


def test_a_truth_of_several_channels_is_refused():
    with pytest.raises(DataError, match="the truth has 2 channels"):
        evaluate(np.zeros(SHAPE, "f4"), np.zeros((2, *SHAPE), "u1"))


def test_a_prediction_of_several_channels_is_refused():
    with pytest.raises(MitocoreError, match="2 channels"):
        evaluate(np.zeros((2, *SHAPE), "f4"), TRUTH)


def test_one_channel_of_a_file_can_be_named_for_the_prediction_and_for_its_scores(tmp_path):
    np.save(tmp_path / "two.npy", np.stack([smooth(1), smooth(2)]))
    place = f"{tmp_path / 'two.npy'}:0"
    assert evaluate(place, TRUTH, ["voxel"]) == evaluate(smooth(1), TRUTH, ["voxel"])
    ranked = evaluate(PREDICTED, TRUTH, ["average_precision"], scores=place)
    assert ranked == evaluate(PREDICTED, TRUTH, ["average_precision"], scores=MemoryVolume(smooth(1)))
    with pytest.raises(DataError, match="there is no channel '2'"):
        evaluate(place[:-1] + "2", TRUTH)


def test_ranges_of_sizes_that_contradict_are_refused():
    with pytest.raises(ConfigError, match="largest small object is larger"):
        evaluate(PREDICTED, TRUTH, ["average_precision"], options={"average_precision": {"ranges": [500, 100]}})


@pytest.mark.parametrize("roi", ["1:2", "0:99,:,:", "a,b,c"])
def test_a_region_that_is_none_is_refused(roi):
    with pytest.raises(ConfigError) as refused:
        evaluate(PREDICTED, TRUTH, roi=roi)
    assert refused.value.where == "--roi"


def test_a_metric_for_another_kind_of_array_is_refused():
    with pytest.raises(WiringError) as refused:
        evaluate(smooth(3), TRUTH, ["instance"])
    assert refused.value.problem == "metric 'instance' compares instance, the prediction holds probability"
    assert fitting({"instance": Instance()}, Kind.PROBABILITY) == {}


def test_an_unknown_metric_option_or_kind_is_refused():
    with pytest.raises(PluginError, match="no metric is called 'dcie'"):
        evaluate(PREDICTED, TRUTH, ["dcie"])
    with pytest.raises(ConfigError, match="has no option 'treshold'"):
        evaluate(PREDICTED, TRUTH, ["voxel"], options={"voxel": {"treshold": 1}})
    with pytest.raises(MitocoreError, match="'instances' is not a kind"):
        evaluate(PREDICTED, TRUTH, kind="instances")


def test_options_of_a_metric_that_is_not_computed_are_refused():
    with pytest.raises(ConfigError, match="'voi'"):
        evaluate(PREDICTED, TRUTH, ["voxel"], options={"voi": {}})


def test_files_are_opened_by_their_suffix_and_progress_is_told(tmp_path):
    np.save(tmp_path / "p.npy", PREDICTED)
    np.save(tmp_path / "t.npy", TRUTH)
    told = []
    scores = evaluate(tmp_path / "p.npy", str(tmp_path / "t.npy"), progress=lambda *now: told.append(now))
    assert scores == evaluate(PREDICTED, TRUTH)
    assert told == [("evaluate", 0, 1), ("evaluate", 1, 1)]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        evaluate(tmp_path / "p.npy", TRUTH)
