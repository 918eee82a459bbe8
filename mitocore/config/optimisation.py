"""What the table `[train]` of `train.toml` may say."""

from typing import Annotated, Literal

from pydantic import Field

from mitocore.config.table import Table, Voxels


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
