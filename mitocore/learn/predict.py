"""Tiles through a network, blended into finished slabs.

A voxel of the result is the weighted mean of the tiles that cover it. Sums are taken in one fixed order: inside a row
of tiles by layer, then along the row; then over the rows. So neither the strips a section is cut into, nor the place
where a killed run was resumed, can change a bit; and no tile is computed twice. A region has the bits of the whole
volume too: the tiles that cover a voxel, and their order, are the same. With several tiles in a batch that holds as far
as a tile's values do not depend on those beside it in the batch, which is the network's and torch's affair.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mitocore.blockwise.tiles import TileLattice
from mitocore.durable import read_npy, write_npy
from mitocore.errors import ContractError
from mitocore.geometry import Roi, as_shape
from mitocore.learn.device import native_bf16
from mitocore.learn.turned import Reduce, Turning
from mitocore.specs import Blending, Head
from mitocore.symmetry import Turns

Read = Callable[[Roi], NDArray[np.float32]]


@dataclass(frozen=True)
class Inference:
    """How networks are run; of these the rows alone cannot move a voxel."""

    device: str = "cpu"
    precision: str = "float32"
    batch: int = 1
    tta: Turns = "none"
    """Test-time augmentation: symmetries under which each tile is predicted."""
    reduce: Reduce = "mean"
    """How the results of all symmetries and networks become one."""
    blending: Blending = "ramp"
    """How much each voxel of a tile counts."""
    rows: int | None = None
    """Rows of tiles in a strip; None: the whole section at once."""


def precision_of(stated: str, device: str) -> str:
    """What `precision = "auto"` means on a device: bf16 where its arithmetic is in the hardware, else float32.

    The precision is part of the result, so the kind of machine decides, not a measurement of the day.
    `benchmarks/precision.py` measures whether the rule is right on a machine: bf16 that is emulated is slower.

    >>> precision_of("float32", "cpu"), precision_of("bf16", "cpu")
    ('float32', 'bf16')
    """
    if stated != "auto":
        return stated
    return "bf16" if native_bf16(device) else "float32"


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
    """The boxes in which `slabs` finishes the bounds of a lattice, by number."""
    (top, _, left), (bottom, _, right), stride = lattice.bounds.start, lattice.bounds.stop, lattice.stride[0]
    return [
        Roi((z, low, left), (min(z + stride, bottom), high, right))
        for _, low, high in lattice.strips(rows or len(lattice.starts[1]))
        for z in range(top, bottom, stride)
    ]


def rows_within(lattice: TileLattice, channels: int, memory: int) -> int:
    """Rows of tiles whose sums fit `memory` bytes; at least one."""
    deepest, tallest, width = lattice.bounds.shape
    depth, height = min(lattice.output[0] + lattice.stride[0], deepest), min(lattice.output[1], tallest)
    row = 2 * channels * depth * height * width * 4
    early = sum(y < lattice.bounds.start[1] for y in lattice.starts[1])  # in the first strip, besides its own
    return max(1, min(len(lattice.starts[1]), memory // row - early))


def forget_seam(folder: Path, lattice: TileLattice, number: int) -> None:
    """Remove what slab `number` got from the strip before it: once it is committed, nothing needs that again."""
    strip, layer = divmod(number, _layers(lattice))
    _seam(folder, strip - 1, layer).unlink(missing_ok=True)


def _seam(folder: Path, strip: int, layer: int) -> Path:
    """The file of what a strip hands to the next."""
    return folder / f"{strip}-{layer}.npy"


def _layers(lattice: TileLattice) -> int:
    """Slabs of a strip."""
    return -(-lattice.bounds.shape[0] // lattice.stride[0])


def slabs(
    networks: nn.Module | Sequence[nn.Module],
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
    """Run networks over all tiles of a lattice: of a volume, or of a region.

    Parameters
    ----------
    networks
        On their device, in evaluation mode; the values of several (an ensemble) are reduced to one result.
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
    layers = _layers(lattice)
    strips = list(lattice.strips((settings.rows if seams else None) or len(lattice.starts[1])))
    for index, (rows, low, high) in enumerate(strips):
        first = max(finished - index * layers, 0)
        if first >= layers:
            continue
        seam = _Seam(seams, index, last=index == len(strips) - 1)
        walk = _Strip(lattice, heads, rows, low, high, settings, seam)
        several = [networks] if isinstance(networks, nn.Module) else list(networks)
        for layer, roi, values in walk.run(several, read, first, computed, cancelled):
            yield Slab(index * layers + layer, roi, values)


