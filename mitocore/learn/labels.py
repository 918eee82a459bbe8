"""Label files as components see them, and what is refused before the first step."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import label_ids, one_of
from mitocore.blockwise.grid import BlockGrid
from mitocore.config.volumes import PlannedLabels
from mitocore.errors import DataError
from mitocore.geometry import Roi
from mitocore.interfaces import Volume
from mitocore.specs import Kind, VolumeSpec

_DTYPES = {Kind.INSTANCE: "uint64", Kind.SEMANTIC: "uint16"}
_OUTSIDE, _IGNORE = np.uint64(2**64 - 3), np.uint64(2**64 - 1)
"""Of files of uint64. Between them lies "invalid" (`Label` of Paintera); Catena writes the first for "not labelled"."""
_BOX = (16, 512, 512)


class MappedLabels(Volume):
    """A label file as components see it: ids of their dtype, chosen values as foreground, others as "ignore".

    So is what lies outside of the boxes that were annotated: an object that goes on there has no border at their faces.
    """

    def __init__(self, volume: Volume, meaning: PlannedLabels, annotated: Sequence[Roi] = ()) -> None:
        self._volume, self._kind, self._values = volume, meaning.kind, meaning.values
        self._annotated = annotated

    @property
    def spec(self) -> VolumeSpec:
        """As of the file, but for dtype and kind."""
        return replace(self._volume.spec, dtype=_DTYPES[self._kind], kind=self._kind)

    def read(self, roi: Roi) -> NDArray[Any]:
        """Ids (1, z, y, x) over `roi`; the maximum of their dtype means "ignore"."""
        values = self._volume.read(roi)
        if values.dtype == np.uint64 and (reserved := (values >= _OUTSIDE) & (values != _IGNORE)).any():
            values = np.where(reserved, _IGNORE if self._values.reserved == "ignore" else np.uint64(0), values)
        ids = label_ids(values, self._kind, self._values.ignore)
        ignore = np.iinfo(ids.dtype).max
        if self._annotated:
            ids = np.where(_inside(self._annotated, roi), ids, ignore)
        if not isinstance(self._values.foreground, tuple):
            return ids
        return np.where(ids == ignore, ids, one_of(values, self._values.foreground).astype(ids.dtype))

    def close(self) -> None:
        """Close the file."""
        self._volume.close()


class Annotated(Volume):
    """A mask that is 0 outside of boxes, and inside where another mask is."""

    def __init__(self, boxes: Sequence[Roi], spec: VolumeSpec, valid: Volume | None) -> None:
        self._boxes, self._valid = tuple(boxes), valid
        self._spec = replace(spec, dtype="uint8", channels=("",), kind=Kind.MASK)

    @property
    def spec(self) -> VolumeSpec:
        """As of the image, one channel of uint8."""
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        """0 or 1 (1, z, y, x) over `roi`."""
        inside = _inside(self._boxes, roi)
        if self._valid:
            inside &= self._valid.read(roi) != 0
        return inside.astype(np.uint8)

    def close(self) -> None:
        """Close the other mask."""
        if self._valid:
            self._valid.close()


def _inside(boxes: Sequence[Roi], roi: Roi) -> NDArray[np.bool_]:
    """Which voxels (1, z, y, x) of `roi` lie in one of the boxes."""
    inside = np.zeros((1, *roi.shape), bool)
    for box in boxes:
        part = box.clip(roi)
        if min(part.shape) > 0:
            inside[(0, *part.within(roi))] = True
    return inside


def check_labels(
    path: str, labels: Mapping[str, Volume], meanings: Mapping[str, PlannedLabels], regions: Iterable[Roi]
) -> None:
    """Read, box by box, the label arrays of which some files hold numbers that mean nothing; refuse those.

    Raises
    ------
    DataError
        If an id is negative, has no name in `classes`, or a semantic array holds several values and nothing says what
        they are; with the count of each value.
    """
    boxes = [box for region in regions for box in _boxes(region)]
    for name, volume in labels.items():
        meaning, what = meanings[name], f"{name} labels of {path!r}"
        try:
            if meaning.kind is Kind.SEMANTIC:
                _check_classes(what, _counted(volume, boxes), meaning)
            elif meaning.signed:
                for box in boxes:
                    volume.read(box)
        except DataError as error:
            error.where = error.where or what
            raise


def _counted(volume: Volume, boxes: Iterable[Roi]) -> Counter[int]:
    """How many voxels have each id; those to ignore are left out."""
    counts: Counter[int] = Counter()
    for box in boxes:
        ids, times = np.unique(volume.read(box), return_counts=True)
        counts.update(dict(zip(ids.tolist(), times.tolist(), strict=True)))
    counts.pop(int(np.iinfo(volume.spec.dtype).max), None)
    return counts


def _check_classes(what: str, counts: Counter[int], meaning: PlannedLabels) -> None:
    if meaning.classes:
        if unknown := {value: n for value, n in counts.items() if value >= len(meaning.classes)}:
            problem = f"{what} hold ids without a class: {_listed(unknown)}; there are {len(meaning.classes)} classes"
            ids = ", ".join(map(str, sorted(unknown)[:3]))
            hint = f"more names in classes, or label_values = {{ ignore = [{ids}] }}"
            raise DataError(problem, where="[[volume]] classes", hint=hint)
    elif meaning.values.foreground is None and len(counts) > 2:
        problem = f"{what} hold {len(counts)} values, and nothing says what they are: {_listed(counts)}"
        hint = 'classes = ["background", …], or label_values = { foreground = [1] } (or "any")'
        raise DataError(problem, where="[[volume]]", hint=hint)


def _listed(counts: Mapping[int, int]) -> str:
    """Values with their numbers of voxels, the first eight."""
    shown = [f"{value} ({counts[value]:,} voxels)" for value in sorted(counts)[:8]]
    return ", ".join(shown) + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")


def _boxes(region: Roi) -> Iterator[Roi]:
    grid = BlockGrid(region, _BOX)
    return (grid.box(number) for number in range(len(grid)))
