"""What the table `[train]` of `train.toml` may say."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mitocore.config.table import Table, Voxels
from mitocore.geometry import VoxelSizeOption

Share = Annotated[float, Field(ge=0, lt=1)]


def _check_owned(table: Table, owned: Mapping[str, tuple[str, ...]], chosen: str) -> None:
    """Refuse options of a choice that was not made, which would do nothing."""
    for owner, names in owned.items():
        if owner != chosen and (stray := [name for name in names if name in table.model_fields_set]):
            raise ValueError(f"{stray[0]} is an option of {owner!r}, not of {chosen!r}")


class Optimizer(Table):
    """How gradients become steps. Norm layers and biases have no weight decay."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) or stochastic gradient descent."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Highest learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Pull of the weights towards zero."""
    momentum: Share = 0.9
    """Of sgd (Nesterov); the others do not use it."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Of adam and adamw: memory of the gradient and of its square; sgd does not use them."""


class Schedule(Table):
    """Learning rate over the steps."""

    name: Literal["constant", "cosine", "one_cycle", "multi_step", "plateau"] = "constant"
    """Constant; half a cosine down to zero; up and down again (Smith 2018, arXiv 1803.09820); down at stated steps; or
    down whenever validation no longer improves."""
    warmup: Annotated[int, Field(ge=0)] | None = None
    """Steps in which the rate rises; left out: 30 % of the steps for one_cycle, else none."""
    warmup_from: Annotated[float, Field(ge=0, le=1)] | None = None
    """Where it rises from, as a share of the highest rate; left out: 1/25 for one_cycle, else 0."""
    steps: tuple[Voxels, ...] = ()
    """Of multi_step: where the rate falls."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of multi_step: what it is multiplied by there."""
    patience: Voxels = 5
    """Of plateau: validations without improvement after which the rate falls."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of plateau: what it is multiplied by then."""

    @model_validator(mode="after")
    def _whole(self) -> "Schedule":
        _check_owned(self, {"multi_step": ("steps", "gamma"), "plateau": ("patience", "factor")}, self.name)
        if self.name == "multi_step" and (not self.steps or list(self.steps) != sorted(set(self.steps))):
            raise ValueError(f"multi_step falls at increasing steps, such as steps = [6000, 8000], not {self.steps}")
        return self


class Average(Table):
    """Mean of the weights over many steps, which often predicts better than the last of them. Buffers, such as the
    statistics of batch norms, are averaged in the same way."""

    kind: Literal["ema", "swa"]
    """Exponential moving average, or stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407)."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Of ema: share of the average that stays at each step."""
    start: Voxels | None = None
    """Of swa: the first step that counts; left out: after three quarters of the steps."""
    every: Voxels = 10
    """Of swa: steps between two weights that count."""
    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of swa: learning rate from `start` on, as a share of the highest; left out: that of the schedule."""

    @model_validator(mode="after")
    def _whole(self) -> "Average":
        _check_owned(self, {"ema": ("decay",), "swa": ("start", "every", "rate")}, self.kind)
        return self

    def first(self, steps: int) -> int:
        """The step, counted from 1, whose weights are the first to count in a training of `steps`."""
        if self.kind == "ema":
            return 1
        return self.start or max(1, round(0.75 * steps))


class Unfreezing(Table):
    """Parts that are trained from a step on."""

    step: Voxels
    """Steps that are taken before."""
    parts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names out of `freeze`."""


class Train(Table):
    """How long, on what, and with which steps."""

    steps: Voxels = 10_000
    """Optimiser steps."""
    crop: tuple[Voxels, Voxels, Voxels] | None = None
    """Voxels (z, y, x) the network sees in training; left out: the window of the model, or of the weights to start
    from."""
    voxel_size: VoxelSizeOption | None = None
    """Size of a voxel (z, y, x), in nm, to which every volume is resampled; left out: that of the weights to start
    from, else as they are."""
    batch: Voxels = 2
    """Crops per forward pass, on each device."""
    accumulate: Voxels = 1
    """Forward passes per step."""
    devices: str = "auto"
    """`"cpu"`, `"cuda"`, `"cuda:1"`, or `"auto"`: the first GPU, else the CPU. Several, each with its own crops:
    `"cuda:0,1"`, or `"2"` for the first two GPUs; `"cpu:2"` is two processes on the CPU."""
    precision: Literal["float32", "bf16", "float16"] = "float32"
    """Arithmetic of the network; weights are float32 in all. float16 scales the loss, and is for GPUs."""
    compile: bool = False
    """Whether torch compiles the network for the shape of the crops; slow at first, then faster on most GPUs."""
    optimizer: Optimizer = Optimizer()
    """How gradients become steps."""
    schedule: Schedule = Schedule()
    """Learning rate over the steps."""
    average: Average | None = None
    """Mean of the weights over many steps, which is what is validated and saved; left out: the weights themselves."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; left out: not clipped."""
    freeze: tuple[str, ...] = ()
    """Parts of the network that stay as they are, their norm statistics included."""
    unfreeze: tuple[Unfreezing, ...] = ()
    """Frozen parts that are trained later."""
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default={})
    """Learning rate of a part, as a multiple of that of the others: `rates = { encoder = 0.1 }`."""
    rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Multiplies the rate of each part once more than that of the part after it; the last has the full rate."""
    validate_every: Voxels = 500
    """Steps between two validations; each writes a checkpoint."""
    checkpoint_every: Voxels | None = None
    """Steps between numbered weights that are kept; left out: none are."""
    keep_best: str = "loss"
    """What best means: `"loss"`, or `"HEAD.METRIC"`, the first score of that metric."""
    stop_after: Voxels | None = None
    """Validations without improvement after which training stops; left out: never."""
    pictures: bool = True
    """Whether each validation draws the curves and some sections, raw | truth | prediction | error."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare crops; speed only."""
    folder: str | None = None
    """Where weights, checkpoints and curves go; left out: `runs/<name of the TOML file>`."""

    @field_validator("devices")
    @classmethod
    def _devices(cls, devices: str) -> str:
        if not re.fullmatch(r"auto|cpu(:[1-9]\d*)?|cuda(:\d+(,\d+)*)?|[1-9]\d*", devices):
            raise ValueError('devices are "auto", "cpu", "cuda", "cuda:1", "cuda:0,1" or a number of GPUs such as "2"')
        if "," in devices and len(set(numbers := devices.partition(":")[2].split(","))) < len(numbers):
            raise ValueError("a device is named twice")
        return devices

    @model_validator(mode="after")
    def _later_trained(self) -> "Train":
        later = [name for stage in self.unfreeze for name in stage.parts]
        for name in later:
            if name not in self.freeze:
                raise ValueError(f"unfreeze names {name!r}, which freeze does not")
            if later.count(name) > 1:
                raise ValueError(f"unfreeze names {name!r} twice")
        return self

    @property
    def processes(self) -> int:
        """How many devices train together, each with its own crops.

        >>> [Train(devices=stated).processes for stated in ("auto", "cpu", "cuda:1", "cuda:0,2", "3", "cpu:2")]
        [1, 1, 1, 2, 3, 2]
        """
        kind, _, which = self.devices.rpartition(":")
        if kind == "cuda":
            return len(which.split(","))
        return int(which) if which.isdigit() else 1
