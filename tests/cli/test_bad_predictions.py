"""Predictions that are none: out of range, of the wrong scale, side or order; refused or explained in plain words."""

import subprocess
import sys

import numpy as np
import pytest

from mitocore.builtin.targets.affinities import Affinity
from tests.cli.conftest import balls

DECODER = """\
mitocore = 1

[input]
path = "bc.npy"
kind = "probability"
voxel_size = 8

[[step]]
postprocessor = "bc_watershed"
name = "mito"
inputs = { foreground = "input.image:0", boundary = "input.image:1" }
min_size = 0
min_seed_size = 0

[output]
path = "out.zarr"
"""


@pytest.fixture
def contours(work):
    """bc.npy: foreground and boundary of touching balls, and bc.toml, which decodes it."""
    probability, labels = balls((24, 40, 40), [(12, 12, 14, 9), (12, 30, 26, 9)])
    contour = (labels > 0) & (probability < 0.65)
    np.save("bc.npy", np.stack([0.98 * (labels > 0), 0.95 * contour]).astype("f4"))
    (work / "bc.toml").write_text(DECODER)
    return work


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: 255 * p, "divide them by 255, or write them as uint8, which is read as value / 255"),
        (lambda p: 2 * p - 1, 'a distance between -1 and 1 is read with kind = "distance"'),
        (lambda p: 12 * p - 6, "the output of a network before its sigmoid"),
        (lambda p: 60000 * p, "divide by the largest value"),
        (lambda p: np.where(p == p.max(), np.nan, p), "np.nan_to_num"),
    ],
)
def test_values_that_are_no_probability_are_refused_with_how_to_mend_them(change, told, work, refused):
    values = change(np.load("prob.npy")).astype("f4")
    np.save("prob.npy", values)
    text = refused(5, "run", "seg.toml")
    assert "prob.npy, box 0:16,0:16,0:16" in text
    assert "at voxel (" in text
    assert told in text


def test_a_shell_is_told_the_value_the_file_and_the_box_of_a_bad_block_in_three_lines(work):
    values = np.load("prob.npy")
    values[20, 35, 38] = 173
    np.save("prob.npy", values)
    command = [sys.executable, "-m", "mitocore", "-q", "run", "seg.toml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: probability 173 at voxel (20, 35, 38) of channel 0 does not lie between 0 and 1",
        f"  in {work / 'prob.npy'}, box 16:24,32:40,32:40",
        "  hint: values from 0 to 255: divide them by 255, or write them as uint8, which is read as value / 255",
    ]


def test_values_beyond_0_and_1_by_rounding_alone_are_taken_as_0_and_1(work, succeeds):
    values = np.load("prob.npy")
    values[values == values.max()] = 1.0004
    values[0, 0, 0] = -0.0002
    np.save("prob.npy", values)
    assert "4 objects" in succeeds("run", "seg.toml")


def test_a_prediction_out_of_range_is_not_scored(work, refused):
    np.save("prob.npy", 255 * np.load("prob.npy"))
    text = refused(5, "evaluate", "prob.npy", "truth.npy")
    assert "the prediction, box 0:24,0:40,0:40" in text
    assert "divide them by 255" in text


def test_uint8_is_value_over_255_to_steps_and_to_scores(work, succeeds):
    whole = np.rint(255 * np.load("prob.npy")).astype("u1")
    np.save("byte.npy", whole)
    np.save("float.npy", whole / np.float32(255))
    scores = [
        succeeds("evaluate", f"{name}.npy", "truth.npy", "--kind", "probability", "--json")
        for name in ("byte", "float")
    ]
    assert scores[0] == scores[1]
    found = []
    for name in ("byte", "float"):
        settings = [f"input.path={name}.npy", f"output.path={name}-ids.npy", f"run.folder=runs/{name}"]
        succeeds("run", "seg.toml", *(part for setting in settings for part in ("--set", setting)))
        found.append(np.load(f"{name}-ids.npy"))
    assert found[0].any()
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("dtype", "told"), [("bool", 'kind = "mask"'), ("uint16", 'kind = "instance"')])
def test_other_integers_are_no_probabilities_which_validation_says(dtype, told, work, refused):
    np.save("prob.npy", (2 * np.load("prob.npy")).astype(dtype))
    for command in ("validate", "run"):
        text = refused(5, command, "seg.toml")
        assert f"{dtype} does not hold probability" in text
        assert "seg.toml:4 [input]" in text
        assert told in text
    assert f"{dtype} does not hold probability" in refused(
        5, "evaluate", "prob.npy", "truth.npy", "--kind", "probability"
    )


