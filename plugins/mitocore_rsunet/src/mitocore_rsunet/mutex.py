"""Instances from short- and long-range affinities, by the mutex watershed."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from mitocore import Block, ObjectwisePostProcessor, Shape, WiringError
from mitocore_rsunet.edges import FromAffinities, Share, ends, is_near, met, turned

_PER_EDGE = 80  # measured, of mwatershed 0.5.4: what it sorts and what it remembers of who may not be joined


class MutexWatershed(FromAffinities, ObjectwisePostProcessor):
    """Objects of affinities, by the mutex watershed: attraction and repulsion, the strongest first, without seeds.

    Wolf et al., "The mutex watershed: efficient, parameter-free image partitioning", 2018; the library is mwatershed.
    An affinity plus its bias attracts if it is positive and repels if it is negative; the absolute value is its
    strength. Each connected component (across faces) of the foreground is partitioned alone; without a foreground, of
    the voxels with an edge to a neighbour above `threshold`. Pairs that leave the component do not count.

    All pairs are taken as stored at the later voxel, so the side they come at changes nothing, ties included.
    """

    threshold: Share = 0.5
    """Without a foreground: a voxel none of whose neighbours it has an affinity above this to is background."""
    bias: tuple[Annotated[float, Field(gt=-1, le=1)], Annotated[float, Field(ge=-1, lt=0)]] = (-0.5, -0.5)
    """Added to the affinities of neighbours, and to all others. -0.5: what is more likely one object attracts. (0, -1)
    is the form of the paper: neighbours only attract, long ranges only repel. Users of mwatershed choose -0.2 … -0.7
    by validation; a lower second value separates more."""
    strides: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1)
    """Every how many voxels along z, y and x a long-range pair counts; more is faster, and separates less. Regular, and
    counted from voxel 0 of the volume."""

    def accept(self, offsets: Sequence[Shape]) -> None:
        super().accept(offsets)
        if all(map(is_near, offsets)):
            raise WiringError(
                f"the mutex watershed needs long-range affinities too; all {len(offsets)} channels lead to neighbours",
                hint="affinities with offsets such as [-3, 0, 0] or [0, -9, 0]; or affinity_components",
            )

    @property
    def bytes_per_voxel(self) -> int:  # type: ignore[override]  # it grows with the channels
        """Peak of `process` per voxel of a box."""
        return 64 + _PER_EDGE * len(self.steps())

    def halo(self) -> Shape:
        return (1, 1, 1)

    def neighbourhood(self) -> Literal[6]:
        return 6

    def mask(self, block: Block) -> NDArray[np.bool_]:
        foreground = self.foreground(block)
        return met(self.near(block) > self.threshold) if foreground is None else foreground

    def process(self, block: Block, mask: NDArray[np.bool_]) -> Mapping[str, NDArray[Any]]:
        import mwatershed

        inside = [  # mwatershed fails on steps that no pair of voxels of this box is apart
            (channel, offset)
            for channel, offset in zip(block["affinities"], self.steps(), strict=True)
            if all(abs(step) < n for step, n in zip(offset, mask.shape, strict=True))
        ]
        weights = np.zeros((len(inside), *mask.shape))
        back = []
        for weight, (channel, offset) in zip(weights, inside, strict=True):
            values, there = turned(channel, offset)
            later, earlier = ends(mask.shape, there)
            if not is_near(offset):
                skipped = [-(p.start + o) % n for p, o, n in zip(later, block.read.start, self.strides, strict=True)]
                later, earlier = (self._strided(box, skipped) for box in (later, earlier))
            counts = mask[later] & mask[earlier]
            weight[later][counts] = values[later][counts] + self.bias[0 if is_near(offset) else 1]
            back.append(list(there))
        found = mwatershed.agglom(weights, back) if inside else mask
        return {"instances": np.where(mask, found, 0).astype(np.uint64)[None]}

    def _strided(self, box: tuple[slice, ...], skipped: Sequence[int]) -> tuple[slice, ...]:
        axes = zip(box, skipped, self.strides, strict=True)
        return tuple(slice(along.start + skip, along.stop, every) for along, skip, every in axes)
