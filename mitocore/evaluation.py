"""Scores of a prediction against the truth, block by block."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mitocore.blockwise.arrays import Opened
from mitocore.blockwise.grid import BlockGrid
from mitocore.config.components import build
from mitocore.config.toml import near
from mitocore.errors import ConfigError, DataError, WiringError
from mitocore.geometry import Roi, Shape, VoxelSize, as_shape, stated_region
from mitocore.interfaces import Block, Metric, Volume
from mitocore.registry import Registry
from mitocore.specs import Kind

BLOCK = (64, 512, 512)


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
            hint="compare volumes of one shape; `mitocore convert --roi` cuts one",
        )
    if len(truth.spec.channels) != 1:
        raise DataError(
            f"the truth has {len(truth.spec.channels)} channels, labels have one",
            hint="name the array of labels, as in em.zarr::labels",
        )
    kind = kind or _kind(predicted)
    return Compared(predicted, truth, kind, stated_region(roi, truth.spec.shape), tuple(ignore))


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
    """The metrics asked for by name, with their options; none asked for: all that fit what the prediction holds.

    Raises
    ------
    PluginError
        If one is unknown.
    ConfigError
        If an option is, or options are given for a metric that is not computed.
    """
    wanted = names or registry.names("metric")
    for name in options.keys() - set(wanted):
        raise ConfigError(f"there are options of {name!r}, which is not computed", hint=near(name, wanted))
    built = [(name, build("metric", {"metric": name, **options.get(name, {})}, registry)[0]) for name in wanted]
    metrics = {name: metric for name, metric in built if isinstance(metric, Metric)}
    return metrics if names else fitting(metrics, kind)


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
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> dict[str, dict[str, float]]:
    """Scores by metric: parts of blocks are added up, so memory does not grow with the volume.

    A prediction of instances, classes or a mask is scored by voxel metrics as its foreground. Raises as `summed` does.
    """
    partials = summed(pair, metrics, block=block, progress=progress)
    return {name: metric.total(partials[name]) for name, metric in metrics.items()}


def summed(
    pair: Compared,
    metrics: Mapping[str, Metric],
    *,
    block: Shape = BLOCK,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> dict[str, Any]:
    """By metric, the sum of its parts over all blocks.

    Raises
    ------
    WiringError
        If a metric compares another kind of array.
    """
    for name, metric in metrics.items():
        if not _accepts(metric, pair.kind):
            raise WiringError(
                f"metric {name!r} compares {metric.compares}, the prediction holds {pair.kind}",
                hint="choose another metric, or state the true kind with --kind",
            )
    shape = as_shape(min(b, n) for b, n in zip(block, pair.region.shape, strict=True))
    grid = BlockGrid(pair.region, shape)
    partials: dict[str, Any] = {}
    voxel_size = pair.voxel_size
    progress("evaluate", 0, len(grid))
    for number in range(len(grid)):
        write = grid.box(number)
        for name, metric in metrics.items():
            read = write.grow(metric.halo(voxel_size)).clip(pair.region)
            arrays = {"predicted": _read(pair, metric, read), "truth": _truth(pair, metric, read)}
            part = metric.partial(Block(write, read, arrays, pair.region, voxel_size))
            partials[name] = partials[name] + part if name in partials else part
        progress("evaluate", number + 1, len(grid))
    return partials


def _read(pair: Compared, metric: Metric, roi: Roi) -> Any:
    values = Opened(pair.predicted, pair.kind).read(roi)
    if pair.kind is metric.compares:
        return values
    return (values > 0).astype("f4") if pair.kind is not Kind.PROBABILITY else values


def _truth(pair: Compared, metric: Metric, roi: Roi) -> Any:
    kind = metric.compares if metric.compares in (Kind.SEMANTIC, Kind.DISTANCE) else Kind.INSTANCE
    return Opened(pair.truth, kind, pair.ignore).read(roi)
