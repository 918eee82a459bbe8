"""Block-wise connected components, on disk and resumable, beside `cc3d` in memory and `dask-image` block by block.

Prints the times of one run, their ratios, and whether block-wise and whole-volume labelling agree voxel by voxel, ids
included. The block-wise time holds everything: reading the mask from disk, provisional ids on disk, links, output on
disk, every fsync, and the removal of what is no longer needed. `dask-image` labels the same array in the same chunks
with as many threads; it is given the mask in memory, and its output goes to a file that is not flushed.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

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
    parser.add_argument("--without-dask", action="store_true", help="leave dask-image out")
    options = parser.parse_args()
    mask = blobs(options.size)
    print(f"mask {options.size}^3, {mask.mean():.1%} foreground, blocks {options.block}^3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        whole, expected = cc3d.connected_components(mask, connectivity=6, return_N=True)
        in_memory = time.perf_counter() - start
        ours, output, count = blockwise(mask, folder, options.block, options.workers)
        print(f"block-wise {ours:.2f} s, cc3d in memory {in_memory:.2f} s: {ours / in_memory:.2f} times as long")
        same = count == expected and agree(whole, output)
        print(f"{count} objects; {'identical, ids included' if same else 'NOT identical'}")
        del whole
        if not options.without_dask:
            theirs, found = with_dask_image(mask, folder, options.block, options.workers)
            print(f"dask-image {theirs:.2f} s, {found} objects: {theirs / ours:.1f} times as long as block-wise")


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


def blockwise(mask: NDArray[np.bool_], folder: Path, block: int, workers: int) -> tuple[float, BlockFiles, int]:
    """Seconds, the output, and the number of objects; prints the seconds of each pass."""
    volume, grid = VolumeSpec(mask.shape, "bool"), BlockGrid(Roi.whole(mask.shape), (block, block, block))
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
        inputs, gives = {"mask": Stored(files, ArraySpec(Kind.MASK))}, {"instances": ArraySpec(Kind.INSTANCE)}
        start = time.perf_counter()
        count = stitched(Components(), inputs, make, gives, grid, volume, workspace, name="cc", early="0", late="0")
        seconds = time.perf_counter() - start
    executor.close()
    for label, times in passes.items():
        print(f"  {label:12} {times[-1] - times[0]:6.2f} s")
    return seconds, output["instances"], count


def agree(whole: NDArray[Any], output: BlockFiles) -> bool:
    """Whether every voxel has the id that labelling of the whole volume gave it."""
    boxes = map(output.grid.box, range(len(output.grid)))
    return all(np.array_equal(whole[box.slices], output.read(box)[0]) for box in boxes)


def with_dask_image(mask: NDArray[np.bool_], folder: Path, block: int, workers: int) -> tuple[float, int]:
    """Seconds and the number of objects of `dask_image.ndmeasure.label`."""
    import dask.array
    from dask_image.ndmeasure import label

    target = np.lib.format.open_memmap(folder / "dask.npy", "w+", np.int64, mask.shape)
    start = time.perf_counter()
    labels, count = label(dask.array.from_array(mask, chunks=block))
    stored = dask.array.store(labels.astype(np.int64), target, compute=False, lock=False)
    with dask.config.set(scheduler="threads", num_workers=max(workers, 1)):
        _, found = dask.compute(stored, count)
    return time.perf_counter() - start, int(found)


if __name__ == "__main__":
    main()
