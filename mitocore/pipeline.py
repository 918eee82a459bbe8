"""Planning: a pipeline is wired, checked and priced before a voxel is read."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mitocore.config.pipeline import PipelineConfig, StepConfig
from mitocore.config.toml import near
from mitocore.errors import ConfigError, DataError, MitocoreError, PluginError, ResourceError, WiringError, together
from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import LocalPostProcessor, Model, Normalizer, PostProcessor, StitchedPostProcessor, Writer
from mitocore.registry import Registry
from mitocore.specs import ArraySpec, Kind, Need, VolumeSpec, Window

INPUT = "input.image"
_TOLERANCE = 0.15  # of a voxel's edge, between training and input
_TABLES = ("input", "step", "output", "run")


@dataclass(frozen=True)
class Wire:
    """What an input of a step is connected to."""

    source: str
    """ "step.array". """
    channels: tuple[int, ...] | None = None
    """Which of its channels; None: all."""

    def __str__(self) -> str:
        return self.source if self.channels is None else f"{self.source}:{','.join(map(str, self.channels))}"


@dataclass(frozen=True)
class PlannedStep:
    """A step with everything known that can be known before it runs."""

    name: str
    component: Model | PostProcessor
    qualified: str
    version: str
    wires: Mapping[str, Wire]
    gives: Mapping[str, ArraySpec]
    where: str = ""
    block: Shape = (1, 1, 1)
    window: Window | None = None
    config: StepConfig | None = None
    normalizer: Normalizer | None = None

    @property
    def scope(self) -> str:
        """How the engine runs it: model, computed (a Local step without halo), local or stitched."""
        if isinstance(self.component, LocalPostProcessor):
            return "local" if any(self.component.halo()) else "computed"
        return "model" if isinstance(self.component, Model) else "stitched"

    @property
    def scratch(self) -> int:
        """Bytes of scratch per voxel of the volume."""
        if self.scope == "computed":
            return 0
        return sum(_stored_bytes(spec, spec.stored) for spec in self.gives.values()) + (
            4 if self.scope == "stitched" else 0
        )


@dataclass(frozen=True)
class SavedArray:
    """An array that goes to the output file."""

    name: str
    spec: ArraySpec
    dtype: str
    """In the file; of instances: the narrowest of these the writer has, see `Writer.dtypes`."""


@dataclass(frozen=True)
class Plan:
    """A pipeline that can run; prints as a table."""

    config: PipelineConfig
    steps: tuple[PlannedStep, ...]
    saved: tuple[SavedArray, ...] = ()
    volume: VolumeSpec | None = None
    """Header of the input; None: planned without data."""
    memory: int = 0
    """Bytes the run may use."""
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [_heading(self)]
        for step in self.steps:
            wires = ", ".join(f"{need} ← {wire}" for need, wire in step.wires.items())
            gives = ", ".join(f"{name} ({_described(spec)})" for name, spec in step.gives.items())
            halo = f" · halo {step.component.halo()}" if step.scope == "local" else ""  # type: ignore[union-attr]
            tile = f" · window {step.window.shape} overlap {step.window.overlap}" if step.window else ""
            lines.append(f"  {step.name:<16} {step.qualified} {step.version} · {step.scope}{halo}{tile}")
            lines.append(f"  {'':<16} {wires} → {gives} · {step.scratch} B/voxel of scratch")
        if self.saved and self.config.writer:
            lines.append(f"  {'output':<16} {', '.join(s.name for s in self.saved)} → {self.config.writer.path}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def _heading(plan: Plan) -> str:
    if plan.volume is None:
        return f"{plan.config.name}: planned without data"
    voxel = plan.volume.voxel_size or "unknown"
    scratch = sum(step.scratch for step in plan.steps) * _voxels(plan.volume.shape)
    return (
        f"{plan.config.name}: volume {plan.volume.shape} (z, y, x) of {plan.volume.dtype}, voxel size {voxel}, "
        f"memory {amount(plan.memory)}, scratch {amount(scratch)}"
    )


def amount(size: float) -> str:
    """Bytes for people.

    >>> amount(1_500_000_000), amount(20_480)
    ('1.5 GB', '20.5 kB')
    """
    unit, factor = next(((u, f) for u, f in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)) if size >= f), ("kB", 1e3))
    return f"{size / factor:.3g} {unit}"


def _described(spec: ArraySpec) -> str:
    channels = f" × {len(spec.channels)}" if len(spec.channels) > 1 else ""
    return f"{spec.kind}{channels} {spec.stored}"


def plan(config: PipelineConfig, registry: Registry, volume: VolumeSpec | None = None, *, data: bool = True) -> Plan:
    """Wire, check and price a pipeline.

    Parameters
    ----------
    volume
        The header of the input, where it is not opened by the reader of the pipeline (an array in memory).
    data
        False: nothing of the input, the weights or the disk is looked at.

    Raises
    ------
    MitocoreError
        With all findings of the first stage that has any.
    """
    notes = list(config.notes)
    if volume is None and data:
        volume = _opened(config)
    voxel_size = volume.voxel_size if volume else (config.reader.voxel_size if config.reader else None)
    arrays = {INPUT: _input_spec(config, volume)}
    if findings := _misnamed(config):
        raise together(findings)
    steps, findings = _wire(config, registry, arrays, voxel_size, known=volume is not None or voxel_size is not None)
    if findings:
        raise together(findings)
    saved = _saved(config, steps, arrays)
    _has_room(config, saved)
    if volume is None:
        return Plan(config, tuple(steps), saved, None, 0, tuple(notes))
    steps = [_sized(step, volume, config) for step in steps]
    findings = [finding for step in steps for finding in _fits(step, volume, notes)]
    if findings:
        raise together(findings)
    memory = available_memory() // 2 if config.run.memory == "auto" else config.run.memory
    ready = Plan(config, tuple(steps), saved, volume, memory, tuple(notes))
    _affordable(ready)
    return ready


def _misnamed(config: PipelineConfig) -> list[MitocoreError]:
    """Steps whose arrays could not be told apart, or not be written as "step.array"."""
    findings: list[MitocoreError] = []
    names = [step.name for step in config.steps]
    for number, step in enumerate(config.steps):
        problem = ""
        if not re.fullmatch(r"[A-Za-z0-9_-]+", step.name):
            problem = "is not a name for a step; letters, digits, _ and - are allowed"
        elif step.name in _TABLES:
            problem = "is the name of a table, not of a step"
        elif step.name in names[:number]:
            problem = "is the name of two steps"
        if problem:
            findings.append(WiringError(f"{step.name!r} {problem}", where=step.where, hint='name = "…" of its own'))
    return findings


def _opened(config: PipelineConfig) -> VolumeSpec:
    if config.reader is None:
        raise ConfigError(
            "the pipeline has no input",
            where=str(config.document.path or ""),
            hint='[input] path = "volume.zarr::raw"',
        )
    try:
        with config.reader.open() as volume:
            return volume.spec
    except DataError as error:
        error.where = error.where or config.document.where("input", "path")
        raise


def _input_spec(config: PipelineConfig, volume: VolumeSpec | None) -> ArraySpec:
    kind = config.kind or (volume.kind if volume else Kind.IMAGE)
    return ArraySpec(kind, volume.channels if volume else ("",))


def _wire(
    config: PipelineConfig,
    registry: Registry,
    arrays: dict[str, ArraySpec],
    voxel_size: VoxelSize | None,
    *,
    known: bool,
) -> tuple[list[PlannedStep], list[MitocoreError]]:
    steps: list[PlannedStep] = []
    findings: list[MitocoreError] = []
    for step in config.steps:
        if step.component is None:
            return steps, findings  # weights that are not here: what follows cannot be wired
        try:
            planned = _planned(step, registry, arrays, voxel_size, known=known)
        except MitocoreError as error:
            error.where = error.where or step.where
            findings += [error, *error.others]
            return steps, findings  # what stands below depends on it
        steps.append(planned)
        arrays.update({f"{step.name}.{name}": spec for name, spec in planned.gives.items()})
    return steps, findings


def _planned(
    step: StepConfig, registry: Registry, arrays: Mapping[str, ArraySpec], voxel_size: VoxelSize | None, *, known: bool
) -> PlannedStep:
    component = step.component
    qualified = step.entry.qualified if step.entry else type(component).__qualname__
    version = registry.versions.get(step.entry.plugin, "") if step.entry else ""
    if isinstance(component, Model):
        gives = {
            head.name: _stored(ArraySpec(head.kind, head.channels, head.offsets), step)
            for head in component.heads()
            if not head.auxiliary
        }
        if step.inputs:
            raise WiringError(f"{step.name!r} is a model: it reads the input of the pipeline", hint="leave inputs out")
        image = arrays[INPUT]
        if image.kind is not Kind.IMAGE:
            raise WiringError(f"{step.name!r} needs an image, but the input holds {image.kind}", hint='kind = "image"')
        wires = {"image": Wire(INPUT)}
        window = _window(step, component)
        return PlannedStep(
            step.name, component, qualified, version, wires, gives, step.where, window=window, config=step,
            normalizer=step.normalizer,
        )  # fmt: skip
    if not isinstance(component, PostProcessor):
        raise PluginError(f"{qualified} is neither a model nor a postprocessor")
    if known:
        component = component.in_voxels(voxel_size)
    needs = component.needs()
    for name in step.inputs.keys() - needs.keys():
        raise WiringError(f"{step.name!r} has no input {name!r}", hint=near(name, needs))
    wires = {}
    for name, need in needs.items():
        wire = _chosen(step, name, need, arrays)
        if wire is not None:
            wires[name] = wire
    given = {name: selected(arrays[wire.source], wire.channels) for name, wire in wires.items()}
    gives = {name: _stored(spec, step) for name, spec in component.gives(given).items()}
    if step.storage and not any(spec.storage for spec in gives.values()):
        raise WiringError(f"storage does not apply to {step.name!r}: it gives no probability", hint="leave storage out")
    return PlannedStep(step.name, component, qualified, version, wires, gives, step.where, config=step)


def selected(spec: ArraySpec, channels: tuple[int, ...] | None) -> ArraySpec:
    """The spec of some channels of an array."""
    if channels is None:
        return spec
    offsets = tuple(spec.offsets[c] for c in channels) if spec.offsets else ()
    return replace(spec, channels=tuple(spec.channels[c] for c in channels), offsets=offsets)


def _stored(spec: ArraySpec, step: StepConfig) -> ArraySpec:
    applies = spec.kind in (Kind.PROBABILITY, Kind.AFFINITY)
    return replace(spec, storage=step.storage) if applies and step.storage else spec


def _window(step: StepConfig, model: Model) -> Window:
    trained = step.header.window if step.header else model.window()
    shape = step.predict.window or trained.shape
    overlap = step.predict.overlap
    if overlap is None:
        overlap = trained.overlap
        if step.predict.window:  # the same share of a window of another size
            overlap = as_shape(
                0 if n == "all" else min(v, (n - 2 * c) // 2)
                for n, v, c in zip(shape, trained.overlap, trained.crop, strict=True)
            )
    try:
        return replace(trained, shape=shape, overlap=overlap)
    except ValueError as error:
        hint = f"predict = {{ window = {list(trained.shape)}, overlap = {list(trained.overlap)} }}"
        raise WiringError(str(error), where=step.where, hint=hint) from error


def _chosen(step: StepConfig, name: str, need: Need, arrays: Mapping[str, ArraySpec]) -> Wire | None:
    if name in step.inputs:
        return _stated(step, name, need, arrays)
    for above in dict.fromkeys(source.partition(".")[0] for source in reversed(list(arrays))):
        fits = [
            (source, spec)
            for source, spec in arrays.items()
            if source.partition(".")[0] == above and _met(need, spec) is None
        ]
        if len(fits) > 1:
            both = ", ".join(source for source, _ in fits)
            raise WiringError(
                f"{step.name!r} needs {_kinds(need)} for {name!r}; {len(fits)} fit: {both}",
                hint=f'inputs = {{ {name} = "{fits[0][0]}" }}',
            )
        if fits:
            return Wire(fits[0][0], _channels(need, fits[0][1]))
    if need.optional:
        return None
    have = ", ".join(f"{source} ({spec.kind})" for source, spec in arrays.items())
    raise WiringError(
        f"{step.name!r} needs {_kinds(need)} for {name!r}; above it are only {have}",
        hint=f"a step before it that gives {_kinds(need)}",
    )


def _stated(step: StepConfig, name: str, need: Need, arrays: Mapping[str, ArraySpec]) -> Wire:
    source, _, channel = step.inputs[name].partition(":")
    if source not in arrays:
        hint = near(source, arrays)
        raise WiringError(f"{step.name!r}: no array {source!r} stands above it", hint=hint)
    spec = arrays[source]
    channels = _channels(need, spec)
    if channel:
        if channel not in spec.channels:
            raise WiringError(f"{source!r} has no channel {channel!r}", hint=near(channel, spec.channels))
        channels = (spec.channels.index(channel),)
    problem = _met(need, selected(spec, channels))
    if problem:
        raise WiringError(
            f"{step.name!r}: {step.inputs[name]!r} does not fit {name!r}: {problem}", hint=f"it needs {_kinds(need)}"
        )
    return Wire(source, channels)


def _met(need: Need, spec: ArraySpec) -> str | None:
    """Why an array does not meet a need; None: it does."""
    if spec.kind not in need.kinds:
        return f"it holds {spec.kind}"
    if isinstance(need.channels, int) and len(spec.channels) != need.channels:
        return f"it has {len(spec.channels)} channels, not {need.channels}; name one as step.array:channel"
    if isinstance(need.channels, tuple) and not set(need.channels) <= set(spec.channels):
        return f"it has channels {', '.join(spec.channels)}"
    return None


def _channels(need: Need, spec: ArraySpec) -> tuple[int, ...] | None:
    if isinstance(need.channels, tuple) and set(need.channels) <= set(spec.channels):
        return tuple(spec.channels.index(channel) for channel in need.channels)
    return None


def _kinds(need: Need) -> str:
    return " or ".join(f"{'an' if kind[0] in 'aeio' else 'a'} {kind} array" for kind in sorted(need.kinds))


def _saved(config: PipelineConfig, steps: list[PlannedStep], arrays: Mapping[str, ArraySpec]) -> tuple[SavedArray, ...]:
    if not steps or len(steps) < len(config.steps):
        return ()
    names = config.save or tuple(f"{steps[-1].name}.{name}" for name in steps[-1].gives)
    where = config.document.where("output", "save")
    saved = []
    for name in dict.fromkeys(names):
        if name not in arrays or name == INPUT:
            have = [array for array in arrays if array != INPUT]
            raise WiringError(f"no step gives {name!r}", where=where, hint=near(name, have))
        saved.append(SavedArray(name, arrays[name], _file_dtype(name, arrays[name], config.writer, where)))
    return tuple(saved)


def _has_room(config: PipelineConfig, saved: tuple[SavedArray, ...]) -> None:
    """Refuse an output that cannot be made, before anything is computed for it."""
    writer, where = config.writer, config.document.where("output", "path")
    if writer is None:
        return
    path = Path(writer.path.rstrip("/"))
    if writer.holds == "one" and len(saved) > 1 and "{name}" not in writer.path:
        spot = path.with_name(f"{path.stem}.{{name}}{path.suffix}").name
        names = ", ".join(array.name for array in saved)
        raise WiringError(f"{path.name!r} holds one array, not {names}", where=where, hint=f"path = {spot!r}")
    if "://" in writer.path:
        return
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "is a file" if there.is_file() else "cannot be written to"
        raise DataError(f"{str(there)!r} {problem}", where=where, hint="another path in [output]")


def _file_dtype(name: str, spec: ArraySpec, writer: Writer | None, where: str) -> str:
    """The dtype of an array in the file of this writer; instances: of the widest ids it can hold."""
    if writer is None:
        return spec.stored
    if writer.lossy and spec.kind in (Kind.MASK, Kind.SEMANTIC, Kind.INSTANCE):
        raise WiringError(
            f"{name!r} holds {spec.kind}, and this format changes values", where=where, hint="use zarr or tiff"
        )
    order = ["bool", "uint8", "uint16", "uint32", "uint64"]
    if spec.kind is Kind.INSTANCE:
        fits = [dtype for dtype in order[1:] if dtype in writer.dtypes]
        chosen = fits[-1] if fits else None
    else:
        ladder = order if spec.stored in order else ["float16", "float32"]
        fits = [dtype for dtype in ladder[ladder.index(spec.stored) :] if dtype in writer.dtypes]
        chosen = fits[0] if fits else None
    if chosen is None:
        raise WiringError(
            f"{name!r} is {spec.stored}; this format holds only {', '.join(writer.dtypes)}", where=where,
            hint="save it to zarr, or another array",
        )  # fmt: skip
    return chosen


def _sized(step: PlannedStep, volume: VolumeSpec, config: PipelineConfig) -> PlannedStep:
    preferred = as_shape(min(b, n) for b, n in zip(config.run.block, volume.shape, strict=True))
    if isinstance(step.component, PostProcessor):
        preferred = step.component.block_shape(volume, preferred)
    return replace(step, block=preferred)


def _fits(step: PlannedStep, volume: VolumeSpec, notes: list[str]) -> list[MitocoreError]:
    if not isinstance(step.component, Model):
        return []
    findings: list[MitocoreError] = []
    expected = step.component.channels()
    if len(volume.channels) != len(expected):
        findings.append(
            DataError(
                f"the network takes {len(expected)} channels ({', '.join(expected)}), "
                f"the input has {len(volume.channels)}",
                where=step.where,
                hint="choose another array or channel of the input",
            )
        )
    header = step.config.header if step.config else None
    trained = header.voxel_size if header else None
    if trained is None:
        return findings
    if volume.voxel_size is None:
        notes.append(
            f"the weights of {step.name!r} were trained at {_sizes(trained)}; the input does not say its voxel size"
        )
        return findings
    low, high = trained if isinstance(trained, tuple) else (trained, trained)
    axes = (1, 2) if step.window and step.window.planar else (0, 1, 2)
    for axis in axes:
        edge = volume.voxel_size.edges[axis]
        if not low.edges[axis] * (1 - _TOLERANCE) <= edge <= high.edges[axis] * (1 + _TOLERANCE):
            findings.append(
                ConfigError(
                    f"the input has voxels of {volume.voxel_size}, the network was trained at {_sizes(trained)}",
                    where=step.where,
                    hint="resample the volume, or state the true voxel_size in [input]",
                )
            )
            break
    return findings


def _sizes(trained: Any) -> str:
    return " to ".join(map(str, trained)) if isinstance(trained, tuple) else str(trained)


def _affordable(ready: Plan) -> None:
    """Refuse what memory or disk cannot hold."""
    if ready.volume is None:
        return
    for step in ready.steps:
        needed = memory_of(step, ready.volume)
        if needed > ready.memory:
            raise ResourceError(
                f"{step.name!r} needs {amount(needed)} of memory, the run may use {amount(ready.memory)}",
                where=step.where,
                hint="a smaller predict.window"
                if step.scope == "model"
                else 'a smaller run.block, or memory = "…" in [run]',
            )
    scratch = sum(step.scratch for step in ready.steps) * _voxels(ready.volume.shape)
    output = sum(_stored_bytes(s.spec, s.dtype) for s in ready.saved) * _voxels(ready.volume.shape)
    folder = Path(ready.config.run.folder or ".")
    free = shutil.disk_usage(next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())).free
    if scratch + output > free:
        raise ResourceError(
            f"scratch and output may need {amount(scratch + output)}, {amount(free)} are free",
            where=str(folder.absolute()),
            hint='folder = "…" in [run] on a larger disk',
        )


def memory_of(step: PlannedStep, volume: VolumeSpec) -> int:
    """Bytes that one block, or one row of tiles, of a step needs at least."""
    channels = sum(len(spec.channels) for spec in step.gives.values())
    if step.window is not None:
        depth, height, width = step.window.output(volume.shape)
        stride = depth - step.window.overlap[0]
        sums = channels * (depth + stride) * height * max(volume.shape[2], width) * 4
        tile = step.window.tile(volume.shape)
        section = 3 * tile[0] * tile[1] * (volume.shape[2] + tile[2]) * 4
        return 2 * sums + section
    halo = step.component.halo() if isinstance(step.component, PostProcessor) else (0, 0, 0)
    voxels = _voxels(as_shape(min(b + 2 * h, n) for b, h, n in zip(step.block, halo, volume.shape, strict=True)))
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


def _voxels(shape: Shape) -> int:
    return shape[0] * shape[1] * shape[2]


def _stored_bytes(spec: ArraySpec, dtype: str) -> int:
    """Bytes per voxel on disk; ids take four unless there are more than 4 billion objects."""
    return len(spec.channels) * min(_bytes(dtype), 4 if spec.kind is Kind.INSTANCE else 8)


def _bytes(dtype: str) -> int:
    return {"bool": 1, "uint8": 1, "uint16": 2, "float16": 2, "uint32": 4, "float32": 4}.get(dtype, 8)
