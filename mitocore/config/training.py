"""What `train.toml` may say."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mitocore.config.split import Part
from mitocore.geometry import nanometres
from mitocore.specs import Kind

ComponentTable = str | dict[str, Any]
"""A component: its name alone, or a table with its options; built when the training is planned."""
LABEL_KINDS = {"instances": Kind.INSTANCE, "semantic": Kind.SEMANTIC}
"""Names of label arrays, and what they hold."""
PartOption = Annotated[Part, BeforeValidator(Part.parse)]
Voxels = Annotated[int, Field(ge=1)]


def _checked_gap(gap: int | str) -> int | str:
    if isinstance(gap, str) and gap != "auto":
        nanometres(gap)
    elif isinstance(gap, int) and gap < 0:
        raise ValueError(f"a gap of {gap} voxels is less than none")
    return gap


class Table(BaseModel):
    """Base of the tables: no unknown keys, frozen, documented."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True)


class LabelValues(Table):
    """What the numbers in a label file mean."""

    foreground: tuple[int, ...] | None = None
    """Values that are an object; they become 1, all others background. Left out: every value counts as it stands."""
    ignore: tuple[int, ...] = ()
    """Values that are left out of loss and scores, beside those that always are: the largest number of an unsigned file
    of 16 bits or more, and -1 in a signed one. 255 in a file of bytes is an id like others unless it is stated here."""


class Split(Table):
    """Parts of a volume that are not trained on: whole planes along one axis."""

    validation: PartOption | None = None
    """`"z:17-20"` (voxels, 20 excluded), `"z:0.7-0.85"` (fractions of the axis) or `"all"`."""
    test: PartOption | None = None
    """Scored once, at the end, with the best weights; written like `validation`."""
    gap: Annotated[int | str, AfterValidator(_checked_gap)] = "auto"
    """Left out of training at each face of the other parts: voxels, `"15 nm"`, or `"auto"`: as many as the
    window of the model crops."""


class VolumeTable(Table):
    """One labelled volume. Further keys are options of its reader."""

    model_config = ConfigDict(extra="allow")

    path: str
    """The image, `PATH[::KEY]`."""
    reader: str | None = None
    """Reader of the image; left out, the suffix of the path tells."""
    labels: str | dict[str, ComponentTable]
    """Object labels, `PATH[::KEY]`; or several by name, `{ instances = …, semantic = … }`."""
    label_values: LabelValues = LabelValues()
    """What the numbers in the label file mean."""
    valid: ComponentTable | None = None
    """Mask, `PATH[::KEY]`; voxels where it is 0 are left out of loss and scores."""
    split: Split = Split()
    """Which parts are for validation and test; the rest is for training."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often crops come from this volume, relative to the others."""

    @field_validator("labels")
    @classmethod
    def _known_names(cls, labels: str | dict[str, ComponentTable]) -> str | dict[str, ComponentTable]:
        unknown = [name for name in labels if name not in LABEL_KINDS] if isinstance(labels, dict) else []
        if unknown or not labels:
            named = " or ".join(map(repr, LABEL_KINDS))
            raise ValueError(f"label arrays are called {named}, not {(unknown or [''])[0]!r}")
        return labels

    @model_validator(mode="after")
    def _one_foreground(self) -> "VolumeTable":
        if self.label_values.foreground and isinstance(self.labels, dict) and len(self.labels) > 1:
            raise ValueError(f"label_values.foreground is for one label array, and there are {len(self.labels)}")
        return self


class ObjectiveTable(Table):
    """One loss: what a head should predict, and how the difference is measured."""

    head: str
    """Name of a head of the model."""
    target: ComponentTable
    """What the head should predict."""
    loss: ComponentTable
    """How prediction and target are compared."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Factor of this loss in the sum."""


class Optimizer(Table):
    """How gradients become steps. Norm layers and biases have no weight decay."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) or stochastic gradient descent."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Highest learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Pull of the weights towards zero."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd (Nesterov); the others do not use it."""


class Schedule(Table):
    """Learning rate over the steps."""

    name: Literal["constant", "cosine", "one_cycle"] = "constant"
    """Constant; half a cosine down to zero; or up and down again (Smith 2018, arXiv 1803.09820)."""
    warmup: Annotated[int, Field(ge=0)] | None = None
    """Steps in which the rate rises; left out: 30 % of the steps for one_cycle, else none."""


class Train(Table):
    """How long, on what, and with which steps."""

    steps: Voxels = 10_000
    """Optimiser steps."""
    crop: tuple[Voxels, Voxels, Voxels] | None = None
    """Voxels (z, y, x) the network sees in training; left out: the window of the model."""
    batch: Voxels = 2
    """Crops per forward pass."""
    accumulate: Voxels = 1
    """Forward passes per step."""
    devices: str = "auto"
    """`"cpu"`, `"cuda"`, `"cuda:1"`, or `"auto"`: the first GPU, else the CPU."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the network; weights are float32 in both."""
    optimizer: Optimizer = Optimizer()
    """How gradients become steps."""
    schedule: Schedule = Schedule()
    """Learning rate over the steps."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; left out: not clipped."""
    validate_every: Voxels = 500
    """Steps between two validations; each writes a checkpoint."""
    keep_best: str = "loss"
    """What best means: `"loss"`, or `"HEAD.METRIC"`, the first score of that metric."""
    stop_after: Voxels | None = None
    """Validations without improvement after which training stops; left out: never."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare crops; speed only."""
    folder: str | None = None
    """Where weights, checkpoints and curves go; left out: `runs/<name of the TOML file>`."""


class Training(Table):
    """A whole `train.toml`."""

    mitocore: Literal[1]
    """Version of this grammar."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed gives the same weights on the same machine."""
    model: ComponentTable
    """The network and its options; `weights` names a file to start from."""
    normalizer: ComponentTable | None = None
    """How intensities become network input; left out: that of the weights to start from."""
    step: tuple[dict[str, Any], ...] = ()
    """Recommended post-processing, written into the header of the weights."""
    volume: Annotated[tuple[VolumeTable, ...], Field(min_length=1)]
    """Labelled volumes."""
    sampler: ComponentTable = "foreground"
    """Where crops are cut."""
    augment: tuple[ComponentTable, ...] = ()
    """What changes image and labels together, in this order."""
    objective: Annotated[tuple[ObjectiveTable, ...], Field(min_length=1)]
    """What is learned; the losses are added up."""
    train: Train = Train()
    """How long, on what, and with which steps."""
