"""Training crops: sample i is a function of the seed and i, and of nothing else."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.utils.data import Dataset

from mitocore.blockwise.arrays import Normalised, Opened, Source
from mitocore.config.volumes import Drawn, PlannedVolume
from mitocore.errors import ContractError
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces import LabelledVolume, Labels, Normalizer, SamplerIndex, Stats, Volume
from mitocore.learn.encode import VALID, cut, encoded, label_halo
from mitocore.learn.labels import Annotated, MappedLabels, check_labels
from mitocore.resampling import Resampled, Resampling
from mitocore.training import TrainingPlan


@dataclass(frozen=True)
class Prepared:
    """A volume with its statistics; can be pickled, so that each worker opens its own files."""

    planned: PlannedVolume
    normalizer: Normalizer
    stats: Stats
    stored: Source | None = None
    """The normalised image, if the normaliser is not voxel-wise."""

    def open(self) -> "OpenVolume":
        """Open image, labels and mask, in the voxel size of training."""
        planned = self.planned
        image = planned.image.open()
        labels = {
            name: MappedLabels(self._resampled(array.reader.open(), labels=True), array, planned.annotated)
            for name, array in planned.labels.items()
        }
        valid = self._resampled(planned.valid.open(), labels=True) if planned.valid else None
        if planned.annotated:
            valid = Annotated(planned.annotated, planned.spec, valid)
        source = self.stored or Normalised(Opened(image), self.normalizer, self.stats)
        if planned.resampling:
            # after normalising: its statistics are of the voxels as they are, and what is not finite does not spread
            source = _ResampledSource(source, planned.resampling)
        return OpenVolume(planned, source, self._resampled(image, labels=False), labels, valid)

    def _resampled(self, volume: Volume, *, labels: bool) -> Volume:
        resampling, size = self.planned.resampling, self.planned.spec.voxel_size
        return Resampled(volume, resampling, size, labels=labels) if resampling and size else volume


@dataclass(frozen=True, slots=True)
class _ResampledSource:
    """A normalised image at another voxel size."""

    source: Source
    resampling: Resampling

    @property
    def voxel_bytes(self) -> int:
        """Of the voxels that one is made of, and of itself."""
        z, y, x = (max(1.0, ratio) for ratio in self.resampling.ratio)
        return round(self.source.voxel_bytes * z * y * x) + 8

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) float32 over `roi`."""
        return self.resampling.image(self.source.read, roi)


@dataclass(frozen=True)
class OpenVolume:
    """Open files of one volume."""

    planned: PlannedVolume
    source: Source
    """The normalised image."""
    image: Volume
    labels: Mapping[str, Volume]
    valid: Volume | None

    @property
    def voxel_size(self) -> VoxelSize | None:
        """Of the image."""
        return self.planned.spec.voxel_size

    def labelled(self, region: Roi) -> LabelledVolume:
        """What a sampler is shown of it."""
        planned = self.planned
        return LabelledVolume(
            image=self.image,
            labels=self.labels,
            region=region,
            valid=self.valid,
            weight=planned.weight,
            classes=next((array.classes for array in planned.labels.values() if array.classes), ()),
            name=planned.path,
            source=planned.source,
            original=planned.original,
        )

    def check_labels(self) -> None:
        """Refuse label files whose numbers mean nothing; reads all parts.

        Raises
        ------
        DataError
            With the count of each value.
        """
        parts = self.planned.split
        check_labels(self.planned.path, self.labels, self.planned.labels, (*parts.train, *parts.held))

    def read_image(self, box: Roi, region: Roi) -> NDArray[np.float32]:
        """Normalised voxels (c, z, y, x) of `box`; beyond `region` they are mirrored, never read."""
        part = box.clip(region)
        return _mirrored(self.source.read(part), part, box)

    def read_labels(self, box: Roi, region: Roi) -> dict[str, NDArray[Any]]:
        """Label arrays (z, y, x) of `box` by name, and `VALID`; beyond `region` they are mirrored, never read."""
        part = box.clip(region)
        arrays = {name: volume.read(part)[0] for name, volume in self.labels.items()}
        counted = self.valid.read(part)[0] != 0 if self.valid else np.ones(part.shape, bool)
        valid = np.zeros(box.shape, np.uint8)  # what is mirrored never counts, wherever a warp brings it
        valid[part.within(box)] = counted
        return {VALID: valid, **{name: _mirrored(array, part, box) for name, array in arrays.items()}}

    def close(self) -> None:
        """Close all files."""
        for volume in (self.image, *self.labels.values(), self.valid):
            if volume:
                volume.close()


def _mirrored(values: NDArray[Any], part: Roi, box: Roi) -> NDArray[Any]:
    if part == box:
        return values
    ends = zip(part.start, part.stop, box.start, box.stop, strict=True)
    widths = [(a - lower, upper - b) for a, b, lower, upper in ends]
    return np.pad(values, [(0, 0)] * (values.ndim - 3) + widths, mode="reflect")


