"""Synthetic tissue as an electron microscope would show it, with its truth; everything from one seed.

Lengths are nanometres: a coarser voxel size shows more and smaller mitochondria in as many voxels.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from mitocore.builtin.mitochondria import Room, Tube
from mitocore.errors import ConfigError
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape

Floats = NDArray[np.float32]

_CELL = 1000.0  # distance of neighbouring cells
_COARSEST = 64.0  # edge of a voxel
_PIECE = 50.0  # radius of the smallest piece that counts of a mitochondrion which others cut in pieces
_TILE: Shape = (16, 32, 32)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """A synthetic volume and its truth, all (z, y, x).

    `raw` is uint8; `instances` uint64, ids of mitochondria from 1, each in one piece; `semantic` uint16, 1 in
    mitochondria; `boundary` bool, the voxels of a mitochondrion that have a neighbour (across a face) outside it.
    """

    raw: NDArray[np.uint8]
    instances: NDArray[np.uint64]
    semantic: NDArray[np.uint16]
    boundary: NDArray[np.bool_]


def cells(
    shape: Shape = (64, 256, 256),
    seed: int = 0,
    *,
    voxel_size: VoxelSize | None = None,
    strings: float = 0.0,
    tangles: float = 0.0,
) -> Cells:
    """Cells with mitochondria, some of which touch; vesicles, membranes and dark bodies are there to distract.

    Two kinds are hard to tell apart from others, and frequent in neurons (Wei et al. 2020, MitoEM): mitochondria on a
    string, and tangles. A share of each can be asked for.

    Parameters
    ----------
    shape
        Voxels (z, y, x).
    seed
        Equal seeds give equal volumes.
    voxel_size
        8 nm along each axis by default, 64 nm at most; unequal edges give sections.
    strings
        Share of the places with a mitochondrion on a string: swellings joined by bridges a few voxels wide, one object.
    tangles
        Share of the places with a tangle: long bent mitochondria pressed against each other, an object each.

    Raises
    ------
    ConfigError
        If a voxel is too large to show a mitochondrion, or shares are negative or more than 1 together.

    >>> tissue = cells((8, 32, 32), seed=1)
    >>> tissue.raw.shape, str(tissue.raw.dtype), bool((tissue.semantic > 0).any())
    ((8, 32, 32), 'uint8', True)
    """
    size = voxel_size or VoxelSize(8.0, 8.0, 8.0)
    if max(size.edges) > _COARSEST:
        hint = f"voxel_size of at most {_COARSEST:g} nm"
        raise ConfigError(
            f"voxels of {size} are too large to show a mitochondrion", where="synthetic tissue", hint=hint
        )
    if min(strings, tangles) < 0 or strings + tangles > 1:
        raise ConfigError(
            f"strings = {strings:g} and tangles = {tangles:g} are no shares of one whole",
            where="synthetic tissue",
            hint="both at least 0, together at most 1",
        )
    return _Tissue(shape, size, np.random.default_rng(seed), strings, tangles).made()


class _Tissue:
    def __init__(
        self, shape: Shape, voxel_size: VoxelSize, rng: np.random.Generator, strings: float, tangles: float
    ) -> None:
        self.shape, self.rng, self.strings, self.tangles = shape, rng, strings, tangles
        self.edges = np.array(voxel_size.edges)
        self.extent = self.edges * shape
        self.noise = {nm: self._noise(nm) for nm in (40.0, 90.0, 250.0, 700.0)}
        apart = _CELL * (1 + strings + tangles)  # long mitochondria and many in one place need room
        low, high = -apart * np.ones(3), self.extent + apart
        number = max(2, round(float(np.prod(high - low)) / apart**3))
        self.centres = rng.uniform(low, high, (number, 3))

    def made(self) -> Cells:
        owner, wall, grey = self._cytoplasm()
        self.room = Room(owner, wall, self.edges, self.rng)
        tubes = self.room.filled(self.strings, self.tangles)
        nearest = np.zeros(self.shape, np.float32)  # nm from the surface of the mitochondrion a voxel is deepest in
        instances = np.zeros(self.shape, np.int64)
        for number, tube in enumerate(tubes, start=1):
            self._draw(tube, number, grey, nearest, instances)
        self._distract(grey, instances)
        smallest = 4 / 3 * np.pi * _PIECE**3 / float(np.prod(self.edges))
        final = _separated(_renumbered(instances, len(tubes)), smallest)
        return Cells(self._photographed(grey), final, (final > 0).astype(np.uint16), _boundary(final))

    def _noise(self, scale: float) -> Floats:
        """Smooth noise of mean 0 and deviation 1, about `scale` nm from hill to hill: a cubic B-spline."""
        grid = [int(np.ceil(n * e / scale)) + 4 for n, e in zip(self.shape, self.edges, strict=True)]
        values = self.rng.standard_normal(grid, dtype=np.float32)
        for axis, (n, edge) in enumerate(zip(self.shape, self.edges, strict=True)):
            at, t = np.divmod(np.arange(n) * edge / scale, 1)
            weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
            wide = [-1 if a == axis else 1 for a in range(3)]
            coarse, values = values, np.zeros((), np.float32)
            for k, weight in enumerate(weights):
                values = values + coarse.take(at.astype(int) + k, axis) * (weight / 6).astype(np.float32).reshape(wide)
        return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6), np.float32)

    def _axes(self, box: Roi) -> list[Floats]:
        """Coordinates (z, y, x) of the voxels in nm, to be broadcast."""
        starts = zip(box.start, box.stop, self.edges, strict=True)
        z, y, x = ((np.arange(a, b, dtype=np.float32) + np.float32(0.5)) * np.float32(e) for a, b, e in starts)
        return [z[:, None, None], y[None, :, None], x[None, None, :]]

    def _cytoplasm(self) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Owner of each voxel, nm to the border of its cell, and grey level.

        A voxel belongs to the nearest centre, through space bent by noise.
        """
        owner, wall = np.zeros(self.shape, np.int64), np.zeros(self.shape, np.float32)
        bend = (60 * self.noise[250.0], 90 * self.noise[700.0], -60 * self.noise[250.0])
        for corner in product(*(range(0, n, step) for n, step in zip(self.shape, _TILE, strict=True))):
            tile = Roi(as_shape(corner), as_shape(np.add(corner, _TILE))).clip(Roi.whole(self.shape))
            bent = [axis + b[tile.slices] for axis, b in zip(self._axes(tile), bend, strict=True)]
            low, high = (np.array([f(axis) for axis in bent]) for f in (np.min, np.max))
            nearest = np.linalg.norm(np.clip(self.centres, low, high) - self.centres, axis=1)
            near = np.flatnonzero(nearest <= np.sort(nearest)[1] + np.linalg.norm(high - low))  # no other is 1st or 2nd
            first = np.full(tile.shape, np.inf, np.float32)
            second, mine = first.copy(), owner[tile.slices]
            for k in near:
                apart = _square([axis - np.float32(c) for axis, c in zip(bent, self.centres[k], strict=True)])
                mine[apart < first] = k
                second = np.minimum(second, np.maximum(first, apart))
                first = np.minimum(first, apart)
            wall[tile.slices] = (np.sqrt(second) - np.sqrt(first)) / 2
        tone = self.rng.uniform(-9, 9, len(self.centres)).astype(np.float32)
        grey = 156 + tone[owner] + 5 * self.noise[90.0] + 4 * self.noise[40.0]
        grey -= 22 * np.maximum(self.noise[40.0] + 0.4 * self.noise[250.0] - 1.3, 0)  # ribosomes, filaments
        sheet = self.noise[250.0] + 0.3 * self.noise[90.0]  # endoplasmic reticulum
        grey -= 40 * np.exp(-np.square(sheet / 0.08)) * (self.noise[700.0] > 0.3) * (wall > 40)
        grey += 10 * np.exp(-np.square(wall / 4)) - 78 * np.exp(-np.square((wall - 9) / 8))  # cleft and membranes
        return owner, wall, np.asarray(grey, np.float32)

    def _box(self, low: NDArray[Any], high: NDArray[Any]) -> Roi:
        """The voxels of a box in nm; empty if it lies outside the volume."""
        start, stop = (np.clip(nm / self.edges, 0, self.shape) for nm in (low, high))
        return Roi(as_shape(np.floor(start)), as_shape(np.maximum(np.ceil(stop), np.floor(start))))

    def _draw(self, tube: Tube, number: int, grey: Floats, nearest: Floats, instances: NDArray[np.int64]) -> None:
        """Paint one mitochondrion where it is deeper than those before it."""
        reach = tube.radii[:, None] + 40  # farther from its axis, nothing is this mitochondrion
        box = self._box((tube.points - reach).min(axis=0), (tube.points + reach).max(axis=0))
        if not box.voxels:
            return
        here = box.slices
        surface = np.full(box.shape, np.inf, np.float32)
        along = np.zeros(box.shape, np.float32)
        step = float(np.linalg.norm(np.diff(tube.points, axis=0), axis=1).mean())
        for k, (point, radius) in enumerate(zip(tube.points, tube.radii, strict=True)):
            near = self._box(point - reach[k], point + reach[k])
            part = near.within(box)
            axes = zip(self._axes(near), point, strict=True)
            apart = np.sqrt(_square([axis - np.float32(p) for axis, p in axes])) - np.float32(radius)
            nearer = apart < surface[part]
            surface[part][nearer] = apart[nearer]
            along[part][nearer] = k * step
        surface += tube.rough * (8 * self.noise[250.0][here] + 3 * self.noise[90.0][here])
        mine = surface < nearest[here]
        grey[here][mine] = self._mitochondrion(surface, along, box, tube)[mine]
        nearest[here][mine] = surface[mine]
        instances[here][mine] = number

    def _mitochondrion(self, surface: Floats, along: Floats, box: Roi, tube: Tube) -> Floats:
        """Matrix, cristae and the two membranes, at `surface` nm (negative) from the outer one."""
        here = box.slices
        side = self.rng.standard_normal(3)
        side /= np.linalg.norm(side)
        z, y, x = (axis * np.float32(s) for axis, s in zip(self._axes(box), side, strict=True))
        across = z + y + x - np.float32(tube.points.mean(axis=0) @ side)
        period, slant = self.rng.uniform(46, 66), self.rng.uniform(0.4, 1.3)
        bent = along * (1 - slant / 2) + across * slant + 12 * self.noise[250.0][here] + 7 * self.noise[90.0][here]
        sheet = np.floor(bent / period)
        centred = bent - (sheet + 0.5) * period
        # A crista enters from one wall and ends somewhere inside, each at another depth.
        ends = np.sin(sheet * 2.4 + self.rng.uniform(0, 6.3))
        depth = np.sign(ends) * across / np.float32(tube.radii.mean()) + 0.3 + np.abs(ends)
        there = 1 / (1 + np.exp(np.minimum(-9 * depth, 88)))  # exp(89) is more than a float32 holds
        grey = 121 + self.rng.uniform(-8, 8) + 5 * self.noise[40.0][here] + 3 * self.noise[90.0][here]
        grey = grey - 44 * np.exp(-np.square(centred / 10)) * there * (surface < -20)
        grey = grey + 10 * np.exp(-np.square((surface + 14) / 4))
        return np.asarray(
            grey - 66 * np.exp(-np.square((surface + 4) / 7)) - 40 * np.exp(-np.square((surface + 22) / 6)), np.float32
        )

    def _distract(self, grey: Floats, instances: NDArray[np.int64]) -> None:
        """Clusters of vesicles, and dark bodies that are no mitochondria, between them."""
        cubic_microns = float(np.prod(self.extent)) / 1e9
        for _ in range(self.rng.poisson(6 * cubic_microns)):
            heart = self.rng.uniform(0, 1, 3) * self.extent
            for centre in self.rng.normal(heart, 170, (int(self.rng.integers(30, 160)), 3)):
                self._ball(grey, instances, Tube(centre[None], self.rng.uniform(16, 25, 1)), lumen=True)
        for _ in range(1 + self.rng.poisson(2 * cubic_microns)):
            centre = self.rng.uniform(0, 1, 3) * self.extent
            self._ball(grey, instances, Tube(centre[None], self.rng.uniform(50, 120, 1)), lumen=False)

    def _ball(self, grey: Floats, instances: NDArray[np.int64], ball: Tube, *, lumen: bool) -> None:
        (centre,), (radius,) = ball.points, ball.radii
        box = self._box(centre - radius - 30, centre + radius + 30)
        if not self.room.clear(ball, space=20) or instances[box.slices].any():
            return
        here, axes = box.slices, zip(self._axes(box), centre, strict=True)
        apart = np.sqrt(_square([axis - np.float32(c) for axis, c in axes])) - np.float32(radius)
        if lumen:
            grey[here] = np.where(apart < -6, 165 + 3 * self.noise[40.0][here], grey[here])
        else:
            apart += 14 * self.noise[250.0][here]
            grey[here] = np.where(apart < 0, 92 + 9 * self.noise[40.0][here] + 9 * self.noise[90.0][here], grey[here])
        grey[here] -= 58 * np.exp(-np.square(apart / 7))

    def _photographed(self, grey: Floats) -> NDArray[np.uint8]:
        """Blur, uneven brightness of sections, noise."""
        for axis in range(3):
            grey = _blurred(grey, axis, 0.16 if self.edges[axis] <= 1.5 * self.edges.min() else 0.0)
        grey += self.rng.normal(0, 1.2, (len(grey), 1, 1)).astype(np.float32) + 3 * self.noise[700.0]
        noise = self.rng.standard_normal(grey.shape, dtype=np.float32)
        fine = self.rng.standard_normal(grey.shape, dtype=np.float32)
        grey += 7 * fine + 9 * _blurred(_blurred(noise, 1, 0.25), 2, 0.25)
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _square(vector: list[Floats]) -> Floats:
    """Squared length."""
    z, y, x = vector
    return np.square(z) + np.square(y) + np.square(x)


