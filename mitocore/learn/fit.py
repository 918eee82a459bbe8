"""A planned training, run by Lightning: validation rounds, checkpoints, exact resume."""

import hashlib
import io
import json
import logging
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from mitocore.blockwise import passes
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.config.partition import write_split
from mitocore.config.volumes import PlannedVolume
from mitocore.durable import FREE_SPACE, disk_full, replaced, write_json
from mitocore.errors import ConfigError, DataError, ResourceError, RunError
from mitocore.geometry import Roi
from mitocore.interfaces import Stats
from mitocore.learn import device as devices
from mitocore.learn.checkpoint import fill, load_weights
from mitocore.learn.data import Crops, Prepared, build_index
from mitocore.learn.initial import take_initial
from mitocore.learn.loading import TrainingData
from mitocore.learn.located import located
from mitocore.learn.module import Learner
from mitocore.learn.rounds import BEST, CHECKPOINT, LAST, Progress, Rounds
from mitocore.learn.selection import finish
from mitocore.learn.team import Follower, Leader, Place, leading
from mitocore.learn.validation import Validation
from mitocore.training import TrainingPlan

log = logging.getLogger(__name__)

RECORD, INITIAL = "training.json", "initial.json"
_BLOCK = (128, 512, 512)
_PRECISION = {"float32": "32-true", "bf16": "bf16-mixed", "float16": "16-mixed"}
_SPACE = "free some disk space; --resume continues the training"


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves behind."""

    folder: Path
    best: Path
    """Weights of the best validation."""
    last: Path
    """Weights of the last step."""
    scores: dict[str, float]
    """Of the best weights: `validation.loss`, `validation.HEAD.SCORE`, and `test.…` if there is a test part."""
    steps: int
    seconds: float
    """Wall time of this call."""


def fit(
    plan: TrainingPlan,
    *,
    resume: bool = False,
    progress: Progress = lambda _what, _done, _total, _numbers: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train, and score the test parts once at the end.

    The folder receives `best.safetensors`, `last.safetensors`, `last.ckpt` (for resuming only), `training.json` (the
    settings) and the curves (`logs/`, `tensorboard/`).

    Parameters
    ----------
    resume
        Continue the training in the folder, exactly as if it had not stopped; if there is none, begin.
    progress
        Told after every step and validated slab.
    cancelled
        Asked after every step, and while volumes are measured; once true, the training ends as if interrupted.

    Raises
    ------
    DataError
        If the folder holds a training already and `resume` is false, or cannot be made, or a part holds no foreground,
        or the first weights cannot be read or do not fit.
    ConfigError
        If the training in the folder was begun with other settings, or on other voxels, or the network has no part of
        a name.
    ResourceError
        If the device asked for is not there, or its memory or the disk is too small.
    RunError
        If another process trains in the folder, the loss is no longer finite, or one of several processes ended.
    KeyboardInterrupt
        If interrupted (Ctrl-C, SIGTERM or `cancelled`); a checkpoint holds all steps taken, so `resume` loses nothing.
    """
    started = time.monotonic()
    team = devices.several(plan.train.devices)
    device = team[0]
    with RunLock(plan.folder) as lock, quiet(), devices.isolated(device), devices.memory_reused(device):
        _compare(plan, resume=resume)
        devices.check_arithmetic(plan.train.precision, device, compiled=plan.train.compile)
        volumes = prepare_volumes(plan, lock, progress, cancelled)
        validation, test = (Validation(plan, volumes, part, device) for part in ("validation", "test"))
        validation.check()
        if test.volumes:
            test.check()
        crops = Crops(plan, volumes, build_index(plan, volumes))
        rounds = Rounds(plan, validation, lock, progress, cancelled)
        resumed = _begun(plan, resume=resume)
        with explained(plan, device):
            with leading(len(team), _follow, plan, crops, team, resumed) as (leader, place):
                network = built_network(plan)
                if plan.initial and not resumed:
                    _take_initial(plan, network, progress)
                learner = Learner(plan, network, located=partial(located, crops), gathered=leader.gathered)
                _run(learner, crops, rounds, leader, team, place, resumed)
                if not rounds.finished:
                    raise KeyboardInterrupt
            scores = finish(plan, learner.network.to(device), validation, test, progress)
    best, last = plan.folder / BEST, plan.folder / LAST
    return TrainingResult(plan.folder, best, last, scores, rounds.step, time.monotonic() - started)


