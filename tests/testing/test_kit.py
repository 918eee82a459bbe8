"""The kit finds what is wrong with a component, and nothing else."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "modules"))

import models_to_check as models
import wrong_components as wrong

from mitocore import PluginError, volumes
from mitocore.builtin.npy import NpyReader, NpyWriter
from mitocore.cli import listings
from mitocore.component import Component
from mitocore.testing import CheckFailed, ReaderTests, WriterTests, checks, isolated_registry, samplers
from mitocore.testing.minimal import Components, Threshold, Widen
from mitocore.testing.readers import Files
from mitocore.testing.writers import Results

EXACTLY = [
    (wrong.WithoutDocstring(), {"check_docstring"}),
    (wrong.WithoutDescription(), {"check_described"}),
    (wrong.WithList(), {"check_immutable"}),
    (wrong.Unpicklable(), {"check_pickles"}),
    (wrong.NoJson(), {"check_json", "check_digest"}),
    (wrong.RandomDigest(), {"check_digest"}),
    (wrong.BeyondOne(), {"check_outputs"}),
    (wrong.HaloTooSmall(radius=2), {"check_halo", "check_block_invariance"}),
    (wrong.Remembers(), {"check_workers", "check_no_state"}),
    (wrong.DrawsGlobally(), {"check_no_state"}),
    (wrong.ChangesInputs(), {"check_inputs"}),
    (wrong.LeavesGaps(), {"check_dense_ids"}),
    (wrong.MissingFaces(), {"check_block_invariance", "check_empty_and_full"}),
    (wrong.LateThreshold(), {"check_late_options"}),
    (wrong.Greedy(), {"check_memory"}),
    (wrong.GreedyWhole(), {"check_memory"}),
    (wrong.SevenInstances(), {"check_dense_ids"}),
    (wrong.EmptyBreaks(), {"check_empty_and_full"}),
    (wrong.OwnStatistics(), {"check_block_invariance"}),
    (wrong.AnyVolume(), {"check_nothing_varies"}),
    (wrong.BorderTarget(), {"check_halo"}),
    (wrong.OddIds(), {"check_relabelling"}),
    (wrong.HalfOptional(), {"check_needs"}),
    (wrong.Nowhere(), {"check_result"}),
    (wrong.HalfBatch(), {"check_weight_zero"}),
    (wrong.AcceptsAll(), {"check_accepts"}),
    (wrong.Overflows(), {"check_half_precision"}),
    (wrong.PointsAnywhere(), {"check_weight_zero"}),
    (wrong.RelatesHidden(), {"check_weight_zero"}),
    (wrong.OutsideRegion(), {"check_crops"}),
    (wrong.Forgetful(), {"check_same_rng"}),
    (wrong.ByChunks(), {"check_index"}),
    (wrong.ReadsAgain(), {"check_draws_read_nothing"}),
    (wrong.InPlace(), {"check_inputs"}),
    (wrong.Interpolates(), {"check_labels", "check_together", "check_halo"}),
    (wrong.PadsZeros(), {"check_together", "check_halo"}),
    (wrong.SumOfIds(), {"check_permuted_ids"}),
    (wrong.MeasuredOnce(), {"check_no_state"}),
    (wrong.SharedScratch(), {"check_workers"}),
    (wrong.NeedsVoxelSize(), {"check_unknown_voxel_size"}),
    (wrong.FloatColumns(), {"check_columns"}),
    (wrong.FlipsImageAlone(), {"check_together"}),
    (wrong.FlipsOneLabel(), {"check_together"}),
    (wrong.ForgetsMask(), {"check_together"}),
    (wrong.LooksNearby(probability=1), {"check_halo"}),
    (wrong.ShiftsLabels(), {"check_together"}),
    (wrong.IgnoreIsObject(), {"check_ignored"}),
    (wrong.TargetInNanometres(), {"check_unknown_voxel_size"}),
    (wrong.IgnoresWeights(), {"check_proportions"}),
    (wrong.EmptyBlocks(), {"check_nothing"}),
    (wrong.EmptyVolume(), {"check_nothing"}),
    (wrong.PaddingCounts(), {"check_padding"}),
]
AMONG_OTHERS = [  # wrong in ways that several checks see
    (wrong.WrongShape(), {"check_outputs"}),
    (wrong.WrongDtype(), {"check_outputs"}),
    (wrong.LooksBack(), {"check_no_state"}),
    (wrong.OrderOfRows(), {"check_order_of_objects"}),
    (wrong.FloodsPerBlock(), {"check_block_invariance"}),
    (wrong.LastBox(), {"check_order"}),
    (wrong.MeanOfRatios(), {"check_additive"}),
    (wrong.ByBoxes(), {"check_partition"}),
    (models.ChangesWindow(), {"check_repeats"}),
    (models.AlwaysDropout(), {"check_repeats"}),
]


def named(case):
    return type(case).__name__ if isinstance(case, Component) else ""


def failures(component):
    return {finding.check: finding.message for finding in checks.run(component) if finding.passed is False}


@pytest.mark.parametrize(("component", "expected"), EXACTLY, ids=named)
def test_exactly_the_checks_of_the_broken_promise_fail(component, expected):
    assert set(failures(component)) == expected


@pytest.mark.parametrize(("component", "expected"), AMONG_OTHERS, ids=named)
def test_the_check_of_the_broken_promise_fails(component, expected):
    assert set(failures(component)) >= expected


def test_a_failure_says_what_was_seen_and_what_to_change():
    seen, change = failures(wrong.WithoutDescription())["check_described"].splitlines()
    assert seen == "options without description: speed"
    assert change == "  change: write a docstring below each of these fields"


@pytest.mark.parametrize(
    "component",
    [
        Threshold(),
        Widen(),
        Components(min_size=4),
        wrong.OnTiles(),
        wrong.Modest(),
        wrong.ModestWhole(),
        wrong.OnlyUint8(),
        models.Small(),
        models.ZeroHead(),
    ],
    ids=named,
)
def test_right_components_pass(component):
    assert failures(component) == {}


def test_a_search_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(samplers, "SECONDS", 0.5)
    assert set(failures(wrong.Endless())) == {"check_nothing_to_draw"}


def save(path, array, voxel_size):
    np.save(path, array)


def load(path, name):
    return np.load(path), None


def failing(tests, component, folder, supplied):
    """Names of the checks of files that fail."""
    found = set()
    for check in tests.checks:
        try:
            check(component, supplied)
        except CheckFailed:
            found.add(check.__name__)
    return found


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        (NpyReader(path="a.npy"), set()),
        (wrong.BeyondRoi(path="a.npy"), {"check_boxes", "check_threads", "check_own_voxels"}),
        (
            wrong.XyzReader(path="a.npy"),
            {"check_boxes", "check_dtypes", "check_planar", "check_threads", "check_own_voxels", "check_shapes"},
        ),
        (wrong.OneNanometre(path="a.npy"), {"check_unknown_voxel_size"}),
        (wrong.ChannelGuess(path="a.npy"), {"check_shapes"}),
        (wrong.SquareSwap(path="a.npy"), {"check_shapes"}),
        (wrong.LoadsAll(path="a.npy"), {"check_memory"}),
        (wrong.Views(path="a.npy"), {"check_own_voxels"}),
    ],
    ids=named,
)
def test_wrong_readers_are_found(reader, expected, tmp_path):
    assert failing(ReaderTests, reader, tmp_path, Files(save, tmp_path, voxel_size=None)) == expected


@pytest.mark.parametrize(
    ("writer", "expected"),
    [
        (NpyWriter(path="a.npy"), set()),
        (wrong.Truncates(path="a.npy"), {"check_dtypes"}),
        (wrong.Overwrites(path="a.npy"), {"check_existing"}),
        (wrong.Buffers(path="a.npy"), {"check_resume"}),
        (wrong.BuffersInProcesses(path="a.npy"), {"check_resume", "check_concurrency"}),
    ],
    ids=named,
)
def test_wrong_writers_are_found(writer, expected, tmp_path):
    assert (
        failing(WriterTests, writer, tmp_path, Results(load, tmp_path, voxel_size=None, keeps_kind=False)) == expected
    )


def test_what_needs_files_or_options_is_reported_and_not_passed_over():
    by_file = {finding.check: finding for finding in checks.run(NpyReader)}
    assert by_file["check_docstring"].passed is True
    assert by_file["check_boxes"].passed is None
    assert by_file["check_boxes"].message == "needs path: write tests with a component"
    made = {finding.check: finding for finding in checks.run(NpyReader(path="a.npy"))}
    assert made["check_boxes"].message == "needs make_file of a ReaderTests"
    local = type("Local", (Threshold,), {"__doc__": "Made here.", "__module__": "__main__"})
    everywhere_else = {"check_import_is_light", "check_digest", "check_workers", "check_no_state"}
    assert {
        f.check: "cannot be imported in another process" in f.message for f in checks.run(local()) if f.passed is None
    } == (dict.fromkeys(everywhere_else, True))


@pytest.mark.parametrize(
    ("component", "check", "what"),
    [
        (wrong.Backwards(), "check_perfect", "needs tests: optimum, if neither 0 nor 1 is best; seen: f1"),
        (
            wrong.SquareWraps(),
            "check_dtype",
            "needs tests: expected_failures, if the range of the dtype is meant; seen: e",
        ),
    ],
    ids=named,
)
def test_what_only_the_author_can_judge_is_reported_and_is_no_failure(component, check, what):
    doubtful = {finding.check: finding.message for finding in checks.run(component) if finding.passed is not True}
    assert set(doubtful) == {check}
    assert doubtful[check].startswith(what)


def test_expected_failures_must_fail_and_must_be_checks(pytester_run):
    body = """
        from mitocore.testing import PostProcessorTests
        from mitocore.testing.minimal import Threshold, Widen

        class TestRight(PostProcessorTests):
            component = Threshold()
            expected_failures = {"check_halo": "it has none"}
    """
    text = pytester_run(body, "-k", "check_halo or check_docstring")
    assert "[XPASS(strict)] it has none" in text
    assert "1 failed, 1 passed" in text
    text = pytester_run(body.replace("check_halo", "check_hallo"))
    assert "TestRight.expected_failures names ['check_hallo']; there are check_docstring" in text
    text = pytester_run(body.replace("component = Threshold()", ""))
    assert "TestRight says no component: write `component = X(...)` in its body" in text


@pytest.fixture
def pytester_run(tmp_path):
    def run(body, *options):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(body), "utf-8")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options, "test_it.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    return run


def test_importing_the_kit_imports_neither_pytest_nor_torch():
    program = "import sys, mitocore.testing.checks; print({'pytest', 'torch', 'hypothesis'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_isolated_registry_holds_the_built_in_components_and_those_given():
    with isolated_registry({"beyond": wrong.BeyondOne}) as registry:
        assert volumes.installed() is registry
        assert registry.find("postprocessor", "test/beyond").load() is wrong.BeyondOne
        assert registry.find("postprocessor", "threshold").plugin == "builtin"
        assert {entry.plugin for entry in registry.entries} == {"builtin", "test"}
    assert volumes.installed() is not registry


def test_plugins_are_checked_by_name_and_failures_end_with_exit_code_4(capsys):
    with isolated_registry({"undescribed": wrong.WithoutDescription, "missing": wrong.Threshold}) as registry:
        registry.add("target", "gone", "wrong_components:Gone", "is not there")
        registry.broken["shattered"] = ImportError("No module named 'shards'")
        listings.check_plugins("missing", as_json=False)
        assert "postprocessor test/missing" in capsys.readouterr().out
        with pytest.raises(PluginError, match="2 checks failed") as error:
            listings.check_plugins("test", as_json=False)
        assert error.value.exit_code == 4
        text = capsys.readouterr().out
        assert "check_described" in text
        assert "failed  options without description: speed change: write a docstring" in text
        assert "has no attribute 'Gone'" in text
        with pytest.raises(PluginError, match="plugin 'shattered' is broken"):
            listings.check_plugins("shattered", as_json=True)
        assert json.loads(capsys.readouterr().out)["broken"] == {"shattered": "ImportError: No module named 'shards'"}
        with pytest.raises(PluginError, match="no plugin and no component is called 'undescibed'") as error:
            listings.check_plugins("undescibed", as_json=False)
        assert error.value.hint == "did you mean 'undescribed'?"
