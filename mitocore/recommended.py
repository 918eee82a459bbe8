"""The pipeline that weights recommend: segmentation of a volume without a TOML file."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mitocore import runs
from mitocore.component import Component
from mitocore.config import toml
from mitocore.config.components import check_exists, resolved
from mitocore.config.pipeline import configure
from mitocore.errors import ConfigError
from mitocore.geometry import VoxelSize
from mitocore.header import WeightsHeader, read_header
from mitocore.interfaces import Volume
from mitocore.pipeline import plan
from mitocore.registry import Registry
from mitocore.specs import Head
from mitocore.volumes import in_memory, installed
from mitocore.weights import is_path, resolve

NETWORK = "net"
"""Name of the step that runs the network; recommended steps name its heads as "net.foreground"."""


def steps(weights: str | Path, *, registry: Registry | None = None) -> list[dict[str, Any]]:
    """`[[step]]` tables: the network, then what the header of its weights recommends, thresholds filled in.

    A threshold of the header goes to the steps that read the head it was found for, as far as they do not say one.

    Raises
    ------
    MitocoreError
        If there are no such weights, or what they recommend does not fit them.
    """
    registry, place = registry or installed(), str(weights)
    header = read_header(resolve(place, Path()))
    stated = str(Path(place).absolute()) if is_path(place) else place
    tables = [{"name": NETWORK, "weights": stated}, *deepcopy(list(header.pipeline))]
    if header.thresholds and header.pipeline:
        _fill_thresholds(tables, header, registry)
    return tables


def _fill_thresholds(tables: list[dict[str, Any]], header: WeightsHeader, registry: Registry) -> None:
    ready = plan(configure(toml.Document({"mitocore": 1, "step": tables}), registry), registry, data=False)
    heads = {f"{NETWORK}.{head.name}": head for head in header.heads}
    for table, step in zip(tables[1:], ready.steps[1:], strict=True):
        read = [(heads[wire.source], wire.channels) for wire in step.wires.values() if wire.source in heads]
        found = {value for head, channels in read if (value := _threshold(header, head, channels)) is not None}
        takes_one = isinstance(step.component, Component) and "threshold" in type(step.component).model_fields
        if takes_one and len(found) == 1:
            table.setdefault("threshold", found.pop())


def _threshold(header: WeightsHeader, head: Head, channels: tuple[int, ...] | None) -> float | None:
    """That of the one channel that is read, else that of the head."""
    only = head.channels[channels[0]] if channels and len(channels) == 1 else ""
    return header.thresholds.get(f"{head.name}:{only}", header.thresholds.get(head.name))


def pipeline(
    weights: str | Path,
    sources: Sequence[str | Path] = (),
    *,
    voxel_size: Any = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    registry: Registry | None = None,
) -> toml.Document:
    """The pipeline that weights recommend, as ``pipeline.toml`` would state it; its paths are absolute.

    With an output, the run folder lies beside it, as ``runs/<its name>``.

    Parameters
    ----------
    sources
        ``PATH[::KEY]``; several make a batch and want ``{stem}`` in `output`.
    voxel_size
        Where the files do not say it: "8 nm", or three lengths (z, y, x).
    settings
        ``STEP.OPTION=VALUE`` or ``TABLE.KEY=VALUE``, as ``--set``.

    Raises
    ------
    DataError
        If the weights do not exist.
    ConfigError
        If the header recommends no pipeline.
    """
    tables = steps(weights, registry=registry)
    if len(tables) == 1:
        for stated in sources:
            check_exists(str(stated), where="the input")
        source = next(iter(sources), "INPUT")
        raise ConfigError(
            f"the weights {str(weights)!r} recommend no post-processing",
            hint=f"mitocore init {source} --weights {weights} > pipeline.toml, and add steps to it",
        )
    places = [_absolute(str(source)) for source in sources]
    data: dict[str, Any] = {"mitocore": 1}
    if places:
        data["input"] = {"path": places[0] if len(places) == 1 else places}
        if voxel_size is not None:
            data["input"]["voxel_size"] = list(VoxelSize.parse(voxel_size).edges)
    data["step"] = tables
    if output is not None:
        data["output"] = {"path": _absolute(str(output))}
        data["run"] = {"folder": _folder_beside(str(output))}
    return toml.override(toml.Document(data), settings)


def _absolute(place: str) -> str:
    return place if "://" in place else resolved(place, Path().absolute())


def _folder_beside(output: str) -> str:
    """``runs/<name of the output>`` in the folder of the output; of an address, in the current folder."""
    path = Path(output.partition("::")[0])
    name = path.stem.replace("{name}", "").strip("._- ") or "segmentation"
    return str((Path() if "://" in output else path.parent).absolute() / "runs" / name)


def segment(
    source: NDArray[Any] | Volume | str | Path,
    weights: str | Path,
    *,
    voxel_size: Any = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    roi: str | None = None,
    progress: runs.Progress = lambda _label, _done, _total: None,
    cancel: Callable[[], bool] = lambda: False,
) -> runs.Result:
    """Segment a volume with what its weights recommend: network, normaliser and post-processing.

    Without an output, results are read from a temporary folder that goes with them.

    Parameters
    ----------
    source
        (z, y, x) or (c, z, y, x) numbers, an open volume, or ``PATH[::KEY]``.
    weights
        A name of `mitocore weights list`, or a file.
    voxel_size
        Where the file does not say it, and of an array: "8 nm", or three lengths (z, y, x).
    output
        File or folder to create; its suffix names the writer. The run folder then lies beside it, and the same call
        goes on where an earlier one was stopped.
    settings
        ``STEP.OPTION=VALUE`` or ``TABLE.KEY=VALUE``, as ``--set``.
    roi
        Three ranges of voxels (z, y, x), such as "0:64,:,0:512": only this part.

    Raises
    ------
    MitocoreError
        If it is refused.
    """
    volume = None if isinstance(source, str | Path) else in_memory(source, voxel_size)
    sources = [source] if isinstance(source, str | Path) else []
    document = pipeline(weights, sources, voxel_size=voxel_size, output=output, settings=settings)
    document.data["run"] = {"workers": 0, **document.data.get("run", {})}
    registry = installed()
    ready = plan(configure(document, registry), registry, volume.spec if volume else None, roi=roi)
    return runs.PlannedRun(ready, registry, volume, roi).run(progress=progress, cancel=cancel)
