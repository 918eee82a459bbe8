"""The model of a training, and the weights it starts from."""

from dataclasses import dataclass
from pathlib import Path

from mitocore import weights
from mitocore.component import AtInference
from mitocore.config.table import ComponentTable
from mitocore.config.toml import Document
from mitocore.errors import ConfigError, DataError
from mitocore.header import WeightsHeader, read_header
from mitocore.interfaces import Model
from mitocore.training.objectives import Build
from mitocore.training.plan import Table


@dataclass(frozen=True)
class Start:
    """A model, and what its first weights say of themselves."""

    model: Model
    table: Table
    weights: Path | None = None
    header: WeightsHeader | None = None


def started(value: ComponentTable, build: Build, document: Document) -> Start:
    """The model that `[model]` states; with `weights`, all options that are not stated are those of their header.

    Raises
    ------
    ConfigError
        If an option that the weights depend on differs from that of the header.
    DataError
        If the weights cannot be read.
    """
    table: Table = {"model": value} if isinstance(value, str) else value
    if "weights" not in table:
        return Start(*build("model", table, "model"))
    where = document.where("model", "weights")
    try:
        path = weights.resolve(str(table["weights"]), document.folder_of("model", "weights"))
        header = read_header(path)
    except DataError as error:
        error.where = error.where or where
        raise
    _, named = build("model", {"model": header.component, **header.options}, "model")
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
    return Start(model, found, path, header)
