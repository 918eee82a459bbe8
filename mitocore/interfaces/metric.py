"""What scores a prediction against the truth, from additive parts."""

from abc import abstractmethod
from typing import Any, ClassVar

from mitocore.component import Component
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces.postprocessor import Block
from mitocore.specs import Kind


class Metric(Component):
    """Scores a prediction; blockwise, because the parts are additive."""

    kind: ClassVar[str] = "metric"
    compares: ClassVar[Kind]
    also: ClassVar[tuple[Kind, ...]] = ()
    """Further kinds that it can compare during a training."""
    lower_is_better: ClassVar[bool] = False
    """Whether the headline is an error."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        """Context needed around a block, e.g. the tolerance of a surface distance."""
        return (0, 0, 0)

    @abstractmethod
    def partial(self, block: Block) -> Any:
        """A summary of `block.write` that supports `+` (numbers, arrays, `mitocore.ContingencyTable`).
        The inputs are called "predicted" and "truth"."""

    @abstractmethod
    def total(self, partial: Any) -> dict[str, float]:
        """Scores of the whole volume, from the sum of all partials; the first is the headline."""
