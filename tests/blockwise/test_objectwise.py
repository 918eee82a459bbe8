"""Objects processed one by one, however they lie in blocks: equal to the plain definition, ids included."""

import pickle
from contextlib import suppress
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore import ArraySpec, ContractError, Kind, Lattice, ResourceError, Roi, RunError, VoxelSize
from mitocore.blockwise import objectwise as passes
from mitocore.blockwise.components import MaskComponents
from mitocore.blockwise.executor import Threads
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.objects import LinkPieces, Paint, ProcessObjects, agreeing
from mitocore.blockwise.work import Label, Reads
from mitocore.blockwise.workspace import Workspace
from mitocore.testing import reference
from mitocore.testing.minimal import Flood

pytestmark = pytest.mark.usefixtures("no_power_is_lost")

PROBABILITY = {"probability": ArraySpec(Kind.PROBABILITY)}
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(*[st.integers(1, 11)] * 3)
tiles = st.builds(Lattice, st.tuples(*[st.integers(2, 5)] * 3), st.tuples(*[st.integers(0, 3)] * 3))


class Measured(Flood):
    """Instances with gaps between their numbers, the way to the middle of the object, and its bright half.

    The halo, the mask and the other outputs depend on what lies around and on the object as a whole.
    """

    margin: tuple[int, int, int] = (0, 1, 2)

    def halo(self):
        return self.margin

    def gives(self, given):
        offset = ArraySpec(Kind.OFFSET, ("z", "y", "x"))
        return {"instances": ArraySpec(Kind.INSTANCE), "offset": offset, "bright": ArraySpec(Kind.MASK)}

    def process(self, block, mask):
        assert mask.shape == block.read.shape == block["probability"].shape[1:]
        assert mask.flags.c_contiguous
        assert block["probability"].flags.c_contiguous
        ids = super().process(block, mask)["instances"].astype(np.int64)
        places = np.stack(np.nonzero(mask))
        middle = places.mean(axis=1).reshape(3, 1, 1, 1)
        offset = (middle - np.indices(mask.shape)).astype(np.float32)  # also outside the mask
        bright = block["probability"] > block["probability"].mean(dtype=np.float64)  # depends on the halo
        return {"instances": ids * 2**40, "offset": offset, "bright": bright}


