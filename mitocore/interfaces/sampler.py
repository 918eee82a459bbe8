"""What chooses where training crops are cut."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.component import Component
from mitocore.geometry import Roi, Shape
from mitocore.interfaces.volume import Volume
from mitocore.specs import VolumeSpec


@dataclass(frozen=True, slots=True)
class LabelledVolume:
    """An open image with its labels, and the part of it that a split may use."""

    image: Volume
    labels: Mapping[str, Volume]
    region: Roi  # the part that belongs to this split: train, validation or test
    valid: Volume | None = None  # mask; voxels outside have weight 0
    weight: float = 1.0
    classes: tuple[str, ...] = ()  # names of ids 0, 1, … of semantic labels, if they were stated
    name: str = ""  # its path as stated: files of points tell volumes apart by it
    source: str = ""  # volumes of one source are weighed together; "": alone
    original: VolumeSpec | None = None  # of the image before it was resampled; None: as it is


@dataclass(frozen=True, slots=True)
class Crop:
    """A box to be cut from one of the volumes."""

    volume: int
    roi: Roi  # in the frame of the volume


@dataclass(frozen=True, slots=True)
class SamplerIndex:
    """What a sampler knows of the volumes: plain arrays, so that it can be pickled and cached."""

    regions: tuple[Roi, ...]
    arrays: Mapping[str, NDArray[Any]]


class Sampler(Component):
    """Chooses where training crops are cut."""

    kind: ClassVar[str] = "sampler"

    @abstractmethod
    def index(self, volumes: Sequence[LabelledVolume], shape: Shape) -> SamplerIndex:
        """Built once per training, by streaming the labels; at most some hundred megabytes for any volume.
        Raises DataError if no crop of `shape` voxels can be drawn."""

    @abstractmethod
    def draw(self, index: SamplerIndex, shape: Shape, number: int, rng: np.random.Generator) -> Crop:
        """Sample `number` of the training: a crop of `shape` voxels inside a region, in constant time. All randomness
        comes from `rng`; a grid follows `number`. Hard negatives are a points file, an option read by `index`."""
