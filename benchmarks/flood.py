"""The seeded watershed of one object: time and peak memory beside `skimage.segmentation.watershed`.

The two take turns on the same arrays; the ratio of times is the median of the turns, and labels are compared voxel by
voxel. Peak memory is that of a process of its own, above what it held before, arrays and compiled code included (Linux
only); scikit-image is given a landscape in real numbers of 64 bits, as it would make one itself.
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from mitocore_rsunet.flood import flood

Arrays = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.bool_]]
SMOOTHNESS = {"smooth": 4.0, "noisy": 2.0}


def main() -> None:
    """Measure a few turns on each kind of object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="edge of the box, voxels (default 128)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is run (default 5)")
    parser.add_argument("--flood", nargs=2, metavar=("WITH", "FILE"), help="flood once here, and leave")
    options = parser.parse_args()
    if options.flood:
        name, path = options.flood
        print(peak_here(METHODS[name], Path(path)))
        return
    for kind, sigma in SMOOTHNESS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "object.npz"
            for task, *arguments in ((draw, path, options.size, sigma), (measure, path, kind, options.turns)):
                working = multiprocessing.get_context("spawn").Process(target=task, args=arguments)
                working.start()  # elsewhere: the peak of a new process counts that of the one it was started from
                working.join()
            mine, other = (peak(name, path) for name in METHODS)
        print(f"  {mine:.0f} MB, scikit-image {other:.0f} MB: {other / mine:.1f} times as much")


def draw(path: Path, size: int, sigma: float) -> None:
    """Store an object."""
    landscape, seeds, mask = an_object(size, sigma)
    np.savez(path, landscape=landscape, seeds=seeds, mask=mask)


def measure(path: Path, kind: str, turns: int) -> None:
    """Print the times of a stored object."""
    with np.load(path) as stored:
        landscape, seeds, mask = arrays = stored["landscape"], stored["seeds"], stored["mask"]
    print(f"{kind}: {mask.sum()} voxels in a box of {mask.size}, {np.count_nonzero(seeds)} in {seeds.max()} seeds")
    flood(*arrays)  # compiles, or loads what was compiled
    times, same = [], True
    for _ in range(turns):
        start = time.perf_counter()
        ours = flood(landscape, seeds, mask)
        between = time.perf_counter()
        theirs = of_scikit_image(landscape, seeds, mask)
        times.append((between - start, time.perf_counter() - between))
        same &= np.array_equal(ours, theirs)
    seconds, of_skimage = np.median(times, axis=0)
    ratio = np.median([theirs / ours for ours, theirs in times])
    print(f"  {seconds:.3f} s, scikit-image {of_skimage:.3f} s: {ratio:.1f} times as long")
    print("  identical" if same else "  NOT identical", flush=True)


def an_object(size: int, sigma: float) -> Arrays:
    """The largest component of smoothed noise: a landscape, seeds in its lowest parts, and the mask."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((size,) * 3, "f4"), sigma)
    noise -= noise.min()
    foreground = np.clip(noise * (1.6 / noise.max()), 0, 1)
    mask = cc3d.largest_k((foreground > 0.6).view("u1"), k=1, connectivity=26) > 0
    seeds = cc3d.connected_components(((foreground > 0.9) & mask).view("u1"), connectivity=26)
    return (255 - np.rint(foreground * 255)).astype("u1"), seeds.astype("i4"), mask


def of_scikit_image(landscape: NDArray[np.uint8], seeds: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Labels of scikit-image."""
    labels: NDArray[Any] = watershed(landscape.astype("f8"), seeds, mask=mask)
    return labels


METHODS: dict[str, Callable[..., Any]] = {"flood": flood, "scikit-image": of_scikit_image}


def peak(name: str, path: Path) -> float:
    """Peak MB of a process that floods once, above what it held before."""
    command = [sys.executable, __file__, "--flood", name, str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_here(method: Callable[..., Any], path: Path) -> float:
    """Peak MB of this process while it floods once, above what it held before."""
    method(np.zeros((1, 1, 2), "u1"), np.array([[[1, 0]]], "i4"), np.ones((1, 1, 2), bool))  # compiled, imported
    with np.load(path) as stored:
        arrays = stored["landscape"], stored["seeds"], stored["mask"]
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak begins anew
    before = held("VmRSS")
    method(*arrays)
    return held("VmHWM") - before


def held(which: str) -> float:
    """MB of resident memory, by the name that Linux gives it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return int(lines[which].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
