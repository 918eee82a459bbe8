"""Peak memory and time of building the index of each sampler over a label volume of 1 GiB on disk.

Each index is built in a process of its own; the peak is what the operating system says of that process, above one that
builds the index of 64 x 128 x 128 voxels. Labels are balls in rows, read as a training reads them; crops are of
32 x 128 x 128 voxels.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mitocore import Roi
from mitocore.builtin.npy import NpyReader
from mitocore.config.labelled import LabelValues
from mitocore.config.volumes import PlannedLabels
from mitocore.interfaces import LabelledVolume, Sampler
from mitocore.learn.labels import MappedLabels
from mitocore.specs import Kind
from mitocore.volumes import installed

CROP = (32, 128, 128)
PERIOD = 64  # voxels from one object to the next along each axis
SAMPLERS = {
    "uniform": {},
    "foreground": {},
    "foreground per class": {"per_class": ((2, 0.5), (3, 0.5)), "label": "instances"},
    "grid": {},
    "balanced": {},
    "reject": {"diversity": 3},
}


def main() -> None:
    """Build each index once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1, help="size of the volume (default 1)")
    parser.add_argument("--dtype", default="uint64", choices=["uint8", "uint16", "uint32", "uint64"])
    parser.add_argument("--build", nargs=2, metavar=("SAMPLER", "FILE"), help="build one index here, and leave")
    options = parser.parse_args()
    if options.build:
        build(*options.build)
        return
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.npy", Path(folder) / "large.npy"
        planes = int(options.gib * 2**10 / np.dtype(options.dtype).itemsize)
        for path, shape in ((small, (64, 128, 128)), (large, (planes, 1024, 1024))):
            drawing = multiprocessing.get_context("spawn").Process(target=draw, args=(path, shape, options.dtype))
            drawing.start()  # elsewhere: the peak of a new process counts that of the one it was started from
            drawing.join()
        print(f"labels: {large.stat().st_size / 2**30:.2f} GiB of {options.dtype}")
        for name in SAMPLERS:
            idle, _ = peak(name, small)
            most, seconds = peak(name, large)
            print(f"{name:<22} {max(0, most - idle):6.0f} MB above idle, {seconds:5.1f} s")


def peak(name: str, path: Path) -> tuple[float, float]:
    """Peak resident MB and seconds of a process that builds an index."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, __file__, "--build", name, str(path)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return usage.ru_maxrss * (1024 if sys.platform != "darwin" else 1) / 1e6, time.monotonic() - started


def build(name: str, path: str) -> None:
    """The index of one sampler over one volume."""
    sampler = installed().find("sampler", name.split(maxsplit=1)[0]).load()(**SAMPLERS[name])
    if not isinstance(sampler, Sampler):
        raise SystemExit(f"{name} is no sampler")
    reader = NpyReader(path=path)
    with MappedLabels(reader.open(), PlannedLabels(reader, Kind.INSTANCE, LabelValues())) as labels:
        volume = LabelledVolume(labels, {"instances": labels}, Roi.whole(labels.spec.shape))
        sampler.index([volume], CROP)


def draw(path: Path, shape: tuple[int, int, int], dtype: str) -> None:
    """Balls in rows, each with an id that any dtype holds, of which every third is missing; written slab by slab."""
    axis = np.arange(PERIOD) - PERIOD // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    ball = z**2 + y**2 + x**2 < 24**2
    labels = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    rows, columns = (-(-n // PERIOD) for n in shape[1:])
    for start in range(0, shape[0], PERIOD):
        number = start // PERIOD * rows * columns + np.arange(1, rows * columns + 1).reshape(rows, columns)
        ids = np.repeat(np.repeat(np.where(number % 3, number % 251 + 1, 0), PERIOD, 0), PERIOD, 1)[
            : shape[1], : shape[2]
        ]
        slab = np.tile(ball, (1, rows, columns))[: shape[0] - start, : shape[1], : shape[2]]
        labels[start : start + len(slab)] = np.where(slab, ids, 0)
    labels.flush()


if __name__ == "__main__":
    main()
