"""What pipeline.toml may say."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, NonNegativeInt, PositiveInt

from mitocore import weights
from mitocore.component import AtInference
from mitocore.config.components import build, opened_by
from mitocore.config.inputs import check_placeholders
from mitocore.config.toml import Document, Key, near, parse, step_name
from mitocore.errors import ConfigError, DataError, MitocoreError, PluginError, together
from mitocore.geometry import Shape
from mitocore.header import WeightsHeader, read_header
from mitocore.interfaces import Model, Normalizer, PostProcessor, Reader, Writer
from mitocore.registry import Entry, Registry
from mitocore.resampling import Factors
from mitocore.scaling import factors_of
from mitocore.specs import Axis, Blending, Kind, Storage
from mitocore.symmetry import Turns

T = TypeVar("T")

STEP_WORDS = ("name", "inputs", "predict", "weights", "storage")
"""Keys of a [[step]] that belong to the engine."""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def bytes_of(text: Any) -> Any:
    """Bytes from a number or "16 GB"; anything else is left for pydantic to refuse.

    >>> bytes_of("1.5 GB"), bytes_of("2 GiB")
    (1500000000, 2147483648)
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt]?i?b)?\s*", text, re.IGNORECASE) if isinstance(text, str) else None
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else text


def _positive(shape: Shape) -> Shape:
    if min(shape) < 1:
        raise ValueError("an axis needs at least one voxel")
    return shape


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PredictTable(_Table):
    """How the network of a step is run."""

    window: tuple[Axis, Axis, Axis] | None = None
    """Voxels of one forward pass, (z, y, x), or "all" for a whole axis. Default: what the weights were trained with."""
    overlap: Shape | None = None
    """Voxels shared by neighbouring tiles, blended. Default: that of the model."""
    batch: PositiveInt | Literal["auto"] = "auto"
    """Tiles in one forward pass. "auto": 1 on a CPU, 4 on a GPU."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """"auto": bf16 on a GPU or CPU that computes it in hardware, else float32."""
    tta: Turns = "none"
    """Test-time augmentation: every tile is predicted under each symmetry, turned back and reduced. "flips" of y and x
    (4 times the work), "plane": the y-x transpose too (8), "all": the flip of z too (16)."""
    reduce: Literal["mean", "min", "max"] = "mean"
    """How the results of all symmetries, and of all networks of an ensemble, become one."""
    blending: Blending = "ramp"
    """How much a voxel counts where tiles overlap: "ramp" falls to their faces along the overlap; "gaussian" and "bump"
    fall from their middle, as in PyTorch Connectomics."""


class RunTable(_Table):
    """Where and how a pipeline runs. Only `devices` can change a voxel, by the precision a device has."""

    folder: str | None = None
    """The run folder: state, scratch and record. Default: runs/<name of the TOML file>."""
    engine: Literal["threads", "processes"] = "threads"
    """What works on blocks beside this program's own thread. Processes are for steps whose Python code keeps threads
    waiting for each other; each takes a second to start. The network runs in this process either way."""
    workers: NonNegativeInt | Literal["auto"] = "auto"
    """How many blocks are worked on at the same time; 0 works in the calling thread. "auto": one per core."""
    block: Annotated[Shape, AfterValidator(_positive)] = (128, 512, 512)
    """Unit of work in voxels, (z, y, x)."""
    memory: Annotated[PositiveInt | Literal["auto"], BeforeValidator(bytes_of)] = "auto"
    """Bytes a run may use, or "16 GB". "auto": half of what is free."""
    devices: str = "auto"
    """"auto": the first GPU there is, else the CPU; or "cpu", "cuda:0"."""
    retries: NonNegativeInt = 2
    """How often a block that raises is tried again."""
    keep: Literal["heads", "all", "none"] = "heads"
    """Scratch kept when the run is done: what the network gave, everything, or nothing."""


class OutputTable(_Table):
    """Where results go; the options of the writer stand beside these."""

    path: str
    """File or folder to create."""
    save: tuple[str, ...] = ()
    """Arrays as "step.array", or "all" alone. Default: all arrays of the last step."""
    scale_factors: Annotated[Factors, BeforeValidator(factors_of)] = (1, 1, 1)
    """Voxels of the output per voxel of the input along (z, y, x): [1, 0.5, 0.5] halves the resolution of sections.
    Masks, classes and ids take the nearest voxel; probabilities and images the mean of what a larger voxel covers."""


class _File(_Table):
    mitocore: Literal[1]
    input: dict[str, Any] | None = None
    step: tuple[dict[str, Any], ...] = ()
    output: dict[str, Any] | None = None
    run: RunTable = RunTable()


@dataclass(frozen=True)
class Member:
    """A further network of an ensemble: it gives the heads of the first, from the same input."""

    component: Model
    weights: Path
    header: WeightsHeader


@dataclass(frozen=True)
class StepConfig:
    """One checked [[step]]: a component and how the engine is to use it."""

    name: str
    component: Model | PostProcessor | None
    """None: the weights that name it are missing (only without data)."""
    entry: Entry | None = None
    """None: a component given by a program, not registered."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    predict: PredictTable = PredictTable()
    storage: Storage | None = None
    weights: Path | None = None
    header: WeightsHeader | None = None
    normalizer: Normalizer | None = None
    where: str = ""
    ensemble: tuple[Member, ...] = ()
    """Networks beside that of `weights`; their values are reduced to one result."""


