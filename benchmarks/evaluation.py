"""Scores of two instance volumes beside a loop over voxels and beside `np.unique` over pairs, in one process.

    python benchmarks/evaluation.py [--size 512] [--crop 64] [--repeat 3]

Two pairs of volumes: a dense one, where every voxel is of an object, and a sparse one, where one object in five is
kept, as mitochondria in tissue. `np.unique` counts the pairs of ids of the whole volume as one number each: the least
that a contingency table costs when it is made with plain numpy in memory. The loop is over a crop, and its time is
scaled by the number of voxels. What is timed of `evaluate` is all of it: blocks, tables, matching and all scores of
objects. Times are those of the processor, as all three use one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitocore.builtin.metrics import AdaptedRand, AveragePrecision, Instance, VariationOfInformation
from mitocore.evaluation import compared, evaluate
from mitocore.interfaces import Metric
from mitocore.volumes import in_memory

Ids = NDArray[np.uint32]
TILE = 64
CELLS = 120
METRICS: Mapping[str, Metric] = {
    "instance": Instance(),
    "average_precision": AveragePrecision(),
    "adapted_rand": AdaptedRand(),
    "voi": VariationOfInformation(),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="edge of the volumes in voxels, a multiple of 64")
    parser.add_argument("--crop", type=int, default=64, help="edge of the crop that the loop is timed on")
    parser.add_argument("--repeat", type=int, default=3, help="times each is measured, in turn; the median counts")
    arguments = parser.parse_args()
    print(f"{arguments.size}³ voxels, uint32; the loop on {arguments.crop}³ of them, scaled")
    print(f"{'volume':8} {'loop':>9} {'np.unique':>10} {'evaluate':>9}   loop / evaluate   evaluate / np.unique")
    for name, keep in (("dense", 1), ("sparse", 5)):
        predicted, truth = (tiled(cells(jitter, keep), arguments.size) for jitter in (2.0, 0.0))
        pair = compared(in_memory(predicted), in_memory(truth))
        crop = (slice(arguments.crop),) * 3
        scale = predicted.size / arguments.crop**3
        ways: Mapping[str, tuple[float, Callable[[], Any]]] = {
            "loop": (scale, partial(counted, predicted[crop], truth[crop])),
            "unique": (1, partial(uniques, predicted, truth)),
            "evaluate": (1, partial(evaluate, pair, METRICS)),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(arguments.repeat):
            for way, (times, work) in ways.items():
                begin = time.process_time()
                work()
                seconds[way].append(times * (time.process_time() - begin))
        loop, unique, ours = (statistics.median(found) for found in seconds.values())
        print(
            f"{name:8} {loop:7.1f} s {unique:8.2f} s {ours:7.2f} s   {loop / ours:10.1f}        {ours / unique:10.2f}"
        )


def cells(jitter: float, keep: int) -> Ids:
    """A tile of Voronoi cells, of which one in `keep` is kept; the centres of the prediction lie a little off."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, TILE, (CELLS, 3)) + jitter * rng.normal(size=(CELLS, 3))
    places = np.stack(np.meshgrid(*(np.arange(TILE),) * 3, indexing="ij"), axis=-1)
    ids = 1 + cKDTree(centres).query(places)[1].astype(np.uint32)
    return np.where(ids % keep == 0, ids, 0).astype(np.uint32)


def tiled(tile: Ids, size: int) -> Ids:
    """A volume of tiles, each with ids of its own."""
    volume, number = np.zeros((size,) * 3, np.uint32), size // TILE
    for place, (z, y, x) in enumerate(np.ndindex(number, number, number)):
        box = tuple(slice(TILE * at, TILE * (at + 1)) for at in (z, y, x))
        volume[box] = np.where(tile, tile + place * CELLS, 0)
    return volume


def counted(predicted: Ids, truth: Ids) -> NDArray[np.int64]:
    """Voxels by pair of ids, one voxel after another, as published scripts do it."""
    p, t = predicted.ravel(), truth.ravel()
    table = np.zeros((p.max() + 1, t.max() + 1), np.int64)
    for voxel in range(len(p)):
        table[p[voxel], t[voxel]] += 1
    return table


def uniques(predicted: Ids, truth: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of ids as one number each, and their voxels."""
    codes = predicted.ravel().astype(np.int64)
    codes *= int(truth.max()) + 1
    codes += truth.ravel()
    return np.unique(codes, return_counts=True)


if __name__ == "__main__":
    main()
