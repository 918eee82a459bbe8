"""Labelled volumes: from a place of `train.toml` to readers, by their headers alone."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mitocore.config.components import opened_by, resolved
from mitocore.config.labelled import LabelTable, LabelValues, VolumeTable
from mitocore.config.places import Place
from mitocore.config.split import PARTS, Parts, is_empty, meet, text_of
from mitocore.config.table import ComponentTable
from mitocore.config.toml import Document, Key
from mitocore.errors import ConfigError, ContractError, DataError
from mitocore.geometry import Roi, VoxelSize
from mitocore.interfaces import Reader
from mitocore.registry import Registry
from mitocore.resampling import Resampling, resampled
from mitocore.specs import Kind, VolumeSpec


@dataclass(frozen=True)
class PlannedLabels:
    """One label array: what opens it, and what its numbers mean."""

    reader: Reader
    kind: Kind
    values: LabelValues
    classes: tuple[str, ...] = ()
    """Names of ids 0, 1, … of a semantic array, if they were stated."""
    signed: bool = False
    """Whether the file may hold negative numbers."""


@dataclass(frozen=True)
class Drawn:
    """Where crops are drawn."""

    region: Roi
    """The training box; what lies beyond it is never read for a crop."""
    inside: Roi
    """The part of it that crops lie in; smaller only where annotated boxes are sparse."""


@dataclass(frozen=True)
class PlannedVolume:
    """One labelled volume: readers that open it, and the boxes of its parts, in voxels of the size it is trained at."""

    path: str
    """As the file states it."""
    place: str
    """`PATH[::KEY]`, absolute."""
    image: Reader
    labels: Mapping[str, PlannedLabels]
    valid: Reader | None
    weight: float
    spec: VolumeSpec
    """Of the image, at the voxel size of training."""
    original: VolumeSpec
    """Of the image, as it is in the file."""
    resampling: Resampling | None
    """From the voxels of the file to those of training; None: they are the same."""
    used: Roi
    """What is used, in voxels of the file."""
    region: Roi
    """What is used."""
    source: str = ""
    """Volumes of one source are weighed together; empty: this one alone."""
    annotated: tuple[Roi, ...] = ()
    """Boxes outside of which nothing was labelled; none: all of it was."""
    parts: Parts = field(default_factory=Parts)
    """Of those for training, only boxes that a crop fits into."""
    drawn: tuple[Drawn, ...] = ()
    """Where crops are drawn."""
    split: Parts = field(default_factory=Parts)
    """As divided, whatever the crop."""

    def lattice(self, box: Roi) -> Roi:
        """A box in voxels of the file, in voxels of training."""
        return self.resampling.box(box) if self.resampling else box

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Edges of a voxel of training, in voxels of the file."""
        return self.resampling.ratio if self.resampling else (1, 1, 1)

    def footprint(self, box: Roi) -> Roi:
        """The voxels of the file that a box in voxels of training is made of."""
        return self.resampling.footprint(box) if self.resampling else box

    @property
    def array(self) -> str:
        """What the image is read from, however the path was written."""
        path, _, key = self.place.partition("::")
        return self.place if "://" in path else f"{os.path.realpath(path)}::{key.strip('/')}"

    @property
    def guard(self) -> tuple[int, int, int]:
        """Voxels that must lie between two boxes, so that no voxel of the file is in both."""
        return self.resampling.guard if self.resampling else (0, 0, 0)

    @property
    def table(self) -> dict[str, Any]:
        """All that decides the result, as JSON holds it; contents stand for paths."""
        return {
            "image": _recorded(self.image),
            "labels": {
                name: {
                    **_recorded(array.reader),
                    "kind": str(array.kind),
                    "values": array.values.model_dump(mode="json"),
                    "classes": list(array.classes),
                }
                for name, array in self.labels.items()
            },
            "valid": _recorded(self.valid) if self.valid else None,
            "weight": self.weight,
            "source": self.source,
            "annotated": [text_of(box) for box in self.annotated],
            "parts": {name: [text_of(box) for box in getattr(self.parts, name)] for name in PARTS},
            "drawn": [text_of(drawn.inside) for drawn in self.drawn],
        }


class Unlabelled(DataError):  # noqa: N818 - not always an error: such a volume may be left out
    """The labels of a volume are not there."""


