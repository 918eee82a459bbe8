"""A plan at work in its run folder: model step, post-processing, output, record."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore import digests, lifetimes
from mitocore.blockwise import passes, scopes
from mitocore.blockwise.arrays import BlockFiles, Computed, Foreground, Opened, Placed, Selected, Sink, Source, Stored
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.objectwise import objectwise
from mitocore.blockwise.probabilities import Probabilities
from mitocore.blockwise.workspace import Workspace
from mitocore.durable import read_json, sync_folder, write_json
from mitocore.errors import ContractError, MitocoreError, RunError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import (
    LocalPostProcessor,
    Model,
    Normalizer,
    ObjectwisePostProcessor,
    PostProcessor,
    Stats,
    StitchedPostProcessor,
    Volume,
    WholePostProcessor,
)
from mitocore.outputs import Outputs
from mitocore.pipeline import INPUT, Plan, PlannedStep
from mitocore.specs import UNIT, Kind, VolumeSpec

log = logging.getLogger(__name__)

_SAMPLED = 8
"""Blocks of the input that are looked at, at most, when a step found nothing in it."""


@dataclass(frozen=True)
class _Freed:
    """An array whose scratch is gone, and that no step has to read any more."""

    name: str
    voxel_bytes: int = 0

    def read(self, roi: Roi) -> NDArray[Any]:
        """Refuse: zeros would pass for values."""
        raise RunError(f"{self.name!r} was removed and is wanted over {roi}", hint="--fresh computes it again")


@dataclass
class Execution:
    """One run of a plan. Files in the folder carry the digest of all they depend on."""

    plan: Plan
    workspace: Workspace
    volume: Volume
    spec: VolumeSpec
    identity: str
    """What stands for the voxels of the input."""
    schedule: dict[str, Any] = field(default_factory=dict)
    """How the work is cut, by step, and which outputs are ours; it can change no voxel (a batch on a CPU excepted)."""
    record: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    """Every array so far, by "step.array"."""

    def __post_init__(self) -> None:
        self.kind = self.plan.config.kind or self.spec.kind
        self.networks = digests.networks(self.plan)  # also refuses a device that is not there
        self.identity = digests.short([self.identity, self.kind])
        self.stats: dict[str, Stats] = {
            step.name: self._statistics(step.normalizer)
            for step in self.plan.steps
            if step.normalizer and step.name in self.networks
        }
        self.digests = digests.of_results(self.plan, self.identity, self.spec, self.networks, self.stats)
        self.sources[INPUT] = self._input()
        self.region = self.plan.region or Roi.whole(self.spec.shape)
        names = [step.name for step in self.plan.steps]
        self.steps = self.plan.steps[: names.index(self.plan.until) + 1 if self.plan.until else None]
        self.handed_over = {saved.name.partition(".")[0] for saved in self.plan.saved}

    def _input(self) -> Source:
        opened = Opened(self.volume, self.kind)
        if self.kind in UNIT:
            return Probabilities(opened, self.plan.config.reader.path if self.plan.config.reader else "the input")
        return Foreground(opened) if self.kind in (Kind.SEMANTIC, Kind.INSTANCE) else opened

    def _statistics(self, normalizer: Normalizer) -> Stats:
        of_normalizer = [normalizer.digest(), digests.code_of(normalizer), digests.files_of(normalizer)]
        key = digests.short([*of_normalizer, self.identity])
        path = self.workspace.state(f"stats.{key}.json")
        if not path.exists():
            progress, cancelled = self.workspace.progress, self.workspace.cancelled
            told = lambda done, total: progress("input: statistics", done, total)  # noqa: E731 - one line, used once
            write_json(path, dict(passes.fit(normalizer, self.volume, progress=told, cancelled=cancelled)))
        return read_json(path)

    def options(self) -> dict[str, Any]:
        """What a person would compare between two runs, by step."""
        return digests.options(self.plan, self.networks)

    def save(self) -> None:
        """Write plan.json: what the folder holds. It must stand there before any file that depends on the schedule."""
        content = {
            "mitocore": 1,
            "digests": self.digests,
            "options": self.options(),
            "schedule": self.schedule,
        }
        write_json(self.workspace.folder / "plan.json", content)

    def run(self) -> None:
        """The steps that have something to compute, then the output."""
        writer, own = self.plan.config.writer, self.schedule.setdefault("outputs", {})
        self.outputs = Outputs(self.plan, writer, self.workspace, own, self.save) if writer else None
        ended = {step.name: marks for step in self.steps if (marks := self._ended(step))}
        freed = {name for name, marks in ended.items() if marks["freed"]}
        todo = lifetimes.unfinished(self.steps, ended, freed, self.handed_over)
        wanted_until = lifetimes.last_wanted(self.steps, self.handed_over, kept=self._kept())
        for step in self.steps:
            if step.name in freed and step.name not in todo:
                self._note(step, ended[step.name]["record"])
                self.sources |= {name: _Freed(name) for name in self._arrays(step)}
                continue
            self._mark(step).unlink(missing_ok=True)  # a step that was freed and is computed again
            begin = time.monotonic()
            try:
                info = self._step(step)
            except MitocoreError as error:
                error.where = error.where or f"step {step.name!r} ({step.qualified})"
                raise
            self._note(step, {"seconds": round(time.monotonic() - begin, 3), **info})
            self._end(step, freed=False)
            if self.plan.until is None:
                for name in wanted_until.get(step.name, []):
                    self._free(next(other for other in self.steps if other.name == name))
        begin = time.monotonic()
        if self.outputs:
            for saved in self.plan.saved:
                step_name = saved.name.partition(".")[0]
                objects = self.record["steps"][step_name].get("objects")
                self.outputs.copy(saved.name, self.sources[saved.name], self.digests[step_name], objects)
            self.outputs.finish_all()
        self.record["export_seconds"] = round(time.monotonic() - begin, 3)

    def _note(self, step: PlannedStep, info: Mapping[str, Any]) -> None:
        """Record what came of a step, and say it."""
        self.record.setdefault("steps", {})[step.name] = info
        if step.scope != "computed":
            numbers = ", ".join(f"{value:,} {key}" for key, value in info.items() if isinstance(value, int))
            log.info("%s: %s%.1f s", step.name, f"{numbers}, " if numbers else "", info["seconds"])

    def _kept(self) -> set[str]:
        """Steps whose arrays stay until the end of the run, and longer."""
        keep = self.plan.config.run.keep
        return {s.name for s in self.steps if keep == "all" or (keep == "heads" and s.scope == "model")}

    def _mark(self, step: PlannedStep) -> Path:
        """The file that says that a step came to its end."""
        return self.workspace.state(f"{self._journal(step)}.done.json")

    def _ended(self, step: PlannedStep) -> dict[str, Any] | None:
        """What was noted when a step came to its end; nothing if it has not, or if what it gave went elsewhere."""
        path = self._mark(step)
        if not path.exists() or self._scheduled(step).get("targets", self._targets(step)) != self._targets(step):
            return None
        if self.outputs is not None and any(self.outputs.lost(name) for name in self._arrays(step)):
            return None
        return read_json(path)

    def _end(self, step: PlannedStep, *, freed: bool) -> None:
        if step.scope != "computed":
            write_json(self._mark(step), {"freed": freed, "record": self.record["steps"][step.name]})

    def _free(self, step: PlannedStep) -> None:
        """Remove the scratch of a step that came to its end; the mark first, or its journal would be believed."""
        self._end(step, freed=True)
        self._forget(step)
        for array in step.gives:
            self.workspace.discard(f"{step.name}.{array}.{self.digests[step.name]}")

    def _arrays(self, step: PlannedStep) -> list[str]:
        return [f"{step.name}.{array}" for array in step.gives]

    def _targets(self, step: PlannedStep) -> dict[str, str]:
        """Where the arrays of a step are written in place; "": nowhere."""
        return {name: self.outputs.target(name) if self.outputs else "" for name in self._arrays(step)}

    def _step(self, step: PlannedStep) -> dict[str, Any]:
        component = step.component
        if isinstance(component, Model):
            return self._model(step)
        inputs = {need: self._wired(wire.source, wire.channels) for need, wire in step.wires.items()}
        if isinstance(component, LocalPostProcessor):
            return self._local(step, component, inputs)
        if isinstance(component, StitchedPostProcessor | ObjectwisePostProcessor):
            return self._objects(step, component, inputs)
        if isinstance(component, WholePostProcessor):
            return self._whole(step, component, inputs)
        raise ContractError(f"{step.qualified} inherits from no scope of post-processor", where=step.where)

    def _wired(self, source: str, channels: tuple[int, ...] | None) -> Source:
        found = self.sources[source]
        return found if channels is None else Selected(found, channels)

    def _model(self, step: PlannedStep) -> dict[str, Any]:
        from mitocore.learn.modelstep import ModelStep

        run = self.plan.config.run
        work = ModelStep(step, self.spec, self._journal(step), run.devices, self.plan.memory, _region(step))
        work.schedule(self._scheduled(step))
        self.save()
        files = {
            head: self._files(step.name, head, work.grid, len(spec.channels), spec.stored)
            for head, spec in step.gives.items()
        }
        self.sources |= {f"{step.name}.{head}": Stored(stored, step.gives[head]) for head, stored in files.items()}
        return work.run(lambda: self._normalised(step, work.lattice.reads), files, self.workspace)

    def _normalised(self, step: PlannedStep, region: Roi) -> Source:
        """The normalised input; of one that is stored, the blocks that meet `region`."""
        if step.normalizer is None:
            return self.sources[INPUT]
        stats, block = self.stats[step.name], self.plan.config.run.block
        preferred = as_shape(min(b, n) for b, n in zip(block, self.spec.shape, strict=True))
        name = self._normalised_name(step)
        return passes.prepared(step.normalizer, stats, self.volume, region, preferred, self.workspace, name=name)

    def _normalised_name(self, step: PlannedStep) -> str:
        parts = [self.identity, self.networks[step.name]["normalizer"], self.stats[step.name]]
        return f"normalised.{digests.short([*parts, self.plan.config.run.block])}"

    def _local(self, step: PlannedStep, component: LocalPostProcessor, inputs: Mapping[str, Source]) -> dict[str, Any]:
        bounds = step.bounds or Roi.whole(self.spec.shape)
        if step.scope == "computed":
            for name, spec in step.gives.items():
                computed = Computed(component, name, spec, inputs, bounds, self.spec.voxel_size)
                self.sources[f"{step.name}.{name}"] = computed
            return {}
        grid = self._begin(step)
        sinks = {array: self._sink(step, array, spec.stored, grid) for array, spec in step.gives.items()}
        scopes.local(
            component,
            inputs,
            sinks,
            step.gives,
            grid,
            self.spec,
            self.workspace,
            name=self._journal(step),
            plugin=step.plugin,
            bounds=bounds,
        )
        return {}

    def _whole(self, step: PlannedStep, component: WholePostProcessor, inputs: Mapping[str, Source]) -> dict[str, Any]:
        grid = self._begin(step)
        sinks = {array: self._sink(step, array, spec.stored, grid) for array, spec in step.gives.items()}
        name, plugin = self._journal(step), step.plugin
        scopes.whole(component, inputs, sinks, step.gives, grid, self.spec, self.workspace, name=name, plugin=plugin)
        return {}

    def _objects(
        self,
        step: PlannedStep,
        component: StitchedPostProcessor | ObjectwisePostProcessor,
        inputs: Mapping[str, Source],
    ) -> dict[str, Any]:
        grid = self._begin(step)
        run: Any = scopes.stitched if isinstance(component, StitchedPostProcessor) else objectwise
        count: int = run(
            component,
            inputs,
            lambda array, dtype: self._sink(step, array, dtype, grid),
            step.gives,
            grid,
            self.spec,
            self.workspace,
            name=step.name,
            early=digests.of_provisional_ids(step, self.digests, self._block(step)),
            late=self.digests[step.name],
            plugin=step.plugin,
            keep_ids=self.plan.config.run.keep == "all",
        )
        if count == 0:
            log.warning("%s: no objects. %s", step.name, self._circumstances(component))
        return {"objects": count}

    def _circumstances(self, component: PostProcessor) -> str:
        """What may be why a step found nothing: its options, what it was given, the size of a voxel, its own hint."""
        options = component.model_dump(mode="json", exclude_none=True).items()
        found = self.record.get("steps", {}).values()
        ranges = {head: ends for info in found for head, ends in info.get("range", {}).items()}
        said = [f"{name} = {json.dumps(value)}" for name, value in options]
        said += [f"{head} lies between {low:g} and {high:g}" for head, (low, high) in ranges.items()]
        hint = component.hint_if_empty()
        if self.kind in (*UNIT, Kind.DISTANCE):
            looked, seen = self._looked_at_input()
            said += [f"{name} lies between {low:g} and {high:g}{looked}" for name, (low, high) in seen.items()]
            if self.spec.dtype == "uint8" and self.kind in UNIT and max(high for _, high in seen.values()) < 2 / 255:
                hint = f'uint8 is read as value / 255: are these labels of 0 and 1, kind = "mask"? If not: {hint}'
        said.append(f"voxel size {self.spec.voxel_size or 'unknown'}")
        return f"{', '.join(said)}: {hint}"

    def _looked_at_input(self) -> tuple[str, dict[str, tuple[float, float]]]:
        """Range of each channel of the input, from a few blocks all over it: read anew, as nothing was found in it."""
        block = as_shape(min(b, n) for b, n in zip(self.plan.config.run.block, self.region.shape, strict=True))
        grid = BlockGrid(self.region, block)
        chosen = range(0, len(grid), -(-len(grid) // _SAMPLED))
        ends = []
        for number in chosen:
            values = self.sources[INPUT].read(grid.box(number))
            ends.append((values.min(axis=(1, 2, 3)), values.max(axis=(1, 2, 3))))
        low, high = np.min([a for a, _ in ends], axis=0), np.max([b for _, b in ends], axis=0)
        names = [f"{INPUT}:{name}" if name else INPUT for name in self.spec.channels]
        seen = {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
        return "" if len(chosen) == len(grid) else f" in {len(chosen)} of {len(grid):,} blocks", seen

    def _journal(self, step: PlannedStep) -> str:
        return f"{step.name}.{self.digests[step.name]}"

    def _scheduled(self, step: PlannedStep) -> dict[str, Any]:
        """How a step that has begun was cut; to be filled for a new one."""
        own: dict[str, Any] = self.schedule.setdefault(self._journal(step), {})
        return own

    def _block(self, step: PlannedStep) -> Shape:
        """The blocks a step has begun with, or those planned for a new one."""
        return as_shape(self._scheduled(step).setdefault("block", list(step.block)))

    def _begin(self, step: PlannedStep) -> BlockGrid:
        """Note how a step is cut and where it writes; forget what it wrote to another file, or to one that is gone."""
        tiled = isinstance(step.component, StitchedPostProcessor) and step.component.lattice() is not None
        grid = BlockGrid(_region(step), self._block(step), anchor=(0, 0, 0) if tiled else None)
        own, targets = self._scheduled(step), self._targets(step)
        lost = self.outputs is not None and any(self.outputs.lost(name) for name in targets)
        if own.setdefault("targets", targets) != targets or lost:
            own["targets"] = targets
            self._forget(step)
        self.save()
        return grid

    def _forget(self, step: PlannedStep) -> None:
        self.workspace.forget(self._journal(step))
        self.workspace.forget(f"{step.name}.relabel.{self.digests[step.name]}")

    def _files(self, step: str, array: str, grid: BlockGrid, channels: int, dtype: str) -> BlockFiles:
        return BlockFiles(self.workspace.scratch(f"{step}.{array}.{self.digests[step]}"), grid, channels, dtype)

    def _sink(self, step: PlannedStep, array: str, dtype: str, grid: BlockGrid) -> Sink:
        """Where a step writes an array: the output file, if it takes blocks in any order; else scratch."""
        name, spec = f"{step.name}.{array}", step.gives[array]
        placed = self.outputs.in_place(name, dtype, grid, self.digests[step.name]) if self.outputs else None
        if placed is not None:
            self.sources[name] = Placed(Opened(placed.volume, spec.kind), self.region.start)
            return placed
        files = self._files(step.name, array, grid, len(spec.channels), dtype)
        self.sources[name] = Stored(files, spec)
        return files

    def drop_stale(self) -> None:
        """Remove scratch and state of configurations that are no longer wanted."""
        self._sweep({name for step in self.plan.steps for name in self._names(step)})

    def tidy(self) -> None:
        """Remove scratch that `run.keep` does not keep; what may be wanted again is then computed again."""
        if self.plan.until is not None:
            return  # the steps below read it
        if self.plan.config.run.keep == "all":
            self.drop_stale()
            return
        kept = self._kept() | {step.name for step in self.steps if step.stored}
        for step in self.steps:
            if step.name not in kept:
                self._end(step, freed=True)  # before its journal goes, and after that the scratch it speaks of
        self._sweep({self.digests[name] for name in kept})

    def _names(self, step: PlannedStep) -> set[str]:
        """What the names of all files of a step contain, one or the other."""
        names = {self.digests[step.name]}
        if step.scope in ("stitched", "objectwise"):
            names.add(digests.of_provisional_ids(step, self.digests, self._block(step)))
        return names | ({self._normalised_name(step)} if step.name in self.networks else set())

    def _sweep(self, kept: set[str]) -> None:
        """Remove all state, then all scratch, whose name contains none of these; not what says that a step ended."""
        marks = {self._mark(step).name for step in self.plan.steps}
        for part in ("state", "scratch"):
            folder = self.workspace.folder / part
            for path in sorted(folder.glob("*")):
                said = path.name.startswith("stats.") or path.name in marks
                if said or any(name in path.name for name in kept):
                    continue
                self.workspace.discard(path.name) if part == "scratch" else path.unlink()
            if folder.exists():
                sync_folder(folder)


def _region(step: PlannedStep) -> Roi:
    if step.region is None:
        raise ContractError(f"step {step.name!r} was planned without data", hint="plan it with data before it runs")
    return step.region


def begin_again(folder: Path) -> None:
    """Forget all that was computed in a run folder; outputs stay, to be overwritten."""
    for part in ("state", "scratch"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "record.json").unlink(missing_ok=True)
