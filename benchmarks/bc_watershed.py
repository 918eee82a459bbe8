"""The whole `bc_watershed` step, out of core, beside the textbook implementation in memory.

The prediction (foreground and boundary, uint8) has the mitochondria of synthetic tissue, mirrored until it is as large
as asked for. The textbook labels seeds and floods minus the foreground in float64 on the whole array with scikit-image,
as the tutorial of PyTorch Connectomics does, on one core: that is all it can use. Ours is a pipeline run as any other:
from the file that the textbook loads to a zarr, scratch on disk, every fsync. Each has a process of its own, in which
it ran once on a small volume before; times and peaks are what came on top. Prints both, their ratios, and whether the
instances agree.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import mitocore
from mitocore import Roi
from mitocore.volumes import open_volume

_PIECE = (64, 256, 256)  # synthetic tissue takes its time
_PIPELINE = """\
mitocore = 1
[input]
path = "{name}.npy"
kind = "probability"

[[step]]
name = "mito"
postprocessor = "bc_watershed"
thres1 = 0.9
thres2 = 0.8
thres3 = 0.85
thres_small = 128
seed_thres = 32
inputs = {{ foreground = "input.image:0", boundary = "input.image:1" }}

[output]
path = "{name}-out.zarr"
levels = 1

[run]
folder = "{name}-run"
block = [64, 256, 256]
workers = {workers}
"""


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 512, 512], help="voxels (default 256 512 512)")
    parser.add_argument("--workers", default="auto", help='threads of ours, or "auto": one per core (default)')
    parser.add_argument("--in-process", choices=list(_KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        print(json.dumps(_KINDS[options.in_process](options.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workers = options.workers if options.workers.isdigit() else f'"{options.workers}"'
        drawing = multiprocessing.get_context("spawn").Process(target=draw, args=(folder, tuple(options.shape)))
        drawing.start()  # elsewhere: the peak of a new process counts that of the one it was started from
        drawing.join()
        for file in ("warm", "whole"):
            (folder / f"{file}.toml").write_text(_PIPELINE.format(name=folder / file, workers=workers), "utf-8")
        theirs, mine = (measured(kind, folder) for kind in _KINDS)
        for kind, found in (("textbook", theirs), ("bc_watershed", mine)):
            took = f"{found['seconds']:6.2f} s, {found['cpu']:6.2f} s of processors"
            print(f"{kind:12} {took}, {found['mib']:5.0f} MiB, {found['count']} instances")
            for label, seconds in found.get("passes", {}).items():
                print(f"  {label:15} {seconds:6.2f} s")
        print(
            f"{theirs['seconds'] / mine['seconds']:.2f} times as fast "
            f"({theirs['cpu'] / mine['cpu']:.2f} by processor time), in {mine['mib'] / theirs['mib']:.3f} of the memory"
        )
        print(f"{agreement(folder):.7f} of the voxels agree")


def draw(folder: Path, shape: tuple[int, ...]) -> None:
    """Write both predictions."""
    touching = np.zeros((2, 32, 64, 64), np.uint8)
    touching[0, 8:24, 8:56, 8:56], touching[1, :, :, 32] = 240, 255  # so that what is compiled is compiled
    np.save(folder / "warm.npy", touching)
    np.save(folder / "whole.npy", mirrored(tissue(), shape))


def tissue() -> NDArray[np.uint8]:
    """What a network could say of synthetic tissue: (2, z, y, x) foreground and boundary."""
    from mitocore.builtin.cells import cells

    truth = cells(_PIECE, seed=3)
    inside = gaussian_filter((truth.instances > 0).astype(np.float32), 1)
    boundary = np.minimum(1, 1.6 * gaussian_filter(truth.boundary.astype(np.float32), 1))
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(_PIECE).astype(np.float32), 1.5)
    foreground = np.clip(1.1 * inside + 0.2 * noise, 0, 1)
    return np.stack([np.rint(255 * values).astype(np.uint8) for values in (foreground, boundary)])


def mirrored(piece: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The piece and its mirror images, side by side, cut to a shape."""
    for axis, n in enumerate(shape, start=1):
        places = np.arange(n) % (2 * piece.shape[axis])
        piece = piece.take(np.minimum(places, 2 * piece.shape[axis] - 1 - places), axis)
    return piece


def measured(kind: str, folder: Path) -> dict[str, Any]:
    """What one of the two says of itself, in a process of its own."""
    call = [sys.executable, __file__, "--in-process", kind, "--folder", str(folder)]
    said = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def peak() -> float:
    """Peak resident MiB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def textbook(folder: Path) -> dict[str, Any]:
    """The whole array in memory: label, remove small seeds, flood, remove small instances."""
    from skimage.measure import label
    from skimage.segmentation import watershed

    def without_small(ids: NDArray[Any], least: int) -> NDArray[Any]:
        ids[(np.bincount(ids.ravel()) < least)[ids]] = 0
        return ids

    def once(name: str) -> int:
        foreground, boundary = np.load(folder / f"{name}.npy")
        seeds = label((foreground > int(255 * 0.9)) & (boundary < int(255 * 0.8)))
        seeds = without_small(seeds, 32)
        ids = watershed(-foreground.astype(np.float64), seeds, mask=foreground > int(255 * 0.85))
        ids = without_small(ids, 128)
        np.save(folder / f"{name}-textbook.npy", ids.astype(np.uint32))
        return len(np.unique(ids)) - 1

    once("warm")
    idle, start, busy = peak(), time.perf_counter(), time.process_time()
    count = once("whole")
    cpu = time.process_time() - busy
    return {"seconds": time.perf_counter() - start, "cpu": cpu, "mib": peak() - idle, "count": count}


def ours(folder: Path) -> dict[str, Any]:
    """A pipeline run, from file to file."""
    passes: dict[str, list[float]] = {}

    def progress(label: str, *_: int) -> None:
        passes.setdefault(label, []).append(time.perf_counter())

    mitocore.load(folder / "warm.toml").run().close()
    idle, start, busy = peak(), time.perf_counter(), time.process_time()
    with mitocore.load(folder / "whole.toml").run(progress=progress) as result:
        seconds, cpu = time.perf_counter() - start, time.process_time() - busy
        mib = peak() - idle
        count = int(result.arrays()["mito.instances"].max())
    return {
        "seconds": seconds,
        "cpu": cpu,
        "mib": mib,
        "count": count,
        "passes": {label: times[-1] - times[0] for label, times in passes.items()},
    }


_KINDS = {"textbook": textbook, "ours": ours}


def agreement(folder: Path) -> float:
    """The share of voxels in which both have the same instance, whatever its id."""
    theirs = np.load(folder / "whole-textbook.npy", mmap_mode="r")
    with open_volume(folder / "whole-out.zarr") as volume:
        mine = volume.read(Roi.whole(volume.spec.shape))[0]
    pairs, count = np.unique(theirs.astype(np.uint64) << np.uint64(32) | mine, return_counts=True)
    best: dict[int, int] = {}
    for pair, voxels in zip(pairs.tolist(), count.tolist(), strict=True):
        best[pair >> 32] = max(best.get(pair >> 32, 0), voxels)
    return float(sum(best.values()) / theirs.size)


if __name__ == "__main__":
    main()
