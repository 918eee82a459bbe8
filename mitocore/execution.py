"""A plan at work in its run folder: model step, post-processing, output, record."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mitocore import digests
from mitocore.blockwise import passes, scopes
from mitocore.blockwise.arrays import BlockFiles, Computed, Opened, Selected, Sink, Source, Stored
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.workspace import Workspace
from mitocore.durable import write_json
from mitocore.errors import ContractError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import LocalPostProcessor, Model, Normalizer, Stats, StitchedPostProcessor, Volume
from mitocore.outputs import Outputs
from mitocore.pipeline import INPUT, Plan, PlannedStep
from mitocore.specs import VolumeSpec

log = logging.getLogger(__name__)


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
        self.sources[INPUT] = Opened(self.volume, self.kind)

    def _statistics(self, normalizer: Normalizer) -> Stats:
        key = digests.short([normalizer.digest(), digests.code_of(normalizer), self.identity])
        path = self.workspace.state(f"stats.{key}.json")
        if not path.exists():
            progress, cancelled = self.workspace.progress, self.workspace.cancelled
            told = lambda done, total: progress("input: statistics", done, total)  # noqa: E731 - one line, used once
            write_json(path, dict(passes.fit(normalizer, self.volume, progress=told, cancelled=cancelled)))
        return dict(json.loads(path.read_text("utf-8")))

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
        """All steps, then the output."""
        writer, own = self.plan.config.writer, self.schedule.setdefault("outputs", {})
        self.outputs = Outputs(self.plan, writer, self.spec, self.workspace, own, self.save) if writer else None
        for step in self.plan.steps:
            begin = time.monotonic()
            info = self._step(step)
            seconds = time.monotonic() - begin
            self.record.setdefault("steps", {})[step.name] = {"seconds": round(seconds, 3), **info}
            if step.scope != "computed":
                numbers = ", ".join(f"{value:,} {key}" for key, value in info.items() if isinstance(value, int))
                log.info("%s: %s%.1f s", step.name, f"{numbers}, " if numbers else "", seconds)
        begin = time.monotonic()
        if self.outputs:
            for saved in self.plan.saved:
                step_name = saved.name.partition(".")[0]
                objects = self.record["steps"][step_name].get("objects")
                self.outputs.finish(saved.name, self.sources[saved.name], self.digests[step_name], objects)
        self.record["export_seconds"] = round(time.monotonic() - begin, 3)

    def _step(self, step: PlannedStep) -> dict[str, Any]:
        component = step.component
        if isinstance(component, Model):
            return self._model(step)
        inputs = {need: self._wired(wire.source, wire.channels) for need, wire in step.wires.items()}
        if isinstance(component, LocalPostProcessor):
            return self._local(step, component, inputs)
        if isinstance(component, StitchedPostProcessor):
            return self._stitched(step, component, inputs)
        raise ContractError(f"{step.qualified} inherits from no scope of post-processor", where=step.where)

    def _wired(self, source: str, channels: tuple[int, ...] | None) -> Source:
        found = self.sources[source]
        return found if channels is None else Selected(found, channels)

    def _model(self, step: PlannedStep) -> dict[str, Any]:
        from mitocore.learn.modelstep import ModelStep

        work = ModelStep(step, self.spec, self._journal(step), self.plan.config.run.devices, self.plan.memory)
        work.schedule(self._scheduled(step))
        self.save()
        files = {
            head: self._files(step.name, head, work.grid, len(spec.channels), spec.stored)
            for head, spec in step.gives.items()
        }
        self.sources |= {f"{step.name}.{head}": Stored(stored, step.gives[head]) for head, stored in files.items()}
        return work.run(lambda: self._normalised(step), files, self.workspace)

    def _normalised(self, step: PlannedStep) -> Source:
        if step.normalizer is None:
            return self.sources[INPUT]
        whole, stats = Roi.whole(self.spec.shape), self.stats[step.name]
        block = as_shape(min(b, n) for b, n in zip(self.plan.config.run.block, whole.shape, strict=True))
        name = self._normalised_name(step)
        return passes.prepared(step.normalizer, stats, self.volume, whole, block, self.workspace, name=name)

    def _normalised_name(self, step: PlannedStep) -> str:
        parts = [self.identity, self.networks[step.name]["normalizer"], self.stats[step.name]]
        return f"normalised.{digests.short([*parts, self.plan.config.run.block])}"

    def _local(self, step: PlannedStep, component: LocalPostProcessor, inputs: Mapping[str, Source]) -> dict[str, Any]:
        if step.scope == "computed" and not self._handed_over(step):
            whole = Roi.whole(self.spec.shape)
            for name, spec in step.gives.items():
                computed = Computed(component, name, spec, inputs, whole, self.spec.voxel_size)
                self.sources[f"{step.name}.{name}"] = computed
            return {}
        grid = self._begin(step)
        sinks = {array: self._sink(step, array, spec.stored, grid) for array, spec in step.gives.items()}
        scopes.local(component, inputs, sinks, step.gives, grid, self.spec, self.workspace, name=self._journal(step))
        return {}

    def _handed_over(self, step: PlannedStep) -> bool:
        """Whether the run folder itself is where a saved array of this step is read from."""
        return self.plan.config.writer is None and any(s.name.partition(".")[0] == step.name for s in self.plan.saved)

    def _stitched(
        self, step: PlannedStep, component: StitchedPostProcessor, inputs: Mapping[str, Source]
    ) -> dict[str, Any]:
        grid = self._begin(step)
        count = scopes.stitched(
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
            plugin=step.qualified,
            keep_ids=self.plan.config.run.keep == "all",
        )
        if count == 0:
            ranges = [other.get("range", {}) for other in self.record.get("steps", {}).values()]
            log.warning(
                "%s: no objects. Options: %s. Values of the network: %s. Voxel size: %s. Is the threshold too high?",
                step.name,
                component.model_dump(mode="json"),
                {name: value for found in ranges for name, value in found.items()} or "unknown",
                self.spec.voxel_size or "unknown",
            )
        return {"objects": count}

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
        grid = BlockGrid(Roi.whole(self.spec.shape), self._block(step))
        own, names = self._scheduled(step), [f"{step.name}.{array}" for array in step.gives]
        targets = {name: self.outputs.target(name) if self.outputs else "" for name in names}
        lost = self.outputs is not None and any(self.outputs.lost(name) for name in names)
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
            self.sources[name] = Opened(placed.volume, spec.kind)
            return placed
        files = self._files(step.name, array, grid, len(spec.channels), dtype)
        self.sources[name] = Stored(files, spec)
        return files

    def drop_stale(self) -> None:
        """Remove scratch and state of configurations that are no longer wanted."""
        wanted = {digest for name, digest in self.digests.items() if name != "input"}
        for step in self.plan.steps:
            if step.scope == "stitched":
                wanted.add(digests.of_provisional_ids(step, self.digests, self._block(step)))
            if step.name in self.networks:
                wanted.add(self._normalised_name(step))
        for part in ("scratch", "state"):
            folder = self.workspace.folder / part
            for path in folder.glob("*") if folder.exists() else ():
                if path.name.startswith("stats.") or any(name in path.name for name in wanted):
                    continue
                self.workspace.discard(path.name) if part == "scratch" else path.unlink()

    def tidy(self) -> None:
        """Remove scratch that `run.keep` does not keep; what may be wanted again is then computed again."""
        keep = self.plan.config.run.keep
        for step in self.plan.steps:
            model = isinstance(step.component, Model)
            if model and keep != "all" and step.name in self.networks:
                self.workspace.forget(self._normalised_name(step))
                self.workspace.discard(self._normalised_name(step))
            if keep == "all" or (keep == "heads" and model) or self._handed_over(step):
                continue
            self._forget(step)
            for array in step.gives:
                self.workspace.discard(f"{step.name}.{array}.{self.digests[step.name]}")


def begin_again(folder: Path) -> None:
    """Forget all that was computed in a run folder; outputs stay, to be overwritten."""
    for part in ("state", "scratch"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "record.json").unlink(missing_ok=True)
