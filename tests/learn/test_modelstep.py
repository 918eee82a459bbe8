"""The model step of a run: what ends it early, and what it says then."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_net import TinyNet

from mitocore.blockwise.arrays import BlockFiles, Opened
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.tiles import TileLattice
from mitocore.blockwise.workspace import Workspace
from mitocore.config.pipeline import PredictTable, StepConfig
from mitocore.errors import ResourceError
from mitocore.geometry import Roi
from mitocore.learn import checkpoint
from mitocore.learn.checkpoint import save_weights
from mitocore.learn.modelstep import ModelStep
from mitocore.nn import Named
from mitocore.pipeline import PlannedStep
from mitocore.specs import ArraySpec, Kind, Window
from mitocore.training import TrainingPlan
from mitocore.volumes import ArrayVolume

SHAPE = (16, 32, 32)


@dataclass
class Bench:
    """A model step in a run folder of its own."""

    step: PlannedStep
    workspace: Workspace
    told: dict[str, Any] = field(default_factory=dict)
    """What the last run of the step said."""

    def work(self, memory: int = 2**30, region: Roi | None = None, name: str = "net.0") -> ModelStep:
        spec = ArrayVolume(np.zeros(SHAPE, np.float32)).spec
        return ModelStep(self.step, spec, name, "cpu", memory, region)

    def run(self, work: ModelStep, cancelled: Callable[[], bool] = lambda: False) -> np.ndarray[Any, Any]:
        workspace = replace(self.workspace, cancelled=cancelled)
        image = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
        files = BlockFiles(workspace.scratch(f"{work.name}.foreground"), work.grid, 1, "float16")
        self.told = work.run(lambda: Opened(ArrayVolume(image)), {"foreground": files}, workspace)
        return files.read(work.grid.region)

    @property
    def window(self) -> Window:
        assert self.step.window is not None
        return self.step.window

    def predicting(self, **options: Any) -> "Bench":
        config = self.step.config
        assert config is not None
        predict = PredictTable(**options)
        return replace(self, step=replace(self.step, config=replace(config, predict=predict)))


@pytest.fixture
def bench(planned: Callable[..., TrainingPlan], tmp_path: Path) -> Iterator[Bench]:
    model, weights = TinyNet(), tmp_path / "net.safetensors"
    header = planned().header()
    torch.manual_seed(0)
    save_weights(weights, model.build().state_dict(), header)
    config = StepConfig("net", model, weights=weights, header=header)
    gives = {"foreground": ArraySpec(Kind.PROBABILITY, ("foreground",))}
    step = PlannedStep("net", model, "tiny/tinynet", "1", {}, gives, window=header.window, config=config)
    with RunLock(tmp_path / "bench") as lock:
        yield Bench(step, Workspace(tmp_path / "bench", InProcess(), lock))


@pytest.mark.parametrize(("stop", "slabs"), [(3, 0), (9, 1), (13, 1)])
def test_a_cancelled_step_ends_before_the_next_batch_and_keeps_the_slabs_computed(
    stop: int, slabs: int, bench: Bench
) -> None:
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > stop

    with pytest.raises(KeyboardInterrupt):
        bench.run(bench.work(), cancelled)
    assert len(asked) == stop + 1  # a slab has 9 tiles
    with bench.workspace.journal("net.0") as journal:
        assert list(journal.tables) == list(range(slabs))
    assert bench.run(bench.work()).any()


def test_a_gpu_that_is_too_small_is_named_with_what_to_change(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr("mitocore.nn.Named.forward", small)
    for batch, hint in ((2, "predict = { batch = 1 }"), (1, "a smaller window in predict")):
        with pytest.raises(ResourceError, match=f"too little memory for batches of {batch} windows") as error:
            bench.run(bench.predicting(batch=batch).work())
        assert error.value.hint == hint


def test_a_stated_batch_replaces_that_of_the_step_begun(bench: Bench) -> None:
    own: dict[str, Any] = {}
    bench.predicting(batch=4).work().schedule(own)
    automatic, stated = bench.work(), bench.predicting(batch=2).work()
    automatic.schedule(own)
    assert automatic.batch == 4
    stated.schedule(own)
    assert (stated.batch, own["batch"]) == (2, 2)


def test_a_full_disk_ends_the_step_naming_the_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    work = bench.work(memory=1)  # one row of tiles in a strip
    assert work.rows == 1
    monkeypatch.setattr("mitocore.durable.np.save", full)
    with pytest.raises(ResourceError, match=r"seams.*npy' cannot be written: No space left on device"):
        bench.run(work)


@pytest.mark.parametrize("memory", [1, 2**30])
@pytest.mark.parametrize(
    "region", [Roi((0, 0, 0), (1, 1, 1)), Roi((5, 3, 9), (14, 31, 20)), Roi((3, 13, 0), (8, 30, 32))]
)
def test_a_region_is_the_cut_of_the_full_run_even_if_it_was_stopped_on_the_way(
    region: Roi, memory: int, bench: Bench
) -> None:
    full = bench.run(bench.work())
    work = bench.work(memory, region, "net.region")
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > len(work.lattice) * 2 // 3

    with pytest.raises(KeyboardInterrupt):
        bench.run(work, cancelled)
    np.testing.assert_array_equal(bench.run(work), full[(slice(None), *region.slices)])
    assert bench.told["tiles"] == len(TileLattice(SHAPE, bench.window, region))
    assert work.grid.region == region
    scratch = bench.workspace.folder / "scratch"
    assert not list(scratch.glob("*.seams"))


def test_forward_passes_of_a_region_are_its_tiles(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, forward = [], Named.forward
    monkeypatch.setattr(Named, "forward", lambda self, x: passes.append(len(x)) or forward(self, x))
    region = Roi((5, 3, 0), (14, 31, 12))
    for memory in (1, 2**30):
        passes.clear()
        bench.run(bench.work(memory, region, f"net.{memory}"))
        assert sum(passes) == 3 * 3 * 1


def test_a_network_is_built_once_for_many_volumes_and_again_when_its_file_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_KEPT", {})
    built, build = [], TinyNet.build
    monkeypatch.setattr(TinyNet, "build", lambda self: built.append(self) or build(self))
    first = bench.run(bench.work())
    again = bench.run(bench.work(name="net.1"))
    assert len(built) == 1
    np.testing.assert_array_equal(again, first)
    assert bench.step.config is not None
    assert bench.step.config.weights is not None
    assert bench.step.config.header is not None
    state = {name: tensor + 1 for name, tensor in TinyNet().build().state_dict().items()}
    built.clear()
    save_weights(bench.step.config.weights, state, bench.step.config.header)
    changed = bench.run(bench.work(name="net.2"))
    assert len(built) == 1
    assert (changed != first).any()
