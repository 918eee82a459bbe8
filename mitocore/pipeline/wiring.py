"""Who reads what: every need of a step is connected to an array above it, or the pipeline is refused."""

import re
from collections.abc import Mapping
from dataclasses import replace

from mitocore.config.pipeline import PipelineConfig, StepConfig
from mitocore.config.toml import near
from mitocore.errors import MitocoreError, PluginError, WiringError
from mitocore.geometry import VoxelSize, as_shape
from mitocore.interfaces import Model, PostProcessor
from mitocore.pipeline.planned import INPUT, PlannedStep, Wire
from mitocore.registry import Registry
from mitocore.specs import ArraySpec, Kind, Need, Window
from mitocore.symmetry import moves, symmetries

_TABLES = ("input", "step", "output", "run")


def misnamed(config: PipelineConfig) -> list[MitocoreError]:
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


def wire(
    config: PipelineConfig,
    registry: Registry,
    arrays: dict[str, ArraySpec],
    voxel_size: VoxelSize | None,
    *,
    known: bool,
) -> tuple[list[PlannedStep], list[MitocoreError]]:
    """Connect each step to what stands above it, in order; `arrays` grows by what they give.

    `known` says whether `voxel_size` is what the input has; if not, physical options stay as they are. Ends at the
    first step that does not fit, as what stands below depends on it, or whose weights are not here.
    """
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
        for head in component.heads():
            for symmetry in () if head.auxiliary else symmetries(step.predict.tta):
                moves(head, symmetry)
        if step.predict.tta in ("plane", "all") and not _square(window):
            raise WiringError(
                f"tta = {step.predict.tta!r} transposes y and x, and the window {list(window.shape)} is not square",
                hint='tta = "flips", or a square predict.window',
            )
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
    _told_apart(step, needs, wires)
    given = {name: selected(arrays[wire.source], wire.channels) for name, wire in wires.items()}
    gives = {name: _stored(spec, step) for name, spec in component.gives(given).items()}
    component = component.reading(given)
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


def _square(window: Window) -> bool:
    return all(len({axes[1], axes[2]}) == 1 for axes in (window.shape, window.crop, window.divisor))


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
        hint=_instead(name, need, arrays),
    )


def _instead(name: str, need: Need, arrays: Mapping[str, ArraySpec]) -> str:
    """What to type where no array above a step fits what it needs."""
    for source, spec in reversed(list(arrays.items())):
        if need.channels == 1 and spec.kind in need.kinds and len(spec.channels) > 1:
            first = f'inputs = {{ {name} = "{source}:{spec.channels[0]}" }}'
            return f"it takes one of the {len(spec.channels)} channels of {source}: {first}"
    return _unstated(need, arrays.get(INPUT)) or f"a step before it that gives {_kinds(need)}"


def _unstated(need: Need, volume: ArraySpec | None) -> str:
    """What to type where nothing says what the input holds; "": something does."""
    if volume is None or volume.kind is not Kind.IMAGE or Kind.IMAGE in need.kinds:
        return ""
    return f'kind = "{min(need.kinds)}" in [input], if that is what it holds'


def _told_apart(step: StepConfig, needs: Mapping[str, Need], wires: Mapping[str, Wire]) -> None:
    """Refuse one array that nobody named for two needs of the same kind: one of them is meant to be another."""
    taken: dict[tuple[Wire, tuple[Kind, ...]], str] = {}
    for name, wire in wires.items():
        if name in step.inputs:
            continue
        other = taken.setdefault((wire, tuple(sorted(needs[name].kinds))), name)
        if other != name:
            problem = f"{step.name!r} would read {str(wire)!r} both for {other!r} and for {name!r}"
            hint = f'inputs = {{ {other} = "step.array", {name} = "step.array:channel" }} names them'
            raise WiringError(problem, hint=hint)


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
        unstated = _unstated(need, spec) if source == INPUT else ""
        raise WiringError(
            f"{step.name!r}: {step.inputs[name]!r} does not fit {name!r}: {problem}",
            hint=f"it needs {_kinds(need)}" + (f": {unstated}" if unstated else ""),
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