def _renumbered(ids: NDArray[np.int64], largest: int) -> NDArray[np.uint64]:
    """Ids without gaps: what lies outside the volume or is covered by others has no voxel."""
    seen = np.bincount(ids.reshape(-1), minlength=largest + 1) > 0
    seen[0] = False
    return np.where(seen, np.cumsum(seen), 0).astype(np.uint64)[ids]


def _separated(ids: NDArray[np.uint64], smallest: float) -> NDArray[np.uint64]:
    """Every id in one piece: the largest keeps it, the others get new ones; what is smaller counts as background."""
    pieces = cc3d.connected_components(ids.astype(np.uint32), connectivity=26, out_dtype=np.uint32)
    sizes = np.bincount(pieces.reshape(-1))
    if len(sizes) - 1 == int(ids.max()):
        return ids
    owner = np.zeros(len(sizes), np.uint64)
    owner[pieces] = ids
    order = np.lexsort((np.arange(len(sizes)), -sizes, owner))
    _, largest = np.unique(owner[order], return_index=True)
    becomes = owner.copy()
    others = np.setdiff1d(np.arange(1, len(sizes)), order[largest])
    fresh = sizes[others] >= smallest
    becomes[others] = np.where(fresh, ids.max() + np.cumsum(fresh).astype(np.uint64), 0)
    becomes[0] = 0
    return np.asarray(becomes[pieces], np.uint64)


def _blurred(values: Floats, axis: int, share: float) -> Floats:
    """Each voxel gives `share` to either neighbour along `axis`; faces are mirrored."""
    lines = np.moveaxis(values, axis, 0)
    before, after = np.concatenate([lines[:1], lines[:-1]]), np.concatenate([lines[1:], lines[-1:]])
    return np.moveaxis(np.float32(1 - 2 * share) * lines + np.float32(share) * (before + after), 0, axis)


def _boundary(instances: NDArray[np.uint64]) -> NDArray[np.bool_]:
    edge = np.zeros(instances.shape, bool)
    for axis in range(3):
        lines, marks = np.moveaxis(instances, axis, 0), np.moveaxis(edge, axis, 0)
        differs = lines[1:] != lines[:-1]
        marks[1:] |= differs
        marks[:-1] |= differs
    return edge & (instances > 0)
