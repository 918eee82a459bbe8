"""Patches on a grid, and samplers that choose among them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitocore.builtin.samplers.chances import OfSources, check_fits, chosen, crop_at, cumulative, fits
from mitocore.builtin.samplers.lattice import Lattice, lattice, patch_starts
from mitocore.errors import DataError
from mitocore.geometry import Shape, as_shape
from mitocore.interfaces import Crop, LabelledVolume, SamplerIndex

MOST = 1 << 21
"""Patches that an index holds for all volumes together, and cells of a region that are counted at a time."""
Natural = Annotated[int, Field(ge=1)]


class Patchwise(OfSources):
    """Crops that lie on a grid; the last patch along an axis is tucked in, so that no voxel is left out."""

    stride: tuple[Natural, Natural, Natural] | None = None
    """Voxels from one patch to the next along (z, y, x). Default: half the crop; an eighth of it in `reject`."""

    share: ClassVar[int] = 2
    """Of the crop that the stride is if it is not stated."""

    def strides(self, shape: Shape) -> Shape:
        """Voxels from one patch to the next."""
        return as_shape(self.stride or (max(1, n // self.share) for n in shape))

    def grid(self, volumes: Sequence[LabelledVolume], shape: Shape) -> dict[str, NDArray[np.int64]]:
        """Arrays of an index: all patches by number, counted through the volumes, and what their places follow from.

        Raises
        ------
        DataError
            If there is none, or too many.
        """
        check_fits(volumes, shape)
        stride = self.strides(shape)
        rows = [
            [len(patch_starts(n, p, s)) for n, p, s in zip(v.region.shape, shape, stride, strict=True)]
            if v.weight and fits(v.region, shape)
            else [0, 0, 0]
            for v in volumes
        ]
        axes = np.array(rows, np.int64)
        ends = np.cumsum(axes.prod(axis=1))
        if ends[-1] > MOST:
            raise self.too_many(f"{ends[-1]:,} patches", stride)
        return {"stride": np.array(stride, np.int64), "axes": axes, "ends": ends, "patches": np.arange(ends[-1])}

    def too_many(self, what: str, stride: Shape) -> DataError:
        """What to say of a grid that is too fine."""
        problem = f"a stride of {stride} voxels gives {what}, and {MOST:,} are the most"
        hint = f"stride = {[2 * n for n in stride]}"
        return DataError(problem, where="[sampler] stride", hint=hint)

    def patch_weights(
        self, volumes: Sequence[LabelledVolume], arrays: Mapping[str, NDArray[np.int64]]
    ) -> NDArray[np.float64]:
        """Weight of each patch: that of its volume."""
        at = volume_of(arrays)
        found: NDArray[np.float64] = self.weights(volumes, np.bincount(at, minlength=len(volumes)))[at]
        return found

    def lattices(
        self, volumes: Sequence[LabelledVolume], arrays: Mapping[str, NDArray[np.int64]], shape: Shape, values: int = 1
    ) -> Iterator[tuple[LabelledVolume, Lattice, NDArray[np.int64]]]:
        """Each volume that has patches, the cells of its region, and which of its patches there are.

        Raises
        ------
        DataError
            If there are too many cells to hold so many values of each.
        """
        stride, at = self.strides(shape), volume_of(arrays)
        for number, volume in enumerate(volumes):
            own = arrays["patches"][at == number]
            if not len(own):
                continue
            cells = lattice(volume.region.shape, shape, stride)
            if values * np.prod(cells.shape) > MOST:
                raise self.too_many(f"{values * np.prod(cells.shape):,} numbers to count in one region", stride)
            yield volume, cells, own - (arrays["ends"][number - 1] if number else 0)


class Chosen(Patchwise):
    """Patches that are drawn by their chance."""

    def draw(self, index: SamplerIndex, shape: Shape, number: int, rng: np.random.Generator) -> Crop:
        del number
        return patch(index, chosen(index.arrays["chance"], rng), shape)


def volume_of(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The volume of each patch."""
    return np.searchsorted(arrays["ends"], arrays["patches"], side="right")


def patch(index: SamplerIndex, row: int, shape: Shape) -> Crop:
    """The patch of a row."""
    arrays = index.arrays
    number = int(arrays["patches"][row])
    volume = int(np.searchsorted(arrays["ends"], number, side="right"))
    axes = tuple(int(n) for n in arrays["axes"][volume])
    place = np.unravel_index(number - (int(arrays["ends"][volume - 1]) if volume else 0), axes)
    region = index.regions[volume]
    ends = zip(region.start, region.stop, place, arrays["stride"], shape, strict=True)
    return crop_at(volume, [min(a + int(at * stride), b - n) for a, b, at, stride, n in ends], shape)


def indexed(
    volumes: Sequence[LabelledVolume], arrays: Mapping[str, NDArray[Any]], weights: NDArray[np.float64]
) -> SamplerIndex:
    """The index of patches that are drawn by weight."""
    return SamplerIndex(tuple(v.region for v in volumes), {**arrays, "chance": cumulative(weights)})
