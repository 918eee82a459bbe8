"""Samples per second of a training over those of its bare network.

    python benchmarks/training_loop.py [--device cuda] [--steps 12] [--repeat 5] [--workers 4]

* loop: a training as `mitocore train` runs it. Crops are read from volumes on disk, normalised, flipped, rotated and
  changed in contrast, targets encoded, losses logged. Validation is left out.
* bare: forward pass, the same loss, backward pass and step of the same optimiser, on one batch of random numbers of the
  same shape.

Both run in one process, in turn, and the median of the ratios of each turn counts. The time of all threads on the
processors says how far other programs got in the way; with workers, or on a GPU, it says nothing.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitocore.config.toml import Document
from mitocore.learn import device as devices
from mitocore.learn.fit import fit
from mitocore.learn.module import objective_losses
from mitocore.learn.optimizer import build_optimizer
from mitocore.training import TrainingPlan, plan_training
from mitocore.volumes import installed

WARM = 3
"""Steps at the beginning that are not counted."""


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help='"cpu" or "cuda:0"')
    parser.add_argument("--model", default="rsunet/monai_unet", help="with a head called foreground")
    parser.add_argument("--crop", type=int, nargs=3, default=(32, 96, 96), help="voxels (z, y, x)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16", "float16"))
    parser.add_argument("--steps", type=int, default=12, help="that are counted, of each in each turn")
    parser.add_argument("--repeat", type=int, default=5, help="turns")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare crops")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rates: dict[str, list[float]] = {"bare": [], "loop": []}
    processors: dict[str, list[float]] = {"bare": [], "loop": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_volume(folder)
        for turn in range(options.repeat):
            plan = _planned(folder, turn, options)
            for name, measure in (("bare", _bare), ("loop", _loop)):
                wall, busy = measure(plan, options.steps)
                rates[name].append(options.steps * options.batch / wall)
                processors[name].append(options.steps * options.batch / busy)
                print(f"turn {turn + 1}: {name} {rates[name][-1]:8.3f} samples/s", flush=True)
    by_wall, by_cpu = (
        statistics.median(loop / bare for loop, bare in zip(found["loop"], found["bare"], strict=True))
        for found in (rates, processors)
    )
    for name, found in rates.items():
        print(f"{name} {statistics.median(found):8.3f} samples/s")
    print(f"loop / bare {by_wall:.3f} by wall time, {by_cpu:.3f} by CPU time")
    print(f"on {options.device}, {options.threads} threads, {options.workers} workers")


def _write_volume(folder: Path) -> None:
    """Bright balls in noise, and which voxel is of which."""
    z, y, x = np.ogrid[:96, :256, :256]
    distance = np.hypot(np.hypot(z % 48 - 24, y % 64 - 32), x % 64 - 32)
    number = 1 + z // 48 * 16 + y // 64 * 4 + x // 64
    truth = np.where(distance < 18, number, 0).astype(np.uint16)
    noise = np.random.default_rng(0).normal(0, 20, truth.shape)
    np.save(folder / "raw.npy", (np.where(truth > 0, 150, 90) + noise).clip(0, 255).astype(np.uint8))
    np.save(folder / "truth.npy", truth)


def _planned(folder: Path, turn: int, options: Any) -> TrainingPlan:
    steps = WARM + options.steps
    data = {
        "mitocore": 1,
        "model": options.model,
        "normalizer": "zscore",
        "volume": [{"path": "raw.npy", "labels": "truth.npy", "split": {"validation": "z:0.6-1.0"}}],
        "augment": ["flip_rotate", "contrast"],
        "objective": [{"head": "foreground", "target": "foreground", "loss": "dice_ce"}],
        "train": {
            "steps": steps + 1,  # the last one, after which it validates, is never taken
            "validate_every": steps + 1,
            "crop": list(options.crop),
            "batch": options.batch,
            "devices": options.device,
            "precision": options.precision,
            "workers": options.workers,
            "folder": f"run-{turn}",
        },
    }
    return plan_training(Document(data, folder / "train.toml"), installed())


def _loop(plan: TrainingPlan, steps: int) -> tuple[float, float]:
    """Seconds of wall time and of CPU time."""
    times: list[tuple[float, float]] = []

    def progress(what: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        del done, total, numbers
        if what == "training":
            times.append((time.perf_counter(), time.process_time()))

    with contextlib.suppress(KeyboardInterrupt):
        fit(plan, progress=progress, cancelled=lambda: len(times) == WARM + steps)
    first, last = times[WARM - 1], times[-1]
    return last[0] - first[0], last[1] - first[1]


def _bare(plan: TrainingPlan, steps: int) -> tuple[float, float]:
    train, device = plan.train, devices.chosen(plan.train.devices)
    half = {"bf16": torch.bfloat16, "float16": torch.float16}.get(train.precision)
    image = torch.randn((train.batch, len(plan.model.channels()), *plan.crop), device=device)
    with devices.isolated(device), devices.memory_reused(device):
        network = plan.model.build().to(device)
        optimizer = build_optimizer(network, train, {})
        losses, target = [objective.loss.build() for objective in plan.objectives], torch.rand_like(image[:, :1])
        weight = torch.ones_like(target)
        for step in range(WARM + steps):
            if step == WARM:
                _wait(device)
                begin = time.perf_counter(), time.process_time()
            with torch.autocast(device.partition(":")[0], half, enabled=half is not None):
                logits = network(image)
                (loss,) = objective_losses(plan, losses, logits, [target], [weight])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        _wait(device)
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
