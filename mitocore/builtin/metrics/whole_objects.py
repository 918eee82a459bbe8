"""What metrics have in common that look at whole objects, in nm."""

from collections.abc import Hashable
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from mitocore.builtin.extents import Located
from mitocore.errors import ConfigError
from mitocore.geometry import VoxelSize, nanometres
from mitocore.interfaces import Block, ObjectMetric
from mitocore.specs import Kind


class WholeObjects(ObjectMetric):
    """A metric of predicted and true objects, which are found by their boxes."""

    compares: ClassVar[Kind] = Kind.INSTANCE
    narrow_ids: ClassVar[bool] = True

    def shared(self) -> Hashable:
        """With the metrics that need boxes of objects."""
        return "located"

    def partial(self, block: Block) -> Located:
        known_edges(block.voxel_size)
        return Located.of(block)


def _stated(length: float | str) -> float | str:
    nanometres(length)
    return length


Length = Annotated[float | str, AfterValidator(_stated)]


def known_edges(voxel_size: VoxelSize | None) -> tuple[float, float, float]:
    """Edges of a voxel (z, y, x) in nm.

    Raises
    ------
    ConfigError
        If they are not known.
    """
    if voxel_size is None:
        raise ConfigError(
            "lengths in nm need the voxel size, which neither the truth nor the prediction states",
            hint="mitocore convert labels.tif labels.zarr --voxel-size 30,8,8 --kind instance, and evaluate the copy",
        )
    return voxel_size.edges


def object_of(block: Block, side: str, number: int) -> NDArray[np.bool_]:
    """Where a block (z, y, x) holds an object of the prediction or of the truth; never where the truth is unknown."""
    ids, truth = block[side][0], block["truth"][0]
    there: NDArray[np.bool_] = (ids == ids.dtype.type(number)) & (truth != np.iinfo(truth.dtype).max)
    return there
