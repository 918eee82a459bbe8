"""What a network would predict of a truth: the values of a target, out of focus and uncertain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mitocore.geometry import VoxelSize
from mitocore.interfaces import Labels, Target
from mitocore.specs import Kind

_CERTAIN = 6.0  # logit of a voxel far from any border
_GRAIN = 1.0  # voxels from hill to hill of the noise, as a standard deviation


@dataclass(frozen=True)
class Flaws:
    """How far a prediction is from its target.

    `blur` is the standard deviation in nm of what is out of focus; `noise` that of logits, 6 being certainty, and of
    tenths of what is no probability.
    """

    blur: float = 10.0
    noise: float = 1.5
    seed: int = 0


def predicted(target: Target, labels: Labels, voxel_size: VoxelSize, flaws: Flaws | None = None) -> NDArray[np.float32]:
    """Values (c, z, y, x) of a target as a network predicts them; without flaws, those of the target itself.

    Equal seeds give equal values, and another target other noise.

    >>> from mitocore.builtin.targets.foreground import Foreground
    >>> tube = np.zeros((1, 9, 9), np.uint64)
    >>> tube[:, 3:6] = 1
    >>> seen = predicted(Foreground(), {"instances": tube}, VoxelSize(8, 8, 8), Flaws(blur=8, noise=0))
    >>> [round(100 * p) for p in seen[0, 0, :, 4].tolist()]
    [0, 0, 8, 91, 99, 91, 8, 0, 0]
    """
    values = target.encode(labels, voxel_size)
    if flaws is None:
        return values
    rng = np.random.default_rng([flaws.seed, *type(target).__name__.encode()])
    grain = gaussian_filter(rng.standard_normal(values.shape, dtype=np.float32), (0, *(_GRAIN,) * 3))
    noise = flaws.noise * grain / max(float(grain.std()), 1e-6)
    blurred = gaussian_filter(values, (0, *(flaws.blur / edge for edge in voxel_size.edges)))
    if target.gives().kind in (Kind.PROBABILITY, Kind.AFFINITY):
        return np.asarray(1 / (1 + np.exp(-_CERTAIN * (2 * blurred - 1) - noise)), np.float32)
    return np.asarray(np.clip(blurred + noise / 10, values.min(), values.max()), np.float32)
