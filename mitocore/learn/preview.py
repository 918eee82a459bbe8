"""A training looked at before it is begun: what its parts hold, what a step costs, and how its samples look."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mitocore import pictures
from mitocore.blockwise.lock import RunLock
from mitocore.durable import reported
from mitocore.learn import device as devices
from mitocore.learn.census import PARTS, PartCount, census
from mitocore.learn.cost import Cost, measured
from mitocore.learn.data import Crops, build_index
from mitocore.learn.fit import built_network, explained, prepare_volumes, quiet
from mitocore.learn.initial import take_initial
from mitocore.learn.rounds import Progress
from mitocore.learn.samples import draw
from mitocore.learn.validation import Validation
from mitocore.training import TrainingPlan

PICTURE = "samples.png"
SAMPLES = 6


@dataclass(frozen=True)
class Preview:
    """What a training is, as far as it can be known before its first step."""

    plan: TrainingPlan
    parts: tuple[PartCount, ...]
    """By volume: what is trained on, validated and tested, after gaps."""
    unused: Mapping[str, int]
    """By volume: voxels in no part, such as gaps."""
    cost: Cost
    seconds: float
    """Estimate for all steps and validations, on this machine."""
    picture: Path | None
    """None: matplotlib is not installed."""

    @property
    def table(self) -> dict[str, Any]:
        """As JSON holds it."""
        cost = self.cost
        return {
            "parts": [
                {
                    "volume": one.volume,
                    "part": one.part,
                    "voxels": one.voxels,
                    "labels": {
                        name: {
                            "kind": str(count.kind),
                            "labelled_voxels": count.counted,
                            "foreground": count.share,
                            **({"classes": count.classes} if count.classes else {"ids": len(count.ids)}),
                        }
                        for name, count in one.labels.items()
                    },
                }
                for one in self.parts
            ],
            "unused_voxels": dict(self.unused),
            "device": cost.device,
            "parameters": cost.parameters,
            "trained_parameters": cost.trained,
            "state_bytes": cost.state,
            "memory_bytes": cost.memory,
            "memory_free_bytes": cost.room,
            "seconds_per_step": {"crops": cost.crop_seconds, "network": cost.step_seconds},
            "seconds_per_validation": cost.validation_seconds,
            "seconds": self.seconds,
            "picture": str(self.picture) if self.picture else None,
        }


def preview(
    plan: TrainingPlan,
    *,
    picture: Path | None = None,
    progress: Progress = lambda _what, _done, _total, _numbers: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Preview:
    """Look at a training without beginning it: its labels are counted, a few steps are taken and thrown away.

    Whatever a training would be refused for before its first step, this refuses. Nothing but the picture is written; a
    training that lies in the folder stays as it is.

    Parameters
    ----------
    picture
        A PNG of sample crops with all that is learned of them; left out: `samples.png` in the folder of the training.

    Raises
    ------
    DataError
        If a part holds no foreground, labels mean nothing, or the picture cannot be written.
    ResourceError
        If the device is not there, or its memory or the disk is too small.
    KeyboardInterrupt
        If cancelled.
    """
    device = devices.several(plan.train.devices)[0]
    with (
        tempfile.TemporaryDirectory(prefix="mitocore-") as scratch,  # for normalisers that are not voxel-wise
        RunLock(Path(scratch)) as lock,
        quiet(),
        devices.isolated(device),
        devices.memory_reused(device),
    ):
        aside = replace(plan, folder=Path(scratch))
        devices.check_arithmetic(plan.train.precision, device, compiled=plan.train.compile)
        volumes = prepare_volumes(aside, lock, progress, cancelled)
        for part in ("validation", "test"):
            held = Validation(aside, volumes, part, device)
            if held.volumes:
                held.check()

        def told(what: str) -> Callable[[int, int], None]:
            return lambda done, total: progress(what, done, total, {})

        crops = Crops(aside, volumes, build_index(aside, volumes))
        parts = census(volumes, told("labels"))
        try:
            begun = time.perf_counter()
            batch = [crops[number] for number in range(plan.train.batch)]
            taken = time.perf_counter() - begun
            path = _drawn(plan, crops, picture or plan.folder / PICTURE) if pictures.installed() else None
        finally:
            crops.close()
        with explained(plan, device):
            network = built_network(aside)
            if plan.initial:
                take_initial(network, plan.model, plan.initial)
            cost = measured(aside, network, batch, taken, device, told("trial steps"))
    return Preview(plan, tuple(parts), _unused(plan), cost, cost.seconds(plan), path)


def _unused(plan: TrainingPlan) -> dict[str, int]:
    found: dict[str, int] = {}
    for volume in plan.volumes:
        used = sum(box.voxels for part in PARTS for box in getattr(volume.parts, part))
        found[volume.path] = found.get(volume.path, 0) + volume.region.voxels - used
    return found


def _drawn(plan: TrainingPlan, crops: Crops, path: Path) -> Path:
    with reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    draw(path, plan, [crops.sample(number) for number in range(SAMPLES)])
    return path
