"""Where the mitochondria of synthetic tissue lie and what form they have: alone, in pairs, on a string, in tangles.

Lengths are nanometres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Form = Literal["single", "neighbour", "string", "tangle"]

_RADIUS = (95.0, 175.0)
_DENSITY = 0.16  # share of the volume that mitochondria are tried to fill
_TOUCHING = 0.5  # share of the single mitochondria that get a neighbour of their own
_PRESSED = (-14.0, 6.0)  # between the surfaces of those that touch
_SPACE = 24.0  # between mitochondria that do not touch
_PATIENCE = 800  # failures in a row after which a volume counts as full
_STEP = 30.0  # from point to point along a mitochondrion

_SWELLING = (90.0, 140.0)  # radius of the thick parts of a mitochondrion on a string
_APART = (450.0, 650.0)  # distance of its thick parts
_BRIDGE = 26.0  # radius between them, where voxels are small enough to show it

_TUBES: dict[Form, tuple[tuple[float, float], tuple[float, float]]] = {  # length and radius
    "single": ((200.0, 1200.0), _RADIUS),
    "neighbour": ((200.0, 500.0), _RADIUS),
    "tangle": ((500.0, 1100.0), (55.0, 90.0)),
}
_MEMBERS = 7  # of a tangle, at most


@dataclass(frozen=True, slots=True, eq=False)
class Tube:
    """A mitochondrion: points along a bent axis and the radius at each; `rough` scales the bumps of its surface."""

    points: NDArray[np.float64]
    radii: NDArray[np.float64]
    rough: float = 1.0

    def distance(self, other: "Tube") -> float:
        """Smallest distance of the two surfaces."""
        apart = np.linalg.norm(self.points[:, None] - other.points[None], axis=-1)
        return float((apart - self.radii[:, None] - other.radii[None]).min())


class Room:
    """Cells that mitochondria are put into.

    Parameters
    ----------
    owner, wall
        The cell of each voxel, and its distance to the border of that cell (z, y, x).
    edges
        Of a voxel.
    rng
        Draws places and forms.
    """

    def __init__(
        self,
        owner: NDArray[np.int64],
        wall: NDArray[np.float32],
        edges: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        self.owner, self.wall, self.edges, self.rng = owner, wall, edges, rng
        self.extent = edges * owner.shape

    def clear(self, tube: Tube, space: float = 0.0) -> bool:
        """Whether the tube lies inside one cell, as far as it lies in the volume."""
        at = np.floor(tube.points / self.edges).astype(int)
        seen = ((at >= 0) & (at < self.owner.shape)).all(axis=1)
        where = tuple(at[seen].T)
        owners = self.owner[where]
        one = len(owners) > 0 and bool((owners == owners[0]).all())
        return one and bool((self.wall[where] > 0.9 * tube.radii[seen] + space).all())

    def filled(self, strings: float, tangles: float) -> list[Tube]:
        """Mitochondria until the room is full; `strings` and `tangles` are shares of the places."""
        tubes: list[Tube] = []
        wanted = _DENSITY * float(np.prod(self.extent))
        form, failures = self._form(strings, tangles), 0
        while wanted > 0 and failures < _PATIENCE:
            failures += 1
            tube = self._drawn(form)
            if self._shown(tube, form) and self._placeable(tube) and all(tube.distance(t) > _SPACE for t in tubes):
                group = [tube, *self._company(form, tube, tubes)]
                tubes += group
                wanted -= sum(map(self._volume, group))
                form, failures = self._form(strings, tangles), 0
        if not tubes:  # a volume smaller than a mitochondrion shows a part of one
            tubes.append(Tube(np.linspace(self.extent * 0.3, self.extent * 0.5, 8), np.full(8, self.extent.max() / 3)))
        return tubes

    def _form(self, strings: float, tangles: float) -> Form:
        if not strings + tangles:
            return "single"  # without a draw: what a seed gives does not change with forms that nobody asks for
        draw = self.rng.random()
        return "string" if draw < strings else "tangle" if draw < strings + tangles else "single"

    def _volume(self, tube: Tube) -> float:
        """Cubic nm of the tube inside the volume, roughly."""
        inside = ((tube.points > 0) & (tube.points < self.extent)).all(axis=1)
        length = float(np.linalg.norm(np.diff(tube.points, axis=0), axis=1).sum())
        return float(inside.mean() * np.pi * np.square(tube.radii).mean() * (length + tube.radii.mean()))

    def _drawn(self, form: Form) -> Tube:
        if form == "string":
            return self._string()
        length = self.rng.uniform(*_TUBES[form][0])
        return self._tube(form, length, self._place())

    def _place(self) -> NDArray[np.float64]:
        return self.rng.uniform(-0.1, 1.1, 3) * self.extent

    def _tube(self, form: Form, length: float, middle: NDArray[np.float64]) -> Tube:
        points, t = self._axis(length, middle, _STEP)
        wave = 1 + 0.14 * np.sin(self.rng.uniform(0, 6.3) + t * self.rng.uniform(3, 9))
        return Tube(points, self.rng.uniform(*_TUBES[form][1]) * wave)

    def _axis(
        self, length: float, middle: NDArray[np.float64], step: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points of a bent line, and where on it they lie, from -0.5 to 0.5."""
        along, side = self.rng.standard_normal((2, 3))
        along /= np.linalg.norm(along)
        side -= along * (side @ along)
        side *= self.rng.uniform(0, 0.35) * length / max(float(np.linalg.norm(side)), 1e-9)
        t = np.linspace(-0.5, 0.5, 8 + int(length / step))
        return middle + np.outer(t, along * length) + np.outer(0.5 - 4 * t**2, side), t

    def _string(self) -> Tube:
        """Swellings joined by bridges that no voxel is too large to show; smooth, so that bumps do not cut them."""
        gaps, bridge = int(self.rng.integers(1, 4)), max(_BRIDGE, 1.5 * float(self.edges.max()))
        points, t = self._axis(gaps * self.rng.uniform(*_APART), self._place(), bridge / 2)
        swollen = np.clip((np.cos(2 * np.pi * gaps * (t + 0.5)) + 0.2) / 1.2, 0, 1)
        return Tube(points, bridge + max(self.rng.uniform(*_SWELLING) - bridge, 0) * swollen, rough=0.25)

    def _shown(self, tube: Tube, form: Form) -> bool:
        """Whether the volume shows what the form is: a bridge between swellings, or most of a member of a tangle."""
        inside = ((tube.points > 0) & (tube.points < self.extent)).all(axis=1)
        if form == "string":
            thick = np.flatnonzero(inside & (tube.radii > 0.9 * tube.radii.max()))
            return bool((np.diff(thick) > 1).any())
        return form != "tangle" or bool(inside.mean() > 0.6)

    def _placeable(self, tube: Tube) -> bool:
        """Inside one cell, and inside the volume in one piece."""
        margin = tube.radii[:, None] / 2
        inside = ((tube.points > -margin) & (tube.points < self.extent + margin)).all(axis=1)
        return np.count_nonzero(np.diff(inside.astype(int), prepend=0) == 1) == 1 and self.clear(tube)

    def _company(self, form: Form, tube: Tube, tubes: Sequence[Tube]) -> list[Tube]:
        """What is pressed against a new mitochondrion."""
        group = [tube]
        if form == "tangle":
            while len(group) < _MEMBERS and (member := self._pressed("tangle", group, tubes)):
                group.append(member)
        elif form == "single" and self.rng.random() < _TOUCHING:
            neighbour = self._pressed("neighbour", group, tubes)
            group += [neighbour] if neighbour else []
        return group[1:]

    def _pressed(self, form: Form, group: Sequence[Tube], tubes: Sequence[Tube]) -> Tube | None:
        """One more mitochondrion that touches those of a group, and no other."""
        crowd = Tube(np.concatenate([t.points for t in group]), np.concatenate([t.radii for t in group]))
        for _ in range(60):
            at = crowd.points[self.rng.integers(len(crowd.points))]
            fresh = self._tube(form, self.rng.uniform(*_TUBES[form][0]), at)
            move = self.rng.standard_normal(3)
            for _ in range(60):
                if (gap := fresh.distance(crowd)) > _PRESSED[0]:
                    break
                fresh = Tube(fresh.points + move / np.linalg.norm(move) * max(4.0, -gap / 4), fresh.radii)
            fits = _PRESSED[0] < fresh.distance(crowd) < _PRESSED[1] and self._shown(fresh, form)
            if fits and self._placeable(fresh) and all(fresh.distance(t) > _SPACE for t in tubes):
                return fresh
        return None
