"""What a weights file says of itself; read with the standard library alone."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mitocore.errors import DataError
from mitocore.geometry import VoxelSizeOption
from mitocore.specs import Head, Window

HEADER_LIMIT = 100_000_000


class WeightsHeader(BaseModel):
    """All that is known of trained weights, in the file itself; read without torch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mitocore-weights/1"] = "mitocore-weights/1"
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
    """Recommended `[[step]]` tables after the network; what `segment` and `init` write."""
    thresholds: dict[str, float] = {}
    """Best on validation, by head; fills a `threshold` the pipeline leaves open."""
    temperature: dict[str, float] = {}
    """By head; logits are divided by it before the activation."""
    normalizer: dict[str, Any]
    """The normaliser as it stands in TOML: {"normalizer": "builtin/percentile", "low": 1, …}."""
    versions: dict[str, str] = {}
    scores: dict[str, float] = {}
    provenance: dict[str, Any] = {}
    """Digest of the training configuration, data, seed, steps, date, parent weights, licence."""


def read_header(path: Path) -> WeightsHeader:
    """The header inside a safetensors file, or of `<file>.header.json` beside a foreign one."""
    beside = path.with_name(path.name + ".header.json")
    if beside.exists():
        return WeightsHeader.model_validate_json(beside.read_bytes())
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 0 < length < HEADER_LIMIT else b"{}"
        found = json.loads(text).get("__metadata__", {}).get("mitocore")
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError):
        found = None
    if found is None:
        raise DataError(f"{str(path)!r} does not say what it was trained for", hint=f"mitocore weights add {path}")
    return WeightsHeader.model_validate_json(found)
