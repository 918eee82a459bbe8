"""Scores of affinities against true instances, and the check that they are read on the right side of each pair."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.metrics.compared import ratio
from mitocore.errors import ConfigError
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces import Block, Metric
from mitocore.specs import Kind, channel_of, offsets_of

NEAREST: tuple[Shape, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
CLEARLY = 2 / 3
"""Share of the pairs that tell the sides apart above which the other side is what was meant; by chance it is 1/2."""


class Affinity(Metric):
    """Dice, IoU and balanced accuracy of affinities above a threshold, against which voxels share a true object.

    A channel with offset o is compared at v with whether v and v + o lie in one object. Where v and v - o answer
    otherwise, a prediction shows for which of the two it was made: `other_side` is the share of these voxels where it
    agrees with v - o, near 0 if the offsets are right and near 1 if all signs have to be turned. The scores are means
    over the channels, followed by those of each, such as z-1.dice.

    Pairs that leave the volume, or of which one voxel is to be ignored, do not count.
    """

    compares: ClassVar[Kind] = Kind.AFFINITY

    offsets: Annotated[tuple[Shape, ...], Field(min_length=1)] | None = None
    """Of each channel, (z, y, x) in voxels. Default: those the channels are named after, such as "z-1"; of three
    channels without such names, the nearest neighbours [-1, 0, 0], [0, -1, 0] and [0, 0, -1]."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Predicted to be of one object is what is above."""

    def for_channels(self, channels: Sequence[str]) -> Self:
        offsets = self.offsets or offsets_of(channels) or (NEAREST if len(channels) == len(NEAREST) else ())
        if len(offsets) != len(channels):
            said = f"{len(offsets)} offsets" if offsets else "names that are no offsets"
            raise ConfigError(
                f"the prediction has {len(channels)} channels of affinities, and {said}",
                where="metric 'affinity'",
                hint='offsets = [[-1, 0, 0], …], one for each channel; or channels named "z-1", "y-1" … in its file',
            )
        return self.model_copy(update={"offsets": offsets})

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        del voxel_size
        return as_shape(max(map(abs, steps)) for steps in zip(*self._offsets, strict=True))

    def partial(self, block: Block) -> NDArray[np.int64]:
        """(channels, 6) pairs: predicted and true, predicted, true, all; that tell the sides apart, for the other."""
        return np.array([self._counts(block, *channel) for channel in enumerate(self._offsets)], np.int64)

    def total(self, partial: NDArray[np.int64]) -> dict[str, float]:
        both, found, true, counted, telling, other = partial.T
        missed, wrong = true - both, found - both
        scores = {
            "dice": ratio(2 * both, found + true),
            "iou": ratio(both, found + missed),
            "balanced_accuracy": (ratio(both, true) + ratio(counted - true - wrong, counted - true)) / 2,
            "other_side": np.divide(other, telling, out=np.full(len(other), np.nan), where=telling > 0),
        }
        means = {name: float(values.mean()) for name, values in scores.items() if name != "other_side"}
        means["other_side"] = float(other.sum() / telling.sum()) if telling.any() else float("nan")
        names = list(map(channel_of, self._offsets))
        each = {f"{name}.{score}": float(values[c]) for c, name in enumerate(names) for score, values in scores.items()}
        return means | (each if len(names) > 1 else {})

    def remarks(self, scores: Mapping[str, float]) -> list[str]:
        """Which offsets to state instead, if the truth says that those of some channels point the wrong way."""
        shares = [scores.get(f"{channel_of(offset)}.other_side", scores["other_side"]) for offset in self._offsets]
        turned = [share > CLEARLY for share in shares]
        if not any(turned):
            return []
        better = [_opposite(o) if turn else o for o, turn in zip(self._offsets, turned, strict=True)]
        which = "the affinities agree" if all(turned) else f"{sum(turned)} of {len(turned)} channels agree"
        instead = f"offsets = {_listed(better)} instead of {_listed(self._offsets)}"
        return [f"{which} better with the truth if they are stored at the other voxel of each pair: {instead}"]

    @property
    def _offsets(self) -> tuple[Shape, ...]:
        return self.offsets or NEAREST

    def _counts(self, block: Block, channel: int, offset: Shape) -> list[int]:
        inside = block.write.clip(block.volume.moved(_opposite(offset)))
        if min(inside.shape) < 1:
            return [0] * 6
        ids = block["truth"][0]
        found = block["predicted"][channel][inside.within(block.read)] > self.threshold
        true, counted = _together(ids, inside, offset, block.read)
        found_counted = found & counted
        pairs = [found_counted & true, found_counted, true & counted, counted]
        both_sides = inside.clip(block.volume.moved(offset))
        if min(both_sides.shape) < 1:
            return [*map(_number, pairs), 0, 0]
        cut = both_sides.within(inside)
        there, there_counted = _together(ids, both_sides, _opposite(offset), block.read)
        telling = (true[cut] != there) & counted[cut] & there_counted
        return [*map(_number, [*pairs, telling, telling & (found[cut] == there)])]


def _together(
    ids: NDArray[np.uint64], where: Roi, offset: Shape, read: Roi
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each voxel of a box, whether it and the one an offset away are of one object, and whether both are known."""
    here, there = ids[where.within(read)], ids[where.moved(offset).within(read)]
    unknown = np.iinfo(ids.dtype).max
    return (here == there) & (here > 0), (here != unknown) & (there != unknown)


def _number(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _opposite(offset: Shape) -> Shape:
    return as_shape(-step for step in offset)


def _listed(offsets: Sequence[Shape]) -> str:
    return str([list(offset) for offset in offsets])
