"""How well each decoder finds mitochondria that are hard to tell apart, from the same predictions.

    python benchmarks/decoders.py [--shape 32 104 104] [--voxel-size 16 12 12] [--seeds 2 3] [--decoders NAME …]

Truth is synthetic tissue: plain, mitochondria on a string, tangles, and both. Predictions are its targets, blurred and
noisy; no network is involved. Of each decoder and case: F1 of objects at an IoU of 0.5, and the adapted Rand error.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.metrics import AdaptedRand, Instance
from mitocore.config.components import build
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape
from mitocore.interfaces import Block
from mitocore.testing import cells
from mitocore.testing.one_step import Example, OneStep
from mitocore.testing.predictions import Flaws, predicted
from mitocore.volumes import installed

CASES: Mapping[str, Mapping[str, float]] = {
    "plain": {},
    "string": {"strings": 1.0},
    "tangle": {"tangles": 1.0},
    "string+tangle": {"strings": 0.6, "tangles": 0.4},
}
NEAR: Sequence[Shape] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
FAR: Sequence[Shape] = ((-3, 0, 0), (0, -6, 0), (0, 0, -6), (0, -6, -6), (0, -6, 6))
HEADS: Mapping[str, Mapping[str, Any]] = {
    "foreground": {"target": "foreground"},
    "boundary": {"target": "boundary", "side": "contour", "width": 1},
    "distance": {"target": "signed_distance", "inner": "60 nm", "outer": "60 nm", "limit": "200 nm"},
    "near": {"target": "affinity", "offsets": NEAR, "erode": 1},  # gaps, as LABEL_EROSION makes them
    "far": {"target": "affinity", "offsets": [*NEAR, *FAR], "erode": 1},
}
SMALLEST = 64
DECODERS: Mapping[str, tuple[Mapping[str, str], Mapping[str, Any]]] = {
    "connected_components": ({"mask": "foreground"}, {"connectivity": 6}),
    "binary_watershed": ({"foreground": "foreground"}, {"seed_threshold": 0.98, "threshold": 0.5}),
    "bc_connected": ({"foreground": "foreground", "boundary": "boundary"}, {"seed_threshold": 0.5}),
    "bc_watershed": (
        {"foreground": "foreground", "boundary": "boundary"},
        {"seed_threshold": 0.85, "boundary_threshold": 0.6, "threshold": 0.5},
    ),
    "bcd_watershed": (
        {"foreground": "foreground", "boundary": "boundary", "distance": "distance"},
        {"seed_threshold": 0.85, "boundary_threshold": 0.6, "threshold": 0.5, "seed_distance": 0.3},
    ),
    "distance_watershed": ({"distance": "distance"}, {"seed_distance": 0.5, "min_seed_size": 32}),
    "affinity_components": ({"affinities": "near"}, {"threshold": 0.6}),
    "mutex_watershed": ({"affinities": "far"}, {}),
    "affinity_agglomeration": ({"affinities": "near"}, {"threshold": 0.4}),
}


def heads(instances: NDArray[np.uint64], voxel_size: VoxelSize, flaws: Flaws | None) -> dict[str, Any]:
    """Prediction (c, z, y, x) and what it holds, by head."""
    made = {}
    for name, options in HEADS.items():
        target: Any = build("target", dict(options), installed())[0]
        made[name] = (predicted(target, {"instances": instances}, voxel_size, flaws), target.gives())
    return made


def decoded(name: str, predictions: Mapping[str, Any], voxel_size: VoxelSize) -> NDArray[np.uint64]:
    """Instances (z, y, x) that a decoder finds."""
    inputs, options = DECODERS[name]
    step: Any = build("postprocessor", {"postprocessor": name, "min_size": SMALLEST, **options}, installed())[0]
    arrays = {key: predictions[head][0] for key, head in inputs.items()}
    example = Example(arrays, {key: predictions[head][1] for key, head in inputs.items()}, voxel_size)
    with tempfile.TemporaryDirectory() as folder:
        found: NDArray[np.uint64] = OneStep(step, example, example.volume.shape).run(Path(folder))["instances"][0]
    return found


def scores(found: NDArray[np.uint64], truth: NDArray[np.uint64]) -> tuple[float, float]:
    """F1 at an IoU of 0.5, and the adapted Rand error."""
    box = Roi.whole(as_shape(truth.shape))
    block = Block(box, box, {"predicted": found[None], "truth": truth[None]}, box, None)
    f1, rand = Instance(), AdaptedRand()
    return f1.total(f1.partial(block))["f1_50"], rand.total(rand.partial(block))["are"]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 104, 104), help="voxels (z, y, x)")
    parser.add_argument("--voxel-size", type=float, nargs=3, default=(16, 12, 12), help="nm (z, y, x)")
    parser.add_argument("--seeds", type=int, nargs="+", default=(2, 3), help="volumes of each case; scores are means")
    parser.add_argument("--decoders", nargs="+", choices=DECODERS, default=tuple(DECODERS), help="which to score")
    arguments = parser.parse_args()
    voxel_size, shape = VoxelSize(*arguments.voxel_size), as_shape(arguments.shape)
    names: list[str] = arguments.decoders
    rows: dict[str, dict[str, list[tuple[float, float]]]] = {name: {case: [] for case in CASES} for name in names}
    objects = dict.fromkeys(CASES, 0)
    took = dict.fromkeys(names, 0.0)
    for case, shares in CASES.items():
        for seed in arguments.seeds:
            truth = cells(shape, seed, voxel_size=voxel_size, **shares).instances
            objects[case] += int(truth.max())
            predictions = heads(truth, voxel_size, Flaws(seed=seed))
            for name in names:
                begun = time.perf_counter()
                rows[name][case].append(scores(decoded(name, predictions, voxel_size), truth))
                took[name] += time.perf_counter() - begun
    print(f"{'F1@0.5 / adapted Rand error':28}" + "".join(f"{case:>18}" for case in CASES))
    print(f"{'objects':28}" + "".join(f"{number:18}" for number in objects.values()))
    for name in names:
        means = (np.mean(rows[name][case], axis=0) for case in CASES)
        print(f"{name:28}" + "".join(f"{f1:11.3f} /{error:5.3f}" for f1, error in means) + f"{took[name]:8.1f} s")


if __name__ == "__main__":
    main()
