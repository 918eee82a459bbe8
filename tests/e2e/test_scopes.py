"""Pipelines with steps of every scope: neither blocks, workers, engine nor kills change a voxel."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mitocore import Kind, Lattice, Pipeline, ResourceError, Step
from mitocore.builtin.postprocess import Median
from mitocore.testing.minimal import AboveMean, BrightOfTile, Components, Flood

SHAPE = (14, 30, 26)
SMOOTH = Step(Median(size=(1, 3, 3)), name="smooth")
STEPS = {
    "objectwise": (SMOOTH, Step(Flood(level=0.5, seed=0.62, min_size=4), name="last")),
    "tiled": (
        SMOOTH,
        Step(
            Flood(level=0.45, seed=0.62, oversize="tile", largest=600, tiles=Lattice((6, 12, 12), (2, 3, 3))),
            name="last",
        ),
    ),
    "whole": (SMOOTH, Step(AboveMean(), name="mean"), Step(Components(), name="last")),
    "lattice": (SMOOTH, Step(BrightOfTile(tiles=Lattice((5, 9, 8), (1, 2, 2))), name="last")),
}


def arrays(steps, probability, save="last.instances", **options):
    run = {key: options.pop(key) for key in ("progress", "cancel") if key in options}
    roi = options.pop("roi", None)
    with Pipeline(steps, **options).run(probability, kind=Kind.PROBABILITY, save=[save], roi=roi, **run) as result:
        return result.arrays()[save]


@pytest.fixture(scope="module")
def probability(blobs):
    return blobs(SHAPE, 3)


@pytest.fixture(scope="module")
def whole(probability):
    return {name: arrays(steps, probability) for name, steps in STEPS.items()}


@pytest.mark.parametrize("scope", STEPS)
@settings(
    deadline=None, max_examples=5, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.tuples(st.integers(5, 16), st.integers(11, 32), st.integers(9, 28)), st.sampled_from([0, 1, 3]))
def test_neither_blocks_nor_threads_change_a_voxel(probability, whole, scope, block, workers):
    found = arrays(STEPS[scope], probability, block=block, workers=workers)
    np.testing.assert_array_equal(found, whole[scope])
    assert found.max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("scope", STEPS)
def test_processes_give_what_threads_give(probability, whole, scope):
    found = arrays(STEPS[scope], probability, block=(6, 12, 12), workers=2, engine="processes")
    np.testing.assert_array_equal(found, whole[scope])


@pytest.mark.parametrize("scope", STEPS)
def test_a_run_killed_at_any_commit_is_resumed_exactly(probability, whole, scope, tmp_path):
    for kill in range(1, 200):
        calls = iter(range(1, 10_000))

        def stop(_label, _done, _total, calls=calls, kill=kill):
            if next(calls) == kill:
                raise KeyboardInterrupt

        try:
            found = arrays(STEPS[scope], probability, block=(6, 12, 12), folder=str(tmp_path), progress=stop)
            break
        except KeyboardInterrupt:
            continue
    assert kill > 4
    np.testing.assert_array_equal(found, whole[scope])


@pytest.mark.parametrize("scope", ["objectwise", "whole"])
def test_a_region_is_the_volume_to_steps_that_see_objects(probability, scope):
    smooth = arrays([SMOOTH], probability, save="smooth.values")
    found = arrays(STEPS[scope], probability, roi="2:11,4:28,3:22", block=(4, 9, 9))
    alone = arrays(STEPS[scope][1:], np.ascontiguousarray(smooth[2:11, 4:28, 3:22]))
    np.testing.assert_array_equal(found, alone)


def test_another_late_option_processes_no_object_again(probability):
    first = Pipeline(STEPS["objectwise"], keep="all").run(probability, kind="probability")
    seen = []
    less = first.rerun({"last.min_size": 60}, progress=lambda label, done, total: seen.append((label, done, total)))
    again = {label for label, done, total in seen if done < total}
    assert {label for label in again if label.startswith("last")} == {"last: paint"}
    expected = (SMOOTH, Step(Flood(level=0.5, seed=0.62, min_size=60), name="last"))
    np.testing.assert_array_equal(less.arrays()["last.instances"], arrays(expected, probability))


def test_a_step_that_needs_everything_is_refused_before_anything_is_read(probability):
    with pytest.raises(ResourceError, match=r"'mean' needs .* of memory"):
        Pipeline(STEPS["whole"][1:2], memory=20_000).plan(probability, kind="probability")