def _compare(plan: TrainingPlan, *, resume: bool) -> None:
    """Refuse a folder that holds another training, or any if it is not to be resumed."""
    record = plan.folder / RECORD
    if not resume and any((plan.folder / name).exists() for name in (RECORD, BEST, LAST, CHECKPOINT)):
        problem = f"{str(plan.folder)!r} holds a training already"
        raise DataError(problem, where="[train] folder", hint="--resume continues it; or choose another folder")
    if not record.exists():
        return
    try:
        before = json.loads(record.read_bytes())
    except ValueError as error:
        hint = f"delete {plan.folder} and train again"
        raise DataError(f"{str(record)!r} is not a readable record of a training", hint=hint) from error
    now = json.loads(json.dumps(plan.tables))
    if changed := [key for key in _keys(before) | _keys(now) if _at(before, key) != _at(now, key)]:
        key = min(changed)
        if contents := [key for key in changed if key.endswith(".content")]:
            place = min(contents).removesuffix(".content")
            problem = f"the files of {place} were replaced or changed since the training to be resumed began"
            raise ConfigError(problem, where=str(record), hint="restore them, or train in another folder")
        problem = f"{key} is {_at(now, key)!r}, but the training to be resumed has {_at(before, key)!r}"
        hint = "restore it, or train in another folder"
        if key in ("train.steps", "train.optimizer.lr"):
            hint += f'; [model] weights = "{plan.folder / LAST}" goes on from where this ends'
        raise ConfigError(problem, where=str(record), hint=hint)


