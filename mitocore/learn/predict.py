"""Tiles through a network, blended into finished slabs.

A voxel of the result is the weighted mean of the tiles that cover it. Sums are taken in one fixed order: inside a row
of tiles by layer, then along the row; then over the rows. So neither the strips a section is cut into, nor the place
where a killed run was resumed, can change a bit; and no tile is computed twice.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mitocore.blockwise.tiles import TileLattice
from mitocore.durable import write_npy
from mitocore.errors import ContractError
from mitocore.geometry import Roi, as_shape
from mitocore.specs import Head

Read = Callable[[Roi], NDArray[np.float32]]


@dataclass(frozen=True)
class Inference:
    """How a network is run; of these only precision, batch and temperature can move a voxel."""

    device: str = "cpu"
    precision: str = "float32"
    batch: int = 1
    temperature: Mapping[str, float] = field(default_factory=dict)
    """By head: logits are divided by it."""
    rows: int | None = None
    """Rows of tiles in a strip; None: the whole section at once."""


def precision_of(stated: str, device: str) -> str:
    """What `precision = "auto"` means on a device: bf16 on a GPU that has it, else float32.

    >>> precision_of("auto", "cpu"), precision_of("bf16", "cpu")
    ('float32', 'bf16')
    """
    if stated != "auto":
        return stated
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def batch_of(device: str) -> int:
    """What `batch = "auto"` means on a device: a CPU gains nothing from several tiles at once.

    >>> batch_of("cpu")
    1
    """
    return 1 if device == "cpu" else 4


@dataclass(frozen=True)
class Slab:
    """A finished box of the volume; slabs come in order and cover every voxel once."""

    number: int
    roi: Roi
    heads: Mapping[str, NDArray[np.float32]]
    """(c, z, y, x) activated values by head, not yet settled."""


@dataclass(frozen=True)
class _Batch:
    layer: int
    places: tuple[tuple[int, int], ...]
    """(row, place in the row) of each tile; the rest of a batch repeats its last tile."""
    tiles: NDArray[np.float32]


def slab_boxes(lattice: TileLattice, rows: int | None = None) -> list[Roi]:
    """The boxes in which `slabs` finishes a volume, by number."""
    depth, stride, (_, _, width) = lattice.volume[0], lattice.stride[0], lattice.volume
    return [
        Roi((z, low, 0), (min(z + stride, depth), high, width))
        for _, low, high in lattice.strips(rows or len(lattice.starts[1]))
        for z in range(0, depth, stride)
    ]


def rows_within(lattice: TileLattice, channels: int, memory: int) -> int:
    """Rows of tiles whose sums fit `memory` bytes; at least one."""
    depth = lattice.output[0] + lattice.stride[0]
    row = 2 * channels * depth * lattice.output[1] * max(lattice.volume[2], lattice.output[2]) * 4
    return max(1, min(len(lattice.starts[1]), memory // row))


def slabs(
    network: nn.Module,
    heads: tuple[Head, ...],
    read: Read,
    lattice: TileLattice,
    settings: Inference,
    *,
    finished: int = 0,
    seams: Path | None = None,
    computed: Callable[[int], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Slab]:
    """Run a network over all tiles of a volume.

    Parameters
    ----------
    network
        On its device, in evaluation mode.
    heads
        Heads to predict; auxiliary ones are left out.
    read
        Gives normalised voxels (c, z, y, x) of a box inside the volume; called from another thread.
    finished
        How many slabs an earlier run has committed; they are skipped.
    seams
        Folder for what neighbouring strips share, if there are several; what it holds must outlive the run.
    computed
        Told how many tiles were computed, after each batch.
    cancelled
        Asked before each batch, so that a slab whose tiles are computed is never lost.

    Raises
    ------
    ContractError
        If the network gives other heads or shapes than it declares.
    ResourceError
        If the disk is too full for what strips share.
    KeyboardInterrupt
        If cancelled.
    """
    heads = tuple(head for head in heads if not head.auxiliary)
    layers = -(-lattice.volume[0] // lattice.stride[0])
    strips = list(lattice.strips((settings.rows if seams else None) or len(lattice.starts[1])))
    for index, (rows, low, high) in enumerate(strips):
        first = max(finished - index * layers, 0)
        if first >= layers:
            continue
        seam = _Seam(seams, index, last=index == len(strips) - 1)
        walk = _Strip(lattice, heads, rows, low, high, settings, seam)
        for layer, roi, values in walk.run(network, read, first, computed, cancelled):
            yield Slab(index * layers + layer, roi, values)


class _Seam:
    """Sums over rows of tiles that a strip shares with the next: stored once, so that no tile is computed twice."""

    def __init__(self, folder: Path | None, index: int, *, last: bool) -> None:
        self.folder, self.index, self.last = folder, index, last

    def save(self, layer: int, values: Tensor) -> None:
        if self.last or self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_npy(self.folder / f"{self.index}-{layer}.npy", values.cpu().numpy())

    def load(self, layer: int) -> Tensor | None:
        if self.index == 0 or self.folder is None:
            return None
        return torch.from_numpy(np.load(self.folder / f"{self.index - 1}-{layer}.npy"))


class _Strip:
    """Walks down the layers of some rows of tiles, with sums one window and one stride deep."""

    def __init__(
        self,
        lattice: TileLattice,
        heads: tuple[Head, ...],
        rows: range,
        low: int,
        high: int,
        settings: Inference,
        seam: _Seam,
    ) -> None:
        self.lattice, self.heads, self.rows, self.settings, self.seam = lattice, heads, rows, settings, seam
        self.low, self.high = low, high
        depth, height, width = lattice.volume
        z, y, _ = lattice.output
        device = torch.device(settings.device)
        self.channels = [len(head.channels) for head in heads]
        self.heights = {row: min(y, height - lattice.starts[1][row]) for row in rows}
        deep = min(z + lattice.stride[0], max(depth, z))
        self.sums = {
            row: torch.zeros((sum(self.channels), deep, tall, width), device=device)
            for row, tall in self.heights.items()
        }
        ramps = [torch.from_numpy(lattice.ramp(axis)).to(device) for axis in range(3)]
        self.ramp = ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]
        totals = [torch.from_numpy(lattice.total(axis)).to(device) for axis in range(3)]
        self.total_z, self.total_yx = totals[0], totals[1][low:, None] * totals[2]

    def run(
        self,
        network: nn.Module,
        read: Read,
        first: int,
        computed: Callable[[int], None],
        cancelled: Callable[[], bool],
    ) -> Iterator[tuple[int, Roi, dict[str, NDArray[np.float32]]]]:
        """Finished layers of the strip from number `first` on: (number, box, values by head)."""
        depth, stride = self.lattice.volume[0], self.lattice.stride[0]
        layers = self.lattice.starts[0]
        # a resumed walk computes again the layers of tiles that reach into what is left, from the first of them on
        begin = next(i for i, z in enumerate(layers) if z + self.lattice.output[0] > first * stride)
        base = first * stride
        done = first
        with closing(_ahead(self._batches(read, begin))) as batches:
            batch = next(batches, None)
            for layer in range(begin, len(layers)):
                while batch is not None and batch.layer == layer:
                    if cancelled():
                        raise KeyboardInterrupt
                    self._add(self._forward(network, batch.tiles), batch, base)
                    computed(len(batch.places))
                    batch = next(batches, None)
                final = layers[layer + 1] if layer + 1 < len(layers) else depth
                while done * stride < depth and min((done + 1) * stride, depth) <= final:
                    start, stop = done * stride, min((done + 1) * stride, depth)
                    yield done, *self._finish(done, start, stop, base)
                    done += 1
                base = self._shift(base, done * stride)

    def _batches(self, read: Read, begin: int) -> Iterator[_Batch]:
        size, crop = self.settings.batch, self.lattice.window.crop
        depth, height, _ = self.lattice.tile
        columns = self.lattice.starts[2]
        wide = columns[-1] + self.lattice.tile[2]
        for layer, z in enumerate(self.lattice.starts[0][begin:], begin):
            places: list[tuple[int, int]] = []
            tiles: list[NDArray[np.float32]] = []
            for row in self.rows:
                start = as_shape(a - c for a, c in zip((z, self.lattice.starts[1][row], 0), crop, strict=True))
                section = self.lattice.read(read, start, (depth, height, wide))
                for place, x in enumerate(columns):
                    places.append((row, place))
                    tiles.append(section[..., x : x + self.lattice.tile[2]])
                    if len(tiles) == size:
                        yield _Batch(layer, tuple(places), np.stack(tiles))
                        places, tiles = [], []
            if tiles:  # padded to full size: the size of a batch may change the last bit
                full = tiles + [tiles[-1]] * (size - len(tiles))
                yield _Batch(layer, tuple(places), np.stack(full))

    @torch.inference_mode()
    def _forward(self, network: nn.Module, tiles: NDArray[np.float32]) -> Tensor:
        device = torch.device(self.settings.device)
        half = self.settings.precision == "bf16"
        with torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext():
            found = network(torch.from_numpy(tiles).to(device))
        return torch.cat([self._activated(head, found, len(tiles)) for head in self.heads], dim=1)

    def _activated(self, head: Head, found: Mapping[str, Tensor], batch: int) -> Tensor:
        if not isinstance(found, Mapping) or head.name not in found:
            names = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
            raise ContractError(f"the network gives no head {head.name!r}, only {names}", hint="mend its forward()")
        crop = self.lattice.window.crop
        shape = (batch, len(head.channels), *(n - 2 * c for n, c in zip(self.lattice.tile, crop, strict=True)))
        logits = found[head.name].float() / self.settings.temperature.get(head.name, 1.0)
        if tuple(logits.shape) != shape:
            raise ContractError(f"head {head.name!r} has shape {tuple(logits.shape)}, its declaration says {shape}")
        if head.activation == "sigmoid":
            return logits.sigmoid()
        return logits.softmax(dim=1) if head.activation == "softmax" else logits

    @torch.inference_mode()
    def _add(self, values: Tensor, batch: _Batch, base: int) -> None:
        z = self.lattice.starts[0][batch.layer]
        known = max(base - z, 0)  # layers above were finished before
        deep = min(self.lattice.output[0], self.lattice.volume[0] - z)
        for (row, place), tile in zip(batch.places, values, strict=False):
            x, tall = self.lattice.starts[2][place], self.heights[row]
            wide = min(self.lattice.output[2], self.lattice.volume[2] - x)
            here = (slice(None), slice(known, deep), slice(0, tall), slice(0, wide))
            at = (slice(None), slice(z + known - base, z - base + deep), slice(0, tall), slice(x, x + wide))
            self.sums[row][at] += tile[here] * self.ramp[here[1:]]

    @torch.inference_mode()
    def _finish(self, layer: int, start: int, stop: int, base: int) -> tuple[Roi, dict[str, NDArray[np.float32]]]:
        height, width = self.lattice.volume[1:]
        top = max(self.lattice.starts[1][row] + tall for row, tall in self.heights.items())
        total = torch.zeros((sum(self.channels), stop - start, top - self.low, width), device=self.total_z.device)
        shared = self.seam.load(layer)
        if shared is not None:
            total[:, :, : shared.shape[2]] += shared.to(total.device)
        for row, tall in self.heights.items():
            y = self.lattice.starts[1][row] - self.low
            total[:, :, y : y + tall] += self.sums[row][:, start - base : stop - base]
        if self.high < height:
            self.seam.save(layer, total[:, :, self.high - self.low :])
        tall = self.high - self.low
        weight = self.total_z[start:stop, None, None] * self.total_yx[:tall]
        values = (total[:, :, :tall] / weight).cpu().numpy()
        parts = np.split(values, np.cumsum(self.channels)[:-1])
        named = {head.name: part for head, part in zip(self.heads, parts, strict=True)}
        return Roi((start, self.low, 0), (stop, self.high, width)), named

    def _shift(self, base: int, new: int) -> int:
        for sums in self.sums.values():
            kept = sums.shape[1] - (new - base)
            if kept > 0:
                sums[:, :kept] = sums[:, new - base :].clone()
            sums[:, max(kept, 0) :] = 0
        return new


def _ahead(items: Iterator[_Batch]) -> Generator[_Batch]:
    """The same items, each prepared in a thread while the one before is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        upcoming = pool.submit(next, items, None)
        while (batch := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield batch
