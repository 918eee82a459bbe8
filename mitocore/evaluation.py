"""Scores of a prediction against the truth, block by block."""

import logging
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import Opened, Source, label_ids
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.probabilities import Probabilities
from mitocore.confidence import Painted
from mitocore.config.components import build
from mitocore.config.toml import near
from mitocore.errors import ConfigError, DataError, WiringError
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape, stated_region
from mitocore.interfaces import Block, Metric, ObjectMetric, Volume
from mitocore.interfaces.metric import finished
from mitocore.registry import Registry
from mitocore.specs import UNIT, Kind, VolumeSpec
from mitocore.volumes import in_memory, open_volume

log = logging.getLogger(__name__)

BLOCK = (64, 512, 512)
Progress = Callable[[str, int, int], None]
_CHANNEL = re.compile(r"(?P<place>.+[^:]):(?P<channel>[^:/\\]+)")  # no drive of Windows, no port of an address


def quiet(_label: str, _done: int, _total: int) -> None:
    """Tells nobody how far it is."""


def opened(source: str | Path | Volume | NDArray[Any]) -> AbstractContextManager[Volume]:
    """A volume to compare: an array, an open one, or ``PATH[::KEY][:CHANNEL]``, closed at the end."""
    if not isinstance(source, str | Path):
        return nullcontext(in_memory(source))
    named = _CHANNEL.fullmatch(str(source))
    if named is None or Path(source).exists():
        return open_volume(source)
    return OneChannel(open_volume(named["place"]), named["channel"], str(source))


class OneChannel(Volume):
    """One channel of an open volume, named or numbered from 0.

    Raises
    ------
    DataError
        If the volume has none of that name.
    """

    def __init__(self, volume: Volume, channel: str, where: str) -> None:
        names = volume.spec.channels
        self._volume, known = volume, [*names, *(str(n) for n in range(len(names)) if str(n) not in names)]
        if channel not in known:
            volume.close()
            problem = f"there is no channel {channel!r} in it"
            raise DataError(problem, where=where, hint=near(channel, known))
        self._number = known.index(channel) if channel in names else int(channel)

    @property
    def spec(self) -> VolumeSpec:
        whole = self._volume.spec
        return replace(whole, channels=(whole.channels[self._number],))

    def read(self, roi: Roi) -> NDArray[Any]:
        return self._volume.read(roi)[self._number : self._number + 1]

    def close(self) -> None:
        self._volume.close()


@dataclass(frozen=True)
class Compared:
    """A prediction and the truth it is scored against, over the same region."""

    predicted: Volume
    truth: Volume
    kind: Kind
    """What the prediction holds."""
    region: Roi
    ignore: tuple[int, ...] = ()
    """Values of the truth that are left out, beside those that always mean "ignore"."""
    scores: Source | None = None
    """How sure the prediction is of each voxel."""

    @property
    def voxel_size(self) -> VoxelSize | None:
        """As one of the two files says, the truth first."""
        return self.truth.spec.voxel_size or self.predicted.spec.voxel_size


def compared(
    predicted: Volume,
    truth: Volume,
    *,
    kind: Kind | None = None,
    roi: str | None = None,
    ignore: Sequence[int] = (),
    scores: Volume | Mapping[int, float] | None = None,
) -> Compared:
    """Check that two volumes can be compared.

    Parameters
    ----------
    kind
        What the prediction holds, where its file does not say.
    roi
        Three ranges of voxels, such as "17:20,:,:".
    ignore
        Values of the truth whose voxels are left out, such as 255 in a file of uint8. The largest number of an unsigned
        type of 16 bits or more, and -1, always are.

    Raises
    ------
    DataError
        If shapes differ, or nothing says what the prediction holds.
    """
    if predicted.spec.shape != truth.spec.shape:
        raise DataError(
            f"the prediction has {predicted.spec.shape} voxels (z, y, x), the truth {truth.spec.shape}",
            hint="compare volumes of one shape: `mitocore convert` cuts (--roi) or scales (--scale) one",
        )
    if len(truth.spec.channels) != 1:
        raise DataError(
            f"the truth has {len(truth.spec.channels)} channels, labels have one",
            hint="name the array of labels, as in em.zarr::labels",
        )
    kind = kind or _kind(predicted)
    predicted.spec.array(kind)  # refused if its dtype cannot hold this kind
    region = stated_region(roi, truth.spec.shape)
    return Compared(predicted, truth, kind, region, tuple(ignore), _sure(scores, predicted))