def _keys(value: Any, prefix: str = "") -> set[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not items:
        return {prefix}
    return {key for name, inner in items for key in _keys(inner, f"{prefix}.{name}" if prefix else str(name))}


def _at(value: Any, key: str) -> Any:
    for name in key.split("."):
        if isinstance(value, list):
            value = value[int(name)] if name.isdigit() and int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def prepare_volumes(
    plan: TrainingPlan, lock: RunLock, progress: Progress, cancelled: Callable[[], bool]
) -> list[Prepared]:
    """Statistics of every volume; the whole normalised image of those whose normaliser is not voxel-wise."""

    def told(what: str, done: int, total: int) -> None:
        progress(what, done, total, {})

    workspace = Workspace(plan.folder, InProcess(), lock, told, cancelled)
    prepared = []
    for number, volume in enumerate(plan.volumes):
        with volume.image.open() as image:
            stats = passes.fit(plan.normalizer, image, progress=partial(told, "statistics"), cancelled=cancelled)
            stored = None
            if not plan.normalizer.voxelwise:
                name, whole = f"normalised.{number}.{_identity(volume, plan, stats)}", Roi.whole(image.spec.shape)
                stored = passes.prepared(plan.normalizer, stats, image, whole, _BLOCK, workspace, name=name)
        prepared.append(Prepared(volume, plan.normalizer, stats, stored))
    return prepared


def _identity(volume: PlannedVolume, plan: TrainingPlan, stats: Stats) -> str:
    """Digest of all that a stored normalised image depends on."""
    image = volume.image.digest(), volume.image.fingerprint()
    text = json.dumps([image, plan.normalizer.digest(), stats, _BLOCK], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def built_network(plan: TrainingPlan) -> nn.Module:
    """The network as a training begins, but for the tensors of `plan.initial`; equal seeds give equal networks."""
    devices.seed(plan.seed)
    network = plan.model.build()
    if plan.start:
        fill(network, load_weights(plan.start), str(plan.start))
    return network


def _take_initial(plan: TrainingPlan, network: nn.Module, progress: Progress) -> None:
    """Fill the network from the file that [model] names, and say which tensors were taken."""
    if plan.initial is None:
        return
    report = take_initial(network, plan.model, plan.initial)
    numbers = report.numbers
    write_json(plan.folder / INITIAL, {"file": str(plan.initial), **report.table()})
    log.info("%s: %s", plan.initial, ", ".join(f"{count:g} tensors {what}" for what, count in numbers.items()))
    progress(
        "initial", len(report.matched), len(report.matched) + len(report.missing) + len(report.mismatched), numbers
    )


def _begun(plan: TrainingPlan, *, resume: bool) -> Path | None:
    """The checkpoint to continue from, if there is one; the record of the training is written."""
    checkpoint = plan.folder / CHECKPOINT
    resumed = resume and checkpoint.exists()
    if resumed:
        _check_checkpoint(checkpoint, plan)
    elif resume:
        log.warning("there is no training to resume in %r: it begins", str(plan.folder))
    write_json(plan.folder / RECORD, plan.tables)
    write_split(plan.folder, plan.volumes)
    return checkpoint if resumed else None


def _run(
    learner: Learner,
    crops: Crops,
    rounds: Rounds,
    leader: Leader,
    team: tuple[str, ...],
    place: Place | None,
    resumed: Path | None,
) -> None:
    folder = learner.plan.folder
    loggers = [CSVLogger(folder, "logs"), TensorBoardLogger(folder, "tensorboard", "")]
    trainer = _trainer(learner.plan, [rounds, leader], loggers, team, place, leader.saving)
    leader.meet()
    with rounds.catching_signals():
        _fit(trainer, learner, crops, resumed)
        learner.to(team[0])
        rounds.make_up(trainer, learner)  # all steps were done before, but not the last validation
        leader.end()


def _follow(
    place: Place, link: Connection, plan: TrainingPlan, crops: Crops, team: tuple[str, ...], resumed: Path | None
) -> None:
    """Train beside the leader, in a process of one's own."""
    device = team[place.rank]
    follower = Follower(link, plan.folder / CHECKPOINT)
    with quiet(), devices.isolated(device), devices.memory_reused(device), explained(plan, device):
        learner = Learner(plan, built_network(plan), located=partial(located, crops), gathered=follower.gathered)
        trainer = _trainer(plan, [follower], [], team, place, lambda: None)
        follower.arrive()
        _fit(trainer, learner, crops, resumed)
        follower.obey_to_the_end(trainer)


def _fit(trainer: Trainer, learner: Learner, crops: Crops, resumed: Path | None) -> None:
    data = TrainingData(crops, gpu=trainer.strategy.root_device.type != "cpu")
    try:
        trainer.fit(learner, datamodule=data, ckpt_path=resumed, weights_only=True)
    except SystemExit as error:  # what Lightning makes of KeyboardInterrupt
        raise KeyboardInterrupt from error


def _trainer(
    plan: TrainingPlan,
    callbacks: list[Callback],
    loggers: list[Logger],
    team: tuple[str, ...],
    place: Place | None,
    saving: Callable[[], None],
) -> Trainer:
    train, gpu = plan.train, team[0] != "cpu"
    # parts that thaw later have no gradient before
    strategy = DDPStrategy(find_unused_parameters=bool(train.unfreeze)) if place else "auto"
    return _Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=[int(device.partition(":")[2]) for device in team] if gpu else len(team),
        strategy=strategy,
        precision=_PRECISION[train.precision],
        max_steps=train.steps,
        max_epochs=-1,
        accumulate_grad_batches=train.accumulate,
        gradient_clip_val=train.clip,
        limit_val_batches=0,  # rounds validate on slabs, not on batches
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=plan.folder,
        plugins=[
            place or LightningEnvironment(),  # not that of a scheduler, which would handle signals on its own
            _Checkpoints(),
        ],
        saving=saving,
    )


class _Trainer(Trainer):  # type: ignore[misc] # lightning is not typed
    """Says when a checkpoint is written: all processes take part."""

    def __init__(self, *, saving: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self.saving = saving

    def save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        self.saving()
        super().save_checkpoint(*arguments, **options)


class _Checkpoints(TorchCheckpointIO):  # type: ignore[misc] # lightning is not typed
    """Checkpoints that are whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        del storage_options
        content = io.BytesIO()  # torch hides why a file could not be written
        torch.save(checkpoint, content)
        with replaced(Path(path)) as file:
            file.write(content.getbuffer())


def _check_checkpoint(checkpoint: Path, plan: TrainingPlan) -> None:
    """Refuse what cannot be read, or is of a training with other settings: the record beside it may be gone."""
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        hint = f"delete {checkpoint.parent} and train again"
        raise DataError(f"{str(checkpoint)!r} is not a readable checkpoint", hint=hint) from error
    if not isinstance(found, dict) or found.get("training") != plan.digest:
        problem = f"{str(checkpoint)!r} is a checkpoint of other settings than these"
        raise ConfigError(problem, where="[train] folder", hint="restore them, or train in another folder")


@contextmanager
def explained(plan: TrainingPlan, device: str) -> Iterator[None]:
    """Turn what torch and Lightning say of full memory and full disks into errors for people."""
    try:
        yield
    except ResourceError as error:
        if error.hint == FREE_SPACE:
            error.hint = _SPACE
        raise
    except torch.cuda.OutOfMemoryError as error:
        problem = f"{device} has too little memory for batches of {plan.train.batch} x {plan.crop} voxels"
        raise ResourceError(problem, where="[train]", hint="batch = 1 with accumulate, or a smaller crop") from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        hint = "workers = 0 prepares crops in this process; each worker takes memory of its own"
        raise RunError("a process that prepares crops ended", where="[train] workers", hint=hint) from error
    except OSError as error:  # of the curves, which Lightning writes
        if not disk_full(error):
            raise
        raise ResourceError(f"{str(plan.folder)!r} cannot be written: {error.strerror}", hint=_SPACE) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advice to itself; loggers and warning filters are given back as they were."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(lightning|tensorboard)\.")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
