"""Labelled volumes: from a table of `train.toml` to readers and boxes, by their headers alone."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mitocore.config.components import opened_by, resolved
from mitocore.config.labelled import LabelValues, Split, VolumeTable
from mitocore.config.split import Parts, divide, gap_in_voxels
from mitocore.config.table import ComponentTable
from mitocore.config.toml import Document, Key
from mitocore.errors import ConfigError, ContractError, DataError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import Model, Reader
from mitocore.registry import Registry
from mitocore.specs import VolumeSpec


@dataclass(frozen=True)
class PlannedVolume:
    """One labelled volume: readers that open it, and the boxes of its parts."""

    path: str
    """As the file states it."""
    image: Reader
    labels: Mapping[str, Reader]
    valid: Reader | None
    values: LabelValues
    weight: float
    spec: VolumeSpec
    """Of the image."""
    parts: Parts


def plan_volume(
    table: VolumeTable, number: int, model: Model, crop: Shape, registry: Registry, document: Document
) -> PlannedVolume:
    """The readers and parts of `[[volume]]` number `number`; opens files and reads their headers.

    Raises
    ------
    ConfigError
        If an option is unknown, or the split does not fit the volume, or the crop its training part.
    DataError
        If a file is missing or does not hold what it should.
    """
    keys: tuple[Key, ...] = ("volume", number)
    options = dict(table.model_extra or {})
    for key in options:  # before the reader refuses it with its own options as the hint
        if close := difflib.get_close_matches(key, VolumeTable.model_fields, 1, 0.75):
            raise ConfigError(f"[[volume]] has no option {key!r}", hint=f"did you mean {close[0]!r}?")
    image = _reader(table.path, registry, document, *keys, "path", options=options, named=table.reader)
    spec = _spec(image)
    if len(spec.channels) != len(model.channels()):
        wanted = ", ".join(model.channels())
        raise DataError(f"{table.path!r} has {len(spec.channels)} channels; the model takes {wanted}")
    labels = {}
    for name, place in (table.labels if isinstance(table.labels, dict) else {"instances": table.labels}).items():
        inner = ("labels", name) if isinstance(table.labels, dict) else ("labels",)
        labels[name] = _reader(place, registry, document, *keys, *inner)
        _check_labels(_spec(labels[name]), spec, name, place)
    valid = _reader(table.valid, registry, document, *keys, "valid") if table.valid else None
    if table.valid and valid:
        _check_labels(_spec(valid), spec, "valid", table.valid)
    return PlannedVolume(
        path=table.path,
        image=image,
        labels=labels,
        valid=valid,
        values=table.label_values,
        weight=table.weight,
        spec=spec,
        parts=_parts(table, spec, model, crop, document.where(*keys, "split")),
    )


def _reader(
    place: ComponentTable,
    registry: Registry,
    document: Document,
    *keys: Key,
    options: Mapping[str, Any] | None = None,
    named: str | None = None,
) -> Reader:
    if isinstance(place, dict):
        options = {key: value for key, value in place.items() if key not in ("path", "reader")}
        named, place = place.get("reader"), str(place.get("path", ""))
    path, colons, key = place.partition("::")
    full = path if "://" in path else resolved(path, document.folder_of(*keys).absolute())
    reader, entry = opened_by(
        "reader", full + colons + key, registry, document, *keys[:2], options=options, named=named
    )
    if not isinstance(reader, Reader):
        raise ContractError(f"{entry.target} of plugin {entry.plugin!r} is not a reader")
    return reader


def _spec(reader: Reader) -> VolumeSpec:
    with reader.open() as volume:
        return volume.spec


def _check_labels(spec: VolumeSpec, image: VolumeSpec, name: str, place: ComponentTable) -> None:
    path = place if isinstance(place, str) else place.get("path")
    if spec.shape != image.shape:
        problem = f"{name} {path!r} has {spec.shape} voxels, the image {image.shape}"
        raise DataError(problem, hint="labels and image must cover the same box at the same voxel size")
    if len(spec.channels) != 1:
        problem = f"{name} {path!r} has {len(spec.channels)} channels; labels have one"
        raise DataError(problem, hint="name a file with one channel")
    if name != "valid" and spec.dtype.startswith(("float", "complex")):
        problem = f"{name} {path!r} holds {spec.dtype}; labels are integers"
        raise DataError(problem, hint="is this a probability? convert it to integer labels first")


def _parts(table: VolumeTable, spec: VolumeSpec, model: Model, crop: Shape, where: str) -> Parts:
    split: Split = table.split
    axis = next((part.axis for part in (split.validation, split.test) if part), None)
    try:
        gap = gap_in_voxels(split.gap, axis, model.window().crop, spec.voxel_size)
        parts = divide(spec.shape, split.validation, split.test, gap)
    except ValueError as error:
        hint = 'split = { validation = "z:0.7-0.85", gap = 3 }; a gap is voxels, or a length such as "15 nm"'
        raise ConfigError(str(error), where=where, hint=hint) from error
    fitting = tuple(box for box in parts.train if all(c <= n for c, n in zip(crop, box.shape, strict=True)))
    if parts.train and not fitting:
        raise _too_small(table.path, parts.train, model.window().divisor, crop, where)
    return replace(parts, train=fitting)


def _too_small(path: str, boxes: tuple[Roi, ...], divisor: Shape, crop: Shape, where: str) -> ConfigError:
    largest = max(boxes, key=lambda box: box.voxels).shape
    problem = f"a crop of {crop} voxels does not fit the {largest} that {path!r} has for training"
    fits = as_shape(min(c, n // d * d) for c, n, d in zip(crop, largest, divisor, strict=True))
    hint = f"crop = {list(fits)} in [train]" if min(fits) else "a smaller split or gap"
    return ConfigError(problem, where=where, hint=hint)
