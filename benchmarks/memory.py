"""Peak resident memory of threshold and connected components, over volumes of several sizes.

Each volume is run by `mitocore run` in a process of its own; the peak is what the operating system says of that
process. Prints how far each peak lies above that of a run over 16^3 voxels, which is the idle process, and the ratio
between the volumes. All blocks hold objects. No two files are the same, so that nothing is read that was cached.
"""

import argparse
import itertools
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mitocore import Roi, VolumeSpec
from mitocore.volumes import writer_of

_PIPELINE = """\
mitocore = 1
[input]
path = "{name}-in.zarr"
kind = "probability"

[[step]]
name = "mask"
postprocessor = "threshold"

[[step]]
name = "cells"
postprocessor = "connected_components"

[output]
path = "{name}-out.zarr"

[run]
folder = "{name}-run"
engine = "{engine}"
workers = {workers}
"""
_PLANE = (2048, 2048)
_PERIOD = 64  # voxels from one object to the next along each axis


def main() -> None:
    """Measure each size once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, nargs="+", default=[1, 4], help="sizes of the volumes (default 1 4)")
    parser.add_argument("--engine", choices=["threads", "processes"], default="threads")
    parser.add_argument("--workers", default="auto", help='a number, or "auto": one per core (default)')
    options = parser.parse_args()
    workers = f'"{options.workers}"' if options.workers == "auto" else options.workers
    sizes = [(int(gib * 2**30) // np.prod(_PLANE), *_PLANE) for gib in options.gib]
    with tempfile.TemporaryDirectory() as folder:
        idle = peak(Path(folder), (16, 16, 16), workers, options.engine)
        print(f"idle process: {idle:.0f} MiB")
        above = []
        for gib, shape in zip(options.gib, sizes, strict=True):
            above.append(peak(Path(folder), shape, workers, options.engine) - idle)
            print(f"{gib:g} GiB of uint8, {' x '.join(map(str, shape))}: {above[-1]:.0f} MiB above it")
    for (small, less), (large, more) in itertools.pairwise(zip(options.gib, above, strict=True)):
        print(f"{large:g} GiB needs {more / less:.3f} times as much as {small:g} GiB")


def peak(folder: Path, shape: tuple[int, ...], workers: str = '"auto"', engine: str = "threads") -> float:
    """Peak resident MiB of a run over a volume of `shape`; with processes, of the largest of them."""
    name = "x".join(map(str, shape))
    drawing = multiprocessing.get_context("spawn").Process(target=draw, args=(folder / f"{name}-in.zarr", shape))
    drawing.start()  # elsewhere: the peak of a new process counts that of the one it was started from
    drawing.join()
    (folder / f"{name}.toml").write_text(_PIPELINE.format(name=name, workers=workers, engine=engine), "utf-8")
    process = subprocess.Popen([sys.executable, "-m", "mitocore", "-qq", "run", f"{name}.toml"], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return usage.ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def draw(path: Path, shape: tuple[int, ...]) -> None:
    """A probability of balls in noise, written slab by slab."""
    rng, axis = np.random.default_rng(0), np.arange(_PERIOD) - _PERIOD // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    ball = np.where(z**2 + y**2 + x**2 < 24**2, 200, 40).astype(np.uint8)
    row = np.tile(ball, (1, *(-(-n // _PERIOD) for n in shape[1:])))[:, : shape[1], : shape[2]]
    with writer_of(path, levels=1).create("volume", VolumeSpec((shape[0], shape[1], shape[2]), "uint8")) as volume:
        for start in range(0, shape[0], _PERIOD):
            slab = row[: shape[0] - start] + rng.integers(0, 4, (1, *shape[1:]), np.uint8)
            volume.write(Roi((start, 0, 0), (start + len(slab), shape[1], shape[2])), slab[None])
        volume.finish()


if __name__ == "__main__":
    main()
