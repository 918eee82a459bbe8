import pickle
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mitocore import (
    LINK,
    ArraySpec,
    ContractError,
    Kind,
    Lattice,
    Need,
    Roi,
    RunError,
    StitchedPostProcessor,
    VoxelSize,
)
from mitocore.blockwise.arrays import BlockFiles, Stored
from mitocore.blockwise.executor import Threads
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.scopes import local
from mitocore.blockwise.work import Label, Link, Process, Provisional, Reads, Relabel
from mitocore.blockwise.workspace import Workspace
from mitocore.interfaces import OBJECT
from mitocore.testing import reference
from mitocore.testing.minimal import BrightOfTile, Components, Threshold, Widen

pytestmark = pytest.mark.usefixtures("no_power_is_lost")

MASK = {"mask": ArraySpec(Kind.MASK)}
PROBABILITY = {"probability": ArraySpec(Kind.PROBABILITY, ("a", "b"))}
shapes = st.tuples(*[st.integers(1, 12)] * 3)
seeds = st.integers(0, 2**32 - 1)


class Planes(StitchedPostProcessor):
    """Objects of each plane, joined where two neighbouring planes overlap enough: links over blocks, with weights."""

    link_over: ClassVar = "blocks"
    overlap: int = 2

    def needs(self):
        return {"mask": Need((Kind.MASK,))}

    def gives(self, given):
        return {"instances": ArraySpec(Kind.INSTANCE), "many": ArraySpec(Kind.MASK)}

    def block_shape(self, volume, preferred):
        return (preferred[0], *volume.shape[1:])

    def reach(self):
        return (1, 0, 0)

    def columns(self):
        return [("rows", "i4")]

    def rereads(self):
        return ("mask",)

    def label(self, block):
        ids = np.zeros(block.write.shape, np.uint32)
        count, rows = 0, []
        for plane, mask in zip(ids, block["mask"][0], strict=True):
            found, more = ndimage.label(mask)
            plane[:] = np.where(found, found + count, 0)
            rows += [int(found[where].shape[0]) for where in ndimage.find_objects(found)]
            count += more
        return ids, np.array([(n,) for n in rows], self.columns())

    def link(self, block, ids):
        assert list(block.arrays) == ["mask"]
        np.testing.assert_array_equal(block["mask"][0], ids > 0)
        written = block.write.within(block.read)[0]
        last = min(written.stop, len(ids) - 1)
        low, high = ids[written.start : last].ravel(), ids[written.start + 1 : last + 1].ravel()
        both = (low > 0) & (high > 0)
        links = np.ones(both.sum(), LINK)
        links["a"], links["b"] = low[both], high[both]
        return links

    def resolve(self, objects, links):
        return super().resolve(objects, links[links["weight"] >= self.overlap])

    def relabel(self, block, ids, final):
        values = final[ids][None]
        return {"instances": values, "many": values > 3}


def random_mask(seed, shape):
    rng = np.random.default_rng(seed)
    return rng.random((1, *shape)) < rng.choice([0.0, 0.2, 0.35, 0.6, 1.0], p=[0.05, 0.3, 0.3, 0.3, 0.05])


def raster_components(mask, connectivity, min_size):
    """Whole-volume labels in raster order of first voxels, small ones left out."""
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    found, count = ndimage.label(mask, structure)
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    keep = sizes >= min_size
    keep[0] = False
    first = np.full(count + 1, mask.size)
    np.minimum.at(first, found.ravel(), np.arange(mask.size))
    final = np.zeros(count + 1, np.uint64)
    alive = np.flatnonzero(keep)
    final[alive[np.argsort(first[alive])]] = np.arange(1, len(alive) + 1)
    return final[found]


