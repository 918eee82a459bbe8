"""A plan at work in its run folder: model step, post-processing, output, record."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mitocore import weights
from mitocore.blockwise import passes, scopes
from mitocore.blockwise.arrays import BlockFiles, Computed, Opened, Selected, Sink, Source, Stored, VolumeSink
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.workspace import Workspace
from mitocore.errors import DataError, PluginError, RunError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import LocalPostProcessor, Model, StitchedPostProcessor, Volume, WritableVolume
from mitocore.pipeline import INPUT, Plan, PlannedStep, SavedArray, chunks_for
from mitocore.registry import Registry
from mitocore.specs import ArraySpec, Kind, VolumeSpec

log = logging.getLogger(__name__)

_IDS = ("uint32", "uint64")


@dataclass
class Execution:
    """One run of a plan. Files in the folder carry the digest of all they depend on."""

    plan: Plan
    registry: Registry
    workspace: Workspace
    volume: Volume
    spec: VolumeSpec
    digests: dict[str, str] = field(default_factory=dict)
    """Result digest by step: all that can move a voxel of it, down to the identity of the input."""
    sources: dict[str, Source] = field(default_factory=dict)
    """Every array so far, by "step.array"."""
    specs: dict[str, ArraySpec] = field(default_factory=dict)
    placed: dict[str, WritableVolume] = field(default_factory=dict)
    """Outputs written in place, by array."""
    schedule: dict[str, Any] = field(default_factory=dict)
    """How the work is cut, by step; it can change no voxel (a batch on a CPU excepted)."""
    record: dict[str, Any] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, identity: str) -> None:
        """Find out what the input is and give every step its digest."""
        config = self.plan.config
        kind = config.kind or self.spec.kind
        self.specs[INPUT] = ArraySpec(kind, self.spec.channels)
        self.sources[INPUT] = Opened(self.volume, None if kind is Kind.IMAGE else kind)
        self.digests["input"] = identity
        normalizer = next((step.normalizer for step in self.plan.steps if step.normalizer), None)
        if normalizer is not None:
            self.stats = self._statistics(normalizer.digest() + identity)
        for step in self.plan.steps:
            self.digests[step.name] = self._digest(step)

    def _statistics(self, key: str) -> Mapping[str, Any]:
        step = next(step for step in self.plan.steps if step.normalizer)
        path = self.workspace.state(f"stats.{_short(key)}.json")
        if path.exists():
            return dict(json.loads(path.read_text("utf-8")))
        if step.normalizer is None:
            return {}
        self.workspace.progress("input: statistics", 0, 1)
        stats = passes.fit(step.normalizer, self.volume)
        write_json(path, dict(stats))
        self.workspace.progress("input: statistics", 1, 1)
        return dict(json.loads(path.read_text("utf-8")))

    def _digest(self, step: PlannedStep) -> str:
        code = self.registry.fingerprint(step.config.entry) if step.config and step.config.entry else ""
        wired = [(need, self.digests[wire.source.partition(".")[0]], str(wire)) for need, wire in step.wires.items()]
        parts: list[Any] = [step.component.digest(), code, wired, [spec.stored for spec in step.gives.values()]]
        if isinstance(step.component, Model) and step.config and step.config.weights and step.normalizer:
            from mitocore.learn.device import chosen
            from mitocore.learn.predict import precision_of

            header = step.config.header
            parts += [
                weights.sha256(step.config.weights),
                repr(step.window),
                precision_of(step.config.predict.precision, chosen(self.plan.config.run.devices)),
                header.temperature if header else {},
                step.normalizer.digest(),
                dict(self.stats),
            ]
        else:
            parts.append(self.spec.voxel_size.edges if self.spec.voxel_size else None)
        return _short(json.dumps(parts, default=str))

    def options(self) -> dict[str, Any]:
        """What a person would compare between two runs, by step."""
        found: dict[str, Any] = {}
        for step in self.plan.steps:
            stated = step.config.component if step.config and step.config.component else step.component
            options = stated.model_dump(mode="json")
            if step.config and step.config.header:
                options |= {"weights": self.digests[step.name], "window": repr(step.window)}
            found[step.name] = {"component": step.qualified, **options}
        return found

    def run(self) -> None:
        """All steps, then the output."""
        for step in self.plan.steps:
            self.specs |= {f"{step.name}.{name}": spec for name, spec in step.gives.items()}
            begin = time.monotonic()
            info = self._step(step)
            seconds = time.monotonic() - begin
            self.record.setdefault("steps", {})[step.name] = {"seconds": round(seconds, 3), **info}
            if step.scope != "computed":
                numbers = ", ".join(f"{value:,} {key}" for key, value in info.items() if isinstance(value, int))
                log.info("%s: %s%.1f s", step.name, f"{numbers}, " if numbers else "", seconds)
        begin = time.monotonic()
        self._export()
        self.record["export_seconds"] = round(time.monotonic() - begin, 3)

    def _step(self, step: PlannedStep) -> dict[str, Any]:
        inputs = {need: self._wired(wire.source, wire.channels) for need, wire in step.wires.items()}
        if isinstance(step.component, Model):
            return self._model(step)
        if step.scope == "computed" and isinstance(step.component, LocalPostProcessor):
            whole = Roi.whole(self.spec.shape)
            for name, spec in step.gives.items():
                computed = Computed(step.component, name, spec, inputs, whole, self.spec.voxel_size)
                self.sources[f"{step.name}.{name}"] = computed
            return {}
        return self._blockwise(step, inputs)

    def _wired(self, source: str, channels: tuple[int, ...] | None) -> Source:
        found = self.sources[source]
        return found if channels is None else Selected(found, channels)

    def _blockwise(self, step: PlannedStep, inputs: Mapping[str, Source]) -> dict[str, Any]:
        grid = BlockGrid(Roi.whole(self.spec.shape), self._scheduled(step.name, "block", step.block))
        name = f"{step.name}.{self.digests[step.name]}"
        component = step.component
        if isinstance(component, LocalPostProcessor):
            sinks = {array: self._sink(step, array, spec.stored, grid) for array, spec in step.gives.items()}
            scopes.local(component, inputs, sinks, step.gives, grid, self.spec, self.workspace, name=name)
            return {}
        if not isinstance(component, StitchedPostProcessor):
            raise PluginError(f"{step.qualified} has no scope", where=step.where)
        count = scopes.stitched(
            component,
            inputs,
            lambda array, dtype: self._sink(step, array, dtype, grid),
            step.gives,
            grid,
            self.spec,
            self.workspace,
            name=step.name,
            early=self.early(step),
            late=self.digests[step.name],
            plugin=step.qualified,
            keep_ids=self.plan.config.run.keep == "all",
        )
        if count == 0:
            seen = {
                name: value
                for other in self.record.get("steps", {}).values()
                for name, value in other.get("range", {}).items()
            }
            log.warning(
                "%s: no objects. Options: %s. Values of the network: %s. Voxel size: %s. Is the threshold too high?",
                step.name,
                component.model_dump(mode="json"),
                seen or "unknown",
                self.spec.voxel_size or "unknown",
            )
        return {"objects": count}

    def early(self, step: PlannedStep) -> str:
        """Digest of what provisional ids depend on: all but the options that only later passes read."""
        component = step.component
        late = set(component.late) if isinstance(component, StitchedPostProcessor) else set()
        wired = [(need, self.digests[wire.source.partition(".")[0]], str(wire)) for need, wire in step.wires.items()]
        code = self.registry.fingerprint(step.config.entry) if step.config and step.config.entry else ""
        return _short(
            json.dumps([component.model_dump(mode="json", exclude=late), code, wired, step.block], default=str)
        )

    def _scheduled(self, step: str, key: str, value: Any) -> Any:
        """How a step that has begun was cut, or `value` for a new one."""
        own = self.schedule.setdefault(f"{step}.{self.digests[step]}", {})
        return as_shape(own.setdefault(key, list(value))) if isinstance(value, tuple) else own.setdefault(key, value)

    def _files(self, step: str, array: str, grid: BlockGrid, channels: int, dtype: str) -> BlockFiles:
        return BlockFiles(self.workspace.scratch(f"{step}.{array}.{self.digests[step]}"), grid, channels, dtype)

    def _sink(self, step: PlannedStep, array: str, dtype: str, grid: BlockGrid) -> Sink:
        """Where a step writes an array: the output file, if it takes blocks in any order; else scratch."""
        name, spec = f"{step.name}.{array}", step.gives[array]
        saved = next((s for s in self.plan.saved if s.name == name), None)
        if saved is not None and self._in_place(saved, dtype):
            volume = self._create(saved, self._file_dtype(saved, dtype), grid.block)
            if _aligned(grid, volume.spec.chunks):
                self.placed[name] = volume
                self.sources[name] = Opened(volume, spec.kind)
                return VolumeSink(volume, spec)
            volume.close()
        files = self._files(step.name, array, grid, len(spec.channels), dtype)
        self.sources[name] = Stored(files, spec)
        return files

    def _in_place(self, saved: SavedArray, dtype: str) -> bool:
        writer = self.plan.config.writer
        if writer is None or writer.order != "any" or writer.sharing != "processes":
            return False
        return saved.spec.kind is not Kind.INSTANCE or dtype in writer.dtypes or "uint64" in writer.dtypes

    def _file_dtype(self, saved: SavedArray, dtype: str) -> str:
        """Instances: uint32 where they fit, as the writer has it; everything else as planned."""
        writer = self.plan.config.writer
        if saved.spec.kind is not Kind.INSTANCE or writer is None:
            return saved.dtype
        fits = [name for name in _IDS[_IDS.index(dtype) :] if name in writer.dtypes]
        return fits[0] if fits else saved.dtype

    def _create(self, saved: SavedArray, dtype: str, block: Shape) -> WritableVolume:
        writer = self.plan.config.writer
        if writer is None:
            raise RunError("a pipeline without output saves nothing")
        spec = VolumeSpec(
            shape=self.spec.shape,
            dtype=dtype,
            channels=saved.spec.channels,
            voxel_size=self.spec.voxel_size,
            origin=self.spec.origin,
            chunks=chunks_for(block, self.spec.shape),
            kind=saved.spec.kind,
        )
        return writer.create(saved.name, spec, resume=saved.name in self.schedule.setdefault("outputs", []))

    def _model(self, step: PlannedStep) -> dict[str, Any]:
        from mitocore.learn.modelstep import ModelStep

        digest, run = self.digests[step.name], self.plan.config.run
        work = ModelStep(step, self.spec, f"{step.name}.{digest}", run.devices, self.plan.memory)
        own = self.schedule.setdefault(f"{step.name}.{digest}", {})
        work.schedule(own)
        files = {
            head: self._files(step.name, head, work.grid, len(spec.channels), spec.stored)
            for head, spec in step.gives.items()
        }
        self.sources |= {f"{step.name}.{head}": Stored(stored, step.gives[head]) for head, stored in files.items()}
        return work.run(lambda: self._normalised(step), files, self.workspace, self.registry)

    def _normalised(self, step: PlannedStep) -> Source:
        if step.normalizer is None:
            return self.sources[INPUT]
        whole, name = Roi.whole(self.spec.shape), f"normalised.{_short(step.normalizer.digest() + repr(self.stats))}"
        block = as_shape(min(b, n) for b, n in zip(self.plan.config.run.block, whole.shape, strict=True))
        return passes.prepared(step.normalizer, self.stats, self.volume, whole, block, self.workspace, name=name)

    def _export(self) -> None:
        """Copy what was not written in place, then make every output final."""
        writer = self.plan.config.writer
        if writer is None:
            return
        for saved in self.plan.saved:
            volume = self.placed.get(saved.name)
            if volume is None:
                step = saved.name.partition(".")[0]
                key = f"output.{saved.name}.{self.digests[step]}"
                marker = self.workspace.state(f"{key}.done")
                if marker.exists():
                    continue
                dtype = self._exported_dtype(saved)
                volume = self._create(saved, dtype, (64, 512, 512))
                passes.export(self.sources[saved.name], saved.spec, volume, writer.order, self.workspace, key)
                volume.finish()
                volume.close()
                marker.touch()
            else:
                volume.finish()
                volume.close()

    def _exported_dtype(self, saved: SavedArray) -> str:
        """The dtype an exported array gets; ids as narrow as the format forces, if they fit."""
        source = self.sources[saved.name]
        writer = self.plan.config.writer
        if saved.spec.kind is not Kind.INSTANCE or writer is None:
            return saved.dtype
        step = saved.name.partition(".")[0]
        count = int(self.record["steps"][step].get("objects", 2**32))
        stored = source.files.dtype if isinstance(source, Stored) else "uint64"
        fits = [name for name in _IDS[_IDS.index(stored) if stored in _IDS else 0 :] if name in writer.dtypes]
        if fits:
            return fits[0]
        if count >= np.iinfo(saved.dtype).max:
            raise DataError(
                f"{saved.name!r} has {count:,} objects, this format holds {np.iinfo(saved.dtype).max - 1:,}",
                where=writer.path,
                hint="save to zarr, HDF5 or TIFF; the run folder keeps what was computed",
            )
        return saved.dtype

    def tidy(self) -> None:
        """Remove scratch that `run.keep` does not keep; what may be wanted again is then computed again."""
        keep = self.plan.config.run.keep
        wanted = {s.name for s in self.plan.saved} if self.plan.config.writer is None else set()
        for step in self.plan.steps:
            model = isinstance(step.component, Model)
            if keep == "all" or (keep == "heads" and model):
                continue
            digest = self.digests[step.name]
            if any(f"{step.name}.{array}" in wanted for array in step.gives):
                continue
            for journal in (f"{step.name}.{digest}", f"{step.name}.relabel.{digest}"):
                self.workspace.forget(journal)
            for array in step.gives:
                self.workspace.discard(f"{step.name}.{array}.{digest}")


def _aligned(grid: BlockGrid, chunks: Shape | None) -> bool:
    """Whether no two blocks share a chunk."""
    if chunks is None:
        return False
    axes = zip(grid.block, grid.region.shape, chunks, strict=True)
    return all(block >= length or block % chunk == 0 for block, length, chunk in axes)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: Path, data: Any) -> None:
    """Write a file of the run folder; a reader sees all of it or none."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(data, indent=1, default=str) + "\n", "utf-8")
    aside.replace(path)


def begin_again(folder: Path) -> None:
    """Forget all that was computed in a run folder; outputs stay, to be overwritten."""
    for part in ("state", "scratch"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "record.json").unlink(missing_ok=True)
