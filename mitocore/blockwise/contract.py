"""What a component may hand back; whatever else it returns is named and blamed on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.component import Component
from mitocore.errors import ContractError
from mitocore.geometry import Shape
from mitocore.interfaces import OBJECT
from mitocore.specs import ArraySpec, Kind, Lattice
from mitocore.stitch import LINK

_KINDS = {Kind.MASK: "b", Kind.SEMANTIC: "iu", Kind.INSTANCE: "iu"}
_DENSE = "number the objects of a block 1..n without gaps"
_WORDS = {"b": "bool", "iu": "integer", "f": "float"}


def name_of(component: Component, plugin: str = "") -> str:
    """How errors name a component: its class, and its plugin or where it is defined."""
    return f"{type(component).__name__} of {(plugin or type(component).__module__)!r}"


def outputs(who: str, values: Mapping[str, NDArray[Any]], gives: Mapping[str, ArraySpec], shape: Shape) -> None:
    """Check the arrays of a step: names, (c, z, y, x) and the sort of dtype that `gives` declares.

    Raises
    ------
    ContractError
        If one is missing, undeclared, or of another shape or sort of dtype.
    """
    if set(values) != set(gives):
        raise ContractError(f"{who} returned {sorted(values)} but declares {sorted(gives)}")
    for name, spec in gives.items():
        output(who, name, values, spec, shape)


def output(who: str, name: str, values: Mapping[str, NDArray[Any]], spec: ArraySpec, shape: Shape) -> None:
    """Check one array of a step, as `outputs` does.

    Raises
    ------
    ContractError
        If it is missing, or of another shape or sort of dtype.
    """
    if name not in values:
        raise ContractError(f"{who} returned {sorted(values)}, not {name!r}")
    found, expected = values[name], (len(spec.channels), *shape)
    if found.shape != expected:
        problem = f"{who} returned {name!r} of shape {found.shape} where {expected} is declared"
        raise ContractError(problem, hint="shapes are (c, z, y, x)")
    kinds = _KINDS.get(spec.kind, "f")
    if found.dtype.kind not in kinds:
        raise ContractError(f"{who} returned {name!r} as {found.dtype}; {spec.kind} is {_WORDS[kinds]}")


def labels(who: str, ids: NDArray[Any], shape: Shape) -> None:
    """Check the ids of one block: (z, y, x), uint32.

    Raises
    ------
    ContractError
        If they are of another shape or dtype.
    """
    if ids.shape != shape or ids.dtype != np.uint32:
        problem = f"label of {who} returned ids of shape {ids.shape}, {ids.dtype}"
        raise ContractError(problem, hint=f"return uint32 over block.write, here {shape}")
    if (largest := int(ids.max(initial=0))) > ids.size:
        raise ContractError(f"label of {who} returned id {largest} in a block of {ids.size} voxels", hint=_DENSE)


def rows(who: str, own: list[tuple[str, str]]) -> np.dtype[Any]:
    """The table of objects: the engine's columns and the author's `own`.

    Raises
    ------
    ContractError
        If two have one name.
    """
    names = [name for name, _ in (*OBJECT, *own)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ContractError(f"columns of {who} name {twice[0]!r} twice", hint="'first' and 'size' are the engine's")
    return np.dtype(OBJECT + own)


def columns(who: str, sizes: NDArray[Any], table: NDArray[Any] | None, own: list[tuple[str, str]]) -> None:
    """Check that the objects of a block are numbered 1..n and that each has a row of the author's columns.

    Raises
    ------
    ContractError
        If a number is left out, or the table has other rows or columns.
    """
    if not sizes.all():
        problem = f"label of {who} left out id {int(np.argmin(sizes)) + 1} of 1..{len(sizes)}"
        raise ContractError(problem, hint=_DENSE)
    length, dtype = (0, np.dtype([])) if table is None else (len(table), table.dtype)
    if (own or table is not None) and (length, dtype) != (len(sizes), np.dtype(own)):
        problem = f"label of {who} returned {length} rows of {dtype} for {len(sizes)} objects"
        raise ContractError(problem, hint=f"return one row per object, dtype {own}")


def pairs(who: str, own: list[tuple[str, str]]) -> np.dtype[Any]:
    """The table of links: those of `LINK` and the author's `own` columns.

    Raises
    ------
    ContractError
        If two have one name.
    """
    names = [*(LINK.names or ()), *(name for name, _ in own)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ContractError(f"link_columns of {who} name {twice[0]!r} twice", hint="'a', 'b', 'weight' are LINK's")
    return np.dtype([*LINK.descr, *own])


def links(who: str, found: NDArray[Any], count: int, dtype: np.dtype[Any] = LINK) -> None:
    """Check that pairs are an array of `dtype`, which `pairs` gives, and of provisional ids 1..n.

    Raises
    ------
    ContractError
        If they have another dtype, or name the background or an object that does not exist.
    """
    if found.dtype != dtype or found.ndim != 1:
        problem = f"link of {who} returned {found.dtype} of shape {found.shape}"
        wanted = "mitocore.LINK" if dtype == LINK else f"{dtype}"
        raise ContractError(problem, hint=f"return a one-dimensional array of {wanted}")
    for end in "ab":
        strange = found[end][(found[end] < 1) | (found[end] > count)]
        if len(strange):
            raise ContractError(f"link of {who} joined id {strange[0]}; provisional ids here are 1..{count}")


def final(who: str, found: NDArray[Any], count: int) -> None:
    """Check the table of final ids: one for every provisional id 0..n, and none for the background.

    Raises
    ------
    ContractError
        If its length is another, or it names the background.
    """
    if found.shape != (count + 1,) or found.dtype.kind not in "ui":
        problem = f"resolve of {who} returned shape {found.shape}, {found.dtype}"
        raise ContractError(problem, hint=f"return uint64 for each provisional id 0..{count}")
    if found[0]:
        raise ContractError(f"resolve of {who} gave the background the id {found[0]}, not 0")


def lattice(who: str, halo: Shape, tiles: Lattice | None) -> None:
    """Check that a step with a lattice reads at least the halo of its tiles.

    Raises
    ------
    ContractError
        If its own halo is smaller.
    """
    if tiles and any(own < least for own, least in zip(halo, tiles.halo, strict=True)):
        problem = f"halo of {who} is {halo}, less than the {tiles.halo} of its lattice"
        raise ContractError(problem, hint="leave halo() out, or return lattice().halo or more")


def instances_of(who: str, gives: Mapping[str, ArraySpec]) -> str | None:
    """The output of an Objectwise step that holds instances; None: no output does.

    Raises
    ------
    ContractError
        If several do, or it has several channels.
    """
    names = [name for name, spec in gives.items() for _ in spec.channels if spec.kind is Kind.INSTANCE]
    if len(names) > 1:
        problem = f"{who} declares {len(names)} channels of instances: {', '.join(names)}"
        raise ContractError(problem, hint="an Objectwise step gives at most one; make the others a step of their own")
    return names[0] if names else None


def mask(who: str, found: NDArray[Any], shape: Shape) -> None:
    """Check the mask of an Objectwise step over one block: (z, y, x), bool.

    Raises
    ------
    ContractError
        If it is of another shape or dtype.
    """
    if found.shape != shape or found.dtype != np.bool_:
        problem = f"mask of {who} returned shape {found.shape}, {found.dtype}"
        raise ContractError(problem, hint=f"return bool over block.read, here {shape}")


def local_ids(who: str, name: str, ids: NDArray[Any]) -> None:
    """Check the instances of one component: any numbers that are not negative.

    Raises
    ------
    ContractError
        If one is.
    """
    if (least := int(ids.min(initial=0))) < 0:
        problem = f"process of {who} returned id {least} in {name!r}"
        raise ContractError(problem, hint="number the instances of each call from 1; 0 is background")


def kept(who: str, alive: NDArray[Any], count: int) -> None:
    """Check the answer of `keep`: a truth value for each complete instance.

    Raises
    ------
    ContractError
        If its shape or dtype is another.
    """
    if alive.shape != (count,) or alive.dtype != np.bool_:
        problem = f"keep of {who} returned shape {alive.shape}, {alive.dtype}"
        raise ContractError(problem, hint=f"return bool for each of the {count} objects")
