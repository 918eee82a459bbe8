"""Objects of a crop that are there twice."""

from dataclasses import dataclass
from typing import Annotated, Any

import fastremap
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from mitocore.builtin.augments.flips import moved
from mitocore.builtin.augments.ranges import Probability
from mitocore.errors import ConfigError
from mitocore.geometry import VoxelSize
from mitocore.interfaces import VALID, Augment, Labels
from mitocore.symmetry import Symmetry

_TRIES = 20
"""Places tried for an object before it is given up."""


class CopyPaste(Augment):
    """Objects copied to where there is background: their voxels of the image, and with them their labels.

    A copy is turned by quarters in the plane and flipped at random, so that nothing is interpolated, and gets an id of
    its own; so do objects of other label arrays that lie wholly within it, and larger ones, such as cells, stay as they
    are. Semantic labels and what counts (`VALID`) come along from the source. Copies keep clear of other objects and of
    voxels that do not count. An object that the edge of the crop cuts stays at that edge: its cut face is nowhere to be
    seen.

    Probability and threshold are those of PyTorch Connectomics, which leaves it off unless asked.
    """

    probability: Probability = 0.8
    """Share of the crops that are changed, if there is room."""
    label: str = "instances"
    """Label array whose objects are copied."""
    objects: Annotated[int, Field(ge=1)] = 3
    """Largest number of copies; every number from 1 is equally likely."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Crops in which objects take a larger share than this are left alone."""
    margin: Annotated[int, Field(ge=0)] = 3
    """Voxels between a copy and all other objects, to be sure they do not touch."""

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        if self.label not in labels:
            names = ", ".join(sorted(labels.keys() - {VALID})) or "none"
            hint = "name the array with the objects: label = ..."
            raise ConfigError(f"copy_paste copies objects of {self.label!r}; the label arrays are: {names}", hint=hint)
        if rng.random() >= self.probability:
            return image, labels
        ids = np.where(_ignored(labels[self.label]), 0, labels[self.label])
        if not 0 < np.count_nonzero(ids) <= self.threshold * ids.size:
            return image, labels
        numbers, _ = fastremap.renumber(ids, in_place=True)
        boxes = ndimage.find_objects(numbers)
        crop = _Crop(image.copy(), {name: array.copy() for name, array in labels.items()}, self.label, self.margin)
        square = voxel_size is None or abs(voxel_size.y / voxel_size.x - 1) <= 0.01
        count = min(int(rng.integers(1, self.objects, endpoint=True)), len(boxes))
        for number in rng.permutation(len(boxes))[:count]:
            source = _Source(boxes[number], numbers[boxes[number]] == number + 1)
            crop.paste(image, labels, source.turned(image.shape[1:], square, rng), rng)
        return crop.image, crop.labels


@dataclass(frozen=True, slots=True)
class _Source:
    """An object where it is, and how it is to be turned."""

    box: tuple[slice, ...]
    mask: NDArray[np.bool_]
    turn: Symmetry = Symmetry()

    def cut(self, shape: tuple[int, ...]) -> list[bool]:
        """Whether the object reaches the first or the last voxel along each axis."""
        return [part.start == 0 or part.stop == size for part, size in zip(self.box, shape, strict=True)]

    def turned(self, shape: tuple[int, ...], square: bool, rng: np.random.Generator) -> "_Source":
        """Turned at random; along axes on which it is cut, as it is."""
        whole = [not cut for cut in self.cut(shape)]
        flips = [bool(flip) and free for flip, free in zip(rng.integers(0, 2, 3), whole, strict=True)]
        _, rows, columns = self.mask.shape
        fits = columns <= shape[1] and rows <= shape[2]
        swap = bool(rng.integers(0, 2)) and square and fits and whole[1] and whole[2]
        turn = Symmetry((0, 2, 1) if swap else (0, 1, 2), (flips[0], flips[1], flips[2]))
        return _Source(self.box, moved(self.mask, turn), turn)

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Values of the object's voxels in an array (..., z, y, x), in the order of `mask`."""
        box: tuple[Any, ...] = (..., *self.box)
        return moved(array[box], self.turn)[..., self.mask]


class _Crop:
    """Image and labels to which copies are added."""

    def __init__(self, image: NDArray[np.float32], labels: dict[str, NDArray[Any]], label: str, margin: int) -> None:
        self.image, self.labels, self.margin = image, labels, margin
        free = labels[label] == 0
        for array in labels.values():
            free &= ~_ignored(array)
        self.free = np.pad(free, margin, constant_values=True)
        """Nothing is known to be here; beyond the crop, too."""
        self.counts = labels[VALID] != 0 if VALID in labels else np.ones(free.shape, bool)
        self.next = {name: _next_id(array) for name, array in labels.items() if array.dtype == np.uint64}

    def paste(self, image: NDArray[np.float32], labels: Labels, source: _Source, rng: np.random.Generator) -> None:
        """Add the object of `source` somewhere, if there is room."""
        place = self._place(source, rng)
        if place is None:
            return
        everywhere: tuple[Any, ...] = (..., *place)
        self.image[everywhere][..., source.mask] = source.of(image)
        self.free[tuple(slice(p.start + self.margin, p.stop + self.margin) for p in place)] &= ~source.mask
        for name, array in self.labels.items():
            values = source.of(labels[name])
            if name in self.next:
                fresh = self._renamed(name, labels[name], values)
                array[place][source.mask] = np.where(fresh == 0, array[place][source.mask], fresh)
            else:
                array[place][source.mask] = values

    def _place(self, source: _Source, rng: np.random.Generator) -> tuple[slice, ...] | None:
        around = np.pad(source.mask, self.margin)
        if self.margin:
            around = ndimage.distance_transform_cdt(~around, "chessboard") <= self.margin
        shape, edges = self.counts.shape, source.mask.shape
        cut = source.cut(shape)
        for _ in range(_TRIES):
            starts = [
                part.start if stays else int(rng.integers(0, size - edge, endpoint=True))
                for part, stays, size, edge in zip(source.box, cut, shape, edges, strict=True)
            ]
            place = tuple(slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
            near = tuple(slice(part.start, part.stop + 2 * self.margin) for part in place)
            if self.counts[place][source.mask].all() and self.free[near][around].all():
                return place
        return None

    def _renamed(self, name: str, before: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
        """New ids for the objects of an array that lie wholly within the copy; 0 for all others."""
        found = np.zeros_like(values)
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            if value == 0 or value == np.iinfo(values.dtype).max or np.count_nonzero(before == value) != count:
                continue
            found[values == value] = self.next[name]
            self.next[name] += 1
        return found


def _ignored(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Voxels whose label is not known."""
    if array.dtype.kind != "u" or array.dtype.itemsize < 2:
        return np.zeros(array.shape, bool)
    return np.asarray(array == np.iinfo(array.dtype).max)


def _next_id(array: NDArray[Any]) -> int:
    """Above all ids of the array."""
    return int(np.where(_ignored(array), 0, array).max()) + 1
