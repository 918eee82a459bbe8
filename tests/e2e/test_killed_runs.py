"""A run killed at any commit and started again gives what an uninterrupted one gives, and computes nothing twice."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fake_plugin.parts import CALLS

from mitocore import load, runs
from mitocore.blockwise.workspace import Workspace

FIXTURES = Path(__file__).parents[1] / "fixtures"
STRIPS = "160 kB"  # the sums of two rows of tiles

PIPELINE = """\
mitocore = 1
[input]
path = "raw.npy"
voxel_size = 8

[[step]]
name = "net"
weights = "{weights}"

[[step]]
name = "mask"
postprocessor = "builtin/threshold"
threshold = 0.9999999

[[step]]
name = "cc"
postprocessor = "connected_components"
connectivity = 6

[[step]]
postprocessor = "size_filter"
min_size = 20

[[step]]
postprocessor = "fill_holes"

[output]
path = "{output}"
save = ["fill_holes.instances", "cc.instances"]
{options}
[run]
folder = "run"
workers = {workers}
block = [8, 24, 48]
memory = "{memory}"
"""


@pytest.fixture(autouse=True)
def commit_every_block(monkeypatch):
    monkeypatch.setattr(runs, "Workspace", partial(Workspace, every=0.0))
    monkeypatch.setattr("os.fsync", lambda _: None)  # nobody cuts the power here


@pytest.fixture(scope="module")
def placed(registry, trained, tmp_path_factory, blobs):
    """Plans the pipeline in a folder; all folders hold the same input."""
    weights, raw = trained(), tmp_path_factory.mktemp("input") / "raw.npy"
    np.save(raw, (255 * blobs((12, 40, 40), 1)).astype("u1"))

    def place(folder, output="{name}.npy", options="", workers=0, memory="1 GB", overrides=()):
        folder.mkdir(exist_ok=True)
        if not (folder / "raw.npy").exists():
            (folder / "raw.npy").hardlink_to(raw)
        text = PIPELINE.format(weights=weights, output=output, options=options, workers=workers, memory=memory)
        (folder / "pipeline.toml").write_text(text, "utf-8")
        return load(folder / "pipeline.toml", overrides, registry=registry)

    return place


@pytest.fixture
def pipeline(placed, tmp_path):
    """Plans the pipeline in a folder of that name."""
    return lambda name, *args, **options: placed(tmp_path / name, *args, **options)


class Stop:
    """Interrupts a run at the n-th thing it reports."""

    def __init__(self, at):
        self.at, self.seen = at, 0

    def __call__(self, label, done, total):
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt


def arrays(planned, **options):
    with planned.run(**options) as result:
        return result.arrays()


def same(found, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.fixture(scope="module")
def expected(placed, tmp_path_factory):
    """What an uninterrupted run gives."""
    found = arrays(placed(tmp_path_factory.mktemp("uninterrupted")))
    assert found["fill_holes.instances"].max() > 2
    return found


@pytest.mark.parametrize(
    ("output", "options", "passes"),
    [
        ("{name}.npy", "", ""),
        ("out.zarr", "chunks = [8, 24, 40]\nlevels = 1\n", "relabel"),  # the passes that write into the store
    ],
    ids=["exported", "in place"],
)
def test_a_run_killed_at_any_commit_and_run_again_equals_an_uninterrupted_one(
    pipeline, expected, output, options, passes, tmp_path, registry
):
    folder, snapshots = tmp_path / "run", tmp_path / "snapshots"

    def keep(label, *_):  # what a process that is killed here leaves behind
        if passes in label:
            shutil.copytree(folder, snapshots / str(len(list(snapshots.glob("*")))))

    snapshots.mkdir()
    same(arrays(pipeline("run", output, options), progress=keep), expected)
    for snapshot in snapshots.iterdir():
        shutil.rmtree(folder)
        snapshot.rename(folder)
        same(arrays(load(folder / "pipeline.toml", registry=registry)), expected)


@pytest.mark.parametrize("memory", ["1 GB", STRIPS])
@pytest.mark.parametrize("at", [2, 9, 17, 24, 38])
def test_a_run_that_is_interrupted_and_run_again_equals_an_uninterrupted_one(pipeline, expected, at, memory):
    with pytest.raises(KeyboardInterrupt):
        pipeline("run", memory=memory).run(progress=Stop(at))
    same(arrays(pipeline("run", memory=memory)), expected)


def test_a_run_interrupted_again_and_again_comes_to_the_same_end(pipeline, expected):
    for at in range(4, 200, 3):  # a run that goes on also reports where it begins
        try:
            found = arrays(pipeline("often"), progress=Stop(at))
        except KeyboardInterrupt:
            continue
        break
    same(found, expected)


def test_a_cancelled_run_ends_as_if_interrupted_and_goes_on(pipeline, expected):
    asked = iter([False] * 20)
    with pytest.raises(KeyboardInterrupt):
        pipeline("cancelled").run(cancel=lambda: next(asked, True))
    same(arrays(pipeline("cancelled")), expected)


@pytest.mark.parametrize("at", [4, 13, 44])
def test_a_run_may_go_on_with_other_blocks_workers_and_memory(pipeline, expected, at):
    with pytest.raises(KeyboardInterrupt):
        pipeline("cut").run(progress=Stop(at))
    overrides = ["run.block=[5, 9, 20]"]
    same(arrays(pipeline("cut", workers=3, memory=STRIPS, overrides=overrides)), expected)


def test_no_tile_that_was_committed_is_computed_again(pipeline):
    CALLS.clear()
    arrays(pipeline("whole"))
    tiles = sum(CALLS)
    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        pipeline("half").run(cancel=lambda: sum(CALLS) >= tiles // 2)
    done = sum(CALLS)
    arrays(pipeline("half"))
    assert tiles <= sum(CALLS) < tiles + done
    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        pipeline("late").run(progress=lambda label, done, total: stop_after_net(label))
    CALLS.clear()
    arrays(pipeline("late"))
    assert CALLS == []


def stop_after_net(label):
    if label.startswith("cc"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("memory", ["1 GB", STRIPS])
@pytest.mark.parametrize("workers", [0, 3])
def test_neither_memory_nor_workers_change_a_voxel_of_a_network(pipeline, expected, memory, workers):
    CALLS.clear()
    same(arrays(pipeline("strips", workers=workers, memory=memory)), expected)
    assert sum(CALLS) == 4 * 3 * 3


KILLED = """
import os, sys
sys.path.insert(0, {modules!r})
from functools import partial
from importlib.metadata import distributions, entry_points
from mitocore import load, runs
from mitocore.blockwise.workspace import Workspace
from mitocore.registry import API_GROUP, discover
runs.Workspace = partial(Workspace, every=0.0)
points = next(iter(distributions(path=[{fixtures!r}]))).entry_points
registry = discover([*entry_points(group=API_GROUP), *(p for p in points if p.name == "fake")])
seen = 0
def progress(label, done, total):
    global seen
    seen += 1
    if seen == {at}:
        os._exit(9)
load({toml!r}, registry=registry).run(progress=progress)
"""


@pytest.mark.parametrize("at", [12, 33])
def test_a_process_that_dies_leaves_a_run_that_goes_on_with_other_blocks(pipeline, expected, tmp_path, at):
    place = partial(pipeline, "died", "out.zarr", "chunks = [8, 24, 40]\nlevels = 1\n")
    place()
    toml = str(tmp_path / "died/pipeline.toml")
    program = KILLED.format(modules=str(FIXTURES / "modules"), fixtures=str(FIXTURES), at=at, toml=toml)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert (tmp_path / "died/run/run.lock").exists()
    same(arrays(place(overrides=["run.block=[4, 16, 20]"])), expected)
