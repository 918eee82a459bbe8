"""Synthetic cryo-electron tomograms with their truth: membranes, the missing wedge, noise; everything from one seed.

A tomogram is reconstructed from projections at tilts of about ±60°: of its Fourier transform, a wedge along the beam is
missing, so that membranes perpendicular to the beam fade and all else is stretched along it (Lucic, Förster and
Baumeister 2005, Annual Review of Biochemistry 74). Noise is as strong as in single tilt series of vitrified cells:
it exceeds the signal of a voxel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftfreq, irfftn, rfftfreq, rfftn
from scipy.ndimage import gaussian_filter, label

from mitocore.errors import ConfigError
from mitocore.geometry import Shape, VoxelSize

Floats = NDArray[np.float32]

_LEAFLETS = 4.0  # nm between the dense head groups of the two leaflets
_LEAFLET = 1.1  # nm, their half width
_THICKNESS = 7.0  # nm of a membrane with what is bound to it: the truth
_RADIUS = (14.0, 42.0)  # nm, of vesicles
_SPACE = 9.0  # nm between two membranes
_DENSITY = 0.55  # share of the volume that vesicles are tried to fill


@dataclass(frozen=True, slots=True, eq=False)
class Tomogram:
    """A synthetic tomogram and its truth, all (z, y, x); the beam runs along z, the sample is tilted about y.

    `raw` is float32, dark where matter is dense; `membrane` bool; `instances` uint64, ids of membranes from 1, each in
    one piece.
    """

    raw: Floats
    membrane: NDArray[np.bool_]
    instances: NDArray[np.uint64]
    voxel_size: VoxelSize


def tomogram(
    shape: Shape = (64, 128, 128),
    seed: int = 0,
    *,
    voxel_size: VoxelSize | None = None,
    snr: float = 0.15,
    tilt: float = 60.0,
) -> Tomogram:
    """Vesicles and sheets of lipid bilayer among proteins, in vitreous ice, as a tomogram shows them.

    Parameters
    ----------
    shape
        Voxels (z, y, x).
    seed
        Equal seeds give equal volumes.
    voxel_size
        1.33 nm along each axis by default, 4 nm at most.
    snr
        Variance of the signal over that of the noise.
    tilt
        Largest tilt, degrees; 90 leaves no wedge out.

    Raises
    ------
    ConfigError
        If a voxel is too large to show a membrane.

    >>> small = tomogram((16, 32, 32), seed=1)
    >>> small.raw.shape, str(small.raw.dtype), bool((small.membrane == (small.instances > 0)).all())
    ((16, 32, 32), 'float32', True)
    """
    size = voxel_size or VoxelSize(1.33, 1.33, 1.33)
    if max(size.edges) > 4.0:
        problem = f"voxels of {size} are too large to show a membrane"
        raise ConfigError(problem, where="synthetic tomogram", hint="voxel_size of at most 4 nm")
    rng, edges = np.random.default_rng(seed), np.array(size.edges)
    distance, nearest = _membranes(shape, edges, rng)
    membrane = distance <= _THICKNESS / 2
    instances = _in_one_piece(np.where(membrane, nearest, 0))
    density = _density(distance, nearest, edges, rng)
    signal = _without_wedge(density, edges, tilt)
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise = _without_wedge(gaussian_filter(noise, 0.6), edges, tilt)  # reconstructed from the same tilts
    noise *= signal.std() / max(float(noise.std()), 1e-6) / np.sqrt(snr)
    raw = -(signal + noise)  # dense is dark
    return Tomogram(np.asarray((raw - raw.mean()) / raw.std(), np.float32), instances > 0, instances, size)


def _membranes(shape: Shape, edges: NDArray[np.float64], rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """Distance of each voxel from the nearest middle of a membrane, nm, and the number of that membrane.

    Membranes are zero levels of functions: bent spheres (vesicles) and bent planes (sheets), placed apart.
    """
    extent = edges * shape
    centres = ((np.arange(n) + 0.5) * edge for n, edge in zip(shape, edges, strict=True))
    axes = np.meshgrid(*centres, indexing="ij", sparse=True)
    bend = 5 * _smooth(shape, 30 / edges, rng) + 2 * _smooth(shape, 12 / edges, rng)
    distance, nearest = np.full(shape, np.inf, np.float32), np.zeros(shape, np.int64)
    claimed = np.zeros(shape, bool)  # within reach of a membrane, or inside a vesicle
    wanted, number, failures = _DENSITY * float(claimed.size), 0, 0
    normal = rng.standard_normal(3) * (0.25, 1, 1)  # a sheet seen edge-on keeps its contrast
    normal /= np.linalg.norm(normal)
    middle = extent * rng.uniform(0.3, 0.7, 3)
    across = sum((axis - m) * n for axis, m, n in zip(axes, middle, normal, strict=True)) + 2 * bend
    gap = rng.uniform(18, 26)  # the two membranes of a flat cisterna
    for side in (-0.5, 0.5):
        number += 1
        _nearer(across + side * gap, edges, number, distance, nearest)
    claimed |= np.abs(across) <= gap / 2 + _SPACE
    coarse = (slice(None, None, 4),) * 3  # most places are taken: that is seen without computing every voxel
    while np.count_nonzero(claimed) < wanted and failures < 400:
        radius, centre = rng.uniform(*_RADIUS), rng.uniform(-0.1, 1.1, 3) * extent
        flat = 1 + rng.uniform(-0.15, 0.15, 3)
        few = [axis[tuple(slice(None, None, 4) if n > 1 else slice(None) for n in axis.shape)] for axis in axes]
        if (_apart(few, centre, flat)[claimed[coarse]] < radius).any():
            failures += 1
            continue
        apart = _apart(axes, centre, flat)
        surface = apart - radius + bend * min(1.0, radius / 30)
        taken = surface <= _SPACE
        if not taken.any() or (claimed & taken).any():
            failures += 1
            continue
        number += 1
        _nearer(surface, edges, number, distance, nearest)
        claimed |= taken
    return distance, nearest


def _apart(axes: Sequence[Any], centre: NDArray[np.float64], flat: NDArray[np.float64]) -> Any:
    """Distance of voxels from the centre of a flattened sphere."""
    return np.sqrt(sum(np.square((axis - c) * f) for axis, c, f in zip(axes, centre, flat, strict=True)))


def _nearer(
    level: Floats, edges: NDArray[np.float64], number: int, distance: Floats, nearest: NDArray[np.int64]
) -> None:
    """Enter the membrane where `level` is 0; its distance is the level over the slope."""
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(level, *edges)))
    apart = np.abs(level) / np.maximum(slope, 0.3)
    mine = apart < distance
    distance[mine] = apart[mine]
    nearest[mine] = number


def _density(
    distance: Floats, nearest: NDArray[np.int64], edges: NDArray[np.float64], rng: np.random.Generator
) -> Floats:
    """Two dense leaflets with a thinner core, proteins on and beside the membrane, and crowded solvent."""
    shape = (distance.shape[0], distance.shape[1], distance.shape[2])
    leaflet = np.exp(-np.square((distance - _LEAFLETS / 2) / _LEAFLET))
    strength = 1 + 0.15 * _smooth(shape, 10 / edges, rng)
    grains = np.zeros(shape, np.float32)
    count = int(distance.size * float(np.prod(edges)) / 1500)  # one complex per cube of 11 nm
    places = tuple(rng.integers(0, n, count) for n in shape)
    np.add.at(grains, places, rng.uniform(0.4, 1.6, count).astype(np.float32))
    sigma = 2.2 / edges
    proteins = gaussian_filter(grains, sigma) * np.float32((2 * np.pi) ** 1.5 * np.prod(sigma))
    away = distance > _THICKNESS / 2
    ribbon = np.exp(-np.square((distance - 7.5) / 2)) * np.maximum(_smooth(shape, 7 / edges, rng) - 0.6, 0)
    return np.asarray(strength * leaflet + 0.5 * proteins * away + 0.4 * ribbon * (nearest > 0), np.float32)


def _smooth(shape: Shape, sigma: NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """Smooth noise of mean 0 and deviation 1."""
    coarse = np.maximum(1, np.floor(sigma / 2)).astype(int)  # blurred where it costs little, then stretched
    small = rng.standard_normal([int(np.ceil(n / c)) + 1 for n, c in zip(shape, coarse, strict=True)])
    values = gaussian_filter(small, sigma / coarse, mode="reflect")
    for axis, (n, c) in enumerate(zip(shape, coarse, strict=True)):
        at, part = np.divmod(np.arange(n) / c, 1)
        wide = [-1 if a == axis else 1 for a in range(3)]
        low, high = values.take(at.astype(int), axis), values.take(at.astype(int) + 1, axis)
        values = low + (high - low) * part.reshape(wide)
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6), np.float32)


def _without_wedge(values: Floats, edges: NDArray[np.float64], tilt: float) -> Floats:
    """What tilts of up to ±`tilt` degrees about y tell: no frequency nearer to the beam, and no very high one.

    High frequencies are damped as by a detector and imperfect alignment, to one half at 3.5 nm.
    """
    z, y, x = values.shape
    fz, fy, fx = fftfreq(z, edges[0])[:, None, None], fftfreq(y, edges[1])[:, None], rfftfreq(x, edges[2])
    slope = np.tan(np.radians(min(tilt, 89.99)))
    seen = 1 / (1 + np.exp((np.abs(fz) - slope * np.abs(fx)) * 4 * z * edges[0]))
    seen[0, :, 0] = 1
    if tilt >= 90:
        seen = np.ones_like(seen)
    damped = np.exp(-np.log(2) * (np.square(fz) + np.square(fy) + np.square(fx)) * 3.5**2)
    return np.asarray(irfftn(rfftn(values) * (seen * damped), values.shape), np.float32)


def _in_one_piece(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Each piece with an id of its own, numbered in raster order; crumbs of a membrane at the faces are none."""
    final, count = np.zeros(ids.shape, np.uint64), 0
    for number in range(1, int(ids.max()) + 1):
        pieces, found = label(ids == number, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.reshape(-1), minlength=found + 1)
        for piece in range(1, found + 1):
            if sizes[piece] >= 60:
                count += 1
                final[pieces == piece] = count
    return final