def test_a_mask_of_0_and_1_read_as_probability_is_recognised_when_nothing_is_found(work, mitocore):
    np.save("prob.npy", (np.load("truth.npy") > 0).astype("u1"))
    done = mitocore("run", "seg.toml")
    assert done.exit_code == 0
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert "input.image lies between 0 and 0.00392" in warning
    assert 'kind = "mask"' in warning


def test_contour_and_foreground_swapped_is_asked_for_when_nothing_survives(contours, mitocore, succeeds):
    assert "2 objects" in succeeds("run", "bc.toml")
    np.save("bc.npy", np.load("bc.npy")[::-1])
    done = mitocore("run", "bc.toml", "--fresh")
    assert done.exit_code == 0
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert warning.startswith("warning: mito: no objects.")
    assert "were the two swapped?" in warning
    assert "input.image:0 lies between 0 and 0.95" in warning
    assert "voxel size 8 x 8 x 8 nm" in warning


def test_thresholds_that_contradict_are_refused_before_a_voxel_is_read(contours, refused):
    text = refused(3, "validate", "bc.toml", "--set", "mito.seed_threshold=0.4", "--set", "mito.threshold=0.6")
    assert "0.4" in text
    assert "0.6" in text


@pytest.fixture
def affinities(work):
    """aff.npy, between a voxel and the one before it; other.npy, the same stored at the one before."""
    labels = np.load("truth.npy").astype("u8")
    for name, edge in (("aff", "source"), ("other", "destination")):
        values = Affinity(edge=edge).encode({"instances": labels}, None)
        np.save(f"{name}.npy", np.clip(values, 0.1, 0.9))
    return work


def test_affinities_with_the_wrong_edge_side_are_explained_by_the_truth(affinities, mitocore):
    right = mitocore("evaluate", "aff.npy", "truth.npy", "--metric", "affinity", "--kind", "affinity")
    assert right.exit_code == 0
    assert "warning" not in right.stderr
    wrong = mitocore("evaluate", "other.npy", "truth.npy", "--metric", "affinity", "--kind", "affinity")
    assert wrong.exit_code == 0
    (warning,) = [line for line in wrong.stderr.splitlines() if line.startswith("warning")]
    assert "stored at the other voxel of each pair" in warning
    assert "offsets = [[1, 0, 0], [0, 1, 0], [0, 0, 1]] instead of [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]" in warning


def test_the_offsets_that_were_proposed_settle_it(affinities, mitocore):
    stated = "affinity.offsets=[[1,0,0],[0,1,0],[0,0,1]]"
    found = mitocore(
        "evaluate", "other.npy", "truth.npy", "--metric", "affinity", "--kind", "affinity", "--set", stated
    )
    assert found.exit_code == 0, found.stderr
    assert "warning" not in found.stderr


def test_affinities_whose_kind_or_offsets_nothing_says_are_refused(affinities, refused):
    np.save("four.npy", np.load("aff.npy")[[0, 1, 2, 2]])
    assert "--kind affinity" in refused(3, "evaluate", "aff.npy", "truth.npy", "--metric", "affinity")
    text = refused(3, "evaluate", "four.npy", "truth.npy", "--metric", "affinity", "--kind", "affinity")
    assert "4 channels" in text
    assert "offsets = " in text


def test_more_objects_than_the_format_has_ids_are_refused_and_kept(work, refused, succeeds):
    pattern = np.indices((52, 52, 50)).sum(axis=0) % 2
    np.save("prob.npy", pattern.astype("f4"))
    settings = ["cells.min_size=0", "cells.connectivity=6", "run.block=[52, 52, 50]"]
    command = ["run", "seg.toml", *(part for setting in settings for part in ("--set", setting))]
    text = refused(5, "-q", *command, "--set", "output.path=slices/")
    assert "67600 objects, this format holds 65,534" in text.replace("67,600", "67600")
    assert "zarr" in text
    assert "67,600 objects" in succeeds(*command, "--resume")
    assert "uint16" in refused(5, "-q", "convert", "out.zarr::cells.instances", "copied/")