def blobs(seed, shape):
    """Probabilities of which a part is many small objects, or few large ones, with and without seeds."""
    rng = np.random.default_rng(seed)
    values = rng.random((1, *shape)).astype(np.float32)
    dense = rng.choice([0.0, 0.1, 0.2, 0.4, 1.0], size=(3,), p=[0.1, 0.3, 0.3, 0.2, 0.1])
    return values * (rng.random((1, *shape)) < np.repeat(dense, -(-shape[2] // 3))[: shape[2]])


def equal(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def region_in(data, shape):
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    return Roi(start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))


@settings(deadline=None, max_examples=25)
@given(seeds, shapes, shapes, st.integers(0, 6), st.data())
def test_objects_by_blocks_equal_those_of_the_whole_volume_ids_included(
    tmp_path_factory, at_work, shuffled_workspace, job, seed, shape, block, min_size, data
):
    block = tuple(max(b, n // 3) for b, n in zip(block, shape, strict=True))
    arrays, step = {"probability": blobs(seed, shape)}, Measured(min_size=min_size)
    region = region_in(data, shape)
    work = job(step, arrays, PROBABILITY, BlockGrid(region, block), voxel_size=VoxelSize(40, 8, 8))
    with at_work(tmp_path_factory.mktemp("run"), shuffled_workspace, every=1.0) as workspace:
        found = work.objectwise(workspace)
    equal(found, reference.objectwise(step, arrays, work.gives, region=region))
    assert work.count == found["instances"].max()


@settings(deadline=None, max_examples=25)
@given(seeds, shapes, shapes, tiles, st.integers(1, 200), st.integers(0, 9), st.data())
def test_oversize_objects_in_tiles_equal_those_of_the_whole_volume_ids_included(
    tmp_path_factory, at_work, shuffled_workspace, job, seed, shape, block, lattice, largest, min_size, data
):
    block = tuple(max(b, n // 3) for b, n in zip(block, shape, strict=True))
    arrays, region = {"probability": blobs(seed, shape)}, region_in(data, shape)
    step = Measured(oversize="tile", largest=largest, tiles=lattice, min_size=min_size)
    work = job(step, arrays, PROBABILITY, BlockGrid(region, block))
    with at_work(tmp_path_factory.mktemp("run"), shuffled_workspace, every=1.0) as workspace:
        found = work.objectwise(workspace)
    equal(found, reference.objectwise(step, arrays, work.gives, region=region))


class Faces(Flood):
    """What only corners join is apart."""

    def neighbourhood(self):
        return 6


@pytest.mark.parametrize("workers", [0, 3])
def test_the_connectivity_is_that_of_the_step_and_the_executor_does_not_show(tmp_path, at_work, job, workers):
    arrays = {"probability": blobs(3, (9, 10, 11))}
    executor = Threads(workers) if workers else None
    counts = []
    for step in (Flood(), Faces()):
        work = job(step, arrays, PROBABILITY, BlockGrid(Roi.whole((9, 10, 11)), (4, 3, 5)))
        work.digests = {"early": type(step).__name__, "late": type(step).__name__}
        with at_work(tmp_path, executor=executor and Threads(workers), every=0.01) as workspace:
            equal(work.objectwise(workspace), reference.objectwise(step, arrays, work.gives))
        counts.append(work.count)
    assert counts[1] > counts[0] > 1


STEPS = {
    "refuse": Measured(min_size=3),
    "tile": Flood(min_size=3, oversize="tile", largest=60, tiles=Lattice((4, 4, 4), (1, 1, 1))),
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("oversize", STEPS)
def test_a_run_killed_at_any_commit_and_resumed_equals_the_uninterrupted_one(tmp_path, job, deaths, oversize, moment):
    arrays, step = {"probability": blobs(54, (4, 5, 8))}, STEPS[oversize]
    grid = BlockGrid(Roi.whole((4, 5, 8)), (2, 5, 8))
    expected = reference.objectwise(step, arrays, step.gives({}))
    assert expected["instances"].max() > 2

    def begin(workspace):
        equal(job(step, arrays, PROBABILITY, grid).objectwise(workspace), expected)

    assert deaths.everywhere(tmp_path, moment, begin) > 4 * len(grid)


class Counting(Flood):
    """Counts how often it is asked."""

    calls: ClassVar[dict] = {"process": 0, "keep": 0}

    def process(self, block, mask):
        self.calls["process"] += 1
        return super().process(block, mask)

    def keep(self, objects):
        self.calls["keep"] += 1
        return super().keep(objects)


@pytest.mark.parametrize("keep_ids", [False, True])
def test_another_late_option_processes_objects_again_only_if_they_were_not_kept(tmp_path, at_work, job, keep_ids):
    arrays, grid = {"probability": blobs(1, (8, 8, 8))}, BlockGrid(Roi.whole((8, 8, 8)), (4, 8, 8))
    once = {"process": 0, "keep": 0}
    Counting.calls = dict(once)
    for min_size in (0, 6, 6):
        step = Counting(min_size=min_size)
        work = job(step, arrays, PROBABILITY, grid, digests={"early": "e", "late": f"l{min_size}"})
        with at_work(tmp_path) as workspace:
            found = work.objectwise(workspace, keep_ids=keep_ids)
        once["process"] = once["process"] or Counting.calls["process"]
        equal(found, reference.objectwise(Flood(min_size=min_size), arrays, work.gives))
        scratch = {path.name for path in (tmp_path / "scratch").iterdir() if not path.name.startswith("out")}
        assert scratch == ({"step.ids.e", "step.blocks.instances.e", "step.parts.instances.e"} if keep_ids else set())
    assert once["process"] > 1
    assert Counting.calls == {"process": once["process"] * (1 if keep_ids else 2), "keep": 2}


def test_a_kill_while_scratch_is_removed_does_no_harm(tmp_path, at_work, job, deaths, monkeypatch):
    arrays, grid = {"probability": blobs(1, (8, 8, 8))}, BlockGrid(Roi.whole((8, 8, 8)), (4, 8, 4))
    for method in ("forget", "discard"):
        for last in (0, 1, 2, 3):
            work = job(Flood(), arrays, PROBABILITY, grid, digests={"early": "e", "late": f"{method}{last}"})
            remove, left = getattr(Workspace, method), [last]

            def killed(self, name, remove=remove, left=left):
                left[0] -= 1
                if left[0] < 0:
                    raise deaths.Killed
                remove(self, name)

            with monkeypatch.context() as patch, at_work(tmp_path) as workspace:
                patch.setattr(Workspace, method, killed)
                with suppress(deaths.Killed):
                    work.objectwise(workspace)
            other = job(Flood(), arrays, PROBABILITY, grid, digests={"early": "e", "late": f"then{method}{last}"})
            with at_work(tmp_path) as workspace:
                equal(other.objectwise(workspace), reference.objectwise(Flood(), arrays, work.gives))


def test_a_tile_in_a_bay_of_its_object_holds_nothing(tmp_path, at_work, job):
    values = np.zeros((1, 1, 6, 6), np.float32)
    values[0, 0, 0, :] = values[0, 0, :, 0] = 0.5  # the last of four tiles is in the bay
    step = Flood(oversize="tile", largest=8, tiles=Lattice((1, 3, 3), (0, 1, 1)))
    work = job(step, {"probability": values}, PROBABILITY, BlockGrid(Roi.whole((1, 6, 6)), (1, 6, 6)))
    with at_work(tmp_path) as workspace:
        equal(work.objectwise(workspace, keep_ids=True), reference.objectwise(step, work.arrays, work.gives))
    files = (tmp_path / "scratch" / "step.parts.instances.e").iterdir()
    assert [path.stat().st_size > 0 for path in sorted(files)] == [True, True, True, False]


@pytest.mark.parametrize("folder", ["ids", "blocks.instances", "parts.instances"])
def test_scratch_that_is_gone_is_missing_and_not_background(tmp_path, at_work, job, folder):
    values = np.zeros((1, 8, 8, 8), np.float32)
    values[0, :3, :3, :3] = values[0, 2:6, 6, 6] = 0.5  # inside a block, across two
    grid = BlockGrid(Roi.whole((8, 8, 8)), (4, 8, 8))
    for late, min_size in (("l0", 0), ("l1", 1)):
        work = job(Flood(min_size=min_size), {"probability": values}, PROBABILITY, grid)
        work.digests = {"early": "e", "late": late}
        with at_work(tmp_path) as workspace:
            if late == "l0":
                assert work.objectwise(workspace, keep_ids=True)["instances"].max() == 2
                for path in (tmp_path / "scratch" / f"step.{folder}.e").iterdir():
                    path.unlink()
                if folder == "ids":  # what is found again reads them
                    workspace.forget("step.objects.e")
            else:
                with pytest.raises(RunError, match=rf"block \d of scratch 'step\.{folder}\.e' is missing"):
                    work.objectwise(workspace)


@pytest.mark.parametrize("oversize", ["refuse", "tile"])
def test_empty_and_full_masks_and_one_object_over_everything_are_fine(tmp_path, at_work, job, oversize):
    shape = (5, 6, 7)
    step = Flood(oversize=oversize, largest=8, tiles=Lattice((3, 3, 3), (2, 2, 2)))
    empty, full, frame = np.zeros((1, *shape)), np.full((1, *shape), 0.5), np.full((1, *shape), 0.5)
    frame[:, 1:-1, 1:-1, 1:-1] = 0
    frame[:, 2, 2, 2] = 0.5  # an object inside the box of the other, in a block of it
    for number, (values, count) in enumerate([(empty, 0), (full, 1), (frame, 2)]):
        arrays = {"probability": values.astype(np.float32)}
        work = job(step, arrays, PROBABILITY, BlockGrid(Roi.whole(shape), (2, 4, 4)))
        work.digests = {"early": str(number), "late": str(number)}
        with at_work(tmp_path) as workspace:
            found = work.objectwise(workspace)
        equal(found, reference.objectwise(step, arrays, work.gives))
        if oversize == "refuse":
            assert work.count == count
            np.testing.assert_array_equal(found["instances"] > 0, values > 0)
            assert work.made["instances"].dtype == "uint32"


class Brightness(Flood):
    """No instances: only how bright the object of a voxel is."""

    def gives(self, given):
        return {"mean": ArraySpec(Kind.DISTANCE)}

    def process(self, block, mask):
        return {"mean": np.full((1, *mask.shape), block["probability"][0][mask].mean(dtype=np.float64), np.float32)}

    def keep(self, objects):
        raise AssertionError


def test_a_step_without_instances_counts_the_components_and_is_not_asked_what_to_keep(tmp_path, at_work, job):
    arrays, step = {"probability": blobs(1, (8, 8, 8))}, Brightness()
    work = job(step, arrays, PROBABILITY, BlockGrid(Roi.whole((8, 8, 8)), (4, 4, 4)))
    with at_work(tmp_path) as workspace:
        equal(work.objectwise(workspace), reference.objectwise(step, arrays, work.gives))
        count = work.count
        work.objectwise(workspace)  # ended: counted from what was saved
    whole = job(Faces(seed=2), arrays, PROBABILITY, work.grid)
    assert count == work.count == reference.objectwise(Flood(seed=2), arrays, whole.gives)["instances"].max() > 0


def test_a_component_that_does_not_fit_is_refused_with_its_number_box_and_bytes(tmp_path, at_work, job):
    values = np.zeros((1, 4, 4, 40), np.float32)
    values[0, 0, 0, 0] = 1
    values[0, 2, 1:3, 4:36] = 1
    work = job(Flood(), {"probability": values}, PROBABILITY, BlockGrid(Roi.whole((4, 4, 40)), (4, 4, 10)))
    needed = 2 * 32 * (64 + 4 + 8)  # voxels; bytes of process, input and output
    with at_work(tmp_path, budget=needed - 1) as workspace, pytest.raises(ResourceError) as caught:
        work.objectwise(workspace)
    problem = str(caught.value)
    assert "component 2 of the mask, from (2, 1, 4) to (3, 3, 36) (z, y, x), needs 4,864 bytes" in problem
    assert "may use 4,863" in problem
    assert 'oversize = "tile"' in problem
    assert len(problem.splitlines()) == 3
    with at_work(tmp_path, budget=needed) as workspace:
        assert work.objectwise(workspace)["instances"].max() == 2


def test_tiles_need_less_memory_but_what_is_smaller_is_refused_all_the_same(tmp_path, at_work, job):
    values = np.zeros((1, 4, 4, 40), np.float32)
    values[0, 2, 1:3, 4:36] = 1
    grid = BlockGrid(Roi.whole((4, 4, 40)), (4, 4, 10))
    options = {"oversize": "tile", "tiles": Lattice((4, 4, 8), (0, 0, 2))}
    fits = 2 * 12 * (64 + 4 + 8)  # of a tile and its halo
    for largest, match in [(64, 'smaller "largest" and "tiles"'), (63, "")]:
        step = Flood(largest=largest, **options)
        work = job(
            step, {"probability": values}, PROBABILITY, grid, digests={"early": f"{largest}", "late": f"{largest}"}
        )
        with at_work(tmp_path, budget=fits) as workspace:
            if match:
                with pytest.raises(ResourceError, match=match):
                    work.objectwise(workspace)
            else:
                assert work.objectwise(workspace)["instances"].max() == 1
    with at_work(tmp_path, budget=fits - 1) as workspace, pytest.raises(ResourceError, match='smaller "largest"'):
        job(step, {"probability": values}, PROBABILITY, grid).objectwise(workspace)


def test_objects_count_by_their_boxes_and_the_largest_begin_first(tmp_path, at_work, job, monkeypatch):
    seen, run = {}, Workspace.run

    def spy(self, name, label, call, items, *, cost, **options):
        seen[name] = {item: cost(item) for item in items}
        return run(self, name, label, call, items, cost=cost, **options)

    monkeypatch.setattr(Workspace, "run", spy)
    values = np.zeros((1, 4, 4, 12), np.float32)
    values[0, 0, 0, 3:9] = 1  # over three blocks
    values[0, 2:, 2:, 3:5] = 1  # over two
    values[0, 3, 0, :2] = 1  # inside one
    work = job(Flood(), {"probability": values}, PROBABILITY, BlockGrid(Roi.whole((4, 4, 12)), (4, 4, 4)))
    with at_work(tmp_path) as workspace:
        work.objectwise(workspace)
    each, block = 64 + 4 + 8, 64 * (4 + 8 + 12)
    assert list(seen["step.objects.e"].items()) == [
        (3, 8 * each),
        (4, 6 * each),
        (0, block + 2 * each),
        (1, block),
        (2, block),
    ]
    assert list(seen["step.label.e"].values()) == [64 * (4 + 12 + 8)] * 3
    assert list(seen["step.relabel.l"].values()) == [64 * (12 + 2 * 8)] * 3


class Wayward(Flood):
    """Breaks one promise after the other."""

    promise: str = ""

    def gives(self, given):
        found = super().gives(given)
        if self.promise == "twice":
            found |= {"more": ArraySpec(Kind.INSTANCE)}
        if self.promise == "channels":
            found = {"instances": ArraySpec(Kind.INSTANCE, ("a", "b"))}
        return found

    def mask(self, block):
        mask = super().mask(block)
        return {"mask shape": mask[None], "mask dtype": mask.astype(np.uint8)}.get(self.promise, mask)

    def process(self, block, mask):
        ids = super().process(block, mask)["instances"]
        wrong = {
            "negative": np.where(mask, -1, 0)[None],
            "shape": ids[0],
            "dtype": ids.astype(np.float32),
        }
        return {} if self.promise == "names" else {"instances": wrong.get(self.promise, ids)}

    def keep(self, objects):
        alive = super().keep(objects)
        return {"kept": alive[1:], "kept dtype": alive.astype(int)}.get(self.promise, alive)


@pytest.mark.parametrize("block", [(2, 2, 2), (1, 2, 2)], ids=["inside", "across"])
@pytest.mark.parametrize(
    ("promise", "problem"),
    [
        ("twice", "declares 2 channels of instances: instances, more"),
        ("channels", "declares 2 channels of instances: instances, instances"),
        ("mask shape", r"mask of .* returned shape \(1, .*, bool"),
        ("mask dtype", "mask of .* uint8"),
        ("negative", "returned id -1 in 'instances'"),
        ("shape", r"'instances' of shape \(2, 2, 2\) where \(1, 2, 2, 2\)"),
        ("dtype", "as float32"),
        ("names", "but declares"),
        ("kept", r"keep of .* returned shape \(0,\), bool"),
        ("kept dtype", r"keep of .* returned shape \(1,\), int64"),
    ],
)
def test_a_broken_promise_is_blamed_on_the_plugin(tmp_path, at_work, job, block, promise, problem):
    arrays = {"probability": np.ones((1, 2, 2, 2), np.float32)}
    work = job(Wayward(promise=promise), arrays, PROBABILITY, BlockGrid(Roi.whole((2, 2, 2)), block))
    with at_work(tmp_path) as workspace, pytest.raises(ContractError, match=problem) as caught:
        work.objectwise(workspace, plugin="slow")
    assert "Wayward of 'slow'" in caught.value.problem
    assert len(str(caught.value).splitlines()) <= 3


def test_pieces_agree_where_more_than_half_of_what_both_cover_is_the_same():
    assert agreeing(np.array([1, 1, 1, 0]), np.array([5, 5, 0, 5])).tolist() == []  # exactly half
    assert agreeing(np.array([1, 1, 1, 1]), np.array([5, 5, 5, 0])).tolist() == [(1, 5, 1.0)]
    assert agreeing(np.array([0, 0]), np.array([0, 0])).tolist() == []


def test_every_call_can_be_sent_to_another_process_and_gives_the_same_there(tmp_path, at_work, job, monkeypatch):
    sent, run = [], Workspace.run

    def through(self, name, label, call, items, **options):
        sent.append(type(call))
        return run(self, name, label, pickle.loads(pickle.dumps(call)), items, **options)

    monkeypatch.setattr(Workspace, "run", through)
    arrays, grid = {"probability": blobs(9, (8, 8, 8))}, BlockGrid(Roi.whole((8, 8, 8)), (4, 4, 8))
    step = Flood(oversize="tile", largest=50, tiles=Lattice((4, 4, 4), (1, 1, 1)))
    work = job(step, arrays, PROBABILITY, grid)
    with at_work(tmp_path) as workspace:
        equal(work.objectwise(workspace), reference.objectwise(step, arrays, work.gives))
    assert {Label, ProcessObjects, LinkPieces, Paint} <= set(sent)


def test_more_instances_than_32_bits_hold_are_stored_as_uint64(tmp_path, at_work, job, monkeypatch):
    monkeypatch.setattr(passes, "named", lambda group, alive, order: np.array([0, 2**32 + 1], np.uint64))
    arrays = {"probability": np.full((1, 2, 2, 2), 0.5, np.float32)}
    work = job(Flood(), arrays, PROBABILITY, BlockGrid(Roi.whole((2, 2, 2)), (1, 2, 2)))
    with at_work(tmp_path) as workspace:
        assert (work.objectwise(workspace)["instances"] == 2**32 + 1).all()
    assert work.made["instances"].dtype == "uint64"


def test_boxes_of_components_of_a_block_are_places_in_the_volume(tmp_path, job, at_work):
    step = MaskComponents(step=Flood(), who="who")
    assert step.digest() == MaskComponents(step=Flood(), who="who").digest()
    region = Roi((1, 2, 3), (5, 6, 7))
    values = np.zeros((1, 8, 8, 8), np.float32)
    values[0, 2:4, 3, 4:6] = values[0, 4, 5, 3] = 1
    work = job(step, {"probability": values}, PROBABILITY, BlockGrid(region, (4, 4, 4)))
    block = work.inputs["probability"]
    read = Reads({"probability": block}, region, None).block(region, region)
    ids, boxes = step.label(read)
    assert [tuple(map(tuple, row.tolist())) for row in boxes] == [((2, 3, 4), (4, 4, 6)), ((4, 5, 3), (5, 6, 4))]
    assert ids.max() == 2
