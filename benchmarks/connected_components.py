"""Block-wise connected components, on disk and resumable, beside `cc3d` on the whole volume in memory.

Prints both times of one run, their ratio, and whether the two agree voxel by voxel, ids included.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from mitocore.blockwise.arrays import BlockFiles, Stored
from mitocore.blockwise.executor import InProcess, Threads
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.scopes import stitched
from mitocore.blockwise.workspace import Workspace
from mitocore.geometry import Roi
from mitocore.interfaces import Block, StitchedPostProcessor
from mitocore.specs import ArraySpec, Kind, Need, VolumeSpec

MASK, INSTANCES = ArraySpec(Kind.MASK), ArraySpec(Kind.INSTANCE)


class Components(StitchedPostProcessor):
    """Connected components of a mask."""

    def needs(self) -> Mapping[str, Need]:
        """One mask."""
        return {"mask": Need((Kind.MASK,))}

    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """Instances."""
        del given
        return {"instances": INSTANCES}

    def label(self, block: Block) -> tuple[NDArray[np.uint32], None]:
        """Components of one block."""
        return cc3d.connected_components(block["mask"][0], connectivity=6, out_dtype=np.uint32), None


def blobs(size: int, seed: int = 0) -> NDArray[np.bool_]:
    """A mask (z, y, x) of smooth blobs, about 15 % of a cube of `size` voxels."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((size // 16 + 2,) * 3).astype(np.float32)
    threshold = np.quantile(zoom(coarse[:18, :18, :18], 8, order=1), 0.85)
    mask = np.empty((size, size, size), bool)
    for z in range(0, size, 64):  # a slab at a time, from the coarse planes it lies between
        planes = np.arange(z, min(z + 64, size)) / 16
        low = planes.astype(int)
        between = (planes - low)[:, None, None].astype(np.float32)
        slab = coarse[low] * (1 - between) + coarse[low + 1] * between
        for plane, values in enumerate(slab, start=z):
            mask[plane] = zoom(values, 16, order=1)[:size, :size] > threshold
    return mask


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()

    mask = blobs(options.size)
    print(f"mask {options.size}^3, {mask.mean():.1%} foreground")
    folder = Path(tempfile.mkdtemp())
    try:
        compare(mask, folder, options.block, options.workers)
    finally:
        shutil.rmtree(folder)


def compare(mask: NDArray[np.bool_], folder: Path, block: int, workers: int) -> None:
    """Time both and print the ratio."""
    volume = VolumeSpec(mask.shape, "bool")
    grid = BlockGrid(Roi.whole(mask.shape), (block, block, block))
    made: dict[str, BlockFiles] = {}

    def make(array: str, dtype: str) -> BlockFiles:
        made[array] = BlockFiles(workspace.scratch(array), grid, 1, dtype)
        return made[array]

    (folder / "mask").mkdir()
    stored = BlockFiles(folder / "mask", grid, 1, "bool")
    for number in range(len(grid)):
        stored.write(number, grid.box(number), mask[None][(..., *grid.box(number).slices)])
    passes: dict[str, tuple[float, float]] = {}

    def progress(label: str, *_: int) -> None:
        begun, _ = passes.setdefault(label, (time.perf_counter(), 0))
        passes[label] = begun, time.perf_counter()

    executor = Threads(workers) if workers else InProcess()
    workspace = Workspace(folder, executor, RunLock(folder), progress)
    start = time.perf_counter()
    source = Stored(stored, MASK)
    gives = {"instances": INSTANCES}
    count = stitched(
        Components(), {"mask": source}, make, gives, grid, volume, workspace, name="cc", early="0", late="0"
    )
    blockwise = time.perf_counter() - start
    executor.close()

    start = time.perf_counter()
    whole, expected = cc3d.connected_components(mask, connectivity=6, return_N=True)
    in_memory = time.perf_counter() - start

    for label, (begun, ended) in passes.items():
        print(f"  {label:12} {ended - begun:6.2f} s")
    print(f"block-wise {blockwise:.2f} s, cc3d in memory {in_memory:.2f} s, ratio {blockwise / in_memory:.2f}")
    same = count == expected and all(
        (whole[box.slices] == made["instances"].read(box)[0]).all() for box in map(grid.box, range(len(grid)))
    )
    print(f"{count} objects; {'identical, ids included' if same else 'NOT identical'}")


if __name__ == "__main__":
    main()
