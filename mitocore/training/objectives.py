"""From `[[objective]]` to terms of the loss: what is compared fits together, and its labels are there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


def check_labels(objective: PlannedObjective, have: Mapping[str, set[str]], where: str) -> None:
    """Refuse an objective whose labels some volume lacks; `have` names the label arrays of each volume.

    Raises
    ------
    WiringError
        Naming the first volume that lacks one.
    """
    for encoder in objective.encoders:
        needed = {name for name, need in encoder.needs().items() if not need.optional}
        for path, names in have.items():
            if missing := needed - names:
                name = min(missing)
                problem = f"the target of {objective.name!r} needs label array {name!r}, which {path!r} lacks"
                raise WiringError(problem, where=where, hint=f'labels = {{ {name} = "…" }} in [[volume]]')
