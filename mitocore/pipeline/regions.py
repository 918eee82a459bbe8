"""Which part of the volume each step computes, so that a region of the result is exact."""

from collections.abc import Iterable
from dataclasses import replace

from mitocore.geometry import Roi
from mitocore.interfaces import LocalPostProcessor
from mitocore.pipeline.planned import INPUT, PlannedStep


def of_steps(steps: Iterable[PlannedStep], whole: Roi, region: Roi) -> list[PlannedStep]:
    """The steps with what they compute of a `region` of the `whole` volume.

    Models and Local steps give the voxels that a run over the whole volume would give there: they compute as much more
    around the region as the halos of the steps below read, inside the volume. All other steps take the region for
    their volume, so objects end at its faces; so does a Local step that reads from one of them.
    """
    ordered = list(steps)
    bounds: dict[str, Roi] = {}
    for step in ordered:
        ends = not step.local or any(bounds[name] != whole for name in _above(step))
        bounds[step.name] = region if ends else whole
    wanted = {step.name: region for step in ordered}
    for step in reversed(ordered):
        reads = wanted[step.name]
        if isinstance(step.component, LocalPostProcessor):
            reads = reads.grow(step.component.halo()).clip(bounds[step.name])
        for name in _above(step):
            wanted[name] = wanted[name].around(reads).clip(bounds[name])
    return [replace(step, region=wanted[step.name], bounds=bounds[step.name]) for step in ordered]


def _above(step: PlannedStep) -> list[str]:
    """Names of the steps that a step reads from."""
    return [wire.source.partition(".")[0] for wire in step.wires.values() if wire.source != INPUT]
