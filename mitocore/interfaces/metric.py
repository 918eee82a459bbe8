"""What scores a prediction against the truth, from additive parts."""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from mitocore.component import Component
from mitocore.geometry import Roi, Shape, VoxelSize
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
    narrow_ids: ClassVar[bool] = False
    """Whether instance ids may come in a narrower unsigned dtype than uint64, as the file holds them: faster."""
    takes_scores: ClassVar[bool] = False
    """Whether `partial` looks at "scores", how sure the prediction is of each voxel, where a person gives them."""

    def in_voxels(self, voxel_size: VoxelSize | None) -> Self:
        """This metric with its physical options (nm, µm³) turned into voxels; called once, before any block.

        Raises
        ------
        ConfigError
            If an option is physical and the voxel size is not known.
        """
        del voxel_size
        return self

    def for_channels(self, channels: Sequence[str]) -> Self:
        """This metric for a prediction whose channels have these names; called once, before any block.

        Raises
        ------
        ConfigError
            If it cannot score such a prediction.
        """
        del channels
        return self

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        """Context needed around a block, e.g. the tolerance of a surface distance."""
        return (0, 0, 0)

    def shared(self) -> Hashable:
        """All that `partial` depends on: metrics that answer alike are given one partial, counted once.

        Default: None, which is like no other.
        """
        return None

    @abstractmethod
    def partial(self, block: Block) -> Any:
        """A summary of `block.write` that supports `+` (numbers, arrays, `mitocore.ContingencyTable`).
        The inputs are called "predicted" and "truth"."""

    @abstractmethod
    def total(self, partial: Any) -> dict[str, float]:
        """Scores of the whole volume, from the sum of all partials; the first is the headline.

        What there is nothing to say of, such as the precision of a size that does not occur, is NaN.
        """

    def remarks(self, scores: Mapping[str, float]) -> Sequence[str]:
        """What a person who sees these scores should know, in one sentence each; usually nothing."""
        del scores
        return ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What `total` of an `ObjectMetric` is given."""

    partial: Any
    """The sum of all partials."""
    objects: Mapping[Hashable, Any]
    """What `measured` gave, by key."""


class ObjectMetric(Metric):
    """Scores that need objects whole, such as their length: after the blocks they are looked at one at a time.

    Memory grows with the largest object, not with the volume. As that takes long where there are many, it is computed
    only when it is asked for by name.
    """

    @abstractmethod
    def objects(self, partial: Any) -> Mapping[Hashable, Roi]:
        """What must be seen whole, from the sum of all partials: boxes, by keys of the author's choosing."""

    @abstractmethod
    def measured(self, key: Any, block: Block) -> Any:
        """What there is to say of one of `objects`; `block` is its box, with the inputs of `partial`."""

    @abstractmethod
    def total(self, partial: Seen) -> dict[str, float]:
        """Scores of the whole volume; the first is the headline."""


def finished(metric: Metric, partial: Any, look: Callable[[Roi], Block]) -> dict[str, float]:
    """The scores of a metric, from the sum of all its partials.

    Parameters
    ----------
    look
        Gives a box of the volumes as a block; called where objects must be seen whole.
    """
    if isinstance(metric, ObjectMetric):
        boxes = metric.objects(partial)
        return metric.total(Seen(partial, {key: metric.measured(key, look(box)) for key, box in boxes.items()}))
    return metric.total(partial)
