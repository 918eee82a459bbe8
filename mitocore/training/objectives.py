"""From `[[objective]]` to terms of the loss: what is compared fits together, and its labels are there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mitocore.config.labelled import VolumeTable
from mitocore.config.table import ComponentTable
from mitocore.config.toml import Key, near
from mitocore.config.training import ObjectiveTable
from mitocore.errors import WiringError
from mitocore.interfaces import Loss, Target
from mitocore.specs import Head, Kind
from mitocore.training.plan import PlannedObjective, Table

Build = Callable[..., tuple[Any, Table]]
"""`build(kind, value, *keys)`: a component and all its options as a table."""


@dataclass(frozen=True)
class Compared:
    """The components of one `[[objective]]`."""

    stated: ObjectiveTable
    target: Target | None
    weight_maps: tuple[Target, ...]
    loss: Loss
    table: Table
    """With all options, as it would stand in TOML."""


def built(objective: ObjectiveTable, number: int, build: Build) -> Compared:
    """The components of `[[objective]]` number `number`."""
    keys: tuple[Key, ...] = ("objective", number)

    def made(kind: str, value: ComponentTable, *inner: Key) -> tuple[Any, Table]:
        return build(kind, value, *keys, *inner)

    target, target_table = made("target", objective.target, "target") if objective.target else (None, None)
    maps = [made("target", value, "weight_map", at) for at, value in enumerate(objective.weight_map)]
    loss, loss_table = made("loss", objective.loss, "loss")
    table = {
        "heads": list(objective.names),
        "weight": objective.weight,
        "auxiliary": list(objective.auxiliary),
        "target": target_table,
        "weight_map": [table for _, table in maps],
        "loss": loss_table,
    }
    return Compared(objective, target, tuple(component for component, _ in maps), loss, table)


def wired(compared: Compared, heads: Mapping[str, Head], where: str) -> PlannedObjective:
    """The term of the loss, its heads found.

    Raises
    ------
    WiringError
        If the model has no such head, or heads, target and loss do not fit.
    """
    stated = compared.stated
    found = tuple(_head(name, heads, where) for name in stated.names)
    target = compared.target.gives() if compared.target else None
    if target and target.kind is Kind.WEIGHT:
        raise WiringError("this target says how much a voxel counts", where=where, hint="name it as weight_map")
    for number, weight_map in enumerate(compared.weight_maps):
        given = weight_map.gives()
        if given.kind is not Kind.WEIGHT or len(given.channels) != 1:
            name = compared.table["weight_map"][number]["target"]
            hint = "name a target of the kind weight; `mitocore plugins` lists targets"
            raise WiringError(
                f"target {name!r} gives {given.kind}, which is no weight of voxels", where=where, hint=hint
            )
    compared.loss.accepts(found, target)
    auxiliary = []
    for number, factor in enumerate(stated.auxiliary, 1):
        head = _head(f"{found[0].name}_aux{number}", heads, where)
        compared.loss.accepts((head,), target)
        auxiliary.append((head, factor))
    return PlannedObjective(
        found, compared.target, compared.loss, stated.weight, compared.weight_maps, tuple(auxiliary)
    )


def _head(name: str, heads: Mapping[str, Head], where: str) -> Head:
    if name not in heads:
        raise WiringError(f"the model has no head {name!r}", where=where, hint=near(name, heads))
    return heads[name]


def check_labels(objective: PlannedObjective, volume: VolumeTable, where: str) -> None:
    """Refuse an objective that a volume has no labels for.

    Raises
    ------
    WiringError
        Naming the label array that is missing or of another kind, or the class that has another id.
    DataError
        If a class of the volume is none of the target.
    """
    path, kinds = " ".join(volume.paths), volume.kinds
    for encoder in objective.encoders:
        needs = encoder.needs()
        if wrong := [name for name, need in needs.items() if name in kinds and kinds[name] not in need.kinds]:
            name = wrong[0]
            problem = f"the target of {objective.name!r} takes {' or '.join(needs[name].kinds)} labels"
            problem += f", and array {name!r} of {path!r} holds {kinds[name]} ones"
            raise WiringError(problem, where=where, hint=f'labels = {{ {name} = {{ path = "…", kind = "…" }} }}')
        if missing := {name for name, need in needs.items() if not need.optional} - kinds.keys():
            name = min(missing)
            problem = f"the target of {objective.name!r} needs label array {name!r}, which {path!r} lacks"
            raise WiringError(problem, where=where, hint=f'labels = {{ {name} = "…" }} in [[volume]]')
        _check_classes(encoder, volume, path, where)


def _check_classes(target: Target, volume: VolumeTable, path: str, where: str) -> None:
    """Refuse a target that takes an id for another class than the volume does; asked, not guessed from its options."""
    channels = target.gives().channels
    semantic = [name for name in target.needs() if volume.kinds.get(name) is Kind.SEMANTIC]
    if len(semantic) != 1 or len({*channels} & {*volume.classes}) < 2:  # no classes; or a name that is there by chance
        return
    ids = np.arange(len(volume.classes), dtype=np.uint16)[None, None]
    found = target.encode({semantic[0]: ids}, None)[:, 0, 0]
    for number, name in enumerate(volume.classes):
        if name in channels and not found[channels.index(name), number]:
            problem = f"class {name!r} is id {number} in {path!r}, but not in the target, whose classes are"
            raise WiringError(f"{problem} {', '.join(channels)}", where=where, hint=f"classes = {list(volume.classes)}")
