"""A Whole step: one item over everything, stored by blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore import ArraySpec, ContractError, Kind, ResourceError, Roi, VoxelSize
from mitocore.blockwise.grid import BlockGrid
from mitocore.testing import reference
from mitocore.testing.minimal import AboveMean

pytestmark = pytest.mark.usefixtures("no_power_is_lost")

PROBABILITY = {"probability": ArraySpec(Kind.PROBABILITY)}


def randomly(seed, shape):
    return {"probability": np.random.default_rng(seed).random((1, *shape)).astype(np.float32)}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(2, 9)] * 3), st.data())
def test_blocks_do_not_show_and_a_region_is_the_volume(tmp_path_factory, at_work, job, seed, shape, block, data):
    arrays, step = randomly(seed, shape), AboveMean()
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    region = Roi(start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    work = job(step, arrays, PROBABILITY, BlockGrid(region, block))
    with at_work(tmp_path_factory.mktemp("run")) as workspace:
        found = work.whole(workspace)["mask"]
    np.testing.assert_array_equal(found, reference.whole(step, arrays, work.gives, region=region)["mask"])


def test_it_is_called_once_with_the_region_and_its_voxel_size(tmp_path, at_work, job):
    class Asking(AboveMean):
        """Compares what a block says with what is so."""

        def memory(self, volume):
            assert (volume.shape, volume.voxel_size) == (region.shape, VoxelSize(40, 8, 8))
            return 1

        def process(self, block):
            calls.append(block)
            return super().process(block)

    region, calls = Roi((1, 0, 2), (5, 6, 7)), []
    work = job(
        Asking(), randomly(0, (6, 6, 8)), PROBABILITY, BlockGrid(region, (2, 3, 4)), voxel_size=VoxelSize(40, 8, 8)
    )
    with at_work(tmp_path) as workspace:
        work.whole(workspace)
        work.whole(workspace)  # finished
    assert [(block.write, block.read, block.volume) for block in calls] == [(region, region, region)]
    assert calls[0].voxel_size == VoxelSize(40, 8, 8)


def test_a_step_that_needs_more_memory_than_there_is_is_refused_before_anything_is_read(tmp_path, at_work, job):
    work = job(AboveMean(), randomly(0, (6, 6, 8)), PROBABILITY, BlockGrid(Roi.whole((6, 6, 8)), (2, 3, 4)))
    with at_work(tmp_path, budget=5 * 6 * 6 * 8 - 1) as workspace:
        with pytest.raises(ResourceError, match=r"'step' needs 1,440 bytes .* 1,439") as caught:
            work.whole(workspace)
        assert not (tmp_path / "state").exists()
    assert len(str(caught.value).splitlines()) <= 3
    with at_work(tmp_path, budget=5 * 6 * 6 * 8) as workspace:
        work.whole(workspace)


def test_a_broken_promise_is_blamed_on_the_plugin(tmp_path, at_work, job):
    class Author(AboveMean):
        """Returns numbers."""

        def process(self, block):
            return {"mask": block["probability"]}

    work = job(Author(), randomly(0, (4, 4, 4)), PROBABILITY, BlockGrid(Roi.whole((4, 4, 4)), (2, 4, 4)))
    with (
        at_work(tmp_path) as workspace,
        pytest.raises(ContractError, match="Author of 'slow' returned 'mask' as float32"),
    ):
        work.whole(workspace, plugin="slow")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_killed_at_any_commit_and_resumed_equals_the_uninterrupted_one(tmp_path, job, deaths, moment):
    arrays, step = randomly(1, (4, 5, 6)), AboveMean()
    expected = reference.whole(step, arrays, step.gives({}))["mask"]

    def begin(workspace):
        work = job(step, arrays, PROBABILITY, BlockGrid(Roi.whole((4, 5, 6)), (2, 3, 4)))
        np.testing.assert_array_equal(work.whole(workspace)["mask"], expected)

    assert deaths.everywhere(tmp_path, moment, begin) > 0
