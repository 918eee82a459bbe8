"""What the labels of each part of a training hold, streamed."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from mitocore.blockwise.grid import BlockGrid
from mitocore.geometry import Roi
from mitocore.interfaces import VALID
from mitocore.learn.data import OpenVolume, Prepared
from mitocore.specs import Kind

_BOX = (16, 512, 512)
PARTS = ("train", "validation", "test")


@dataclass
class LabelCount:
    """What one label array holds in one part of a volume."""

    kind: Kind
    counted: int = 0
    """Voxels that have a label and count: neither masked nor to be ignored."""
    foreground: int = 0
    """Of these, voxels that are not background."""
    ids: set[int] = field(default_factory=set)
    """Of instances."""
    classes: dict[str, int] = field(default_factory=dict)
    """Voxels of each class of semantic labels, background included; named by their number if they have no name."""

    @property
    def share(self) -> float:
        """Of the voxels that count, those that are foreground."""
        return self.foreground / self.counted if self.counted else 0.0


@dataclass(frozen=True)
class PartCount:
    """One part of one volume, after the gap."""

    volume: str
    part: str
    """"train", "validation" or "test"."""
    voxels: int
    labels: dict[str, LabelCount]


def census(volumes: Sequence[Prepared], told: Callable[[int, int], None]) -> list[PartCount]:
    """Count the labels of all parts of all volumes; reads each voxel of the labels once.

    Parameters
    ----------
    told
        Called with voxels read and voxels in all.
    """
    regions = [(v, part, getattr(v.planned.parts, part)) for v in volumes for part in PARTS]
    regions = [(v, part, boxes) for v, part, boxes in regions if boxes]
    done, total = 0, sum(box.voxels for _, _, boxes in regions for box in boxes)
    told(0, total)
    found = []
    for prepared, part, boxes in regions:
        labels = {name: LabelCount(array.kind) for name, array in prepared.planned.labels.items()}
        with closing(prepared.open()) as volume:
            for region in boxes:
                for box in _blocks(region):
                    _count(volume, box, region, labels)
                    done += box.voxels
                    told(done, total)
        found.append(PartCount(prepared.planned.path, part, sum(box.voxels for box in boxes), labels))
    return found


def _blocks(region: Roi) -> Iterator[Roi]:
    grid = BlockGrid(region, _BOX)
    return (grid.box(number) for number in range(len(grid)))


def _count(volume: OpenVolume, box: Roi, region: Roi, labels: dict[str, LabelCount]) -> None:
    arrays = volume.read_labels(box, region)
    valid = arrays.pop(VALID) == 1
    for name, ids in arrays.items():
        one, counted = labels[name], valid & (ids != np.iinfo(ids.dtype).max)
        values, times = np.unique(ids[counted], return_counts=True)
        numbers = Counter(dict(zip(values.tolist(), times.tolist(), strict=True)))
        one.counted += numbers.total()
        one.foreground += numbers.total() - numbers[0]
        if one.kind is Kind.SEMANTIC:
            names = volume.planned.labels[name].classes
            for value, count in sorted(numbers.items()):
                called = names[value] if value < len(names) else str(value)
                one.classes[called] = one.classes.get(called, 0) + count
        else:
            one.ids.update(numbers.keys() - {0})
