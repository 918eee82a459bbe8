"""The stitched steps of this plugin on the real engine: blocks, threads, kills."""

import numpy as np
import pytest

from mitocore import ArraySpec, Kind, Roi, VolumeSpec
from mitocore.blockwise.arrays import BlockFiles
from mitocore.blockwise.executor import InProcess, Threads
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.scopes import stitched
from mitocore.blockwise.workspace import Workspace
from mitocore_rsunet.instances import ConnectedComponents, FillHoles, SizeFilter

SHAPE = (7, 12, 11)
STEPS = [
    ConnectedComponents(min_size=4, connectivity=6),
    SizeFilter(min_size=30, max_size=400),
    SizeFilter(min_size=30, remove_small_mode="neighbor"),
    FillHoles(max_size=20, connectivity=18),
]


class Killed(BaseException):
    """As sudden as a signal: nothing is tidied up."""


class Lock:
    """Lets so many commits happen and dies before the next, when the voxels of a block are written already."""

    def __init__(self, commits):
        self.left = commits

    def hold(self):
        if self.left == 0:
            raise Killed
        self.left -= 1


class Array:
    voxel_bytes = 8

    def __init__(self, values):
        self.values = values

    def read(self, roi):
        return self.values[(slice(None), *roi.slices)].copy()


def inputs_of(step):
    """Instances with holes, contacts, several pieces per id; or their mask."""
    rng = np.random.default_rng(7)
    ids = np.kron(rng.choice([0, 2**40, 3, 2**63, 5, 9], (4, 6, 6)).astype("u8"), np.ones((2, 2, 2), "u8"))
    ids = ids[tuple(slice(n) for n in SHAPE)] * (rng.random(SHAPE) < 0.9)
    name = next(iter(step.needs()))
    return {name: (ids > 0)[None] if name == "mask" else ids[None]}


def run(step, folder, block, commits=-1, workers=0):
    folder.mkdir(exist_ok=True)
    grid, spec = BlockGrid(Roi.whole(SHAPE), block), step.gives({"mask": ArraySpec(Kind.MASK)})
    arrays = {}

    def make(array, dtype):
        (folder / array).mkdir(exist_ok=True)
        arrays[array] = BlockFiles(folder / array, grid, 1, dtype)
        return arrays[array]

    executor = Threads(workers) if workers else InProcess()
    sources = {name: Array(values) for name, values in inputs_of(step).items()}
    workspace = Workspace(folder, executor, Lock(commits), every=0)  # a commit per block
    volume = VolumeSpec(SHAPE, "uint64")
    count = stitched(step, sources, make, spec, grid, volume, workspace, name="step", early="e", late="l")
    executor.close()
    found = arrays["instances"].read(Roi.whole(SHAPE))[0]
    assert count == found.max()
    return found


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_the_engine_gives_the_same_whatever_the_blocks(in_blocks, tmp_path, step):
    whole = in_blocks(step, inputs_of(step))
    assert whole.max() > 1
    for number, (block, workers) in enumerate([(SHAPE, 0), ((4, 4, 4), 0), ((3, 12, 5), 2)]):
        assert np.array_equal(run(step, tmp_path / str(number), block, workers=workers), whole)


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_a_step_killed_before_every_commit_and_resumed_equals_one_that_was_not(in_blocks, tmp_path, step):
    kills, found = 0, None
    while found is None:
        try:
            found = run(step, tmp_path, (4, 6, 11), commits=1)
        except Killed:
            kills += 1
    assert kills >= 3 * 4  # label, link and relabel of four blocks, and the table of final ids
    assert np.array_equal(found, in_blocks(step, inputs_of(step)))
