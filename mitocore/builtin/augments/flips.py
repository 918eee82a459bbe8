"""Symmetries of a box of voxels: flips and quarter turns."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.augments.ranges import Probability
from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import Augment, Labels
from mitocore.symmetry import Symmetry, of_the_cube


class FlipRotate(Augment):
    """Random flips along the axes and quarter turns; every one that is allowed is equally likely.

    A turn that would change the shape of the crop or the size of its voxels is never drawn: where these are not
    square in the (y, x) plane, there are only half turns. All crops are changed as in PyTorch Connectomics, which
    flips z, y and x and transposes y and x; Catena's quarter turns alone are ``axes = []``.
    """

    probability: Probability = 1.0
    """Share of the crops of which one is drawn; the crop as it is may be drawn too."""
    axes: tuple[Literal["z", "y", "x"], ...] = ("z", "y", "x")
    """Axes along which half of the crops are flipped."""
    rotate: bool = True
    """Whether crops are turned too."""
    symmetries: Literal["plane", "all"] = "plane"
    """Turns in the (y, x) plane; or about all axes where voxels are isotropic and the crop is a cube: with the flips
    all 48 symmetries of the cube. What is read around the crop must be a cube too. Where the voxel size is not known,
    there are turns in the plane only."""

    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        chance, choice, *flips = rng.random(5)
        if chance >= self.probability:
            return image, labels
        turns = self.turns(as_shape(image.shape[1:]), voxel_size)
        turn = turns[int(choice * len(turns))]
        z, y, x = (
            reverse != (name in self.axes and flip < 0.5)
            for name, reverse, flip in zip("zyx", turn.flips, flips, strict=True)
        )
        drawn = Symmetry(turn.axes, (z, y, x))
        return moved(image, drawn), {name: moved(label, drawn) for name, label in labels.items()}

    def turns(self, shape: Shape, voxel_size: VoxelSize | None) -> list[Symmetry]:
        """The rotations that may be done to a crop of `shape` voxels, before it is flipped."""
        if not self.rotate:
            return [Symmetry()]
        turns = _ROTATIONS if self.symmetries == "all" else _IN_PLANE
        return [turn for turn in turns if _fits(turn, shape, voxel_size)]


def moved(array: NDArray[Any], symmetry: Symmetry) -> NDArray[Any]:
    """The array (..., z, y, x) after flips and turns."""
    first = array.ndim - 3
    turned = array.transpose(*range(first), *(first + axis for axis in symmetry.axes))
    return np.ascontiguousarray(
        np.flip(turned, tuple(first + axis for axis, flip in enumerate(symmetry.flips) if flip))
    )


def _fits(symmetry: Symmetry, shape: Shape, voxel_size: VoxelSize | None) -> bool:
    """Whether crop and voxels look afterwards as they did; within 1 %, since files round."""
    if voxel_size is None and symmetry.axes[0] != 0:
        return False
    if any(shape[a] != shape[b] for a, b in enumerate(symmetry.axes)):
        return False
    if voxel_size is None:  # y and x are taken to be alike
        return True
    edges = voxel_size.edges
    return all(math.isclose(edges[a], edges[b], rel_tol=0.01) for a, b in enumerate(symmetry.axes))


def _rotates(symmetry: Symmetry) -> bool:
    """Whether it is no mirror image: its determinant is 1."""
    swaps = sum(a > b for at, a in enumerate(symmetry.axes) for b in symmetry.axes[at + 1 :])
    return (swaps + sum(symmetry.flips)) % 2 == 0


_ROTATIONS = [symmetry for symmetry in of_the_cube() if _rotates(symmetry)]
_IN_PLANE = [turn for turn in _ROTATIONS if turn.axes[0] == 0 and not turn.flips[0]]
