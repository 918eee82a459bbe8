"""What a plan takes of memory and disk."""

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

from mitocore.errors import MitocoreError, ResourceError
from mitocore.interfaces import PostProcessor, StitchedPostProcessor, WholePostProcessor
from mitocore.pipeline.planned import Plan, PlannedStep, amount, stored_bytes
from mitocore.specs import VolumeSpec


def refused(ready: Plan) -> list[MitocoreError]:
    """What memory or disk cannot hold of a plan."""
    if ready.volume is None:
        return []
    findings: list[MitocoreError] = []
    for step in ready.steps:
        needed = memory_of(step, ready.volume)
        if needed > ready.memory:
            problem = f"{step.name!r} needs {amount(needed)} of memory, the run may use {amount(ready.memory)}"
            findings.append(ResourceError(problem, where=step.where, hint=_SMALLER.get(step.scope, _BLOCK)))
    scratch = sum(step.scratch * step.region.voxels for step in ready.steps if step.region)
    output = sum(stored_bytes(s.spec, s.dtype) * math.prod(ready.header(s)[0].shape) for s in ready.saved)
    writer = ready.config.writer
    folder = Path(ready.config.run.folder or ".").absolute()
    target = Path(writer.path).absolute() if writer and "://" not in writer.path else folder
    apart = _there(target).stat().st_dev != _there(folder).stat().st_dev
    needs = [(folder, "scratch" if apart else "scratch and output", scratch if apart else scratch + output)]
    needs += [(target, "the output", output)] if apart else []
    for place, what, needed in needs:
        free = shutil.disk_usage(_there(place)).free
        if needed > free:
            problem = f"{what} may need {amount(needed)}, {amount(free)} are free"
            hint = 'path = "…" in [output]' if place is target and apart else 'folder = "…" in [run]'
            findings.append(ResourceError(problem, where=str(place), hint=f"{hint} on a larger disk"))
    return findings


def _there(place: Path) -> Path:
    """The folder that is there already, in which a path would lie."""
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


_BLOCK = 'a smaller run.block, or memory = "…" in [run]'
_SMALLER = {"model": "a smaller predict.window", "whole": 'a region (--roi), or memory = "…" in [run]'}


def memory_of(step: PlannedStep, volume: VolumeSpec) -> int:
    """Bytes that one block, one row of tiles, or all of a step that needs everything at once, needs at least."""
    channels = sum(len(spec.channels) for spec in step.gives.values())
    shape = step.region.shape if step.region else volume.shape
    if isinstance(step.component, WholePostProcessor):
        return step.component.memory(replace(volume, shape=shape))
    if step.window is not None:
        depth, height, width = step.window.output(volume.shape)
        stride = depth - step.window.overlap[0]
        wide = max(min(shape[2] + 2 * width, volume.shape[2]), width)
        sums = channels * (depth + stride) * height * wide * 4
        tile = step.window.tile(volume.shape)
        section = 3 * tile[0] * tile[1] * (wide + tile[2]) * 4
        return 2 * sums + section
    halo = step.component.halo() if isinstance(step.component, PostProcessor) else (0, 0, 0)
    voxels = math.prod(min(b + 2 * h, n) for b, h, n in zip(step.block, halo, shape, strict=True))
    return voxels * (16 if isinstance(step.component, StitchedPostProcessor) else 8) + voxels * 4 * channels


def available_memory() -> int:
    """Bytes of memory that are free now."""
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
