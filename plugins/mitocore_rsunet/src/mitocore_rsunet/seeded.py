"""What all decoders of foreground, boundaries and distances share."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, model_validator

from mitocore import ArraySpec, Block, Kind, Need, ObjectwisePostProcessor, SizeOption, size_in_voxels
from mitocore_rsunet.objects import compact, components, looked_up, sizes_of
from mitocore_rsunet.peers import translated
from mitocore_rsunet.small import MinSize, RemoveSmall, without_small

PROBABILITY = Need((Kind.PROBABILITY,), channels=1)
_FAR = float(np.finfo(np.float16).max)


class Decoder(MinSize, ObjectwisePostProcessor):
    """Instances of a mask, one connected component after the other; small ones follow one of five rules."""

    bytes_per_voxel: ClassVar[int] = 48
    peers: ClassVar[Mapping[str, str]] = {}
    """Our names of options by those of PyTorch Connectomics."""

    min_size: SizeOption = 128
    """Smaller instances are removed, as `remove_small_mode` says: voxels, or "0.002 um3"."""
    remove_small_mode: RemoveSmall = "background"
    """Small instances become "background"; or part of the "neighbor" that is not small itself and that they touch with
    most pairs of voxels (across faces, edges or corners; smallest id of equals), background if there is none; or stay:
    "none". With "background_2d" and "neighbor_2d", each slice of an instance is measured and removed on its own."""

    @model_validator(mode="before")
    @classmethod
    def _in_our_words(cls, options: Any) -> Any:
        return translated(options, cls.peers)

    @model_validator(mode="after")
    def _whole_where_needed(self) -> Self:
        if self.oversize == "tile" and self.read_late() == ():
            raise ValueError(
                f'remove_small_mode = "{self.remove_small_mode}" needs whole instances, which oversize = "tile" cuts: '
                'state remove_small_mode = "none", and a step "size_filter" after this one'
            )
        return self

    def read_late(self) -> tuple[str, ...]:
        return self.late if self.remove_small_mode in ("none", "background") else ()

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        del given
        return {"instances": ArraySpec(Kind.INSTANCE)}

    @abstractmethod
    def instances(self, block: Block, mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """Instances (z, y, x) of the component `mask`, over `block.read`, before small ones are removed."""

    def process(self, block: Block, mask: NDArray[np.bool_]) -> Mapping[str, NDArray[Any]]:
        ids = self.instances(block, mask)
        return {"instances": without_small(ids, size_in_voxels(self.min_size, None), self.remove_small_mode)[None]}

    def keep(self, objects: NDArray[Any]) -> NDArray[np.bool_]:
        return super().keep(objects) if self.remove_small_mode == "background" else np.ones(len(objects), np.bool_)


class SeededFlood(Decoder):
    """Seeds flood the component they lie in, lowest voxels of a landscape first; what no seed reaches is background.

    Seeds are 26-connected, the flood crosses faces alone. A flood of the whole volume at once gives the same objects; a
    few voxels between two can differ, where which of several equal seeds floods first depends on the whole volume.
    """

    seeds_from: Literal["thresholds", "input"] = "thresholds"
    """"input": seeds are the instances of an input "seeds", a step above (`precomputed_seed`). One that lies in two
    components of the mask seeds an object in each. What says where "thresholds" find seeds, and of which size, then
    does not count."""
    min_seed_size: NonNegativeInt = 32
    """Seeds of fewer voxels do not count."""
    levels: Annotated[int, Field(ge=1, le=65_535)] = 255
    """The landscape is rounded to this many steps before it is flooded, which makes the flood fast. Probabilities that
    were 8-bit numbers lose nothing by 255; others are ranked as if they were, and equal ones flood in the order in
    which the seeds reach them. It can move a border between two instances, where the landscape is flat; never the
    border to the background."""
    exact: bool = False
    """Flood the landscape as it is, without `levels`: slower, and in more memory."""

    def needs(self) -> Mapping[str, Need]:
        return {"seeds": Need((Kind.INSTANCE,), channels=1)} if self.seeds_from == "input" else {}

    def hint_if_empty(self) -> str:
        return 'does an instance of "seeds" lie where the mask is?' if self.seeds_from == "input" else self.no_seeds()

    @abstractmethod
    def no_seeds(self) -> str:
        """What to look at if thresholds find no seed."""

    def agreeing(self, seed: str, mask: str) -> None:
        """Refuse two options of which the first is below the second, so that seeds would lie outside the mask.

        Raises
        ------
        ValueError
            If seeds are found by thresholds, and these two contradict.
        """
        high, low = getattr(self, seed), getattr(self, mask)
        if high < low and self.seeds_from == "thresholds":
            raise ValueError(
                f"{seed} = {high:g} is below {mask} = {low:g}: seeds between the two would lie outside the mask; "
                f"state {mask} of at most {high:g}"
            )

    @abstractmethod
    def seeds(self, block: Block) -> NDArray[np.bool_]:
        """(z, y, x) over `block.read`: where seeds are; beyond the mask they do not count."""

    @abstractmethod
    def height(self, block: Block, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float, float]:
        """What is flooded (z, y, x), highest values first; and the value of the lowest level, and of the highest."""

    def instances(self, block: Block, mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
        seeds, number = self._numbered_seeds(block, mask)
        if number == 0:
            return seeds
        if number == 1:  # no other to share with: all that faces connect to the seed
            parts = components(mask, 6)
            reached = np.zeros(int(parts.max()) + 1, "u4")
            reached[parts[seeds > 0]] = 1
            return looked_up(reached, parts)
        from mitocore_rsunet.flood import flood  # compiled code

        return flood(self._landscape(block, mask), seeds, mask).view("u4")

    def _numbered_seeds(self, block: Block, mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint32], int]:
        """Seeds 1..n inside the mask, and n."""
        if self.seeds_from == "input":
            given, ids = compact(block["seeds"][0] * mask)
            return given, len(ids)
        seeds = components(self.seeds(block) & mask, 26)
        counts = sizes_of(seeds) >= max(self.min_seed_size, 1)
        number = int(np.count_nonzero(counts))
        if number < len(counts):
            seeds = looked_up(np.concatenate([[0], np.cumsum(counts) * counts]).astype("u4"), seeds)
        return seeds, number

    def _landscape(self, block: Block, mask: NDArray[np.bool_]) -> NDArray[Any]:
        values, low, high = self.height(block, mask)
        if self.exact:
            return -values
        return quantised(values, low, high, self.levels)


def quantised(values: NDArray[np.float32], low: float, high: float, levels: int) -> NDArray[np.unsignedinteger[Any]]:
    """How many whole levels each value lies below `high`, from 0 to `levels` at `low` and beyond, to the nearest.

    >>> quantised(np.array([1, 0.5, 0.499, 0], np.float32), 0, 1, 255)
    array([  0, 128, 128, 255], dtype=uint8)
    """
    below = np.subtract(np.float32(high), values)
    below *= np.float32(levels / ((high - low) or 1.0))
    np.clip(np.rint(below, out=below), 0, levels, out=below)
    found: NDArray[np.unsignedinteger[Any]] = below.astype(np.min_scalar_type(levels))
    return found


class ReadsDistance(SeededFlood):
    """What the decoders share that take a predicted distance."""

    distance_scale: Literal["signed", "unit"] = "signed"
    """"unit": the input is a probability that stands for a distance from -1 to 1, as PyTorch Connectomics writes what
    tanh gives: 0.5 is 0, and 0.75 is 0.5. Thresholds are of the distance all the same."""

    def needs(self) -> Mapping[str, Need]:
        kind = Kind.PROBABILITY if self.distance_scale == "unit" else Kind.DISTANCE
        return {**super().needs(), "distance": Need((kind,), channels=1)}

    def distance(self, block: Block) -> NDArray[np.float32]:
        """(z, y, x) over `block.read`; NaN is far outside, and what is infinite is far."""
        values: NDArray[np.float32] = block["distance"][0]
        if self.distance_scale == "unit":
            return values * np.float32(2) - np.float32(1)
        return values if np.isfinite(values).all() else np.nan_to_num(values, nan=-_FAR, posinf=_FAR, neginf=-_FAR)
