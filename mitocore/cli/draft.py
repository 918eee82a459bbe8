"""A pipeline written to be edited: every option of every component stands in it, with what it means."""

import inspect
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mitocore import recommended
from mitocore.component import AtInference, Component
from mitocore.config import written
from mitocore.config.components import build
from mitocore.config.inputs import stem_of
from mitocore.config.pipeline import OutputTable, PredictTable, RunTable
from mitocore.geometry import VoxelSize
from mitocore.header import WeightsHeader, read_header
from mitocore.interfaces import Reader, Writer
from mitocore.registry import Registry
from mitocore.specs import VolumeSpec
from mitocore.volumes import installed, reader_of, writer_of
from mitocore.weights import is_path, resolve


def drafted(source: str, weights: str, folder: Path, voxel_size: VoxelSize | None = None) -> str:
    """The text of a pipeline.toml in `folder` that segments a volume with what weights recommend.

    Parameters
    ----------
    voxel_size
        States it, where the file does not say it or is wrong.

    Raises
    ------
    MitocoreError
        If the volume or the weights cannot be read.
    """
    registry = installed()
    header = read_header(resolve(weights, Path()))
    tables = recommended.steps(weights, registry=registry)
    if is_path(weights):
        tables[0]["weights"] = _from(folder, weights)
    reader = reader_of(source, registry)
    with reader.open() as volume:
        spec = volume.spec
    output = f"{stem_of(source, registry)}_segmented.zarr"
    parts = [
        [f"# {source}, segmented with {weights}. Options behind a # are at their defaults.", "mitocore = 1"],
        ["[input]", *_input(_from(folder, source), reader, spec, header, voxel_size)],
        ["[[step]]", *_network(tables[0], header, registry)],
        *(["[[step]]", *_step(table, registry)] for table in tables[1:]),
    ]
    if len(tables) == 1:
        parts.append(
            ["# The weights recommend no post-processing: `mitocore describe postprocessor` lists what there is."]
        )
    parts.append(["[output]", *_output(output, writer_of(output, registry))])
    parts.append(["[run]", *_options(RunTable, {})])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _from(folder: Path, place: str) -> str:
    """A path as a file in `folder` states it; what is typed in the current folder stays as it is typed."""
    if "://" in place or folder.absolute() == Path().absolute():
        return place
    return os.path.relpath(place, folder) + "/" * place.endswith("/")


def _input(
    place: str, reader: Reader, spec: VolumeSpec, header: WeightsHeader, voxel_size: VoxelSize | None
) -> Iterator[str]:
    yield written.entry("path", place)
    shape = " x ".join(map(str, spec.shape))
    channels = f", {len(spec.channels)} channels" if len(spec.channels) > 1 else ""
    yield f"# {shape} voxels (z, y, x) of {spec.dtype}{channels}"
    if voxel_size:
        yield f"voxel_size = {list(voxel_size.edges)}  # nm (z, y, x)"
    elif spec.voxel_size:
        yield f"# voxel_size = {list(spec.voxel_size.edges)}  # nm (z, y, x), as the file says; state it if it is wrong"
    else:
        smallest = header.voxel_size[0] if isinstance(header.voxel_size, tuple) else header.voxel_size
        proposed = list(smallest.edges) if smallest else [40, 8, 8]
        trained = ", the weights were trained at this" if smallest else ""
        yield f"# voxel_size = {proposed}  # nm (z, y, x): the file does not say it{trained}"
    yield from _options(type(reader), {}, without=("path", "voxel_size", "key"))


def _network(table: Mapping[str, Any], header: WeightsHeader, registry: Registry) -> Iterator[str]:
    built, _ = build("model", {**header.options, "model": header.component}, registry)
    yield from (written.entry(key, value) for key, value in table.items())
    heads = ", ".join(f"{table['name']}.{head.name}" for head in header.heads if not head.auxiliary)
    yield f"# {header.component} gives {heads}; window {header.window.shape}, overlap {header.window.overlap}"
    yield from _options(type(built), {}, only=built.marked(AtInference))
    yield "# How the network is run:"
    for name, default, text in _fields(PredictTable):
        yield from _comments(text)
        yield f"# predict.{name} = {'…' if default is None else written.value(default)}"


def _step(table: Mapping[str, Any], registry: Registry) -> Iterator[str]:
    engine = ("name", "inputs", "storage")
    built, _ = build("postprocessor", dict(table), registry, allow=engine)
    stated = ("postprocessor", *engine)
    yield from (written.entry(key, table[key]) for key in stated if key in table)
    yield from _options(type(built), table)


def _output(place: str, writer: Writer) -> Iterator[str]:
    yield written.entry("path", place)
    yield from _options(OutputTable, {}, without=("path",))
    yield from _options(type(writer), {}, without=("path",))


def _options(
    model: type[BaseModel],
    stated: Mapping[str, Any],
    *,
    without: Collection[str] = (),
    only: Collection[str] | None = None,
) -> Iterator[str]:
    for name, default, text in _fields(model):
        if name in without or (only is not None and name not in only):
            continue
        yield from _comments(text)
        if name in stated:
            yield written.entry(name, stated[name])
        else:
            yield f"# {name} = {'…' if default is None else written.value(default)}"


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any, str]]:
    """Name, default as JSON has it (None: there is none) and description of each option."""
    properties = model.options()["properties"] if issubclass(model, Component) else _schema(model)
    for name, option in properties.items():
        yield name, option.get("default"), model.model_fields[name].description or ""


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = model.model_json_schema()["properties"]
    return found


def _comments(text: str) -> Iterator[str]:
    yield from (f"# {line}".rstrip() for line in inspect.cleandoc(text).splitlines())
