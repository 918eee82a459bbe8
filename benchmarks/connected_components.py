"""Block-wise connected components, on disk and resumable, beside `cc3d` on the whole volume in memory.

Prints both times of one run, their ratio, and whether the two agree voxel by voxel, ids included. The block-wise time
holds everything: reading the mask from disk, provisional ids on disk, links, output on disk, every fsync, and the
removal of what is no longer needed.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import cc3d
import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import BlockFiles, Stored
from mitocore.blockwise.executor import InProcess, Threads
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.scopes import stitched
from mitocore.blockwise.workspace import Workspace
from mitocore.geometry import Roi
from mitocore.specs import ArraySpec, Kind, VolumeSpec
from mitocore.testing.minimal import Components

_GRAIN = 16  # voxels between the nodes of the noise that the blobs are cut from


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="edge of the volume, voxels (default 512)")
    parser.add_argument("--block", type=int, default=128, help="edge of a block, voxels (default 128)")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: none beside this one (default)")
    options = parser.parse_args()
    mask = blobs(options.size)
    print(f"mask {options.size}^3, {mask.mean():.1%} foreground")
    folder = Path(tempfile.mkdtemp())
    try:
        compare(mask, folder, options.block, options.workers)
    finally:
        shutil.rmtree(folder)


def blobs(size: int, seed: int = 0) -> NDArray[np.bool_]:
    """A mask (z, y, x) of smooth blobs, about 15 % of a cube of `size` voxels: noise, interpolated, cut."""
    nodes = size // _GRAIN + 2
    noise = np.random.default_rng(seed).standard_normal((nodes,) * 3).astype(np.float32)
    places = np.arange(size) / _GRAIN
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(nodes))).astype(np.float32)  # linear interpolation
    planes = [weights @ np.tensordot(row, noise, 1) @ weights.T for row in weights[:: max(1, size // 8)]]
    level = np.quantile(planes, 0.85)
    mask = np.empty((size,) * 3, bool)
    for plane, row in zip(mask, weights, strict=True):
        np.greater(weights @ np.tensordot(row, noise, 1) @ weights.T, level, out=plane)
    return mask


def compare(mask: NDArray[np.bool_], folder: Path, block: int, workers: int) -> None:
    """Time both and print the ratio."""
    volume, grid = VolumeSpec(mask.shape, "bool"), BlockGrid(Roi.whole(mask.shape), (block, block, block))
    stored = ArraySpec(Kind.MASK)
    output: dict[str, BlockFiles] = {}
    passes: dict[str, list[float]] = {}
    executor = Threads(workers) if workers else InProcess()

    def progress(label: str, *_: int) -> None:
        passes.setdefault(label, []).append(time.perf_counter())

    def make(array: str, dtype: str) -> BlockFiles:
        output[array] = BlockFiles(workspace.scratch(array), grid, 1, dtype)
        return output[array]

    with RunLock(folder) as lock:
        workspace = Workspace(folder, executor, lock, progress)
        files = BlockFiles(workspace.scratch("mask"), grid, 1, "bool")
        for number, box in enumerate(map(grid.box, range(len(grid)))):
            files.write(number, box, mask[None][(..., *box.slices)])
        inputs, gives = {"mask": Stored(files, stored)}, {"instances": ArraySpec(Kind.INSTANCE)}

        start = time.perf_counter()
        count = stitched(Components(), inputs, make, gives, grid, volume, workspace, name="cc", early="0", late="0")
        blockwise = time.perf_counter() - start
    executor.close()

    start = time.perf_counter()
    whole, expected = cc3d.connected_components(mask, connectivity=6, return_N=True)
    in_memory = time.perf_counter() - start

    same = count == expected and all(
        np.array_equal(whole[box.slices], output["instances"].read(box)[0]) for box in map(grid.box, range(len(grid)))
    )
    for label, times in passes.items():
        print(f"  {label:12} {times[-1] - times[0]:6.2f} s")
    print(f"block-wise {blockwise:.2f} s, cc3d in memory {in_memory:.2f} s, ratio {blockwise / in_memory:.2f}")
    print(f"{count} objects; {'identical, ids included' if same else 'NOT identical'}")


if __name__ == "__main__":
    main()
