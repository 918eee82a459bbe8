"""The model of a training, and the weights it starts from."""

from dataclasses import dataclass
from pathlib import Path

from mitocore import weights
from mitocore.component import AtInference
from mitocore.config.table import ComponentTable
from mitocore.config.toml import Document
from mitocore.errors import ConfigError, DataError
from mitocore.geometry import VoxelSize
from mitocore.header import WeightsHeader, read_header
from mitocore.interfaces import Model
from mitocore.specs import Window
from mitocore.training.objectives import Build
from mitocore.training.plan import Table

_TOLERANCE = 0.15  # of a voxel's edge, as between training and inference


@dataclass(frozen=True)
class Start:
    """A model, and what its first weights say of themselves."""

    model: Model
    table: Table
    weights: Path | None = None
    """Ours, with all they say in their header."""
    header: WeightsHeader | None = None
    initial: Path | None = None
    """A file of which only tensors are taken."""

    @property
    def window(self) -> Window:
        """Of the weights to start from, else of the model."""
        return self.header.window if self.header else self.model.window()

    def voxel_size(self, stated: VoxelSize | None, where: str) -> VoxelSize | None:
        """What volumes are resampled to: what is stated, else the voxel size of the weights to start from.

        Raises
        ------
        ConfigError
            If the stated size contradicts that of the weights.
        """
        if stated and (trained := self._unlike(stated)):
            problem = f"voxel_size = {list(stated.edges)}, but the weights to start from were trained at {trained}"
            raise ConfigError(
                problem, where=where, hint="leave voxel_size out: volumes are resampled to that of the weights"
            )
        kept = self.header.voxel_size if self.header else None
        return stated or (kept if isinstance(kept, VoxelSize) else None)

    def check_volume(self, path: str, voxel_size: VoxelSize | None) -> None:
        """Refuse a volume, resampled or not, whose voxels the weights to start from were not trained with.

        Raises
        ------
        ConfigError
            If an edge is more than 15 % off.
        """
        if voxel_size and (trained := self._unlike(voxel_size)):
            problem = f"{path!r} has voxels of {voxel_size}, but the weights to start from were trained at {trained}"
            raise ConfigError(problem, hint="voxel_size = […] in [train] resamples it; or state its true voxel_size")

    def _unlike(self, size: VoxelSize) -> str:
        """The voxel size of the weights in words, if `size` is another."""
        trained = self.header.voxel_size if self.header else None
        if trained is None:
            return ""
        low, high = trained if isinstance(trained, tuple) else (trained, trained)
        edges = list(zip(low.edges, size.edges, high.edges, strict=True))[1 if self.window.planar else 0 :]
        if all(a * (1 - _TOLERANCE) <= edge <= b * (1 + _TOLERANCE) for a, edge, b in edges):
            return ""
        return f"{low} to {high}" if isinstance(trained, tuple) else str(trained)


def started(value: ComponentTable, build: Build, document: Document) -> Start:
    """The model that `[model]` states; with `weights`, all options that are not stated are those of their header.

    Raises
    ------
    ConfigError
        If an option that the weights depend on differs from that of the header, or the model gives other heads than
        they have, or `initial` is stated too.
    DataError
        If the weights cannot be read.
    """
    table: Table = {"model": value} if isinstance(value, str) else value
    if "weights" not in table:
        initial = _file(table, "initial", document) if "initial" in table else None
        return Start(*build("model", table, "model"), initial=initial)
    where = document.where("model", "weights")
    if "initial" in table:
        hint = "weights = … goes on with weights of ours; initial = … takes tensors from any file"
        raise ConfigError("[model] states both weights and initial", where=where, hint=hint)
    path = _file(table, "weights", document)
    try:
        header = read_header(path)
    except DataError as error:
        error.where = error.where or where
        raise
    _, named = build("model", {"model": header.component, **header.options}, "model")
    if str(table.get("model", header.component)).rpartition("/")[2] != header.component.rpartition("/")[2]:
        problem = f"{str(path)!r} holds weights of {header.component!r}, not of {table['model']!r}"
        raise ConfigError(problem, where=where, hint="leave `model` out, or start without weights")
    stated = {"model": header.component, **header.options, **table}
    model, found = build("model", stated, "model")
    if found["model"] != named["model"]:
        hint = "leave `model` out, or start without weights"
        problem = f"{str(path)!r} holds weights of {named['model']!r}, not of {found['model']!r}"
        raise ConfigError(problem, where=where, hint=hint)
    other = [n for n in found if n not in model.marked(AtInference) and found[n] != named[n]]
    if other:
        name = other[0]
        problem = f"{name} = {found[name]!r}, but the weights to start from have {named[name]!r}"
        raise ConfigError(problem, where=document.where("model", name), hint=f"leave {name} out")
    if model.heads() != header.heads:
        ours, theirs = (", ".join(head.name for head in heads) for heads in (model.heads(), header.heads))
        problem = f"the heads of the model ({ours}) are not those of the weights to start from ({theirs})"
        raise ConfigError(problem, where=where, hint="initial = … instead of weights = … takes the tensors that fit")
    return Start(model, found, path, header)


def check_normalizer(start: Start, found: Table, build: Build, where: str) -> None:
    """Refuse a normaliser that differs from that of the weights to start from.

    Raises
    ------
    ConfigError
        Naming what differs.
    """
    if start.header is None:
        return
    _, trained = build("normalizer", start.header.normalizer, "normalizer")
    if other := [name for name in {**trained, **found} if trained.get(name) != found.get(name)]:
        name = other[0]
        problem = f"{name} = {found.get(name)!r}, but the weights to start from have {trained.get(name)!r}"
        raise ConfigError(problem, where=where, hint="leave [normalizer] out: that of the weights is used")


def _file(table: Table, key: str, document: Document) -> Path:
    try:
        return weights.resolve(str(table[key]), document.folder_of("model", key))
    except DataError as error:
        error.where = error.where or document.where("model", key)
        raise
