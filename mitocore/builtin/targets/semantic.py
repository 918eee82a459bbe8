"""Classes of tissue."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mitocore.builtin.targets.morphology import known
from mitocore.errors import DataError
from mitocore.geometry import VoxelSize
from mitocore.interfaces import Labels, Target
from mitocore.specs import ArraySpec, Kind, Need

Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class Semantic(Target):
    """One channel per class, 1 where a voxel is of it; all are 0 where the label says "ignore".

    Channels are named after the classes.
    """

    label: str = "semantic"
    """Name of the label array that is read."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of the classes, background first: ["background", "mitochondrion", "reticulum"]."""
    ranges: tuple[Range, ...] = ()
    """Smallest and largest id of each class, where ids are of objects: [[0, 0], [1000, 1999], [2000, 2999]]. Left out:
    id k is class k."""

    @model_validator(mode="after")
    def _one_meaning(self) -> "Semantic":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes {list(self.classes)} name one twice")
        if self.ranges and len(self.ranges) != len(self.classes):
            raise ValueError(f"{len(self.ranges)} ranges are not one for each of the {len(self.classes)} classes")
        ends = sorted(self.ranges)
        if any(a > b for a, b in ends) or any(b >= c for (_, b), (c, _) in pairwise(ends)):
            raise ValueError(f"ranges {[list(r) for r in self.ranges]} overlap or end before they begin")
        return self

    def needs(self) -> Mapping[str, Need]:
        return {self.label: Need((Kind.SEMANTIC, Kind.MASK))}

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.PROBABILITY, self.classes)

    def encode(self, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
        del voxel_size
        ids = labels[self.label]
        counted = known(ids)
        ranges = self.ranges or tuple((k, k) for k in range(len(self.classes)))
        found = np.stack([(ids >= low) & (ids <= high) & counted for low, high in ranges])
        if (nowhere := counted & ~found.any(axis=0)).any():
            listed = ", ".join(
                f"{name} {a}" if a == b else f"{name} {a} to {b}" for name, (a, b) in self._named(ranges)
            )
            hint = f"a class for it in `classes`, or label_values = {{ ignore = [{ids[nowhere][0]}] }} in [[volume]]"
            raise DataError(f"label {ids[nowhere][0]} is of no class; there are {listed}", hint=hint)
        return found.astype(np.float32)

    def _named(self, ranges: tuple[Range, ...]) -> list[tuple[str, Range]]:
        return list(zip(self.classes, ranges, strict=True))
