"""What a weights file says of itself; read with the standard library alone."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mitocore.errors import DataError
from mitocore.geometry import VoxelSizeOption
from mitocore.specs import Head, Window

HEADER_LIMIT = 100_000_000
FORMAT: Literal["mitocore-weights/1"] = "mitocore-weights/1"


class WeightsHeader(BaseModel):
    """All that is known of trained weights, in the file itself; read without torch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mitocore-weights/1"] = FORMAT
    component: str
    """Qualified name of the model, "rsunet/rsunet"."""
    description: str = ""
    options: dict[str, Any]
    """All options of the model, defaults included; a step may state another value of those marked `AtInference`."""
    channels: tuple[str, ...]
    heads: tuple[Head, ...]
    window: Window
    """The window it was trained with."""
    voxel_size: VoxelSizeOption | tuple[VoxelSizeOption, VoxelSizeOption] | None = None
    """What it was trained at: one, a range (smallest, largest), or unknown."""
    pipeline: tuple[dict[str, Any], ...] = ()
    """Recommended `[[step]]` tables after the network, which they call `net`; `mitocore segment` runs them, `mitocore
    init` writes them down."""
    thresholds: dict[str, float] = {}
    """Recommended by head, and by "head:channel"; `segment` and `init` fill it into a step that reads this head, or
    this channel alone, directly and leaves its option `threshold` open."""
    temperature: dict[str, float] = {}
    """By head; logits are divided by it before the activation."""
    normalizer: dict[str, Any]
    """The normaliser as it stands in TOML: {"normalizer": "builtin/percentile", "low": 1, …}."""
    versions: dict[str, str] = {}
    scores: dict[str, float] = {}
    provenance: dict[str, Any] = {}
    """Digest of the training configuration, data, seed, steps, date, parent weights, licence."""


def header_beside(path: Path) -> Path:
    """The file that holds the header of weights in a foreign format."""
    return path.with_name(path.name + ".header.json")


def read_header(path: Path) -> WeightsHeader:
    """The header inside a safetensors file, or of `<file>.header.json` beside a foreign one.

    Raises
    ------
    DataError
        If the file is missing, truncated, without a header, or its header is of another version.
    """
    beside = header_beside(path)
    try:
        if beside.exists():
            if not path.exists():
                raise DataError(f"{beside.name!r} describes {path.name!r}, which is missing", where=str(path.parent))
            return _parsed(beside.read_bytes(), beside)
        return _parsed(_metadata(path), path)
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise DataError(f"{str(path)!r} cannot be read: {reason}", hint="mitocore weights list") from error


def _metadata(path: Path) -> str | bytes:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if 0 < length < HEADER_LIMIT else b""
    try:
        table = json.loads(text)
        found = table.pop("__metadata__", {}).get("mitocore")
        end = max((entry["data_offsets"][1] for entry in table.values()), default=0)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError):
        cut = text[:1] == b"{" and len(text) < length
        raise _truncated(path) if cut else _nameless(path) from None
    if path.stat().st_size < 8 + length + end:
        raise _truncated(path)
    if not isinstance(found, str):
        raise _nameless(path)
    return found


def _parsed(text: str | bytes, path: Path) -> WeightsHeader:
    try:
        return WeightsHeader.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
    if first["loc"] == ("format",):
        problem = f"{str(path)!r} has header version {first['input']!r}; this mitocore reads {FORMAT!r}"
        raise DataError(problem, hint="pip install --upgrade mitocore")
    key = ".".join(map(str, first["loc"])) or "the whole"
    raise DataError(f"the header of {str(path)!r} is damaged: {key}: {first['msg']}", hint="fetch the file again")


def _truncated(path: Path) -> DataError:
    size = path.stat().st_size
    return DataError(f"{str(path)!r} is truncated: it ends after {size} bytes", hint="fetch or copy the file again")


def _nameless(path: Path) -> DataError:
    hint = f"mitocore weights add {path} --model … --normalizer …"
    return DataError(f"{str(path)!r} does not say what it was trained for", hint=hint)
