"""The model step of a run: what ends it early, and what it says then."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_net import TinyNet

from mitocore.blockwise.arrays import BlockFiles, Opened
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.config.pipeline import PredictTable, StepConfig
from mitocore.errors import ResourceError
from mitocore.geometry import Roi
from mitocore.learn.checkpoint import save_weights
from mitocore.learn.modelstep import ModelStep
from mitocore.pipeline import PlannedStep
from mitocore.specs import ArraySpec, Kind
from mitocore.training import TrainingPlan
from mitocore.volumes import ArrayVolume

SHAPE = (16, 32, 32)


@dataclass
class Bench:
    """A model step in a run folder of its own."""

    step: PlannedStep
    workspace: Workspace

    def work(self, memory: int = 2**30) -> ModelStep:
        spec = ArrayVolume(np.zeros(SHAPE, np.float32)).spec
        return ModelStep(self.step, spec, "net.0", "cpu", memory)

    def run(self, work: ModelStep, cancelled: Callable[[], bool] = lambda: False) -> np.ndarray[Any, Any]:
        workspace = replace(self.workspace, cancelled=cancelled)
        image = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
        files = BlockFiles(workspace.scratch("net.foreground"), work.grid, 1, "float16")
        work.run(lambda: Opened(ArrayVolume(image)), {"foreground": files}, workspace)
        return files.read(Roi.whole(SHAPE))

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