class _Seam:
    """Sums over rows of tiles that a strip shares with the next: stored once, so that no tile is computed twice."""

    def __init__(self, folder: Path | None, index: int, *, last: bool) -> None:
        self.folder, self.index, self.last = folder, index, last

    def save(self, layer: int, values: Tensor) -> None:
        if self.last or self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_npy(_seam(self.folder, self.index, layer), values.cpu().numpy())

    def load(self, layer: int) -> Tensor | None:
        if self.index == 0 or self.folder is None:
            return None
        return torch.from_numpy(read_npy(_seam(self.folder, self.index - 1, layer)))


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
        device, bounds = torch.device(settings.device), lattice.bounds
        self.channels = [len(head.channels) for head in heads]
        self.ends = {row: self._ends(lattice.starts[1][row]) for row in rows}
        deep = min(lattice.output[0] + lattice.stride[0], bounds.shape[0])
        self.sums = {
            row: torch.zeros((sum(self.channels), deep, stop - start, bounds.shape[2]), device=device)
            for row, (start, stop) in self.ends.items()
        }
        self.weight = torch.from_numpy(lattice.weight(settings.blending)).to(device)
        self.totals = lattice.totals(settings.blending)

    def _ends(self, y: int) -> tuple[int, int]:
        """First y and last y + 1 of what a row of tiles that starts at `y` gives to the region."""
        bounds = self.lattice.bounds
        return max(y, bounds.start[1]), min(y + self.lattice.output[1], bounds.stop[1])

    def run(
        self,
        networks: Sequence[nn.Module],
        read: Read,
        first: int,
        computed: Callable[[int], None],
        cancelled: Callable[[], bool],
    ) -> Iterator[tuple[int, Roi, dict[str, NDArray[np.float32]]]]:
        """Finished layers of the strip from number `first` on: (number, box, values by head)."""
        top, bottom, stride = self.lattice.bounds.start[0], self.lattice.bounds.stop[0], self.lattice.stride[0]
        layers = self.lattice.starts[0]
        base = top + first * stride  # the first z whose sums are held
        # a resumed walk computes again the layers of tiles that reach into what is left, from the first of them on
        begin = next(i for i, z in enumerate(layers) if z + self.lattice.output[0] > base)
        done = first
        with closing(_ahead(self._batches(read, begin))) as batches:
            batch = next(batches, None)
            for layer in range(begin, len(layers)):
                while batch is not None and batch.layer == layer:
                    if cancelled():
                        raise KeyboardInterrupt
                    self._add(self._forward(networks, batch.tiles), batch, base)
                    computed(len(batch.places))
                    batch = next(batches, None)
                final = layers[layer + 1] if layer + 1 < len(layers) else bottom
                while (start := top + done * stride) < bottom and (stop := min(start + stride, bottom)) <= final:
                    yield done, *self._finish(done, start, stop, base)
                    done += 1
                base = self._shift(base, top + done * stride)

    def _batches(self, read: Read, begin: int) -> Iterator[_Batch]:
        size, crop = self.settings.batch, self.lattice.window.crop
        depth, height, _ = self.lattice.tile
        columns = self.lattice.starts[2]
        wide = columns[-1] - columns[0] + self.lattice.tile[2]
        for layer, z in enumerate(self.lattice.starts[0][begin:], begin):
            places: list[tuple[int, int]] = []
            tiles: list[NDArray[np.float32]] = []
            for row in self.rows:
                start = as_shape(a - c for a, c in zip((z, self.lattice.starts[1][row], columns[0]), crop, strict=True))
                section = self.lattice.read(read, start, (depth, height, wide))
                for place, x in enumerate(columns):
                    places.append((row, place))
                    tiles.append(section[..., x - columns[0] : x - columns[0] + self.lattice.tile[2]])
                    if len(tiles) == size:
                        yield _Batch(layer, tuple(places), np.stack(tiles))
                        places, tiles = [], []
            if tiles:  # padded to full size: the size of a batch may change the last bit
                full = tiles + [tiles[-1]] * (size - len(tiles))
                yield _Batch(layer, tuple(places), np.stack(full))

    @torch.inference_mode()
    def _forward(self, networks: Sequence[nn.Module], tiles: NDArray[np.float32]) -> Tensor:
        settings = self.settings
        seen = torch.from_numpy(tiles).to(torch.device(settings.device))
        return Turning(self.heads, settings.tta, settings.reduce).values(networks, seen, self._predicted)

    def _predicted(self, network: nn.Module, tiles: Tensor) -> Tensor:
        half = self.settings.precision == "bf16"
        with torch.autocast(tiles.device.type, dtype=torch.bfloat16) if half else nullcontext():
            found = network(tiles)
        return torch.cat([self._activated(head, found, tiles.shape) for head in self.heads], dim=1)

    def _activated(self, head: Head, found: Mapping[str, Tensor], tiles: torch.Size) -> Tensor:
        if not isinstance(found, Mapping) or head.name not in found:
            names = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
            raise ContractError(f"the network gives no head {head.name!r}, only {names}", hint="mend its forward()")
        crop = self.lattice.window.crop
        shape = (tiles[0], len(head.channels), *(n - 2 * c for n, c in zip(tiles[2:], crop, strict=True)))
        logits = found[head.name].float()
        if tuple(logits.shape) != shape:
            raise ContractError(f"head {head.name!r} has shape {tuple(logits.shape)}, its declaration says {shape}")
        if head.activation == "sigmoid":
            return logits.sigmoid()
        if head.activation == "tanh":
            return logits.tanh()
        return logits.softmax(dim=1) if head.activation == "softmax" else logits

    @torch.inference_mode()
    def _add(self, values: Tensor, batch: _Batch, base: int) -> None:
        z, bounds = self.lattice.starts[0][batch.layer], self.lattice.bounds
        left, right = bounds.start[2], bounds.stop[2]
        for (row, place), tile in zip(batch.places, values, strict=False):
            start = (z, self.lattice.starts[1][row], self.lattice.starts[2][place])
            whole = Roi(start, as_shape(a + n for a, n in zip(start, self.lattice.output, strict=True)))
            upper, lower = self.ends[row]
            held = Roi((base, upper, left), (base + self.sums[row].shape[1], lower, right))
            seen = whole.clip(held)  # what lies above was finished before
            here = seen.within(whole)
            self.sums[row][(slice(None), *seen.within(held))] += tile[(slice(None), *here)] * self.weight[here]

    @torch.inference_mode()
    def _finish(self, layer: int, start: int, stop: int, base: int) -> tuple[Roi, dict[str, NDArray[np.float32]]]:
        bounds = self.lattice.bounds
        reach = max(lower for _, lower in self.ends.values())
        shape = (sum(self.channels), stop - start, reach - self.low, bounds.shape[2])
        total = torch.zeros(shape, device=self.weight.device)
        shared = self.seam.load(layer)
        if shared is not None:
            total[:, :, : shared.shape[2]] += shared.to(total.device)
        for row, (upper, lower) in self.ends.items():
            total[:, :, upper - self.low : lower - self.low] += self.sums[row][:, start - base : stop - base]
        if self.high < bounds.stop[1]:
            self.seam.save(layer, total[:, :, self.high - self.low :])
        tall = self.high - self.low
        top, rows = bounds.start[0], slice(self.low - bounds.start[1], self.high - bounds.start[1])
        weight = torch.from_numpy(self.totals.over(slice(start - top, stop - top), rows)).to(total.device)
        values = total[:, :, :tall].div_(weight).cpu().numpy()
        parts = np.split(values, np.cumsum(self.channels)[:-1])
        named = {head.name: part for head, part in zip(self.heads, parts, strict=True)}
        return Roi((start, self.low, bounds.start[2]), (stop, self.high, bounds.stop[2])), named

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
