"""What turns ground-truth labels into what a head should predict."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.component import Component
from mitocore.geometry import Shape, VoxelSize
from mitocore.specs import ArraySpec, Kind, Need

Labels = Mapping[str, NDArray[Any]]
"""Label arrays by name ("instances" uint64, "semantic" uint16 …), each (z, y, x)."""


class Target(Component):
    """Turns ground-truth labels into what a head should predict, or (`Kind.WEIGHT`) how much a voxel counts."""

    kind: ClassVar[str] = "target"

    def needs(self) -> Mapping[str, Need]:
        """The label arrays it reads, by name."""
        return {"instances": Need((Kind.INSTANCE,))}

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        """Extra labels needed around a crop so that its border is encoded as inside the volume."""
        return (0, 0, 0)

    def local(self) -> bool:
        """Whether crop and halo settle every value; else only those of objects that lie whole within crop and halo."""
        return True

    @abstractmethod
    def gives(self) -> ArraySpec: ...

    @abstractmethod
    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        """The arrays of `needs` → (c, z, y, x). The maximum of a label's dtype means "ignore"."""
