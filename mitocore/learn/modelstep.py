"""The model step of a run: slabs are settled, written and committed while the next ones are computed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mitocore.blockwise.arrays import BlockFiles, Source, pack
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.journal import Journal
from mitocore.blockwise.tiles import TileLattice
from mitocore.blockwise.workspace import Workspace
from mitocore.errors import ContractError, ResourceError
from mitocore.geometry import Roi
from mitocore.interfaces import Model
from mitocore.learn import checkpoint
from mitocore.learn.device import chosen, memory_reused
from mitocore.learn.predict import (
    Inference,
    Slab,
    batch_of,
    forget_seam,
    precision_of,
    rows_within,
    slab_boxes,
    slabs,
)
from mitocore.learn.turned import Tempered
from mitocore.pipeline import PlannedStep
from mitocore.specs import VolumeSpec
from mitocore.symmetry import symmetries


class ModelStep:
    """A planned model step, ready to run over a volume.

    Parameters
    ----------
    name
        Of its journal: step and result digest, and the region unless it is the whole volume.
    memory
        Bytes the run may use; half of it may hold the sums of a strip.
    region
        The voxels that are wanted; None: all. They are, bit for bit, the cut of the full run.
    """

    def __init__(
        self,
        step: PlannedStep,
        volume: VolumeSpec,
        name: str,
        devices: str,
        memory: int,
        region: Roi | None = None,
    ) -> None:
        if step.config is None or step.config.weights is None or step.config.header is None or step.window is None:
            raise ContractError(f"{step.name!r} was planned without its weights")
        if not isinstance(step.component, Model):
            raise ContractError(f"{step.qualified} is not a model")
        self.step, self.name = step, name
        self.predict = step.config.predict
        self.model = step.component  # with the options of the header, and those a step may state beside them
        first = (self.model, step.config.weights, step.config.header)
        self.members = [first, *((m.component, m.weights, m.header) for m in step.config.ensemble)]
        self.heads = tuple(head for head in step.component.heads() if not head.auxiliary)
        self.lattice = TileLattice(volume.shape, step.window, region)
        self.device = chosen(devices)
        self.batch = batch_of(self.device) if self.predict.batch == "auto" else self.predict.batch
        self.threads = torch.get_num_threads()
        self.rows = rows_within(self.lattice, sum(len(head.channels) for head in self.heads), memory // 2)

    def schedule(self, own: dict[str, Any]) -> None:
        """Go on with the batch, strips and threads that a step has begun with, or note those of a new one in `own`.

        A batch that the pipeline states is taken all the same: it is what somebody whose GPU was too small changes.
        Another batch or number of threads may change the last bit of a float32 on a CPU.
        """
        if self.predict.batch == "auto":
            self.batch = own.get("batch", self.batch)
        own["batch"] = self.batch
        self.rows = own.setdefault("rows", self.rows)
        self.threads = own.setdefault("threads", self.threads)

    @property
    def grid(self) -> BlockGrid:
        """The blocks in which heads are stored: one stride deep, a strip high, as wide as the region."""
        bounds, (depth, stride, _) = self.lattice.bounds, self.lattice.stride
        strip = self.rows * stride if self.rows < len(self.lattice.starts[1]) else bounds.shape[1]
        return BlockGrid(bounds, (depth, strip, bounds.shape[2]))

    def run(
        self,
        image: Callable[[], Source],
        files: Mapping[str, BlockFiles],
        workspace: Workspace,
    ) -> dict[str, Any]:
        """Predict what the journal does not hold yet; what a person may want to know of it.

        Parameters
        ----------
        image
            Gives the normalised input; asked only if something is left to predict.
        files
            Scratch by head, over `grid`.

        Raises
        ------
        ResourceError
            If the memory of the GPU, or the disk, is too small.
        KeyboardInterrupt
            If cancelled, which is asked before every batch; the slabs that were computed are committed.
        """
        boxes, shared = slab_boxes(self.lattice, self.rows), f"{self.name}.seams"
        precision = precision_of(self.predict.precision, self.device)
        with workspace.journal(self.name) as journal:
            finished = len(journal.tables)
            if finished < len(boxes):
                predict = self.predict
                settings = Inference(
                    self.device, precision, self.batch, predict.tta, predict.reduce, predict.blending, self.rows
                )
                tiles = _Tiles(workspace, self.step.name, len(self.lattice), finished / len(boxes))
                seams = workspace.scratch(shared)
                with ExitStack() as stack:
                    for context in (_threads(self.threads), memory_reused(self.device), self._fitting()):
                        stack.enter_context(context)
                    networks = [
                        Tempered(stack.enter_context(checkpoint.ready(model, path, self.device)), header.temperature)
                        for model, path, header in self.members
                    ]
                    walk = slabs(
                        networks,
                        self.heads,
                        image().read,
                        self.lattice,
                        settings,
                        finished=finished,
                        seams=seams,
                        computed=tiles,
                        cancelled=workspace.cancelled,
                    )
                    _write_behind(walk, lambda slab: self._store(slab, files, workspace, journal, seams))
                tiles.finish()
            ranges = _ranges(journal.tables, [f"{self.step.name}.{head.name}" for head in self.heads])
        workspace.discard(shared)
        return {
            "tiles": len(self.lattice),
            "device": self.device,
            "precision": precision,
            "batch": self.batch,
            "threads": self.threads,
            "networks": len(self.members),
            "symmetries": len(symmetries(self.predict.tta)),
            "range": ranges,
        }

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        """Say what to change where the memory of the GPU ends."""
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            window = list(self.lattice.tile)
            problem = f"{self.device} has too little memory for batches of {self.batch} windows of {window} voxels"
            smaller = "predict = { batch = 1 }" if self.batch > 1 else "a smaller window in predict"
            raise ResourceError(problem, where=f"step {self.step.name!r}", hint=smaller) from error

    def _store(
        self, slab: Slab, files: Mapping[str, BlockFiles], workspace: Workspace, journal: Journal, seams: Path
    ) -> None:
        for block in self.grid.meeting(slab.roi):
            box = self.grid.box(block).clip(slab.roi)
            part = (slice(None), *box.within(slab.roi))
            for name, values in slab.heads.items():
                files[name].write(block, box, pack(values[part], self.step.gives[name]))
        workspace.lock.hold()
        for stored in files.values():
            stored.sync()
        journal.commit({slab.number: np.array([[v.min(), v.max()] for v in slab.heads.values()], "f4")})
        forget_seam(seams, self.lattice, slab.number)


def _write_behind(walk: Iterable[Slab], store: Callable[[Slab], None]) -> None:
    """Store each slab in a thread while the next is computed; in order, one at a time."""
    with ThreadPoolExecutor(1, thread_name_prefix="write-behind") as pool:
        behind: Future[None] | None = None
        for slab in walk:
            if behind is not None:
                behind.result()
            behind = pool.submit(store, slab)
        if behind is not None:
            behind.result()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Tiles:
    """Counts tiles for the progress of a model step."""

    def __init__(self, workspace: Workspace, step: str, total: int, share: float) -> None:
        self.workspace, self.label, self.total, self.done = workspace, f"{step}: tiles", total, int(total * share)
        workspace.progress(self.label, self.done, total)

    def __call__(self, tiles: int) -> None:
        self.done = min(self.done + tiles, self.total)
        self.workspace.progress(self.label, self.done, self.total)

    def finish(self) -> None:
        if self.done < self.total:  # a resumed walk begins at a layer, not at a tile
            self.workspace.progress(self.label, self.total, self.total)


def _ranges(tables: Mapping[int, NDArray[Any]], heads: list[str]) -> dict[str, list[float]]:
    """Lowest and highest value of every head, from the tables of its slabs."""
    if not tables:
        return {}
    values = np.stack(list(tables.values()))
    low, high = values[:, :, 0].min(axis=0), values[:, :, 1].max(axis=0)
    return {head: [round(float(a), 4), round(float(b), 4)] for head, a, b in zip(heads, low, high, strict=True)}