def _sure(scores: Volume | Mapping[int, float] | None, predicted: Volume) -> Source | None:
    if scores is None:
        return None
    if isinstance(scores, Mapping):
        return Painted.of(predicted, scores)
    if scores.spec.shape != predicted.spec.shape or len(scores.spec.channels) != 1:
        found = f"{len(scores.spec.channels)} channels of {scores.spec.shape}"
        raise DataError(
            f"the scores have {found} voxels (z, y, x), the prediction one of {predicted.spec.shape}",
            where="--scores",
            hint="name one channel of the probabilities that the objects were made of, as in net.zarr::prediction:0",
        )
    return Opened(scores, Kind.PROBABILITY)


def _kind(volume: Volume) -> Kind:
    """What a file holds: as it says, else floats are probabilities and integers are instances."""
    if volume.spec.kind is not Kind.IMAGE:
        return volume.spec.kind
    if volume.spec.dtype == "bool":
        return Kind.MASK
    return Kind.PROBABILITY if volume.spec.dtype.startswith("float") else Kind.INSTANCE


def metrics_of(
    names: Sequence[str], kind: Kind, registry: Registry, options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Metric]:
    """The metrics asked for by name, with their options.

    None asked for: all that fit what the prediction holds, but of those that look at every object only the ones that
    options are given for.

    Raises
    ------
    PluginError
        If one is unknown.
    ConfigError
        If an option is, or options are given for a metric that is not computed.
    """
    wanted = names or registry.names("metric")
    for name in options.keys() - set(wanted):
        hint = near(name, wanted) if name in registry.names("metric") else "--set METRIC.OPTION=VALUE"
        raise ConfigError(f"there are options of {name!r}, which is not computed", hint=hint)
    built = [(name, build("metric", {"metric": name, **options.get(name, {})}, registry)[0]) for name in wanted]
    metrics = {name: metric for name, metric in built if isinstance(metric, Metric)}
    if names:
        return metrics
    quick = {name: one for name, one in metrics.items() if name in options or not isinstance(one, ObjectMetric)}
    return fitting(quick, kind)


def fitting(metrics: Mapping[str, Metric], kind: Kind) -> dict[str, Metric]:
    """The metrics that can score a prediction of this kind."""
    return {name: metric for name, metric in metrics.items() if _accepts(metric, kind)}


def _accepts(metric: Metric, kind: Kind) -> bool:
    foreground = (Kind.PROBABILITY, Kind.MASK, Kind.SEMANTIC, Kind.INSTANCE)
    return kind is metric.compares or (metric.compares in foreground[:2] and kind in foreground)


def evaluate(
    pair: Compared,
    metrics: Mapping[str, Metric],
    *,
    block: Shape = BLOCK,
    progress: Progress = quiet,
) -> dict[str, dict[str, float]]:
    """Scores by metric: parts of blocks are added up, so memory does not grow with the volume.

    A prediction of instances, classes or a mask is scored by voxel metrics as its foreground. Raises as `summed` does.
    """
    return totals(pair, metrics, summed(pair, metrics, block=block, progress=progress), progress=progress)


