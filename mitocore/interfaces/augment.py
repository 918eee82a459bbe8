"""What changes image and labels together."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.component import Component
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces.target import Labels

VALID = "valid"
"""Name under which the mask travels with the labels through the augments: 1 where voxels count, 0 where they do not."""


class Augment(Component):
    """Changes image and labels together."""

    kind: ClassVar[str] = "augment"

    def halo(self, shape: Shape, voxel_size: VoxelSize | None) -> Shape:
        """Extra voxels read around a crop of `shape`, so that warps and lost sections show no border."""
        return (0, 0, 0)

    @abstractmethod
    def apply(
        self, image: NDArray[np.float32], labels: Labels, voxel_size: VoxelSize | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Labels]:
        """Change (c, z, y, x), normalised, and every label array alike. Shapes are kept, arguments are not modified.

        What is given may be larger than crop and halo. Where a voxel would come from beyond what is given, `VALID`
        becomes 0.
        """
