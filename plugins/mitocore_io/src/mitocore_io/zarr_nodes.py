"""Groups and arrays of a zarr store, v2 or v3, here or at an address, found by their metadata files alone."""

import json
from pathlib import Path
from typing import Any, Literal

import zarr

from mitocore import DataError
from mitocore_io.ngff import Multiscale, multiscale
from mitocore_io.remote import Remote
from mitocore_io.targets import hint_of_keys, missing

Node = Path | Remote
"""A folder that may be a group or array."""

BAD_METADATA = (OSError, ValueError, KeyError, TypeError, zarr.errors.BaseZarrError)
"""What zarr raises on metadata that are missing, cut short or not to be understood."""


def format_of(node: Node) -> Literal[2, 3] | None:
    """Version of the zarr format of a group or array; None if the folder is neither."""
    if (node / "zarr.json").is_file():
        return 3
    return 2 if (node / ".zarray").is_file() or (node / ".zgroup").is_file() else None


def is_array(node: Node) -> bool:
    """Whether a folder is an array."""
    if (node / "zarr.json").is_file():
        return _json(node / "zarr.json").get("node_type") == "array"
    return (node / ".zarray").is_file()


def attributes_of(node: Node) -> dict[str, Any]:
    """Attributes of a group or array.

    Raises
    ------
    DataError
        If its metadata file is not JSON.
    """
    if (node / "zarr.json").is_file():
        found = _json(node / "zarr.json").get("attributes", {})
        return found if isinstance(found, dict) else {}
    return _json(node / ".zattrs") if (node / ".zattrs").is_file() else {}


def multiscale_at(node: Node) -> Multiscale | None:
    """The OME-NGFF multiscale that a group declares."""
    return None if is_array(node) else multiscale(attributes_of(node), str(node))


def keys_of(root: Node) -> list[str]:
    """Keys of what can be opened below `root`: arrays, and multiscales, which count once for all their levels."""
    if is_array(root) or (multiscale_at(root) and not (root / "labels").is_dir()):
        return [""]
    if multiscale_at(root):
        return ["", *(_join("labels", key) for key in keys_of(root / "labels"))]
    children = [child for child in root.iterdir() if child.is_dir()]
    return sorted(_join(child.name, key) for child in children for key in keys_of(child))


def node_of(root: Node, key: str) -> Node:
    """The array or multiscale that `key` names; with a group, the one that stands for it.

    A group stands for its multiscale, else for the only array below it, else for `volumes/raw` in Catena's layout.

    Raises
    ------
    DataError
        If there is no store, nothing of that key, or several arrays and nothing says which; the keys are listed.
    """
    if not root.exists():
        raise missing(root) if isinstance(root, Path) else root.absent()
    if not root.is_dir():
        raise DataError(f"{root.name!r} is a file, not a zarr store", where=str(root))
    node = root.joinpath(*[part for part in key.split("/") if part not in ("", ".", "..")])
    keys = keys_of(node) if node.is_dir() else []
    if "" in keys:
        return node
    if len(keys) == 1:
        return node / keys[0]
    if "volumes/raw" in keys:
        return node / "volumes" / "raw"
    if keys:
        problem = f"{key!r} holds {len(keys)} arrays" if key else f"{root.name!r} holds {len(keys)} arrays"
        raise DataError(problem, where=str(root), hint=hint_of_keys("", [_join(key.strip("/"), k) for k in keys]))
    there = keys_of(root)
    if key and there:
        raise DataError(f"{root.name!r} has no array {key!r}", where=str(root), hint=hint_of_keys(key, there))
    problem = f"{root.name!r} holds no zarr array" if format_of(root) else f"{root.name!r} is not a zarr store"
    raise DataError(problem, where=str(root))


def open_array(node: Node, mode: Literal["r", "r+"]) -> Any:
    """Open a zarr array; its format is stated, so that zarr need not look for both.

    Raises
    ------
    DataError
        If its metadata cannot be understood.
    """
    try:
        return zarr.open_array(
            str(node) if isinstance(node, Path) else node.store(), mode=mode, zarr_format=format_of(node)
        )
    except BAD_METADATA as error:
        problem = f"the metadata of zarr array {node.name!r} cannot be read: {str(error).splitlines()[0][:200]!r}"
        raise DataError(problem, where=str(node)) from error


def _join(parent: str, child: str) -> str:
    return "/".join(part for part in (parent, child) if part)


def _json(file: Node) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        problem = f"{file.name} is not JSON, or is cut short"
        raise DataError(problem, where=str(file), hint="copy the store again") from error
    return found if isinstance(found, dict) else {}
