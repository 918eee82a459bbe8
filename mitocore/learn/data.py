"""Training crops: sample i is a function of the seed and i, and of nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as Numbers

from mitocore.blockwise.arrays import Normalised, Opened, Source
from mitocore.config.labelled import LABEL_KINDS, LabelValues
from mitocore.config.volumes import PlannedVolume
from mitocore.errors import ContractError
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.interfaces import LabelledVolume, Labels, Normalizer, SamplerIndex, Stats, Volume
from mitocore.learn.encode import VALID, cut, encoded, label_halo
from mitocore.specs import Kind, VolumeSpec
from mitocore.training import TrainingPlan

_DTYPES = {Kind.INSTANCE: "uint64", Kind.SEMANTIC: "uint16"}


class MappedLabels(Volume):
    """A label file as components see it: ids of their dtype, chosen values as foreground, others as "ignore"."""

    def __init__(self, volume: Volume, kind: Kind, values: LabelValues) -> None:
        self._volume, self._kind, self._values = volume, kind, values

    @property
    def spec(self) -> VolumeSpec:
        """As of the file, but for dtype and kind."""
        return replace(self._volume.spec, dtype=_DTYPES[self._kind], kind=self._kind)

    def read(self, roi: Roi) -> NDArray[Any]:
        """Ids (1, z, y, x) over `roi`; the maximum of their dtype means "ignore"."""
        ids = Opened(self._volume, self._kind, self._values.ignore).read(roi)
        if self._values.foreground is None:
            return ids
        ignore = np.iinfo(ids.dtype).max
        return np.where(ids == ignore, ids, np.isin(self._volume.read(roi), self._values.foreground).astype(ids.dtype))

    def close(self) -> None:
        """Close the file."""
        self._volume.close()


@dataclass(frozen=True)
class Prepared:
    """A volume with its statistics; can be pickled, so that each worker opens its own files."""

    planned: PlannedVolume
    normalizer: Normalizer
    stats: Stats
    stored: Source | None = None
    """The normalised image, if the normaliser is not voxel-wise."""

    def open(self) -> "OpenVolume":
        """Open image, labels and mask."""
        planned = self.planned
        image = planned.image.open()
        labels = {n: MappedLabels(r.open(), LABEL_KINDS[n], planned.values) for n, r in planned.labels.items()}
        valid = planned.valid.open() if planned.valid else None
        source = self.stored or Normalised(Opened(image), self.normalizer, self.stats)
        return OpenVolume(self.planned, source, image, labels, valid)


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
        return LabelledVolume(self.image, self.labels, region, self.valid, weight=planned.weight)

    def read_image(self, box: Roi, region: Roi) -> NDArray[np.float32]:
        """Normalised voxels (c, z, y, x) of `box`; beyond `region` they are mirrored, never read."""
        part = box.clip(region)
        return _mirrored(self.source.read(part), part, box)

    def read_labels(self, box: Roi, region: Roi) -> dict[str, NDArray[Any]]:
        """Label arrays (z, y, x) of `box` by name, and `VALID`; beyond `region` they are mirrored, never read."""
        part = box.clip(region)
        arrays = {name: volume.read(part)[0] for name, volume in self.labels.items()}
        counted = self.valid.read(part)[0] != 0 if self.valid else np.ones(part.shape, bool)
        arrays[VALID] = counted.astype(np.uint8)
        return {name: _mirrored(array, part, box) for name, array in arrays.items()}

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


class Crops(Dataset[dict[str, Any]]):
    """All samples of a training, by number."""

    def __init__(self, plan: TrainingPlan, volumes: Sequence[Prepared], index: SamplerIndex) -> None:
        self.plan, self.volumes, self.index = plan, tuple(volumes), index
        self.places = training_regions(plan)
        self._open: dict[int, OpenVolume] = {}

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Tensors of sample `number`: image (c, z, y, x), and target and weight of each objective."""
        plan = self.plan
        rng = np.random.default_rng([plan.seed, number])
        crop = plan.sampler.draw(self.index, plan.crop, number, rng)
        at, region = self.places[crop.volume]
        volume = self._opened(at)
        size = volume.voxel_size
        halos = [augment.halo(plan.crop, size) for augment in plan.augments]
        spread = as_shape(sum(axis) for axis in zip((0, 0, 0), *halos, strict=True))
        around = label_halo(plan, size)
        reach = as_shape(a + b for a, b in zip(spread, around, strict=True))
        box = crop.roi.grow(reach)
        image, labels = volume.read_image(box, region), volume.read_labels(box, region)
        image, changed = self._augmented(image, labels, size, rng)
        inner = {name: cut(array, spread) for name, array in changed.items()}
        edge = as_shape(a + b for a, b in zip(around, plan.window.crop, strict=True))
        pairs = [encoded(objective, inner, size, edge) for objective in plan.objectives]
        return {
            "number": number,
            "image": _tensor(cut(image, reach)),
            "targets": [_tensor(target) for target, _ in pairs],
            "weights": [_tensor(weight) for _, weight in pairs],
        }

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
        size: VoxelSize | None,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float32], Labels]:
        found: Labels = labels
        for augment in self.plan.augments:
            shape = image.shape
            image, found = augment.apply(image, found, size, rng)
            kept = image.shape == shape and image.dtype == np.float32 and found.keys() == labels.keys()
            if not kept or any(found[n].shape != shape[1:] or found[n].dtype != labels[n].dtype for n in labels):
                name = type(augment).__name__
                raise ContractError(f"augment {name} changes shapes, dtypes or names", hint=f"mend {name}.apply")
        return image, found


def training_regions(plan: TrainingPlan) -> list[tuple[int, Roi]]:
    """(number of the volume, box) of every region crops are drawn from, in the order of the sampler's index."""
    return [(at, box) for at, volume in enumerate(plan.volumes) for box in volume.parts.train]


def build_index(plan: TrainingPlan, volumes: Sequence[Prepared]) -> SamplerIndex:
    """What the sampler must know of the training regions; streams their labels."""
    with ExitStack() as stack:
        opened = {at: stack.enter_context(closing(volumes[at].open())) for at, _ in training_regions(plan)}
        shown = [opened[at].labelled(region) for at, region in training_regions(plan)]
        return plan.sampler.index(shown, plan.crop)


class _Counter(Numbers[list[int]]):
    """Sample numbers in batches. Without a length: then Lightning never takes a resumed walk for a finished one."""

    def __init__(self, first: int, last: int, batch: int) -> None:
        self.first, self.last, self.batch = first, last, batch

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(self.first, self.last, self.batch):
            yield list(range(start, start + self.batch))


class TrainingData(LightningDataModule):  # type: ignore[misc] # lightning is not typed
    """The samples that are left to do."""

    def __init__(self, crops: Crops, *, pin: bool = False) -> None:
        super().__init__()
        self.crops, self.pin = crops, pin

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches from the step on that the trainer has reached."""
        train, workers = self.crops.plan.train, self.crops.plan.train.workers
        per_step = train.batch * train.accumulate
        done = self.trainer.global_step if self.trainer else 0
        return DataLoader(
            self.crops,
            batch_sampler=_Counter(done * per_step, train.steps * per_step, train.batch),
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            pin_memory=self.pin,
        )

    def teardown(self, stage: str) -> None:
        """Close what this process opened."""
        del stage
        self.crops.close()


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return from_numpy(np.ascontiguousarray(array))
