"""What planning finds out: steps, wires, saved arrays; prints as a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mitocore.config.pipeline import PipelineConfig, StepConfig
from mitocore.errors import ContractError, DataError
from mitocore.geometry import Roi, Shape
from mitocore.interfaces import (
    LocalPostProcessor,
    Model,
    Normalizer,
    ObjectwisePostProcessor,
    PostProcessor,
    StitchedPostProcessor,
    WholePostProcessor,
)
from mitocore.resampling import Resampling
from mitocore.scaling import scaled
from mitocore.specs import ArraySpec, Kind, VolumeSpec, Window

INPUT = "input.image"


_SCOPES = {
    Model: "model",
    StitchedPostProcessor: "stitched",
    ObjectwisePostProcessor: "objectwise",
    WholePostProcessor: "whole",
}
_ID = 4  # bytes of a provisional id


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
    region: Roi | None = None
    """What it computes: the region of the run, grown by what the steps below read around it; None: without data."""
    bounds: Roi | None = None
    """What it takes for the volume: all of it, or the region of the run where objects end at its faces."""
    stored: bool = False
    """Whether the run folder itself is where its arrays are read from when the run is done."""
    block: Shape = (1, 1, 1)
    window: Window | None = None
    config: StepConfig | None = None
    normalizer: Normalizer | None = None

    @property
    def scope(self) -> str:
        """How the engine runs it: model, local, stitched, objectwise, whole; or computed where it is read.

        The last is a Local step without halo, unless its result is what the run folder holds.
        """
        if isinstance(self.component, LocalPostProcessor):
            return "local" if any(self.component.halo()) or self.stored else "computed"
        return next(scope for kind, scope in _SCOPES.items() if isinstance(self.component, kind))

    @property
    def plugin(self) -> str:
        """What errors of the component name: its qualified name; "": it is not registered."""
        return self.qualified if self.config and self.config.entry else ""

    @property
    def local(self) -> bool:
        """Whether a region of it is the same voxels as in a run over the whole volume."""
        return self.scope in ("model", "computed", "local")

    @property
    def scratch(self) -> int:
        """Bytes of scratch per voxel of the volume."""
        if self.scope == "computed":
            return 0
        given = sum(stored_bytes(spec, spec.stored) for spec in self.gives.values())
        if self.scope == "objectwise":  # ids of components; outputs by block, and of objects that cross blocks by part
            return 3 * given + _ID
        return given + _ID if self.scope == "stitched" else given


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
    region: Roi | None = None
    """What is segmented: the whole volume, or a part of it; None: planned without data."""
    until: str | None = None
    """The last step that is run; None: all are."""
    memory: int = 0
    """Bytes the run may use."""
    notes: tuple[str, ...] = field(default=())

    @property
    def whole(self) -> bool:
        """Whether the whole volume is segmented, as far as is known."""
        return self.volume is None or self.region == Roi.whole(self.volume.shape)

    @property
    def result(self) -> VolumeSpec:
        """The header of what is given back: of the region, at its place in the volume.

        Raises
        ------
        ContractError
            If it was planned without data.
        """
        if self.volume is None or self.region is None:
            raise ContractError("the pipeline was planned without data", hint="plan it with data before it runs")
        edges = self.volume.voxel_size.edges if self.volume.voxel_size else (0.0, 0.0, 0.0)
        corner = zip(self.volume.origin, self.region.start, edges, strict=True)
        z, y, x = (origin + voxels * edge for origin, voxels, edge in corner)
        return replace(self.volume, shape=self.region.shape, origin=(z, y, x), chunks=None)

    def header(self, saved: SavedArray) -> tuple[VolumeSpec, Resampling | None]:
        """The header of an array in its file, and how it gets another resolution; None: it keeps its own.

        Raises
        ------
        DataError
            If it cannot be stored at the resolution that is asked for.
        """
        kept = replace(self.result, channels=saved.spec.channels, kind=saved.spec.kind, dtype=saved.dtype)
        factors = self.config.scale_factors
        if factors is None or self.volume is None or self.region is None:
            return kept, None
        whole = replace(kept, shape=self.volume.shape, origin=self.volume.origin)
        try:
            spec, resampling = scaled(whole, factors, self.region)
        except DataError as error:
            error.problem = f"{saved.name!r}: {error.problem}"
            error.where = error.where or self.config.document.where("output", "scale_factors")
            raise
        return spec, resampling

    def __str__(self) -> str:
        lines = [_heading(self)]
        for step in self.steps:
            wires = ", ".join(f"{need} ← {wire}" for need, wire in step.wires.items())
            gives = ", ".join(f"{name} ({_described(spec)})" for name, spec in step.gives.items())
            halo = f" · halo {step.component.halo()}" if step.scope == "local" else ""  # type: ignore[union-attr]
            part = "" if self.whole or step.region is None else f" · {_placed(step)}"
            tile = f" · window {step.window.shape} overlap {step.window.overlap}" if step.window else ""
            lines.append(f"  {step.name:<16} {step.qualified} {step.version} · {step.scope}{halo}{tile}{part}")
            lines.append(f"  {'':<16} {wires} → {gives} · {step.scratch} B/voxel of scratch")
        if self.until:
            lines.append(f"  stops after {self.until!r}; the same command without it goes on from there")
        if self.saved and self.config.writer:
            names = ", ".join(saved.name for saved in self.saved)
            lines.append(f"  {'output':<16} {names} → {self.config.writer.path}{_rescaled(self)}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def _heading(plan: Plan) -> str:
    if plan.volume is None:
        return f"{plan.config.name}: planned without data"
    voxel = plan.volume.voxel_size or "unknown"
    scratch = sum(step.scratch * step.region.voxels for step in plan.steps if step.region)
    part = "" if plan.whole or plan.region is None else f"region {_ranges(plan.region)}, "
    return (
        f"{plan.config.name}: volume {plan.volume.shape} (z, y, x) of {plan.volume.dtype}, voxel size {voxel}, {part}"
        f"memory {amount(plan.memory)}, scratch {amount(scratch)}"
    )


def _ranges(roi: Roi) -> str:
    """A region as `--roi` takes it."""
    return ",".join(f"{a}:{b}" for a, b in zip(roi.start, roi.stop, strict=True))


def _rescaled(plan: Plan) -> str:
    """What a table says of an output at another resolution."""
    factors = plan.config.scale_factors
    if factors is None:
        return ""
    text = f" · {', '.join(f'{factor:g}' for factor in factors)} times the resolution"
    if plan.volume is None:
        return text
    spec, _ = plan.header(plan.saved[0])
    return f"{text}: {spec.shape} voxels" + (f" of {spec.voxel_size}" if spec.voxel_size else "")


def _placed(step: PlannedStep) -> str:
    """What becomes of a step when a region is run."""
    if step.region is None:
        return ""
    return f"computes {_ranges(step.region)}" + ("" if step.local else ", objects end at its faces")


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


def stored_bytes(spec: ArraySpec, dtype: str) -> int:
    """Bytes per voxel on disk; ids take four unless there are more than 4 billion objects."""
    return len(spec.channels) * min(_BYTES.get(dtype, 8), 4 if spec.kind is Kind.INSTANCE else 8)


_BYTES = {"bool": 1, "uint8": 1, "uint16": 2, "float16": 2, "uint32": 4, "float32": 4}