@dataclass(frozen=True)
class Sample:
    """One crop as a network sees it, after augmentation."""

    number: int
    volume: int
    """Its number in the plan."""
    roi: Roi
    voxel_size: VoxelSize | None
    image: NDArray[np.float32]
    """(c, z, y, x), normalised."""
    labels: Labels
    """(z, y, x) by name, where targets are: without the context of the network."""
    pairs: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    """Target (c, z, y, x) and weight (1, z, y, x) of each objective."""


class Crops(Dataset[dict[str, Any]]):
    """All samples of a training, by number."""

    def __init__(self, plan: TrainingPlan, volumes: Sequence[Prepared], index: SamplerIndex) -> None:
        self.plan, self.volumes, self.index = plan, tuple(volumes), index
        self.places = training_regions(plan)
        self._open: dict[int, OpenVolume] = {}

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Tensors of sample `number`: image (c, z, y, x), and target and weight of each objective."""
        sample = self.sample(number)
        return {
            "number": number,
            "image": _tensor(sample.image),
            "targets": [_tensor(target) for target, _ in sample.pairs],
            "weights": [_tensor(weight) for _, weight in sample.pairs],
        }

    def sample(self, number: int) -> Sample:
        """Sample `number`, with the labels that its targets were made of."""
        plan = self.plan
        rng = np.random.default_rng([plan.seed, number])
        crop = plan.sampler.draw(self.index, plan.crop, number, rng)
        at, drawn = self.places[crop.volume]
        volume = self._opened(at)
        size = volume.voxel_size
        around = label_halo(plan, size)
        halos, reach = _halos(plan, size, around)
        box = crop.roi.grow(reach)
        image, labels = volume.read_image(box, drawn.region), volume.read_labels(box, drawn.region)
        image, inner = self._augmented(image, labels, halos, size, rng)
        edge = as_shape(a + b for a, b in zip(around, plan.window.crop, strict=True))
        pairs = tuple(encoded(objective, inner, size, edge) for objective in plan.objectives)
        learned = {name: cut(array, edge) for name, array in inner.items()}
        return Sample(number, at, crop.roi, size, cut(image, around), learned, pairs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # an open volume is never pickled

    def close(self) -> None:
        """Close the files opened by this process."""
        while self._open:
            self._open.popitem()[1].close()

    def _opened(self, number: int) -> OpenVolume:
        if number not in self._open:
            self._open[number] = self.volumes[number].open()
        return self._open[number]

    def _augmented(
        self,
        image: NDArray[np.float32],
        labels: dict[str, NDArray[Any]],
        halos: Sequence[Shape],
        size: VoxelSize | None,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float32], Labels]:
        found: Labels = labels
        for augment, halo in zip(self.plan.augments, halos, strict=True):
            shape = image.shape
            image, found = augment.apply(image, found, size, rng)
            kept = image.shape == shape and image.dtype == np.float32 and found.keys() == labels.keys()
            if not kept or any(found[n].shape != shape[1:] or found[n].dtype != labels[n].dtype for n in labels):
                name = type(augment).__name__
                raise ContractError(f"augment {name} changes shapes, dtypes or names", hint=f"mend {name}.apply")
            image, found = cut(image, halo), {name: cut(array, halo) for name, array in found.items()}
        return image, found


def _halos(plan: TrainingPlan, size: VoxelSize | None, around: Shape) -> tuple[list[Shape], Shape]:
    """What is cut off after each augment, and how much more than the crop is read.

    From the last augment to the first: each must give right what those after it, and the targets, read.
    """
    halos: list[Shape] = []
    reach = around
    for augment in reversed(plan.augments):
        wanted = as_shape(n + 2 * r for n, r in zip(plan.crop, reach, strict=True))
        halos.insert(0, augment.halo(wanted, size))
        reach = as_shape(a + b for a, b in zip(reach, halos[0], strict=True))
    return halos, reach


def training_regions(plan: TrainingPlan) -> list[tuple[int, Drawn]]:
    """(number of the volume, where crops lie) for every region of the sampler's index, in its order."""
    return [(at, drawn) for at, volume in enumerate(plan.volumes) for drawn in volume.drawn]


def build_index(plan: TrainingPlan, volumes: Sequence[Prepared]) -> SamplerIndex:
    """What the sampler must know of the training regions; streams their labels.

    Raises
    ------
    DataError
        If labels hold what means nothing, or there is nothing to draw.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(volume.open())) for volume in volumes]
        for volume in opened:
            volume.check_labels()
        shown = [opened[at].labelled(drawn.inside) for at, drawn in training_regions(plan)]
        return plan.sampler.index(shown, plan.crop)


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return from_numpy(np.ascontiguousarray(array))