@settings(deadline=None, max_examples=30)
@given(seeds, shapes, shapes, st.sampled_from([6, 18, 26]), st.sampled_from([0, 2, 9]), st.booleans())
def test_components_by_blocks_equal_those_of_the_whole_volume_ids_included(
    tmp_path_factory, at_work, shuffled_workspace, job, seed, shape, block, connectivity, min_size, shuffled
):
    block = tuple(max(b, n // 3) for b, n in zip(block, shape, strict=True))
    mask = random_mask(seed, shape)
    step = Components(connectivity=connectivity, min_size=min_size)
    work = job(step, {"mask": mask}, MASK, BlockGrid(Roi.whole(shape), block))
    kind = shuffled_workspace if shuffled else Workspace
    with at_work(tmp_path_factory.mktemp("run"), kind, every=1.0) as workspace:
        found = work.stitched(workspace)["instances"]
    expected = raster_components(mask[0], connectivity, min_size)
    assert found.dtype == np.uint64
    assert work.made["instances"].dtype == "uint32"
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found, reference.stitched(step, {"mask": mask}, work.gives)["instances"])
    assert work.count == expected.max()


@settings(deadline=None, max_examples=15)
@given(seeds, st.tuples(st.integers(1, 9), st.integers(1, 8), st.integers(1, 8)), st.integers(1, 9), st.integers(1, 4))
def test_links_over_blocks_with_weights_columns_and_rereads_do_not_show_the_blocks(
    tmp_path_factory, at_work, job, seed, shape, depth, overlap
):
    arrays = {"mask": random_mask(seed, shape)}
    step = Planes(overlap=overlap)
    work = job(step, arrays, MASK, BlockGrid(Roi.whole(shape), (depth, *shape[1:])))
    with at_work(tmp_path_factory.mktemp("run"), every=1.0) as workspace:
        found = work.stitched(workspace)
    expected = reference.stitched(step, arrays, work.gives)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


@settings(deadline=None, max_examples=15)
@given(seeds, shapes, shapes, st.integers(1, 3))
def test_a_local_step_with_a_halo_does_not_show_the_blocks(
    tmp_path_factory, at_work, shuffled_workspace, job, seed, shape, block, radius
):
    block = tuple(max(b, n // 3) for b, n in zip(block, shape, strict=True))
    arrays = {"probability": np.random.default_rng(seed).random((2, *shape)).astype(np.float32)}
    step = Widen(radius=radius)
    work = job(step, arrays, PROBABILITY, BlockGrid(Roi.whole(shape), block))
    with at_work(tmp_path_factory.mktemp("run"), shuffled_workspace, every=1.0) as workspace:
        found = work.local(workspace)
    np.testing.assert_array_equal(found["widened"], reference.local(step, arrays, work.gives)["widened"])


def test_threads_give_what_the_calling_process_gives(tmp_path, at_work, job):
    mask = random_mask(3, (20, 20, 20))
    results = []
    for workers in (0, 4):
        work = job(Components(min_size=2), {"mask": mask}, MASK, BlockGrid(Roi.whole((20, 20, 20)), (7, 8, 9)))
        folder = tmp_path / str(workers)
        folder.mkdir()
        with at_work(folder, executor=Threads(workers) if workers else None, every=0.01) as workspace:
            results.append(work.stitched(workspace)["instances"])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("step", [Components(connectivity=18, min_size=3), Planes()], ids=["components", "planes"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_killed_at_any_commit_and_resumed_equals_the_uninterrupted_one(tmp_path, job, deaths, step, moment):
    shape = (6, 5, 7)
    rng = np.random.default_rng(1)
    mask = rng.random((1, *shape)) < 0.4
    mask[:, :3] = False  # blocks of zeros, which have no file
    block = (3, 3, 7) if isinstance(step, Components) else (3, 5, 7)
    expected = reference.stitched(step, {"mask": mask}, step.gives(MASK))
    grid = BlockGrid(Roi.whole(shape), block)

    def begin(workspace):
        found = job(step, {"mask": mask}, MASK, grid).stitched(workspace)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)

    assert deaths.everywhere(tmp_path, moment, begin) >= 3 * len(grid)


def test_a_local_step_killed_at_any_commit_and_resumed_equals_the_uninterrupted_one(tmp_path, job, deaths):
    arrays = {"probability": np.random.default_rng(0).random((2, 6, 6, 6)).astype(np.float32)}
    arrays["probability"][:, :2, :2, :2] = 0
    step, grid = Widen(), BlockGrid(Roi.whole((6, 6, 6)), (3, 3, 6))
    expected = reference.local(step, arrays, step.gives(PROBABILITY))["widened"]

    def begin(workspace):
        np.testing.assert_array_equal(job(step, arrays, PROBABILITY, grid).local(workspace)["widened"], expected)

    assert deaths.everywhere(tmp_path, "after", begin) > len(grid)


class Counting(Components):
    """Counts how often each pass meets a block."""

    calls: ClassVar[dict] = {}

    def label(self, block):
        self.calls["label"] = self.calls.get("label", 0) + 1
        return super().label(block)

    def resolve(self, objects, links):
        self.calls["resolve"] = self.calls.get("resolve", 0) + 1
        return super().resolve(objects, links)


@pytest.mark.parametrize("keep_ids", [False, True])
def test_another_late_option_labels_again_only_if_the_ids_were_not_kept(tmp_path, at_work, job, keep_ids):
    mask, shape = random_mask(5, (8, 8, 8)), (8, 8, 8)
    grid = BlockGrid(Roi.whole(shape), (4, 8, 8))
    Counting.calls.clear()
    for min_size in (0, 6, 6):
        step = Counting(min_size=min_size)
        work = job(step, {"mask": mask}, MASK, grid, digests={"early": "e", "late": f"l{min_size}"})
        with at_work(tmp_path) as workspace:
            found = work.stitched(workspace, keep_ids=keep_ids)["instances"]
        np.testing.assert_array_equal(found[0], raster_components(mask[0], 6, min_size))
        assert (tmp_path / "scratch" / "step.ids.e").exists() == keep_ids
    assert Counting.calls == {"label": 2 if keep_ids else 4, "resolve": 2}


def test_a_kill_while_scratch_is_removed_does_no_harm(tmp_path, at_work, job, deaths, monkeypatch):
    mask, shape = random_mask(7, (8, 8, 8)), (8, 8, 8)
    grid = BlockGrid(Roi.whole(shape), (4, 4, 8))
    removals = ["forget", "discard"]
    for number, method in enumerate(removals):
        work = job(Components(), {"mask": mask}, MASK, grid, digests={"early": "e", "late": str(number)})

        def killed(*_):
            raise deaths.Killed

        with monkeypatch.context() as patch, at_work(tmp_path) as workspace:
            patch.setattr(Workspace, method, killed)
            with pytest.raises(deaths.Killed):
                work.stitched(workspace)
        with at_work(tmp_path) as workspace:
            found = work.stitched(workspace)["instances"]
        np.testing.assert_array_equal(found[0], raster_components(mask[0], 6, 0))
        assert not (tmp_path / "scratch" / "step.ids.e").exists()


@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_volumes_are_fine(tmp_path, at_work, job, fill):
    mask = np.full((1, 5, 6, 7), fill)
    work = job(Components(), {"mask": mask}, MASK, BlockGrid(Roi.whole((5, 6, 7)), (2, 3, 4)))
    with at_work(tmp_path) as workspace:
        assert (work.stitched(workspace)["instances"] == fill).all()
    assert work.count == fill
    assert {path.stat().st_size > 0 for path in (tmp_path / "scratch" / "out.instances.l").iterdir()} == {fill}


def test_a_region_is_the_volume_to_a_stitched_step_but_a_local_one_reads_beyond_it(tmp_path, at_work, job):
    region = Roi((1, 2, 0), (6, 7, 6))
    arrays = {"probability": np.random.default_rng(2).random((2, 8, 8, 8)).astype(np.float32)}
    with at_work(tmp_path) as workspace:
        work = job(Widen(radius=2), arrays, PROBABILITY, BlockGrid(region, (2, 3, 4)))
        whole = reference.local(work.component, arrays, work.gives)["widened"]
        np.testing.assert_array_equal(work.local(workspace)["widened"], whole[(..., *region.slices)])
        mask = random_mask(4, (8, 8, 8))
        work = job(Components(), {"mask": mask}, MASK, BlockGrid(region, (2, 3, 4)))
        found = work.stitched(workspace)["instances"]
    np.testing.assert_array_equal(found[0], raster_components(mask[(0, *region.slices)], 6, 0))


@settings(deadline=None, max_examples=25)
@given(seeds, shapes, st.tuples(*[st.integers(1, 5)] * 3), st.tuples(*[st.integers(0, 2)] * 3), st.data())
def test_a_step_with_a_lattice_is_defined_on_its_tiles_anchored_at_voxel_0_whatever_the_region(
    tmp_path_factory, at_work, shuffled_workspace, job, seed, shape, tile, halo, data
):
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    region = Roi(start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    arrays = {"probability": np.random.default_rng(seed).random((1, *shape)).astype(np.float32)}
    tile = tuple(max(b, n // 4) for b, n in zip(tile, shape, strict=True))
    step = BrightOfTile(tiles=Lattice(tile, halo))
    work = job(step, arrays, PROBABILITY, BlockGrid(region, tile, anchor=(0, 0, 0)))
    with at_work(tmp_path_factory.mktemp("run"), shuffled_workspace, every=1.0) as workspace:
        found = work.stitched(workspace)["instances"]
    np.testing.assert_array_equal(found, reference.stitched(step, arrays, work.gives, region=region)["instances"])


def test_tiles_read_their_halo_and_a_step_that_asks_for_less_breaks_its_own_word(tmp_path, at_work, job):
    class Narrow(BrightOfTile):
        """Forgets the halo of its tiles."""

        def halo(self):
            return (1, 0, 1)

    class Wide(BrightOfTile):
        """Reads more than its tiles ask for."""

        seen: ClassVar[set] = set()

        def halo(self):
            return (1, 2, 1)

        def label(self, block):
            self.seen.add(block.read.shape)
            return super().label(block)

    arrays = {"probability": np.random.default_rng(0).random((1, 12, 12, 12)).astype(np.float32)}
    grid = BlockGrid(Roi.whole((12, 12, 12)), (4, 4, 4), anchor=(0, 0, 0))
    with at_work(tmp_path) as workspace:
        with pytest.raises(ContractError, match=r"halo of Narrow of 'slow' is \(1, 0, 1\), less than the \(1, 1, 1\)"):
            job(Narrow(), arrays, PROBABILITY, grid).stitched(workspace, plugin="slow")
        job(Wide(), arrays, PROBABILITY, grid).stitched(workspace)
    assert (6, 8, 6) in Wide.seen


def test_a_local_step_takes_its_bounds_for_the_volume(tmp_path, at_work, job):
    class Asking(Widen):
        """Compares what a block says with what is so."""

        def process(self, block):
            assert block.volume == bounds
            return super().process(block)

    arrays = {"probability": np.random.default_rng(2).random((2, 8, 8, 8)).astype(np.float32)}
    bounds, region = Roi((1, 0, 2), (7, 8, 8)), Roi((1, 2, 3), (6, 7, 8))
    work = job(Asking(radius=2), arrays, PROBABILITY, BlockGrid(region, (2, 3, 4)))
    with at_work(tmp_path) as workspace:
        found = work.local(workspace, bounds=bounds)["widened"]
    expected = reference.local(Widen(radius=2), arrays, work.gives, region=bounds)["widened"]
    np.testing.assert_array_equal(found, expected[(..., *region.within(bounds))])


def test_blocks_know_the_volume_and_its_voxel_size(tmp_path, at_work, job):
    class Asking(Threshold):
        """Compares what a block says with what is so."""

        def process(self, block):
            assert (block.volume, block.voxel_size) == (Roi.whole((4, 4, 4)), VoxelSize(40, 8, 8))
            return super().process(block)

    arrays = {"probability": np.ones((1, 4, 4, 4), np.float32)}
    grid = BlockGrid(Roi.whole((4, 4, 4)), (2, 4, 4))
    work = job(Asking(), arrays, {}, grid, voxel_size=VoxelSize(40, 8, 8))
    with at_work(tmp_path) as workspace:
        assert work.local(workspace)["mask"].all()


def test_a_block_that_keeps_failing_ends_the_run_and_a_later_run_goes_on(tmp_path, at_work, job):
    class Unlucky(Threshold):
        """Fails at one block until the fault is mended."""

        broken: ClassVar[bool] = True

        def process(self, block):
            if self.broken and block.write.start == (2, 0, 0):
                raise MemoryError
            return super().process(block)

    arrays = {"probability": np.ones((1, 4, 4, 4), np.float32)}
    work = job(Unlucky(), arrays, {}, BlockGrid(Roi.whole((4, 4, 4)), (1, 4, 4)))
    with (
        at_work(tmp_path, retries=1) as workspace,
        pytest.raises(RunError, match="block 2 failed 2 times: MemoryError"),
    ):
        work.local(workspace)
    Unlucky.broken = False
    with at_work(tmp_path) as workspace, workspace.journal("step.d") as journal:
        assert list(journal.tables) == [0, 1]
        assert work.local(workspace)["mask"].all()


def labelled(ids, columns=None):
    class Author(Components):
        """Returns these ids."""

        def label(self, block):
            return ids(block), columns(block) if columns else None

    return Author()


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (labelled(lambda b: b["mask"][0] * np.uint32(2)), "left out id 1 of 1..2"),
        (labelled(lambda b: b["mask"][0] * np.uint32(2**31)), "id 2147483648 in a block of 8 voxels"),
        (labelled(lambda b: b["mask"][0].astype(np.int64)), r"ids of shape \(2, 2, 2\), int64"),
        (labelled(lambda b: b["mask"].astype(np.uint32)), r"ids of shape \(1, 2, 2, 2\), uint32"),
        (labelled(lambda b: b["mask"][0].astype(np.uint32), lambda b: np.zeros(3, [("a", "i4")])), "3 rows"),
    ],
)
def test_labels_that_break_the_contract_are_blamed_on_their_plugin(tmp_path, at_work, job, step, problem):
    work = job(step, {"mask": np.ones((1, 2, 2, 2), bool)}, MASK, BlockGrid(Roi.whole((2, 2, 2)), (2, 2, 2)))
    with at_work(tmp_path) as workspace, pytest.raises(ContractError, match=problem) as caught:
        work.stitched(workspace, plugin="slow")
    assert "Author of 'slow'" in caught.value.problem
    assert len(str(caught.value).splitlines()) <= 3


class Wayward(Planes):
    """Breaks one promise after the other."""

    promise: str = ""

    def columns(self):
        return [("size", "i4")] if self.promise == "columns" else super().columns()

    def link_columns(self):
        return {"link columns": [("weight", "u1")], "no level": [("level", "u1")]}.get(self.promise, [])

    def link(self, block, ids):
        links = super().link(block, ids)
        if self.promise == "background":
            links["a"] = 0
        return links["a"] if self.promise == "links" else links

    def resolve(self, objects, links):
        final = super().resolve(objects, links)
        final[0] = self.promise == "named background"
        return final[1:] if self.promise == "final" else final

    def relabel(self, block, ids, final):
        values = super().relabel(block, ids, final)
        if self.promise == "huge":
            values["instances"] = values["instances"] + np.uint64(2**40)
        if self.promise == "shape":
            values["many"] = values["many"][0]
        return {"instances": values["instances"]} if self.promise == "names" else values


@pytest.mark.parametrize(
    ("promise", "problem"),
    [
        ("columns", "name 'size' twice"),
        ("link columns", "link_columns of .* name 'weight' twice"),
        ("no level", "link of .* returned .*'weight'"),
        ("links", "link of .* returned uint64"),
        ("background", "joined id 0"),
        ("final", r"resolve of .* returned shape"),
        ("named background", "gave the background the id 1"),
        ("huge", "returned id 10995"),
        ("shape", r"'many' of shape \(2, 2, 2\) where \(1, 2, 2, 2\)"),
        ("names", "but declares"),
    ],
)
def test_any_other_broken_promise_is_a_contract_error(tmp_path, at_work, job, promise, problem):
    mask = np.ones((1, 2, 2, 2), bool)
    work = job(Wayward(promise=promise), {"mask": mask}, MASK, BlockGrid(Roi.whole((2, 2, 2)), (2, 2, 2)))
    with at_work(tmp_path) as workspace, pytest.raises(ContractError, match=problem):
        work.stitched(workspace)


def test_a_default_relabel_and_one_that_calls_it_give_the_same(tmp_path, at_work, job):
    class Calling(Components):
        """Overrides without changing anything."""

        def relabel(self, block, ids, final):
            return super().relabel(block, ids, final)

    mask, results = random_mask(11, (9, 9, 9)), []
    for number, step in enumerate((Components(min_size=2), Calling(min_size=2))):
        folder = tmp_path / str(number)
        folder.mkdir()
        work = job(step, {"mask": mask}, MASK, BlockGrid(Roi.whole((9, 9, 9)), (4, 5, 3)))
        with at_work(folder) as workspace:
            results.append(work.stitched(workspace)["instances"])
    np.testing.assert_array_equal(*results)


def test_more_objects_than_32_bits_hold_are_stored_as_uint64(tmp_path, at_work, job):
    class Far(Components):
        """Numbers its objects beyond 32 bits."""

        def resolve(self, objects, links):
            final = super().resolve(objects, links)
            return np.where(final, final + np.uint64(2**32), np.uint64(0))

    mask = np.ones((1, 2, 2, 2), bool)
    work = job(Far(), {"mask": mask}, MASK, BlockGrid(Roi.whole((2, 2, 2)), (1, 2, 2)))
    with at_work(tmp_path) as workspace:
        assert (work.stitched(workspace)["instances"] == 2**32 + 1).all()
    assert work.made["instances"].dtype == "uint64"


@pytest.mark.parametrize("block", [0, 1])
def test_an_input_in_scratch_with_a_block_missing_ends_the_run_at_once(tmp_path, at_work, job, block):
    grid = BlockGrid(Roi.whole((4, 4, 4)), (2, 4, 4))
    values = np.zeros((1, 4, 4, 4), np.float32)
    values[:, 2:] = 0.75  # of the first block only the mark is stored
    given, calls = {"probability": ArraySpec(Kind.PROBABILITY)}, []

    class Counting(Threshold):
        """Counts how often it is asked."""

        def process(self, block):
            calls.append(block.write)
            return super().process(block)

    work = job(Counting(), {"probability": values}, given, grid)
    with at_work(tmp_path) as workspace:
        files = BlockFiles(workspace.scratch("net.foreground.d"), grid, 1, "float16")
        for number in range(len(grid)):
            files.write(number, grid.box(number), values[(..., *grid.box(number).slices)].astype(np.float16))
        source = Stored(files, given["probability"])
        (files.folder / f"{block}.npy").unlink()
        sinks = {"mask": BlockFiles(workspace.scratch("out"), grid, 1, "bool")}
        with pytest.raises(RunError, match=rf"^block {block} of scratch 'net\.foreground\.d' is missing"):
            local(work.component, {"probability": source}, sinks, work.gives, grid, work.volume, workspace, name="a.d")
    assert len(calls) == block


def test_what_is_done_with_a_block_can_be_sent_to_another_process(tmp_path):
    grid = BlockGrid(Roi.whole((2, 2, 2)), (2, 2, 2))
    files = BlockFiles(tmp_path, grid, 1, "uint32")
    reads = Reads({"mask": Stored(files, MASK["mask"])}, grid.region, None)
    step, gives = Components(), {"instances": ArraySpec(Kind.INSTANCE)}
    provisional = Provisional(files, (0, 0))
    for work in (
        Label(step, reads, files, (2, 2, 2), np.dtype(OBJECT), "who"),
        Link(step, reads, provisional, "who"),
        Relabel(
            step, reads, provisional, np.zeros(1, "u8"), gives, {"instances": "uint32"}, {"instances": files}, "who"
        ),
        Process(Threshold(), reads, MASK, grid, {"mask": files}, "who"),
    ):
        assert repr(pickle.loads(pickle.dumps(work))) == repr(work)


def test_every_pass_counts_the_bytes_of_its_blocks_halos_included(tmp_path, at_work, job, monkeypatch):
    costs, run = {}, Workspace.run

    def spy(self, name, label, call, items, *, cost, **options):
        costs[name] = [cost(item) for item in items]
        return run(self, name, label, call, items, cost=cost, **options)

    monkeypatch.setattr(Workspace, "run", spy)
    grid = BlockGrid(Roi.whole((4, 4, 12)), (4, 4, 4))
    values = np.random.default_rng(0).random((2, 4, 4, 12)).astype(np.float32)
    with at_work(tmp_path) as workspace:
        job(Widen(radius=1), {"probability": values}, PROBABILITY, grid).local(workspace)
        job(Components(), {"mask": values[:1] > 0.5}, MASK, grid).stitched(workspace)
    plane, both = 4 * 4, 2 * 4  # voxels; bytes of two channels of float32
    read = (5, 6, 5)  # planes along x: the block in the middle has a neighbour on both sides
    assert costs["step.d"] == [x * plane * (both + both + 8) for x in read]
    assert costs["step.label.e"] == [4 * plane * (1 + 12 + 8)] * 3
    assert costs["step.link.e"] == [x * plane * (12 + 8) for x in read]
    assert costs["step.relabel.l"] == [4 * plane * (12 + 8)] * 3


def test_blocks_cut_out_of_a_larger_array_are_given_without_gaps_in_memory(memory):
    values = np.zeros((1, 4, 4, 4), bool)
    box = Roi((0, 0, 1), (2, 1, 2))
    block = Reads({"mask": memory(values)}, Roi.whole((4, 4, 4)), None).block(box, box)
    assert not values[(..., *box.slices)].flags.c_contiguous
    assert block["mask"].flags.c_contiguous


def test_components_of_a_block_one_voxel_wide_are_found(tmp_path, at_work, job):
    mask = np.array([[[[0, 1]], [[1, 1]]]], bool)
    work = job(Components(connectivity=6), {"mask": mask}, MASK, BlockGrid(Roi.whole((2, 1, 2)), (2, 1, 1)))
    with at_work(tmp_path) as workspace:
        assert work.stitched(workspace)["instances"].tolist() == mask.astype(int).tolist()
