"""Every decoder on mitochondria that are hard to tell apart, from equally flawed predictions of synthetic tissue."""

import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mitocore.geometry import VoxelSize
from mitocore.testing import cells
from mitocore.testing.predictions import Flaws

DECODERS: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "decoders.py"))
EDGES = VoxelSize(16, 12, 12)
SHAPE = (32, 104, 104)


@cache
def scene(case: str) -> tuple[Any, Any]:
    """True instances, and what networks predict of them."""
    truth = cells(SHAPE, 3, voxel_size=EDGES, **DECODERS["CASES"][case]).instances
    assert truth.max() > 3
    return truth, DECODERS["heads"](truth, EDGES, Flaws(seed=3))


@cache
def score(name: str, case: str) -> tuple[float, float]:
    """F1 at an IoU of 0.5, and the adapted Rand error."""
    truth, predictions = scene(case)
    scores: tuple[float, float] = DECODERS["scores"](DECODERS["decoded"](name, predictions, EDGES), truth)
    return scores


BOUNDARIES = ("bc_connected", "bc_watershed", "bcd_watershed")
AFFINITIES = ("affinity_components", "mutex_watershed", "affinity_agglomeration")


def test_every_registered_decoder_is_in_the_table() -> None:
    assert {*BOUNDARIES, *AFFINITIES} | {"connected_components", "binary_watershed", "distance_watershed"} == set(
        DECODERS["DECODERS"]
    )


@pytest.mark.parametrize("name", [*BOUNDARIES, *AFFINITIES])
def test_a_tangle_that_the_foreground_merges_is_separated(name: str) -> None:
    f1, error = score(name, "tangle")
    merged, merged_error = score("connected_components", "tangle")
    assert merged < 0.5 < merged_error
    assert f1 > 0.85
    assert error < 0.2


@pytest.mark.parametrize("name", ["connected_components", "affinity_components", "mutex_watershed"])
def test_mitochondria_on_a_string_stay_whole_without_seeds(name: str) -> None:
    f1, error = score(name, "string")
    assert f1 > 0.8
    assert error < 0.1


@pytest.mark.parametrize("name", [*BOUNDARIES, "binary_watershed", "distance_watershed"])
def test_seeds_in_the_swellings_of_a_string_cut_its_bridges(name: str) -> None:
    f1, _ = score(name, "string")
    assert f1 < score("affinity_components", "string")[0] - 0.2


@pytest.mark.parametrize("name", [*BOUNDARIES, *AFFINITIES, "distance_watershed"])
def test_pairs_that_touch_are_told_apart(name: str) -> None:
    f1, error = score(name, "plain")
    assert f1 > 0.8
    assert error < score("connected_components", "plain")[1] / 2
