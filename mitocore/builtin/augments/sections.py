"""Faults of cutting and imaging: lost sections, and sections that are out of place."""

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.augments.places import Places, mapped
from mitocore.builtin.augments.ranges import Probability
from mitocore.builtin.augments.warps import in_voxels
from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import VALID, Augment, Labels


class MissingSection(Augment):
    """Sections lost, with their labels: those above and below close the gap.

    More sections are read than the crop has, so that it stays full. A crop of one section shows no gap, and is left
    alone. PyTorch Connectomics loses two sections of half of the crops.
    """

    probability: Probability = 0.5
    """Share of the crops that are changed."""
    sections: Annotated[int, Field(ge=1)] = 2
    """How many sections they lose."""

    def halo(self, shape: Shape, voxel_size: VoxelSize | None) -> Shape:
        return (math.ceil(self.sections / 2) if shape[0] > 1 else 0, 0, 0)

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        depth = image.shape[-3]
        inner = depth - 2  # the loss of the first or the last could not be seen
        if rng.random() >= self.probability or inner <= self.sections:
            return image, labels
        lost = 1 + rng.choice(inner, self.sections, replace=False)
        kept = np.delete(np.arange(depth), lost)
        wanted = np.arange(depth) - self.sections // 2
        places = kept[wanted.clip(0, kept.size - 1)]
        found = {name: array.take(places, axis=0) for name, array in labels.items()}
        if VALID in found:
            found[VALID][(wanted < 0) | (wanted >= kept.size)] = 0
        return image.take(places, axis=1), found


class Misalignment(Augment):
    """Sections out of place, with their labels: one that slipped, or all from some section on.

    They are shifted by whole voxels, or turned about the middle of the crop; its corners then move by up to as much.
    A crop of one section is left alone. The numbers are those of PyTorch Connectomics.
    """

    probability: Probability = 0.5
    """Share of the crops that are changed."""
    displacement: Annotated[int, Field(ge=1)] = 16
    """Largest shift along y and x, in voxels, either way."""
    slip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of these in which a single section is out of place, and not the rest of the stack."""
    rotation: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of these that are turned, and not shifted."""

    def halo(self, shape: Shape, voxel_size: VoxelSize | None) -> Shape:
        return (0, self.displacement, self.displacement)

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        depth, *plane = image.shape[1:]
        chance, slips, turns, angle = rng.random(4)
        if chance >= self.probability or depth == 1:
            return image, labels
        first = int(rng.integers(1, depth))
        part = slice(first, first + 1) if slips < self.slip else slice(first, None)
        if turns < self.rotation:
            places = self._turned(2 * angle - 1, as_shape(image.shape[1:]), voxel_size)
        else:
            by = rng.integers(-self.displacement, self.displacement, 2, endpoint=True)
            offsets = np.ix_(*(np.arange(n, dtype=np.float32) for n in plane))
            places = Places([offset + np.float32(shift) for offset, shift in zip(offsets, by, strict=True)], plane)
        out, found = places.moved(image[:, part], {name: array[part] for name, array in labels.items()})
        return _with(image, part, out), {name: _with(labels[name], part, array) for name, array in found.items()}

    def _turned(self, share: float, shape: Shape, voxel_size: VoxelSize | None) -> Places:
        """Turned by a share of the angle that moves a corner by `displacement` shorter edges of a voxel."""
        edges = np.array(voxel_size.edges[1:] if voxel_size else (1.0, 1.0))  # only their ratio matters
        radius = float(np.linalg.norm((np.array(shape[1:]) - 1) / 2 * edges / edges.min()))
        angle = share * 2 * math.asin(min(self.displacement / max(2 * radius, 1), 1))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return mapped(in_voxels(turn, voxel_size), shape[1:])


def _with(array: NDArray[Any], part: slice, sections: NDArray[Any]) -> NDArray[Any]:
    copy = array.copy()
    copy[..., part, :, :] = sections
    return copy
