"""A plan at work in its run folder: model step, post-processing, output, record."""

import hashlib
import json
import logging
import os
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
from mitocore.blockwise.journal import sync_folder
from mitocore.blockwise.workspace import Workspace
from mitocore.errors import DataError, PluginError, RunError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import (
    LocalPostProcessor,
    Model,
    Normalizer,
    Stats,
    StitchedPostProcessor,
    Volume,
    WritableVolume,
    Writer,
)
from mitocore.pipeline import INPUT, Plan, PlannedStep, SavedArray
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
    stats: dict[str, Stats] = field(default_factory=dict)
    """Statistics of the input by step, as its normaliser fitted them."""
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What can move a voxel of a model step beside its options, in words a person can compare."""

    def prepare(self, identity: str) -> None:
        """Find out what the input is and give every step its digest."""
        config = self.plan.config
        kind = config.kind or self.spec.kind
        self.specs[INPUT] = ArraySpec(kind, self.spec.channels)
        self.sources[INPUT] = Opened(self.volume, None if kind is Kind.IMAGE else kind)
        self.digests["input"] = identity
        for step in self.plan.steps:
            if step.normalizer and step.config and step.config.weights:
                self.networks[step.name] = self._network(step)  # also refuses a device that is not there
                self.stats[step.name] = self._statistics(step.normalizer, identity)
            self.digests[step.name] = self._digest(step)

    def _network(self, step: PlannedStep) -> dict[str, Any]:
        from mitocore.learn.device import chosen
        from mitocore.learn.predict import precision_of

        if step.config is None or step.config.weights is None or step.window is None or step.normalizer is None:
            return {}
        return {
            "weights": weights.sha256(step.config.weights),
            "window": step.window.shape,
            "overlap": step.window.overlap,
            "precision": precision_of(step.config.predict.precision, chosen(self.plan.config.run.devices)),
            "temperature": step.config.header.temperature if step.config.header else {},
            "normalizer": f"{type(step.normalizer).__name__} {step.normalizer.model_dump(mode='json')}",
        }

    def _statistics(self, normalizer: Normalizer, identity: str) -> Stats:
        path = self.workspace.state(f"stats.{_short(normalizer.digest() + identity)}.json")
        if not path.exists():
            self.workspace.progress("input: statistics", 0, 1)
            write_json(path, dict(passes.fit(normalizer, self.volume)))
            self.workspace.progress("input: statistics", 1, 1)
        return dict(json.loads(path.read_text("utf-8")))

    def _digest(self, step: PlannedStep) -> str:
        parts: list[Any] = [step.component.digest(), *self._wired_from(step), [s.stored for s in step.gives.values()]]
        if isinstance(step.component, Model):
            parts += [self.networks.get(step.name), repr(step.window), dict(self.stats.get(step.name, {}))]
        else:
            parts.append(self.spec.voxel_size.edges if self.spec.voxel_size else None)
        return _short(json.dumps(parts, default=str))

    def _wired_from(self, step: PlannedStep) -> tuple[Any, ...]:
        """The code of a step, and what it is wired to, down to the input."""
        code = self.registry.fingerprint(step.config.entry) if step.config and step.config.entry else ""
        wired = [(need, self.digests[wire.source.partition(".")[0]], str(wire)) for need, wire in step.wires.items()]
        return code, wired

    def options(self) -> dict[str, Any]:
        """What a person would compare between two runs, by step."""
        found: dict[str, Any] = {}
        for step in self.plan.steps:
            stated = step.config.component if step.config and step.config.component else step.component
            options = stated.model_dump(mode="json")
            options |= self.networks.get(step.name, {})
            options["inputs"] = {need: str(wire) for need, wire in step.wires.items()}
            options["stored as"] = {array: spec.stored for array, spec in step.gives.items()}
            found[step.name] = json.loads(json.dumps({"component": step.qualified, **options}))
        return found

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
        if step.scope == "computed" and isinstance(step.component, LocalPostProcessor) and not self._handed_over(step):
            whole = Roi.whole(self.spec.shape)
            for name, spec in step.gives.items():
                computed = Computed(step.component, name, spec, inputs, whole, self.spec.voxel_size)
                self.sources[f"{step.name}.{name}"] = computed
            return {}
        return self._blockwise(step, inputs)

    def _handed_over(self, step: PlannedStep) -> bool:
        """Whether the run folder itself is where a saved array of this step is read from."""
        return self.plan.config.writer is None and any(s.name.partition(".")[0] == step.name for s in self.plan.saved)

    def _wired(self, source: str, channels: tuple[int, ...] | None) -> Source:
        found = self.sources[source]
        return found if channels is None else Selected(found, channels)

    def _blockwise(self, step: PlannedStep, inputs: Mapping[str, Source]) -> dict[str, Any]:
        name = f"{step.name}.{self.digests[step.name]}"
        grid = BlockGrid(Roi.whole(self.spec.shape), self._block(step))
        self._begin(step)
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
        options = component.model_dump(mode="json", exclude=late)
        return _short(json.dumps([options, *self._wired_from(step), self._block(step)], default=str))

    def _scheduled(self, step: PlannedStep) -> dict[str, Any]:
        """How a step that has begun was cut; to be filled for a new one."""
        own: dict[str, Any] = self.schedule.setdefault(f"{step.name}.{self.digests[step.name]}", {})
        return own

    def _block(self, step: PlannedStep) -> Shape:
        """The blocks a step has begun with, or those planned for a new one."""
        return as_shape(self._scheduled(step).setdefault("block", list(step.block)))

    def _begin(self, step: PlannedStep) -> None:
        """Note how a step is cut and where it writes; forget what it wrote to another file, or to one that is gone."""
        own, digest = self._scheduled(step), self.digests[step.name]
        targets = {name: self._target(name) for name in (f"{step.name}.{array}" for array in step.gives)}
        gone = any(target and not holds(self.plan.config.writer, name) for name, target in targets.items())
        if own.setdefault("targets", targets) != targets or gone:
            own["targets"] = targets
            for journal in (f"{step.name}.{digest}", f"{step.name}.relabel.{digest}"):
                self.workspace.forget(journal)
        self.save()

    def _target(self, name: str) -> str:
        """The file that an array may be written into by the step that computes it; "": none."""
        saved = any(s.name == name for s in self.plan.saved)
        return place_of(self.plan.config.writer) if saved and self._unordered() else ""

    def _files(self, step: str, array: str, grid: BlockGrid, channels: int, dtype: str) -> BlockFiles:
        return BlockFiles(self.workspace.scratch(f"{step}.{array}.{self.digests[step]}"), grid, channels, dtype)

    def _sink(self, step: PlannedStep, array: str, dtype: str, grid: BlockGrid) -> Sink:
        """Where a step writes an array: the output file, if it takes blocks in any order; else scratch."""
        name, spec = f"{step.name}.{array}", step.gives[array]
        saved = next((s for s in self.plan.saved if s.name == name), None)
        if saved is not None and self._in_place(saved, dtype):
            volume = self._create(saved, self._file_dtype(saved, dtype))
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
        if writer is None or not self._unordered():
            return False
        return saved.spec.kind is not Kind.INSTANCE or dtype in writer.dtypes or "uint64" in writer.dtypes

    def _unordered(self) -> bool:
        """Whether any worker may write any block of an output."""
        writer = self.plan.config.writer
        return writer is not None and (writer.order, writer.sharing) == ("any", "processes")

    def _file_dtype(self, saved: SavedArray, dtype: str) -> str:
        """Instances: uint32 where they fit, as the writer has it; everything else as planned."""
        writer = self.plan.config.writer
        if saved.spec.kind is not Kind.INSTANCE or writer is None:
            return saved.dtype
        fits = [name for name in _IDS[_IDS.index(dtype) :] if name in writer.dtypes]
        return fits[0] if fits else saved.dtype

    def _create(self, saved: SavedArray, dtype: str) -> WritableVolume:
        writer = self.plan.config.writer
        if writer is None:
            raise RunError("a pipeline without output saves nothing")
        spec = VolumeSpec(
            shape=self.spec.shape,
            dtype=dtype,
            channels=saved.spec.channels,
            voxel_size=self.spec.voxel_size,
            origin=self.spec.origin,
            kind=saved.spec.kind,
        )
        outputs = self.schedule.setdefault("outputs", {})
        ours = outputs.get(saved.name) == place_of(writer)
        outputs[saved.name] = place_of(writer)
        self.save()  # a run that is killed right after `create` must know the file as its own
        if not holds(writer, saved.name):
            self.workspace.forget(self._export_journal(saved))
        try:
            return writer.create(saved.name, spec, resume=ours)
        except DataError:
            if not ours:
                del outputs[saved.name]
                self.save()
            raise

    def _model(self, step: PlannedStep) -> dict[str, Any]:
        from mitocore.learn.modelstep import ModelStep

        digest, run = self.digests[step.name], self.plan.config.run
        work = ModelStep(step, self.spec, f"{step.name}.{digest}", run.devices, self.plan.memory)
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
        parts = [self.digests["input"], self.networks[step.name]["normalizer"], self.stats[step.name]]
        return f"normalised.{_short(json.dumps([*parts, self.plan.config.run.block], default=str))}"

    def _export(self) -> None:
        """Copy what was not written in place, then make every output final."""
        for saved in self.plan.saved if self.plan.config.writer else ():
            volume = self.placed.get(saved.name) or self._exported(saved)
            volume.finish()
            volume.close()

    def _exported(self, saved: SavedArray) -> WritableVolume:
        writer = self.plan.config.writer
        if writer is None:
            raise RunError("a pipeline without output saves nothing")
        volume, journal = self._create(saved, self._exported_dtype(saved)), self._export_journal(saved)
        passes.export(self.sources[saved.name], saved.spec, volume, writer.order, self.workspace, journal)
        return volume

    def _export_journal(self, saved: SavedArray) -> str:
        digest = self.digests[saved.name.partition(".")[0]]
        return f"output.{saved.name}.{digest}.{_short(place_of(self.plan.config.writer))}"

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

    def drop_stale(self) -> None:
        """Remove scratch and state of configurations that are no longer wanted."""
        wanted = {digest for name, digest in self.digests.items() if name != "input"}
        wanted |= {self.early(step) for step in self.plan.steps if step.scope == "stitched"}
        wanted |= {self._normalised_name(step) for step in self.plan.steps if step.name in self.networks}
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
            digest = self.digests[step.name]
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
    """Write a file of the run folder durably; a reader sees all of it or none."""
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(data, indent=1, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def place_of(writer: Writer | None) -> str:
    """What tells one output from another: the writer with all its options, its path among them."""
    return f"{type(writer).__name__} {writer.model_dump_json()}" if writer else ""


def holds(writer: Writer | None, name: str) -> bool:
    """Whether an output has this array already, finished or begun."""
    if writer is None:
        return False
    try:
        writer.open(name).close()
    except DataError:
        return False
    return True


def begin_again(folder: Path) -> None:
    """Forget all that was computed in a run folder; outputs stay, to be overwritten."""
    for part in ("state", "scratch"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "record.json").unlink(missing_ok=True)