def opened(
    table: VolumeTable,
    number: int,
    place: Place,
    channels: Sequence[str],
    voxel_size: VoxelSize | None,
    registry: Registry,
    document: Document,
) -> PlannedVolume:
    """The readers of one volume of `[[volume]]` number `number`, not divided yet; opens files and reads their headers.

    Parameters
    ----------
    channels
        Of the images that the model takes.
    voxel_size
        That of training; None: each volume's own.

    Raises
    ------
    Unlabelled
        If labels cannot be opened.
    ConfigError
        If an option is unknown, or a box leaves the volume, or the voxel size is needed and not known.
    DataError
        If a file is missing or does not hold what it should.
    """
    keys: tuple[Key, ...] = ("volume", number)
    options = dict(table.model_extra or {})
    for key in options:  # before the reader refuses it with its own options as the hint
        if close := difflib.get_close_matches(key, VolumeTable.model_fields, 1, 0.75):
            raise ConfigError(f"[[volume]] has no option {key!r}", hint=f"did you mean {close[0]!r}?")
    image = _reader(place.image, registry, document, *keys, "path", options=options, named=table.reader)
    original = _spec(image)
    if len(original.channels) != len(channels):
        wanted = ", ".join(channels)
        problem = f"{place.path!r} has {len(original.channels)} channels; the model takes {wanted}"
        raise DataError(problem, hint="an image, or a key of the file, with as many channels; or another model")
    labels = {n: _labels(table, keys, n, array, original, registry, document) for n, array in place.labels.items()}
    valid = _reader(place.valid, registry, document, *keys, "valid") if place.valid else None
    if place.valid and valid:
        _check_labels(_spec(valid), original, "valid", place.valid)
    spec, resampling = original, None
    if voxel_size:
        if not original.voxel_size:
            problem = f"{place.path!r} is to be resampled to {voxel_size}, and its voxel size is not known"
            raise ConfigError(problem, hint="voxel_size = [40, 8, 8] in [[volume]] (nm, z y x)")
        spec, resampling = resampled(original, voxel_size)
    planned = PlannedVolume(
        path=place.path,
        place=place.image,
        image=image,
        labels=labels,
        valid=valid,
        weight=table.weight,
        spec=spec,
        original=original,
        resampling=resampling,
        used=Roi.whole(original.shape),
        region=Roi.whole(spec.shape),
        source=table.source,
    )
    return _narrowed(planned, table, keys, document)


def _narrowed(planned: PlannedVolume, table: VolumeTable, keys: tuple[Key, ...], document: Document) -> PlannedVolume:
    """With the stated region and annotated boxes, on the lattice of training."""

    def boxes(key: str, texts: tuple[str, ...]) -> list[Roi]:
        try:
            return [Roi.parse(text, planned.original.shape) for text in texts]
        except ValueError as error:
            box = f'"{text_of(Roi.whole(planned.original.shape))}"'
            hint = f"{key} = {box if key == 'region' else [box]}".replace("'", "")
            raise ConfigError(f"{planned.path!r}: {error}", where=document.where(*keys, key), hint=hint) from error

    used = boxes("region", (table.region,) if table.region else ())
    whole = used[0] if used else planned.used
    inside = [planned.lattice(box.clip(whole)) for box in boxes("annotated", table.annotated) if meet(box, whole)]
    region, annotated = planned.lattice(whole), tuple(box for box in inside if not is_empty(box))
    if is_empty(region) or (table.annotated and not annotated):
        key = "region" if is_empty(region) else "annotated"
        problem = f"{planned.path!r}: what is stated as {key} holds no voxel that is used"
        raise ConfigError(problem, where=document.where(*keys, key), hint=f"another {key}, or none")
    return replace(planned, used=whole, region=region, annotated=annotated)


def _labels(
    table: VolumeTable,
    keys: tuple[Key, ...],
    name: str,
    array: LabelTable,
    image: VolumeSpec,
    registry: Registry,
    document: Document,
) -> PlannedLabels:
    inner = ("labels", name) if isinstance(table.labels, dict) else ("labels",)
    place = {"path": array.path, **({"reader": array.reader} if array.reader else {}), **(array.model_extra or {})}
    try:
        reader = _reader(place, registry, document, *keys, *inner)
        spec = _spec(reader)
    except DataError as error:
        raise Unlabelled(error.problem, where=error.where, hint=error.hint) from error
    _check_labels(spec, image, name, array.path)
    kind = table.kinds[name]
    values = array.label_values or table.label_values
    classes = table.classes if kind is Kind.SEMANTIC else ()
    return PlannedLabels(reader, kind, values, classes, signed=spec.dtype.startswith("int"))


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
    edges = image.voxel_size.edges if image.voxel_size else (0.0, 0.0, 0.0)
    apart = [abs(a - b) for a, b in zip(spec.origin, image.origin, strict=True)]
    # an origin of 0 may only mean that the file does not say
    if any(spec.origin) and any(image.origin) and any(a > edge / 2 for a, edge in zip(apart, edges, strict=True)):
        problem = f"{name} {path!r} begin at {spec.origin} nm, the image at {image.origin} nm"
        raise DataError(
            problem, hint="labels and image must cover the same box; mend what their files say of the offset"
        )
    if len(spec.channels) != 1:
        problem = f"{name} {path!r} has {len(spec.channels)} channels; labels have one"
        raise DataError(problem, hint="name a file with one channel")
    if name != "valid" and spec.dtype.startswith(("float", "complex")):
        problem = f"{name} {path!r} holds {spec.dtype}; labels are integers"
        raise DataError(problem, hint="is this a probability? convert it to integer labels first")


def _recorded(reader: Reader) -> dict[str, Any]:
    """What a reader reads, wherever that lies."""
    options = reader.model_dump(mode="json", exclude={"path"})
    return {"reader": type(reader).__name__, **options, "content": reader.fingerprint()}