@dataclass(frozen=True)
class PipelineConfig:
    """A pipeline with its components built; what `plan` checks."""

    steps: tuple[StepConfig, ...]
    name: str = "pipeline"
    reader: Reader | None = None
    kind: Kind | None = None
    """What the input holds, if the file does not say: an image."""
    writer: Writer | None = None
    save: tuple[str, ...] = ()
    scale_factors: Factors | None = None
    """Voxels of the output per voxel of the input along (z, y, x); None: the same."""
    run: RunTable = RunTable()
    document: Document = field(default_factory=lambda: Document({}))
    notes: tuple[str, ...] = ()


def configure(document: Document, registry: Registry, *, data: bool = True) -> PipelineConfig:
    """Stages 1 to 5 of planning: the file, its components, headers of weights, options.

    Parameters
    ----------
    data
        False: a missing weights file is a note, not an error.

    Raises
    ------
    MitocoreError
        With all findings, in the order of the file.
    """
    file = parse(_File, document.data, document, what="the pipeline")
    findings: list[tuple[int, MitocoreError]] = []
    notes: list[str] = []

    def checked(read: Callable[[], T], *keys: Key) -> T | None:
        try:
            return read()
        except MitocoreError as error:
            findings.extend((document.lines.get(keys, 0), finding) for finding in (error, *error.others))
            return None

    reader, kind = None, None
    if file.input is not None:
        reader, kind = checked(partial(_input, file.input, registry, document), "input") or (None, None)
    read_step = partial(_step, registry=registry, document=document, notes=notes, data=data)
    steps = [checked(partial(read_step, table, number=n), "step", n) for n, table in enumerate(file.step)]
    writer: Writer | None = None
    save: tuple[str, ...] = ()
    factors: Factors | None = None
    if file.output is not None:
        read_output = partial(_output, file.output, registry, document)
        writer, save, factors = checked(read_output, "output") or (None, (), None)
    if not file.step:
        problem = ConfigError("there is no [[step]]", where=str(document.path or ""), hint='[[step]] weights = "…"')
        findings.append((0, problem))
    if findings:
        raise together([finding for _, finding in sorted(findings, key=itemgetter(0))])
    return PipelineConfig(
        steps=tuple(step for step in steps if step),
        name=document.path.stem if document.path else "pipeline",
        reader=reader,
        kind=kind,
        writer=writer,
        save=save,
        scale_factors=factors,
        run=file.run,
        document=document,
        notes=tuple(notes),
    )


def kind_of(stated: Any, where: str = "") -> Kind | None:
    """The kind of array that is stated, if one is.

    Raises
    ------
    ConfigError
        If there is no such kind.
    """
    if stated is not None and stated not in list(Kind):
        raise ConfigError(f"{stated!r} is not a kind of array", where=where, hint=near(str(stated), Kind))
    return None if stated is None else Kind(stated)