def summed(
    pair: Compared,
    metrics: Mapping[str, Metric],
    *,
    block: Shape = BLOCK,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """By metric, the sum of its parts over all blocks.

    Raises
    ------
    WiringError
        If a metric compares another kind of array, or there are scores that no metric looks at.
    """
    for name, metric in metrics.items():
        if not _accepts(metric, pair.kind):
            raise WiringError(
                f"metric {name!r} compares {metric.compares}, the prediction holds {pair.kind}",
                hint=f"--kind {metric.compares}, if that is what it holds; else choose another metric",
            )
    if pair.scores and not any(metric.takes_scores for metric in metrics.values()):
        problem = "none of the metrics that are computed looks at scores"
        raise WiringError(problem, where="--scores", hint="--metric average_precision")
    shape = as_shape(min(b, n) for b, n in zip(block, pair.region.shape, strict=True))
    grid = BlockGrid(pair.region, shape)
    metrics = {name: _ready(metric, pair) for name, metric in metrics.items()}
    sums: dict[Hashable, Any] = {}
    progress("evaluate", 0, len(grid))
    for number in range(len(grid)):
        look, done = _Look(pair, grid.box(number)), set[Hashable]()
        for name, metric in metrics.items():
            key = _key(name, metric)
            if key not in done:
                done.add(key)
                part = metric.partial(look.at(metric))
                sums[key] = sums[key] + part if key in sums else part
        progress("evaluate", number + 1, len(grid))
    return {name: sums[_key(name, metric)] for name, metric in metrics.items()}


def totals(
    pair: Compared, metrics: Mapping[str, Metric], sums: Mapping[str, Any], *, progress: Progress = quiet
) -> dict[str, dict[str, float]]:
    """Scores by metric, from what `summed` gave. Metrics that need whole objects read these one at a time."""
    found = {}
    for name, stated in metrics.items():
        metric, seen = _ready(stated, pair), 0
        number = len(metric.objects(sums[name])) if isinstance(metric, ObjectMetric) else 0

        def look(box: Roi, metric: Metric = metric, name: str = name, number: int = number) -> Block:
            nonlocal seen
            seen += 1
            progress(f"{name}, object by object", seen, number)
            return _Look(pair, box).at(metric)

        found[name] = finished(metric, sums[name], look)
        for remark in metric.remarks(found[name]):
            log.warning("%s: %s", name, remark)
    return found


def _ready(metric: Metric, pair: Compared) -> Metric:
    """A metric that knows the size of a voxel and the channels of the prediction."""
    return metric.in_voxels(pair.voxel_size).for_channels(pair.predicted.spec.channels)


def _key(name: str, metric: Metric) -> Hashable:
    shared = metric.shared()
    return ("metric", name) if shared is None else ("shared", metric.compares, shared)


@dataclass(frozen=True)
class _Look:
    """A box of what is compared, as metrics see it; what several look at is read once."""

    pair: Compared
    write: Roi
    arrays: dict[Hashable, NDArray[Any]] = field(default_factory=dict)

    def at(self, metric: Metric) -> Block:
        """The box as a block for a metric."""
        pair, voxel_size = self.pair, self.pair.voxel_size
        read = self.write.grow(metric.halo(voxel_size)).clip(pair.region)
        arrays = {"predicted": self._predicted(metric, read), "truth": self._truth(metric, read)}
        if pair.scores and metric.compares is Kind.INSTANCE:  # also to those that share their parts with one that looks
            arrays["scores"] = self._once("scores", read, pair.scores.read)
        return Block(self.write, read, arrays, pair.region, voxel_size)

    def _predicted(self, metric: Metric, roi: Roi) -> NDArray[Any]:
        kind, narrow = self.pair.kind, metric.narrow_ids or self.pair.kind is not metric.compares
        values = self._once(("predicted", narrow), roi, lambda box: _read(self.pair.predicted, kind, (), box, narrow))
        if kind is metric.compares or kind is Kind.PROBABILITY:
            return values
        return self._once("foreground", roi, lambda _box: (values > 0).astype(np.float32))

    def _truth(self, metric: Metric, roi: Roi) -> NDArray[Any]:
        kind = metric.compares if metric.compares in (Kind.SEMANTIC, Kind.DISTANCE) else Kind.INSTANCE
        narrow, ignore = metric.narrow_ids, self.pair.ignore
        return self._once(("truth", kind, narrow), roi, lambda box: _read(self.pair.truth, kind, ignore, box, narrow))

    def _once(self, what: Hashable, roi: Roi, read: Callable[[Roi], NDArray[Any]]) -> NDArray[Any]:
        if (what, roi) not in self.arrays:
            self.arrays[what, roi] = read(roi)
        return self.arrays[what, roi]


def _read(volume: Volume, kind: Kind, ignore: tuple[int, ...], roi: Roi, narrow: bool) -> NDArray[Any]:
    """As `Opened` reads; but ids of which none is left out stay as they are if they may be `narrow`: much faster."""
    if kind in UNIT:
        return Probabilities(Opened(volume, kind), "the prediction").read(roi)
    if kind is not Kind.INSTANCE:
        return Opened(volume, kind, ignore).read(roi)
    values = volume.read(roi)
    if values.dtype.kind == "u" and not ignore and values.size and values.max() < np.iinfo(values.dtype).max:
        return values if narrow else values.astype(np.uint64, copy=False)
    return label_ids(values, kind, ignore)
