"""The median of a mask in a box of 7 x 7 x 7 voxels: by counting, and by `scipy.ndimage.median_filter`.

The two take turns on the same array; the ratio is the median of the turns. What they give is compared bit for bit.
"""

import argparse
import time

import numpy as np
from scipy import ndimage

from mitocore_rsunet.median import majority


def main() -> None:
    """Measure a few turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="edge of the mask, voxels (default 128)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is run (default 3)")
    options = parser.parse_args()
    shape = (options.size,) * 3
    mask = ndimage.uniform_filter(np.random.default_rng(0).random(shape, "f4"), 3) > 0.5
    times = []
    for _ in range(options.turns):
        start = time.perf_counter()
        ours = majority(mask, (7, 7, 7))
        between = time.perf_counter()
        theirs = ndimage.median_filter(mask.view("u1"), (7, 7, 7), mode="reflect")
        times.append((between - start, time.perf_counter() - between))
    seconds, of_scipy = np.median(times, axis=0)
    ratio = np.median([theirs / ours for ours, theirs in times])
    print(f"{options.size}^3 voxels: {seconds:.3f} s, scipy {of_scipy:.3f} s: {ratio:.0f} times as long")
    print("identical" if np.array_equal(ours, theirs) else "NOT identical")


if __name__ == "__main__":
    main()