def _input(table: dict[str, Any], registry: Registry, document: Document) -> tuple[Reader, Kind | None]:
    where = document.where("input")
    path = table.get("path")
    options = {key: value for key, value in table.items() if key not in ("path", "reader", "kind")}
    kind = kind_of(table.get("kind"), document.where("input", "kind"))
    named = table.get("reader")
    if path is None and named is not None:
        reader, _ = build("reader", {"reader": named, **options}, registry, document, "input")
    elif isinstance(path, str):
        reader, _ = opened_by("reader", path, registry, document, "input", options=options, named=named)
    elif isinstance(path, list):
        problem = f"path names {len(path)} volumes; this takes one"
        raise ConfigError(problem, where=document.where("input", "path"), hint="`mitocore run` takes many")
    else:
        raise ConfigError("the input has no path", where=where, hint='path = "volume.zarr::raw"')
    return _typed(reader, Reader), kind


def _output(
    table: dict[str, Any], registry: Registry, document: Document
) -> tuple[Writer, tuple[str, ...], Factors | None]:
    own = {key: table[key] for key in OutputTable.model_fields if key in table}
    stated = parse(OutputTable, own, document, "output", what="the output")
    check_placeholders(document)
    options = {key: value for key, value in table.items() if key not in (*own, "writer")}
    writer, _ = opened_by(
        "writer", stated.path, registry, document, "output", options=options, named=table.get("writer")
    )
    writer = _typed(writer, Writer)
    if writer.holds == "one" and _source(document) == Path(writer.path):
        problem = f"{writer.path!r} is the input itself, which is not written over"
        raise ConfigError(problem, where=document.where("output", "path"), hint="another path for the output")
    return writer, stated.save, None if stated.scale_factors == (1, 1, 1) else stated.scale_factors


def _source(document: Document) -> Path | None:
    table = document.data.get("input")
    path = table.get("path") if isinstance(table, dict) else None
    if not isinstance(path, str) or "://" in path:
        return None
    return (document.folder_of("input", "path") / path.partition("::")[0]).absolute()


def _typed(component: Any, kind: type[Any]) -> Any:
    if not isinstance(component, kind):
        raise PluginError(f"{type(component).__name__} is not a {kind.__name__}")
    return component


def _step(
    table: dict[str, Any], *, registry: Registry, document: Document, number: int, notes: list[str], data: bool
) -> StepConfig:
    keys = ("step", number)
    where = document.where(*keys)
    kinds = [kind for kind in ("model", "postprocessor") if kind in table]
    if len(kinds) > 1 or not (kinds or "weights" in table):
        hint = 'model = "…", postprocessor = "…", or weights = "…"'
        raise ConfigError("a step is one model or one postprocessor", where=where, hint=hint)
    predict = parse(PredictTable, table.get("predict", {}), document, *keys, "predict", what="predict")
    inputs = table.get("inputs", {})
    if not isinstance(inputs, dict) or not all(isinstance(value, str) for value in inputs.values()):
        raise ConfigError("inputs names arrays", where=where, hint='inputs = { mask = "step.array" }')
    storage = table.get("storage")
    if storage not in (None, "float32", "float16", "uint8"):
        where = document.where(*keys, "storage")
        raise ConfigError(f"storage = {storage!r} is unknown", where=where, hint="storage is float16, float32 or uint8")
    if kinds == ["postprocessor"]:
        for word in ("predict", "weights"):
            if word in table:
                raise ConfigError(f"{word!r} is for models only", where=document.where(*keys, word), hint="remove it")
        component, entry = build("postprocessor", table, registry, document, *keys, allow=STEP_WORDS)
        name = step_name(table)
        return StepConfig(name, _typed(component, PostProcessor), entry, inputs, storage=storage, where=where)
    return _model_step(table, registry, document, number, notes, predict, data=data)


