"""Planning: a pipeline is wired, checked and priced before a voxel is read."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mitocore.config.pipeline import PipelineConfig
from mitocore.config.toml import near
from mitocore.errors import ConfigError, DataError, MitocoreError, WiringError, together
from mitocore.geometry import Roi, as_shape, stated_region
from mitocore.interfaces import Model, PostProcessor, StitchedPostProcessor, Writer
from mitocore.pipeline import costs, regions, wiring
from mitocore.pipeline.planned import INPUT, Plan, PlannedStep, SavedArray
from mitocore.registry import Registry
from mitocore.specs import ArraySpec, Kind, VolumeSpec

_TOLERANCE = 0.15  # of a voxel's edge, between training and input


def plan(
    config: PipelineConfig,
    registry: Registry,
    volume: VolumeSpec | None = None,
    *,
    data: bool = True,
    roi: str | None = None,
    until: str | None = None,
) -> Plan:
    """Wire, check and price a pipeline.

    Parameters
    ----------
    volume
        The header of the input, where it is not opened by the reader of the pipeline (an array in memory).
    data
        False: nothing of the input, the weights or the disk is looked at.
    roi
        Three ranges of voxels (z, y, x), such as "17:20,:,:": the part to segment.
    until
        Name of the last step to run.

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
    if findings := wiring.misnamed(config):
        raise together(findings)
    known = volume is not None or voxel_size is not None
    steps, findings = wiring.wire(config, registry, arrays, voxel_size, known=known)
    if findings:
        raise together(findings)
    begun = _until(config, until)
    saved = _saved(config, steps, arrays, begun)
    _has_room(config, saved)
    if volume is None:
        return Plan(config, tuple(steps), saved, until=until, notes=tuple(notes))
    region = stated_region(roi, volume.shape)
    here = {array.name.partition(".")[0] for array in saved} if config.writer is None else set()
    steps = [replace(step, stored=step.name in here) for step in steps]
    steps = [_sized(step, volume, config) for step in regions.of_steps(steps, Roi.whole(volume.shape), region)]
    findings = [finding for step in steps for finding in _fits(step, volume, notes)]
    if findings:
        raise together(findings)
    memory = costs.available_memory() // 2 if config.run.memory == "auto" else config.run.memory
    ready = Plan(config, tuple(steps), saved, volume, region, until, memory, tuple(notes))
    for array in ready.saved:
        ready.header(array)  # refused if it cannot be stored at the resolution of the output
    if findings := costs.refused(ready):
        raise together(findings)
    return ready


def _until(config: PipelineConfig, until: str | None) -> list[str]:
    """Names of the steps that are run."""
    names = [step.name for step in config.steps]
    if until is None:
        return names
    if until not in names:
        raise WiringError(f"no step is called {until!r}", where="--until", hint=near(until, names))
    return names[: names.index(until) + 1]


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
    if volume is None:
        return ArraySpec(config.kind or Kind.IMAGE)
    try:
        return volume.array(config.kind)
    except DataError as error:
        error.where = error.where or config.document.where("input", "path")
        raise


def _saved(
    config: PipelineConfig, steps: list[PlannedStep], arrays: Mapping[str, ArraySpec], begun: Sequence[str]
) -> tuple[SavedArray, ...]:
    """The arrays that are handed over, of the steps that are run."""
    if not steps or len(steps) < len(config.steps):
        return ()
    last = tuple(f"{steps[-1].name}.{name}" for name in steps[-1].gives)
    names = tuple(name for name in arrays if name != INPUT) if config.save == ("all",) else config.save or last
    where = config.document.where("output", "save")
    saved = []
    for name in dict.fromkeys(names):
        if name not in arrays or name == INPUT:
            have = [array for array in arrays if array != INPUT]
            raise WiringError(f"no step gives {name!r}", where=where, hint=near(name, have))
        saved.append(SavedArray(name, arrays[name], _file_dtype(name, arrays[name], config.writer, where)))
    found = tuple(array for array in saved if array.name.partition(".")[0] in begun)
    if found or config.writer:
        return found
    stop = steps[len(begun) - 1]  # without an output, what the last step gives is the result
    return tuple(SavedArray(f"{stop.name}.{name}", spec, spec.stored) for name, spec in stop.gives.items())


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
    for array in saved:
        try:
            writer.check(array.name)
        except DataError as error:
            problem = f"{path.name!r} cannot become the output: {error.problem}"
            raise DataError(problem, where=where, hint="another path in [output]") from error


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
    if isinstance(step.component, StitchedPostProcessor) and (lattice := step.component.lattice()):
        preferred = lattice.tile
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
    if step.config and step.config.predict.tta in ("plane", "all") and _oblong(volume):
        problem = f"tta = {step.config.predict.tta!r} transposes y and x, whose voxels differ: {volume.voxel_size}"
        findings.append(WiringError(problem, where=step.where, hint='tta = "flips"'))
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


def _oblong(volume: VolumeSpec) -> bool:
    return volume.voxel_size is not None and volume.voxel_size.y != volume.voxel_size.x


def _sizes(trained: Any) -> str:
    return " to ".join(map(str, trained)) if isinstance(trained, tuple) else str(trained)
