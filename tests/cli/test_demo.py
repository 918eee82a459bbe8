"""Demos: found in plugins, run through the front door, scored and reported; twice is no error."""

import importlib
import json

import pytest

from mitocore import runs
from mitocore.demo import find_demo, run_demo
from mitocore.errors import PluginError
from mitocore.registry import Entry

pytest.importorskip("matplotlib")

PIPELINE = """\
mitocore = 1

[input]
reader = "sample"
shape = [8, 48, 48]
voxel_size = 24
kind = "probability"

[[step]]
postprocessor = "connected_components"
threshold = 0.5

[output]
path = "segmentation.zarr"
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A demo without a network, of a package on the path."""
    folder = tmp_path / "site" / "tinydemo" / "demos" / "tiny"
    folder.mkdir(parents=True)
    (folder.parents[1] / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    (folder / "pipeline.toml").write_text(PIPELINE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    monkeypatch.chdir(tmp_path)
    return Entry("demo", "tiny", "tinydemo:demos/tiny", "bright voxels", "tinydemo")


def test_a_demo_is_scored_and_reported_and_may_be_repeated(tiny, tmp_path):
    first = run_demo(tiny, tmp_path / "out")
    assert set(first.scores) == {"voxel", "instance"}
    assert first.scores["instance"]["predicted"] == len(first.table)
    assert "tiny: bright voxels" in first.report.read_text()
    for fresh in (False, True):
        again = run_demo(tiny, tmp_path / "out", fresh=fresh)
        assert again.scores == first.scores
    assert not (tmp_path / "site" / "tinydemo" / "demos" / "tiny" / "runs").exists()
    record = json.loads((first.report.parent / "record.json").read_text())
    assert record["input"]["shape"] == [8, 48, 48]


def test_a_demo_that_is_not_there_blames_its_plugin(tmp_path):
    with pytest.raises(PluginError, match="has no pipeline"):
        run_demo(Entry("demo", "none", "mitocore:demos/none", "", "builtin"), tmp_path)


def test_the_bundled_weights_find_mitochondria_that_they_have_not_seen(tmp_path):
    pytest.importorskip("torch")
    from mitocore.demo import _home

    home = _home(find_demo("mito"))
    assert sum(path.stat().st_size for path in home.iterdir()) < 3_000_000
    places = [f"run.folder={tmp_path}/run", f"output.path={tmp_path}/out.zarr", "run.workers=0"]
    window = "net.predict={ window = [16, 96, 96], overlap = [0, 0, 0] }"
    planned = runs.load(home / "pipeline.toml", ["input.shape=[16, 96, 96]", "input.seed=77", window, *places])
    result = planned.run()
    reader = planned.plan.config.reader
    truth = type(reader).model_validate({**reader.model_dump(), "array": "instances"}).open()
    assert runs.evaluate(result["mito.instances"], truth, ["voxel"])["voxel"]["iou"] > 0.7