def _model_step(
    table: dict[str, Any],
    registry: Registry,
    document: Document,
    number: int,
    notes: list[str],
    predict: PredictTable,
    *,
    data: bool,
) -> StepConfig:
    keys = ("step", number)
    where = document.where(*keys)
    if "weights" not in table:
        hint = 'weights = "best.safetensors", or a name from `mitocore weights list`'
        raise ConfigError("a model needs trained weights", where=where, hint=hint)
    first, *others = stated_weights(table["weights"], document.where(*keys, "weights"))
    path = header = normalizer = entry = None
    try:
        path, header = _read(first, document, number)
        further = [_read(other, document, number) for other in others]
    except DataError as error:
        if data:
            error.where = error.where or document.where(*keys, "weights")
            raise
        further = []
        notes.append(f"weights {table['weights']!r} are not here: what depends on them is unchecked")
    stated = {key: value for key, value in table.items() if key not in (*STEP_WORDS, "model")}
    named = table.get("model") or (header.component if header else None)
    component: Model | None = None
    ensemble: tuple[Member, ...] = ()
    if named is not None:
        if header and table.get("model"):
            _same_model(table["model"], header, registry, document.where(*keys, "model"))
        options = {**(header.options if header else {}), **stated}
        built, entry = build("model", {"model": named, **options}, registry, document, *keys)
        component = _typed(built, Model)
        if header:
            _same_options(_typed(built, Model), header, stated, document, number)
            normalizer = _typed(build("normalizer", header.normalizer, registry)[0], Normalizer)
            where_weights = document.where(*keys, "weights")
            for other, there in further:
                built, _ = build("model", {"model": there.component, **there.options, **stated}, registry)
                ensemble += (member(component, header, _typed(built, Model), other, there, where_weights),)
    name = step_name(table) or (header.component.rpartition("/")[2] if header else "net")
    inputs, storage = table.get("inputs", {}), table.get("storage")
    return StepConfig(name, component, entry, inputs, predict, storage, path, header, normalizer, where, ensemble)


def stated_weights(value: Any, where: str) -> list[str]:
    """The weights of a step: one, or those of an ensemble.

    Raises
    ------
    ConfigError
        If they are not names or files, or one is named twice.
    """
    several = value if isinstance(value, list | tuple) else [value]
    if not several or not all(isinstance(name, str | Path) for name in several):
        raise ConfigError(f"weights = {value!r} names no weights", where=where, hint='weights = "best.safetensors"')
    names = [str(name) for name in several]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"the ensemble names {twice[0]!r} twice", where=where, hint="name each weights file once")
    return names


def _read(name: str, document: Document, number: int) -> tuple[Path, WeightsHeader]:
    path = weights.resolve(name, document.folder_of("step", number, "weights"))
    return path, read_header(path)


def member(
    first: Model, header: WeightsHeader, component: Model, path: Path, other: WeightsHeader, where: str
) -> Member:
    """A further network of an ensemble, beside the first and its header.

    Raises
    ------
    ConfigError
        If it takes or gives something else than the first.
    """
    heads = [[head for head in model.heads() if not head.auxiliary] for model in (first, component)]
    differs = {
        "input channels": first.channels() != component.channels(),
        "heads": heads[0] != heads[1],
        "normaliser": header.normalizer != other.normalizer,
        "window": header.window != other.window,
        "voxel size": header.voxel_size != other.voxel_size,
    }
    if any(differs.values()):
        what = ", ".join(name for name, found in differs.items() if found)
        problem = f"{str(path)!r} and the first weights of the ensemble differ in {what}"
        raise ConfigError(problem, where=where, hint="an ensemble needs weights that were trained alike")
    return Member(component, path, other)


def _same_model(stated: str, header: WeightsHeader, registry: Registry, where: str) -> None:
    if registry.find("model", stated).qualified != header.component:
        raise ConfigError(
            f"the weights are of model {header.component!r}, not {stated!r}", where=where, hint="leave `model` out"
        )


def _same_options(
    component: Model, header: WeightsHeader, stated: Mapping[str, Any], document: Document, number: int
) -> None:
    free = component.marked(AtInference)
    trained = type(component).model_validate(header.options)
    for key in stated.keys() - free:
        if getattr(component, key) != getattr(trained, key):
            raise ConfigError(
                f"{key} = {stated[key]!r}, but the weights were trained with {getattr(trained, key)!r}",
                where=document.where("step", number, key),
                hint=f"leave {key} out: the weights know it",
            )
