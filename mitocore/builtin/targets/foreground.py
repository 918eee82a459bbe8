"""Where objects are: all of them, chosen ids, or the small ones."""

from typing import Annotated

import cc3d
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.targets.morphology import OfObjects, known
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces import Labels
from mitocore.specs import ArraySpec, Kind, Need

_KINDS = {"instances": (Kind.INSTANCE,), "semantic": (Kind.SEMANTIC, Kind.MASK)}


class Foreground(OfObjects):
    """1 inside objects, 0 outside and where the label says "ignore" (voxels that the trainer gives the weight 0).

    The one channel is "foreground".
    """

    values: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Ids that count as foreground, such as one class of several; empty: all but 0."""

    def needs(self) -> dict[str, Need]:
        return {self.label: Need(_KINDS.get(self.label, (Kind.INSTANCE, Kind.SEMANTIC, Kind.MASK)))}

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.PROBABILITY, ("foreground",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        del voxel_size
        ids = self.shaped(labels)
        # not np.isin: left to itself, it makes floats of large ids
        inside = np.logical_or.reduce([ids == value for value in self.values]) if self.values else ids > 0
        return (inside & known(ids))[None].astype(np.float32)


class SmallObjects(OfObjects):
    """1 where a slice through an object shows few voxels of it: small objects, and thin parts and tips of others.

    The one channel is "small". Slices along all three axes count.
    """

    area: Annotated[int, Field(ge=1)] = 25
    """Sections in z of fewer voxels than this (connected, corners included) are small."""
    anisotropy: Annotated[int, Field(ge=1)] = 1
    """Edge of a voxel along z over that along y and x: sections in y and x are small below area // anisotropy."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        # a section that leaves the halo has a path of `area` voxels to its face, so it is not small
        across = self.area // self.anisotropy
        return self.beyond((across, self.area, self.area))

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.PROBABILITY, ("small",))

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        del voxel_size
        ids = self.objects(labels)[0]
        small = np.zeros(ids.shape, bool)
        for axis, area in enumerate((self.area, self.area // self.anisotropy, self.area // self.anisotropy)):
            for section, found in zip(np.moveaxis(ids, axis, 0), np.moveaxis(small, axis, 0), strict=True):
                if section.any():
                    pieces = cc3d.connected_components(np.ascontiguousarray(section), connectivity=8)
                    few = np.bincount(pieces.ravel()) < area
                    few[0] = False
                    np.logical_or(found, few[pieces], out=found)
        return small[None].astype(np.float32)
