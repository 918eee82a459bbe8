"""Batches for Lightning: which samples, in which order, for which process."""

from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data import Sampler as Numbers

from mitocore.blockwise.spawned import SpawnWithoutMain
from mitocore.errors import MitocoreError
from mitocore.learn.data import Crops
from mitocore.learn.prefetch import Prefetched


class Share(Numbers[list[int]]):
    """Sample numbers in batches, of one of several processes that take turns.

    It has no length: with one, Lightning would take a resumed walk for a finished one.

    >>> list(Share(4, 12, 2)), list(Share(4, 12, 2, rank=1, ranks=2))
    ([[4, 5], [6, 7], [8, 9], [10, 11]], [[6, 7], [10, 11]])
    """

    def __init__(self, first: int, last: int, batch: int, rank: int = 0, ranks: int = 1) -> None:
        self.first, self.last, self.batch, self.rank, self.ranks = first, last, batch, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(self.first + self.rank * self.batch, self.last, self.batch * self.ranks):
            yield list(range(start, start + self.batch))


class _Told(Dataset[Any]):
    """Samples of a loader's process; an error is a value, as torch would make a traceback of it."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, number: int) -> Any:
        try:
            return self.crops[number]
        except MitocoreError as error:
            return error


def _collated(samples: list[Any]) -> Any:
    return next((one for one in samples if isinstance(one, MitocoreError)), None) or default_collate(samples)


class _Raised(Iterable[Any]):
    """Batches; those that are errors are raised."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            if isinstance(batch, MitocoreError):
                raise batch
            yield batch


class TrainingData(LightningDataModule):  # type: ignore[misc] # lightning is not typed
    """The samples that are left to do.

    Parameters
    ----------
    gpu
        Whether a GPU computes, which leaves the processor free to prepare what comes next.
    """

    def __init__(self, crops: Crops, *, gpu: bool = False) -> None:
        super().__init__()
        self.crops, self.gpu = crops, gpu

    def train_dataloader(self) -> Iterable[dict[str, Any]]:
        """Batches from the step on that the trainer has reached: the same samples however many processes share them."""
        train = self.crops.plan.train
        done, rank, ranks = (
            (self.trainer.global_step, self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 0, 1)
        )
        per_step = train.batch * train.accumulate * ranks
        numbers = Share(done * per_step, train.steps * per_step, train.batch, rank, ranks)
        if train.workers:
            return _Raised(
                DataLoader(
                    _Told(self.crops),
                    batch_sampler=numbers,
                    collate_fn=_collated,
                    num_workers=train.workers,
                    multiprocessing_context=SpawnWithoutMain(),
                    pin_memory=self.gpu,
                )
            )
        batches = DataLoader(self.crops, batch_sampler=numbers, pin_memory=self.gpu)
        return Prefetched(batches) if self.gpu else batches

    def teardown(self, stage: str) -> None:
        """Close what this process opened."""
        del stage
        self.crops.close()
