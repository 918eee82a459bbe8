"""What a step of a training costs in time and memory: some are taken, and thrown away."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate

from mitocore.blockwise.tiles import TileLattice
from mitocore.learn.module import Learner
from mitocore.pipeline.costs import available_memory
from mitocore.training import TrainingPlan

if sys.platform != "win32":
    import resource

_ENOUGH = 2.0  # seconds of steps whose mean is good enough
_MOST = 8
_HALF = {"bf16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Cost:
    """What was measured; seconds are those of this machine, at this moment."""

    device: str
    parameters: int
    """Numbers in the network."""
    trained: int
    """Those of them that are trained at first."""
    state: int
    """Bytes of weights, gradients, and what the optimiser and an average of the weights remember."""
    memory: int | None
    """Bytes: the most that was held during a step, everything included; None: this system does not tell."""
    kind: str
    """Where that was measured, in words."""
    room: int
    """Bytes the device has free for the training."""
    crop_seconds: float
    """To read, augment and encode the crops of a step, in one process."""
    step_seconds: float
    """To compute one step on the device."""
    validation_seconds: float
    """To predict all tiles of the validation parts once."""

    def seconds(self, plan: TrainingPlan) -> float:
        """What all steps and validations will take: crops are prepared by `workers` beside the network, or before."""
        train = plan.train
        crops = self.crop_seconds / max(train.workers, 1)
        beside = train.workers > 0 or self.device != "cpu"
        step = max(crops, self.step_seconds) if beside else crops + self.step_seconds
        return train.steps * step + -(-train.steps // train.validate_every) * self.validation_seconds


def measured(
    plan: TrainingPlan,
    network: torch.nn.Module,
    crops: Sequence[dict[str, Any]],
    crop_seconds: float,
    device: str,
    told: Callable[[int, int], None],
) -> Cost:
    """Take a few steps with these crops, as training takes them, and look at clock and memory.

    Parameters
    ----------
    network
        On the CPU; its weights are of no use afterwards.
    crops
        A batch.
    crop_seconds
        What preparing this batch took.

    Raises
    ------
    ContractError
        If the network gives other heads than its model declares.
    """
    target = torch.device(device)
    peak = _Peak(target)
    learner = Learner(plan, network).to(target)
    settings: Any = learner.configure_optimizers()
    batch = learner.transfer_batch_to_device(default_collate(list(crops)), target, 0)
    half = _HALF.get(plan.train.precision)
    learner.train()
    learner.freezing.hold(0)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)

    def arithmetic() -> AbstractContextManager[Any]:
        return torch.autocast(target.type, dtype=half) if half else nullcontext()

    def step() -> None:
        for _ in range(plan.train.accumulate):
            with arithmetic():
                loss = learner.training_step(batch, 0)
            loss.backward()
        settings["optimizer"].step()
        settings["optimizer"].zero_grad()

    told(0, 1)
    step()  # the first is slower: memory is taken, kernels are chosen
    step_seconds = _mean_seconds(step, target)
    network.eval()

    @torch.inference_mode()
    def predict() -> None:
        with arithmetic():
            network(batch["image"])

    tile_seconds = _mean_seconds(predict, target) / len(crops)
    told(1, 1)
    return Cost(
        device=device,
        parameters=sum(p.numel() for p in network.parameters()),
        trained=trained,
        state=_state(learner, settings["optimizer"]),
        memory=peak.bytes(),
        kind=peak.kind,
        room=_room(target),
        crop_seconds=crop_seconds * plan.train.accumulate,
        step_seconds=step_seconds,
        validation_seconds=tile_seconds * validation_tiles(plan),
    )


def validation_tiles(plan: TrainingPlan) -> int:
    """Tiles that one validation predicts, counted in batches of crops of the size that is trained at."""
    boxes = [box for volume in plan.volumes for box in volume.parts.validation]
    lattices = [TileLattice(box.shape, plan.window) for box in boxes]
    sizes = [len(lattice) * torch.Size(lattice.tile).numel() for lattice in lattices]
    return -(-sum(sizes) // torch.Size(plan.crop).numel())


def _state(learner: Learner, optimizer: torch.optim.Optimizer) -> int:
    remembered = [value for state in optimizer.state.values() for value in state.values()]
    trained = [p for p in learner.parameters() if p.requires_grad]  # each has a gradient
    held = [*learner.state_dict().values(), *remembered, *trained]
    return sum(value.numel() * value.element_size() for value in held if isinstance(value, torch.Tensor))


def _mean_seconds(work: Callable[[], None], device: torch.device) -> float:
    begun, times = time.perf_counter(), 0
    while times < _MOST and (times == 0 or time.perf_counter() - begun < _ENOUGH):
        work()
        times += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / times


def _room(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return available_memory() + _resident()


def _resident() -> int:
    """Bytes this process holds, which is room that it has already."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class _Peak:
    """The most memory that is held from now on: of a GPU what torch reserves, of a CPU all of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._reset = device, False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5", "ascii")  # forget the earlier peak, see proc(5)
            self._reset = True
        except OSError:  # not Linux, or not allowed: the peak since the process began
            self._reset = False

    @property
    def kind(self) -> str:
        if self._device.type == "cuda":
            return "most that was held on the GPU"
        return "most that the process held" if self._reset else "most that the process held since it began"

    def bytes(self) -> int | None:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device)
        if self._reset:
            for line in Path("/proc/self/status").read_text("ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        if sys.platform == "win32":
            return None
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
