"""How far predicted probabilities can be believed, from sums over slabs that add up.

Nothing of a voxel is kept: memory does not grow with a volume. Voxels of weight 0 are left out; the others count alike,
whatever their weight in the loss, since a calibration to weighted voxels would be wrong for all others.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from mitocore.specs import Head, Kind

_REACH, _BINS = 16.0, 2048  # logits beyond ±16 are as sure as float32 probabilities get
_PER_UNIT = _BINS / (2 * _REACH)
_EDGES = np.linspace(-_REACH, _REACH, _BINS + 1)
_LOGITS = (_EDGES[1:] + _EDGES[:-1]) / 2
_TINY = 1e-7  # probabilities are this far from 0 and 1 before they become logits again
_GRID = 256  # voxels along an edge of a section that are enough for the temperature of classes
_ROWS = 15  # of the reliability table, as Guo et al.
LIMITS = (0.2, 5.0)
"""A temperature must lie between them. Where truth and prediction agree everywhere, or differ wildly, none is best."""
CANDIDATES = (0.01, 0.99)
"""A threshold must lie between them: beyond, it would hang on the rounding of stored probabilities."""
_TRIED: NDArray[np.float64] = 2.0 ** (np.arange(-14, 15) / 6)  # temperatures of softmax heads, just beyond LIMITS


@dataclass(frozen=True)
class Reliability:
    """What probabilities promise and what is true."""

    nll: float
    """Mean negative log-likelihood of the truth."""
    ece: float
    """Expected calibration error (Guo et al. 2017): the mean distance of predicted and observed, by voxels."""
    rows: tuple[tuple[float, float, float, float, float], ...]
    """From, to, voxels, mean predicted probability, observed share; of fifteen equal bins those that are not empty."""


class Histogram:
    """Voxels of a head of independent probabilities, by channel, truth and logit.

    A truth between 0 and 1 counts in part as either.
    """

    def __init__(self, channels: int) -> None:
        self.counts: NDArray[np.float64] = np.zeros((channels, 2, _BINS))

    def add(self, values: NDArray[np.float32], truth: NDArray[np.float32], counted: NDArray[np.bool_]) -> None:
        """Count probabilities (c, z, y, x) against the truth (c, z, y, x) where `counted` (z, y, x)."""
        for number, (channel, true) in enumerate(zip(values, truth, strict=True)):
            for plane, wanted, chosen in zip(channel, true, counted, strict=True):
                p = np.clip(plane[chosen].astype(np.float64), _TINY, 1 - _TINY)
                # a bin holds its upper edge, as a mask holds what is above the threshold
                at = np.ceil((np.log(p / (1 - p)) + _REACH) * _PER_UNIT).astype(np.intp) - 1
                at = np.clip(at, 0, _BINS - 1)
                positive = np.bincount(at, wanted[chosen].astype(np.float64), _BINS)
                self.counts[number] += np.bincount(at, minlength=_BINS) - positive, positive

    def temperature(self) -> float | None:
        """What logits must be divided by for the truth to be most likely (Guo et al. 2017, temperature scaling).

        None: it is not within `LIMITS`, or nothing is gained.
        """
        if not self.counts.any():
            return None
        low, high = np.log(LIMITS)
        found = minimize_scalar(lambda power: self._nll(np.exp(power)), bounds=(low, high), method="bounded")
        value = round(float(np.exp(found.x)), 4)
        inside = low + 0.01 < found.x < high - 0.01
        return value if inside and self._nll(value) < self._nll(1.0) else None

    def reliability(self, temperature: float) -> Reliability:
        """Of probabilities at a temperature."""
        negative, positive = self.counts.sum(axis=0)
        voxels, p = negative + positive, 1 / (1 + np.exp(-_LOGITS / temperature))
        row = np.minimum((p * _ROWS).astype(np.intp), _ROWS - 1)
        sums = [np.bincount(row, values, _ROWS) for values in (voxels, voxels * p, positive)]
        return _reliability(self._nll(temperature), np.stack(sums, axis=1))

    def thresholds(self, temperature: float) -> tuple[float | None, list[float | None]]:
        """The threshold of the best mean Dice over the channels, and that of each channel.

        Of thresholds that are equally good, the one nearest to 0.5. Channels without foreground have none.
        """
        p = 1 / (1 + np.exp(-_EDGES / temperature))
        dice = np.where((p >= CANDIDATES[0]) & (p <= CANDIDATES[1]), self._dice(), -1.0)
        true = self._true
        each = [_nearest_best(row) if known else None for row, known in zip(dice, true, strict=True)]
        best = _nearest_best(dice[true].mean(axis=0)) if true.any() else None
        named = [None if at is None else round(float(p[at]), 4) for at in (best, *each)]
        return named[0], named[1:]

    def dice(self, threshold: float, temperature: float) -> float:
        """Mean Dice over the channels that have foreground, of the voxels above a threshold."""
        edge = np.log(threshold / (1 - threshold)) * temperature
        at = int(np.clip(round((edge + _REACH) * _PER_UNIT), 0, _BINS))
        return float(self._dice()[self._true, at].mean()) if self._true.any() else 1.0

    @property
    def _true(self) -> NDArray[np.bool_]:
        """Which channels have foreground."""
        return np.asarray(self.counts[:, 1].any(axis=1))

    def _dice(self) -> NDArray[np.float64]:
        """Dice (channels, edges) of what lies above each edge; 1 where there is nothing, found or true."""
        above = np.zeros((*self.counts.shape[:2], _BINS + 1))
        above[..., :-1] = self.counts[..., ::-1].cumsum(axis=-1)[..., ::-1]
        both, whole = above[:, 1], above.sum(axis=1) + self.counts[:, 1].sum(axis=-1)[:, None]
        return np.asarray(np.divide(2 * both, whole, out=np.ones_like(both), where=whole > 0))

    def _nll(self, temperature: float) -> float:
        negative, positive = self.counts.sum(axis=0)
        logits = _LOGITS / temperature
        total = positive @ np.logaddexp(0, -logits) + negative @ np.logaddexp(0, logits)
        return float(total / max(self.counts.sum(), 1))


class Classes:
    """Voxels of a head of classes that exclude each other: what each of some temperatures would make of them.

    Of large sections, the voxels of a regular grid stand for those around them.
    """

    def __init__(self) -> None:
        self.nll: NDArray[np.float64] = np.zeros(len(_TRIED))
        self.voxels = 0
        self.sums: NDArray[np.float64] = np.zeros((len(_TRIED), _ROWS, 3))

    def add(self, values: NDArray[np.float32], truth: NDArray[np.float32], counted: NDArray[np.bool_]) -> None:
        """Count probabilities (c, z, y, x) against one-hot classes (c, z, y, x) where `counted` (z, y, x)."""
        step = max(1, math.isqrt(counted[0].size) // _GRID)
        for z, plane in enumerate(counted[:, ::step, ::step]):
            logits = np.log(np.clip(values[:, z, ::step, ::step][:, plane], _TINY, 1.0))
            wanted = truth[:, z, ::step, ::step][:, plane]
            logits -= logits.max(axis=0, keepdims=True)
            right = np.take_along_axis(wanted, logits.argmax(axis=0)[None], axis=0)[0]
            self.voxels += step**2 * right.size
            of_truth = float((wanted * logits).sum(dtype=np.float64))
            for number, temperature in enumerate(_TRIED.tolist()):
                total = np.exp(logits / temperature).sum(axis=0)
                self.nll[number] += step**2 * (np.log(total).sum(dtype=np.float64) - of_truth / temperature)
                sure = 1 / total  # of the most likely class, whose logit is 0 here
                row = np.minimum((sure * _ROWS).astype(np.intp), _ROWS - 1)
                sums = [np.bincount(row, of, _ROWS) for of in (None, sure, right)]
                self.sums[number] += step**2 * np.stack(sums, axis=1)

    def temperature(self) -> float | None:
        """The best of some temperatures, an eighth apart; None: it is not within `LIMITS`, or 1."""
        at = int(self.nll.argmin())
        value = round(float(_TRIED[at]), 4)
        return value if self.nll[at] < self.nll[_index(1.0)] and LIMITS[0] < value < LIMITS[1] else None

    def reliability(self, temperature: float) -> Reliability:
        """Of the most likely class, at a temperature that `temperature` gives, or 1."""
        at = _index(temperature)
        return _reliability(float(self.nll[at] / max(self.voxels, 1)), self.sums[at])


def sums_of(heads: Iterable[Head]) -> dict[str, Histogram | Classes]:
    """What is summed up of each head that gives probabilities or affinities; of other kinds, nothing."""
    found: dict[str, Histogram | Classes] = {}
    for head in heads:
        if head.kind in (Kind.PROBABILITY, Kind.AFFINITY) and not head.auxiliary:
            if head.activation == "sigmoid":
                found[head.name] = Histogram(len(head.channels))
            elif head.activation == "softmax":
                found[head.name] = Classes()
    return found


def _index(temperature: float) -> int:
    return int(np.abs(_TRIED - temperature).argmin())


def _nearest_best(dice: NDArray[np.float64]) -> int:
    """Of the edges of best Dice, the one nearest to a logit of 0, which stays a probability of 0.5."""
    best = np.flatnonzero(dice >= dice.max() - 1e-12)
    return int(best[np.abs(_EDGES[best]).argmin()])


def _reliability(nll: float, sums: NDArray[np.float64]) -> Reliability:
    voxels, predicted, observed = sums.T
    rows = tuple(
        (at / _ROWS, (at + 1) / _ROWS, n, float(predicted[at]) / n, float(observed[at]) / n)
        for at, n in enumerate(voxels.tolist())
        if n
    )
    return Reliability(nll, float(np.abs(predicted - observed).sum() / max(voxels.sum(), 1)), rows)
