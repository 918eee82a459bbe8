"""Which boxes of all volumes are for training, validation and test: as stated, by lot, or as a file says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from mitocore.config.labelled import BoxOption, SplitTable, VolumeTable
from mitocore.config.split import PARTS, Part, Parts, divide, fits, gap_in_voxels, is_empty, meet, text_of
from mitocore.config.table import Table
from mitocore.config.toml import Document, near
from mitocore.config.volumes import Drawn, PlannedVolume
from mitocore.durable import write_json
from mitocore.errors import ConfigError, DataError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.specs import Window

SPLIT = "split.json"
"""Name of the file in the folder of a training."""
ANEW = "leave [split] file out, and state the split anew"


@dataclass(frozen=True)
class Stated:
    """A volume and the table it comes from."""

    volume: PlannedVolume
    table: VolumeTable
    number: int


class SplitEntry(Table):
    """The boxes of one volume, in voxels of training."""

    path: str
    """`PATH[::KEY]`, absolute."""
    content: str
    """Fingerprint of the files of the image."""
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float] | None
    """Of training."""
    region: BoxOption
    """What is used, in voxels of the file."""
    train: tuple[BoxOption, ...]
    validation: tuple[BoxOption, ...]
    test: tuple[BoxOption, ...]


class SplitFile(Table):
    """A whole `split.json`."""

    mitocore: Literal[1]
    """Version of this format."""
    volumes: tuple[SplitEntry, ...]


def write_split(folder: Path, volumes: Sequence[PlannedVolume]) -> None:
    """Write `split.json`, which `[split] file` reads.

    Raises
    ------
    MitocoreError
        If it cannot be written.
    """
    entries = [_entry(volume) for volume in volumes]
    write_json(folder / SPLIT, SplitFile(mitocore=1, volumes=tuple(entries)).model_dump(mode="json"))


def divided(
    stated: Sequence[Stated], split: SplitTable | None, window: Window, crop: Shape, document: Document
) -> list[PlannedVolume]:
    """The volumes with their parts, and where crops of `crop` voxels are drawn.

    Parameters
    ----------
    window
        Of the model.

    Raises
    ------
    ConfigError
        If a split does not fit its volume, or a crop a training part, or a voxel would be both trained on and held out.
    DataError
        If the file of a split is of other volumes.
    """
    if split:
        _refuse_both(stated, document)
    if split and split.file:
        parts = _as_before(stated, document.folder_of("split", "file") / split.file, document.where("split", "file"))
    elif split:
        parts = _by_lot([one.volume for one in stated], split, document.where("split", "by"))
    else:
        parts = [_as_stated(one, window, crop, document.where("volume", one.number, "split")) for one in stated]
    volumes = []
    for one, found in zip(stated, parts, strict=True):
        where = document.where(*(("split",) if split else ("volume", one.number, "split")))
        volumes.append(_drawn(replace(one.volume, split=found), window, crop, where))
    _refuse_leaks([replace(one, volume=volume) for one, volume in zip(stated, volumes, strict=True)], document)
    return volumes


def _refuse_both(stated: Sequence[Stated], document: Document) -> None:
    if own := next((one for one in stated if one.table.split.model_fields_set), None):
        problem = f"[split] divides all volumes, and {own.volume.path!r} has a split of its own"
        where = document.where("volume", own.number, "split")
        raise ConfigError(problem, where=where, hint="leave one of them out")


def _as_stated(one: Stated, window: Window, crop: Shape, where: str) -> Parts:
    volume, split = one.volume, one.table.split
    try:
        gap = gap_in_voxels(split.gap, window.crop, volume.spec.voxel_size, volume.ratio)
        gap = as_shape(max(axis) for axis in zip(gap, volume.guard, strict=True))
        validation, test = (_held(volume, part) for part in (split.validation, split.test))
        return divide(volume.region, validation, test, gap, guard=volume.guard, crop=crop)
    except ValueError as error:
        hint = 'split = { validation = "z:0.7-0.85", gap = 3 }; a gap is voxels, or a length such as "15 nm"'
        raise ConfigError(str(error), where=where, hint=hint) from error


def _held(volume: PlannedVolume, part: Part | None) -> tuple[Roi, ...]:
    """The boxes of a part, in voxels of training."""
    boxes = part.boxes(volume.used, volume.original.shape) if part else ()
    held = tuple(volume.lattice(box) for box in boxes)
    if any(is_empty(box) for box in held):
        raise ValueError(f"part {str(part)!r} holds no voxel of {volume.spec.voxel_size}")
    return held


def _by_lot(volumes: Sequence[PlannedVolume], split: SplitTable, where: str) -> list[Parts]:
    files = list(dict.fromkeys(volume.array for volume in volumes))
    shares = [split.validation, split.test or 0]
    counts = [max(1, round(share * len(files))) if share else 0 for share in shares]
    if len(files) <= sum(counts):
        parts = "training, validation and test" if split.test else "training and validation"
        problem = f"{len(files)} volume{'s' * (len(files) > 1)} cannot be divided into {parts}"
        raise ConfigError(problem, where=where, hint='more volumes, or split = { validation = "z:0.85-1.0" } in each')
    drawn = [files[at] for at in np.random.default_rng(split.seed).permutation(len(files))]
    validation, test = set(drawn[: counts[0]]), set(drawn[counts[0] : sum(counts)])
    return [
        Parts(validation=(volume.region,))
        if volume.array in validation
        else Parts(test=(volume.region,))
        if volume.array in test
        else Parts(train=(volume.region,))
        for volume in volumes
    ]


def _as_before(stated: Sequence[Stated], path: Path, where: str) -> list[Parts]:
    try:
        file = SplitFile.model_validate_json(path.read_bytes())
    except OSError as error:
        problem = f"split {str(path)!r} cannot be read: {error.strerror}"
        raise DataError(problem, where=where, hint=f"every training writes {SPLIT} into its folder") from error
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{str(path)!r} is not a split: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(problem, where=where, hint=ANEW) from error
    before = {(entry.path, entry.region): entry for entry in file.volumes}
    parts = []
    for one in stated:
        volume, now = one.volume, _entry(one.volume)
        entry = before.pop((now.path, now.region), None)
        if entry is None:
            known = [path for path, _ in before]
            problem = f"{volume.path!r} with the region {now.region!r} is not in the split"
            raise DataError(problem, where=where, hint=near(now.path, known) if known else ANEW)
        if entry.content != now.content:
            problem = f"{volume.path!r} was changed or replaced since the split was written"
            raise DataError(problem, where=where, hint=f"restore it; or {ANEW}")
        if entry.shape != now.shape:
            problem = (
                f"{volume.path!r} has {now.shape} voxels in training, and {entry.shape} when the split was written"
            )
            raise DataError(problem, where=where, hint="the same voxel_size in [train]")
        parts.append(_checked(entry, volume, where))
    if before:
        problem = f"{next(iter(before))[0]!r} is in the split, but not in this training"
        raise DataError(problem, where=where, hint=f"add it to the volumes; or {ANEW}")
    return parts


def _checked(entry: SplitEntry, volume: PlannedVolume, where: str) -> Parts:
    """The boxes of an entry, which a hand may have changed."""
    try:
        boxes = {name: tuple(Roi.parse(text, entry.shape) for text in getattr(entry, name)) for name in PARTS}
    except ValueError as error:
        raise DataError(f"the split of {volume.path!r}: {error}", where=where, hint=ANEW) from error
    parts = Parts(**boxes)
    again = replace(volume, parts=parts)
    if both := _overlap(again, again):
        problem = f"the split of {volume.path!r} has voxels both in {both[0]} and {both[1]}"
        raise DataError(problem, where=where, hint=ANEW)
    if any(not volume.region.contains(box) for box in (*parts.train, *parts.held)):
        raise DataError(f"the split of {volume.path!r} leaves its region", where=where, hint=ANEW)
    return parts


def _entry(volume: PlannedVolume) -> SplitEntry:
    size = volume.spec.voxel_size
    texts: dict[str, Any] = {name: tuple(text_of(box) for box in getattr(volume.split, name)) for name in PARTS}
    return SplitEntry(
        path=volume.place,
        content=volume.image.fingerprint(),
        shape=volume.spec.shape,
        voxel_size=size.edges if size else None,
        region=text_of(volume.used),
        **texts,
    )


def _drawn(volume: PlannedVolume, window: Window, crop: Shape, where: str) -> PlannedVolume:
    """With the boxes that crops are drawn in: those they fit into, near what was annotated."""
    train = volume.split.train
    fitting = tuple(box for box in train if fits(crop, box))
    if train and not fitting:
        raise _too_small(volume.path, train, window.divisor, crop, where)
    drawn = [Drawn(box, box) for box in fitting]
    if volume.annotated:
        drawn = [
            Drawn(box, near_by)
            for box in fitting
            for annotated in volume.annotated
            if (near_by := around_annotated(annotated, box, crop, window.crop))
        ]
        if train and not drawn:
            problem = f"no crop in the training part of {volume.path!r} would see an annotated box"
            raise ConfigError(problem, where=where, hint="another split, or annotated boxes in its training part")
    return replace(volume, parts=replace(volume.split, train=fitting), drawn=tuple(drawn))


def around_annotated(annotated: Roi, train: Roi, crop: Shape, context: Shape) -> Roi | None:
    """The part of a training box in which every crop predicts an annotated voxel, half of the crop where possible;
    None: no crop does.

    >>> around_annotated(Roi((10, 0, 0), (14, 8, 8)), Roi.whole((64, 8, 8)), (8, 8, 8), (0, 0, 0))
    Roi(start=(6, 0, 0), stop=(18, 8, 8))
    """
    inner = as_shape(-n for n in context)
    seen = annotated.clip(train.grow(inner))
    if is_empty(seen):
        return None
    box = seen.grow(as_shape(n // 2 for n in crop)).clip(train)
    start = as_shape(min(low, last - size) for low, last, size in zip(box.start, train.stop, crop, strict=True))
    stop = as_shape(max(high, low + size) for high, low, size in zip(box.stop, start, crop, strict=True))
    return Roi(start, stop)


def _too_small(path: str, boxes: tuple[Roi, ...], divisor: Shape, crop: Shape, where: str) -> ConfigError:
    largest = max(boxes, key=lambda box: box.voxels).shape
    problem = f"a crop of {crop} voxels does not fit the {largest} that {path!r} has for training"
    smaller = as_shape(min(c, n // d * d) for c, n, d in zip(crop, largest, divisor, strict=True))
    hint = f"crop = {list(smaller)} in [train]" if min(smaller) else "a smaller split or gap"
    return ConfigError(problem, where=where, hint=hint)


def _refuse_leaks(stated: Sequence[Stated], document: Document) -> None:
    """Refuse that one table trains on voxels of a file that another holds out, or validates on what another tests."""
    for one, other in permutations(stated, 2):
        if one.volume.array == other.volume.array and (parts := _overlap(one.volume, other.volume)):
            what = "trains on" if parts[0] == "train" else "validates on"
            problem = f"{one.volume.path!r} is in two [[volume]] tables, and one {what} voxels that the other holds out"
            hint = "one table with a split; or a region in each"
            raise ConfigError(problem, where=document.where("volume", other.number), hint=hint)


def _overlap(one: PlannedVolume, other: PlannedVolume) -> tuple[str, str] | None:
    """A part of one volume, and another part of the same or another, that are made of a common voxel of their file."""
    ours, theirs = (
        {name: [volume.footprint(box) for box in getattr(volume.parts, name)] for name in PARTS}
        for volume in (one, other)
    )
    pairs = combinations(PARTS, 2)
    return next(((a, b) for a, b in pairs if any(meet(*boxes) for boxes in product(ours[a], theirs[b]))), None)
