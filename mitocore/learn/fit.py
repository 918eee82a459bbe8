"""A planned training, run by Lightning: validation rounds, checkpoints, exact resume."""

import errno
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
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from mitocore.blockwise import passes
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.config.volumes import PlannedVolume
from mitocore.durable import replaced, reported, write_json
from mitocore.errors import ConfigError, DataError, ResourceError
from mitocore.geometry import Roi
from mitocore.header import read_header
from mitocore.interfaces import Stats
from mitocore.learn import device as devices
from mitocore.learn.checkpoint import fill, load_weights, update_header
from mitocore.learn.data import Crops, Prepared, TrainingData, build_index
from mitocore.learn.module import Learner
from mitocore.learn.rounds import BEST, CHECKPOINT, LAST, Progress, Rounds
from mitocore.learn.validation import Validation
from mitocore.training import TrainingPlan

RECORD = "training.json"
_BLOCK = (128, 512, 512)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        If the folder holds a training already and `resume` is false, or cannot be made, or a part holds no foreground.
    ConfigError
        If the training in the folder was begun with other settings, or on other voxels.
    ResourceError
        If the device asked for is not there, or its memory or the disk is too small.
    RunError
        If another process trains in the folder, or the loss is no longer finite.
    KeyboardInterrupt
        If interrupted (Ctrl-C, SIGTERM or `cancelled`); a checkpoint holds all steps taken, so `resume` loses nothing.
    """
    started = time.monotonic()
    device = devices.chosen(plan.train.devices)
    with RunLock(plan.folder) as lock, _quiet(), devices.isolated(device), devices.memory_reused(device):
        _compare(plan, resume=resume)
        volumes = _prepared(plan, lock, progress, cancelled)
        validation, test = (Validation(plan, volumes, part, device) for part in ("validation", "test"))
        validation.check()
        if test.volumes:
            test.check()
        crops = Crops(plan, volumes, build_index(plan, volumes))
        learner = Learner(plan, _network(plan))
        rounds = Rounds(plan, validation, lock, progress, cancelled)
        try:
            _run(plan, learner, crops, rounds, device, resume=resume)
            if not rounds.finished:
                raise KeyboardInterrupt
            scores = _final_scores(plan, learner.network.to(device), test, progress)
        except torch.cuda.OutOfMemoryError as error:
            problem = f"{device} has too little memory for batches of {plan.train.batch} x {plan.crop} voxels"
            raise ResourceError(
                problem, where="[train]", hint="batch = 1 with accumulate, or a smaller crop"
            ) from error
        except OSError as error:
            if error.errno not in _FULL:
                raise
            with reported(plan.folder):  # the curves, which Lightning writes
                raise
    best, last = plan.folder / BEST, plan.folder / LAST
    return TrainingResult(plan.folder, best, last, scores, rounds.step, time.monotonic() - started)


def _compare(plan: TrainingPlan, *, resume: bool) -> None:
    """Refuse a folder that holds another training, or any if it is not to be resumed."""
    record = plan.folder / RECORD
    if not record.exists():
        return
    if not resume:
        problem = f"{str(plan.folder)!r} holds a training already"
        raise DataError(problem, where="[train] folder", hint="--resume continues it; or choose another folder")
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
        raise ConfigError(problem, where=str(record), hint="restore it, or train in another folder")


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


def _prepared(plan: TrainingPlan, lock: RunLock, progress: Progress, cancelled: Callable[[], bool]) -> list[Prepared]:
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


def _network(plan: TrainingPlan) -> nn.Module:
    devices.seed(plan.seed)
    network = plan.model.build()
    if plan.start:
        fill(network, load_weights(plan.start), str(plan.start))
    return network


def _run(plan: TrainingPlan, learner: Learner, crops: Crops, rounds: Rounds, device: str, *, resume: bool) -> None:
    train, checkpoint = plan.train, plan.folder / CHECKPOINT
    write_json(plan.folder / RECORD, plan.tables)
    resumed = resume and checkpoint.exists()
    if resumed:
        _check_readable(checkpoint)
    gpu = device != "cpu"
    trainer = Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=[int(device.partition(":")[2])] if gpu else 1,
        precision="bf16-mixed" if train.precision == "bf16" else "32-true",
        max_steps=train.steps,
        max_epochs=-1,
        accumulate_grad_batches=train.accumulate,
        gradient_clip_val=train.clip,
        limit_val_batches=0,  # rounds validate on slabs, not on batches
        num_sanity_val_steps=0,
        callbacks=[rounds],
        logger=[CSVLogger(plan.folder, "logs"), TensorBoardLogger(plan.folder, "tensorboard", "")],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=plan.folder,
        plugins=[
            LightningEnvironment(),  # not that of a scheduler, which would handle signals on its own
            _Checkpoints(),
        ],
    )
    data = TrainingData(crops, pin=gpu)
    with rounds.catching_signals():
        try:
            trainer.fit(learner, datamodule=data, ckpt_path=checkpoint if resumed else None, weights_only=True)
        except SystemExit as error:  # what Lightning makes of KeyboardInterrupt
            raise KeyboardInterrupt from error
        learner.to(device)
        rounds.make_up(trainer, learner)  # all steps were done before, but not the last validation


class _Checkpoints(TorchCheckpointIO):  # type: ignore[misc] # lightning is not typed
    """Checkpoints that are whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        del storage_options
        content = io.BytesIO()  # torch hides why a file could not be written
        torch.save(checkpoint, content)
        with replaced(Path(path)) as file:
            file.write(content.getbuffer())


def _check_readable(checkpoint: Path) -> None:
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        hint = f"delete {checkpoint.parent} and train again"
        raise DataError(f"{str(checkpoint)!r} is not a readable checkpoint", hint=hint) from error


def _final_scores(plan: TrainingPlan, network: nn.Module, test: Validation, progress: Progress) -> dict[str, float]:
    """Scores in the header of the best weights, those of the test parts added."""
    best = plan.folder / BEST
    scores: dict[str, float] = read_header(best).scores
    if test.volumes:
        fill(network, load_weights(best), str(best))
        found = test.scores(network, lambda done, total: progress("test", done, total, {}))
        scores = {**scores, **{f"test.{name}": value for name, value in found.items()}}
        update_header(best, scores=scores)
    return scores


@contextmanager
def _quiet() -> Iterator[None]:
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
