"""A planned training, run by Lightning: validation rounds, checkpoints, exact resume."""

import importlib.metadata
import json
import logging
import math
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import nn

import mitocore
from mitocore.blockwise import passes
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.workspace import Workspace
from mitocore.errors import ConfigError, DataError, ResourceError
from mitocore.geometry import Roi
from mitocore.header import read_header
from mitocore.learn import device as devices
from mitocore.learn.checkpoint import fill, load_weights, save_weights, update_header, write_aside
from mitocore.learn.data import Crops, Prepared, TrainingData, build_index
from mitocore.learn.module import Learner
from mitocore.learn.validation import Interrupted, Validation
from mitocore.registry import API_GROUP
from mitocore.training import TrainingPlan

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with what goes on ("statistics", "training", "validation", "test"), done, total, and numbers such as loss."""

RECORD = "training.json"
CHECKPOINT = "last.ckpt"
_BLOCK = (128, 512, 512)


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
        Asked after every step; once true, the training ends as if interrupted.

    Raises
    ------
    DataError
        If the folder holds a training already and `resume` is false, or a part holds no foreground.
    ConfigError
        If the training in the folder was begun with other settings.
    RunError
        If another process trains in the folder, or the loss is no longer finite.
    KeyboardInterrupt
        If interrupted (Ctrl-C, SIGTERM or `cancelled`); a checkpoint was written, so `resume` loses nothing.
    """
    started = time.monotonic()
    device = devices.chosen(plan.train.devices)
    _compare(plan, resume=resume)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with RunLock(plan.folder) as lock, _quiet(), devices.isolated(device):
        volumes = _prepared(plan, lock, progress)
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
    best, last = plan.folder / "best.safetensors", plan.folder / "last.safetensors"
    return TrainingResult(plan.folder, best, last, scores, rounds.step, time.monotonic() - started)


def _compare(plan: TrainingPlan, *, resume: bool) -> None:
    """Refuse a folder that holds another training, or any if it is not to be resumed."""
    record = plan.folder / RECORD
    if not record.exists():
        return
    if not resume:
        problem = f"{str(plan.folder)!r} holds a training already"
        raise DataError(problem, where="[train] folder", hint="--resume continues it; or choose another folder")
    before, now = json.loads(record.read_text(encoding="utf-8")), json.loads(json.dumps(plan.tables))
    if changed := [key for key in _keys(before) | _keys(now) if _at(before, key) != _at(now, key)]:
        key = min(changed)
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


def _prepared(plan: TrainingPlan, lock: RunLock, progress: Progress) -> list[Prepared]:
    """Statistics of every volume; the whole normalised image of those whose normaliser is not voxel-wise."""
    workspace = Workspace(plan.folder, InProcess(), lock)
    prepared = []
    for number, volume in enumerate(plan.volumes):
        progress("statistics", number, len(plan.volumes), {})
        with volume.image.open() as image:
            stats = passes.fit(plan.normalizer, image)
            stored = None
            if not plan.normalizer.voxelwise:
                name, whole = f"normalised.{number}.{plan.digest}", Roi.whole(image.spec.shape)
                stored = passes.prepared(plan.normalizer, stats, image, whole, _BLOCK, workspace, name=name)
        prepared.append(Prepared(volume, plan.normalizer, stats, stored))
    progress("statistics", len(plan.volumes), len(plan.volumes), {})
    return prepared


def _network(plan: TrainingPlan) -> nn.Module:
    devices.seed(plan.seed)
    network = plan.model.build()
    if plan.start:
        fill(network, load_weights(plan.start), str(plan.start))
    return network


def _run(plan: TrainingPlan, learner: Learner, crops: Crops, rounds: "Rounds", device: str, *, resume: bool) -> None:
    train, checkpoint = plan.train, plan.folder / CHECKPOINT
    settings = json.dumps(plan.tables, indent=2)
    write_aside(plan.folder / RECORD, lambda aside: aside.write_text(settings, encoding="utf-8"))
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
        plugins=[LightningEnvironment()],  # not that of a scheduler, which would handle signals on its own
    )
    data = TrainingData(crops, pin=gpu)
    with rounds.catching_signals():
        try:
            trainer.fit(learner, datamodule=data, ckpt_path=checkpoint if resumed else None, weights_only=True)
        except SystemExit as error:  # what Lightning makes of KeyboardInterrupt
            raise KeyboardInterrupt from error
        learner.to(device)
        rounds.make_up(trainer, learner)  # all steps were done before, but not the last validation


def _check_readable(checkpoint: Path) -> None:
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        hint = f"delete {checkpoint.parent} and train again"
        raise DataError(f"{str(checkpoint)!r} is not a readable checkpoint", hint=hint) from error


def _final_scores(plan: TrainingPlan, network: nn.Module, test: Validation, progress: Progress) -> dict[str, float]:
    """Scores in the header of the best weights, those of the test parts added."""
    best = plan.folder / "best.safetensors"
    scores: dict[str, float] = read_header(best).scores
    if test.volumes:
        fill(network, load_weights(best), str(best))
        found = test.scores(network, lambda done, total: progress("test", done, total, {}))
        scores = {**scores, **{f"test.{name}": value for name, value in found.items()}}
        update_header(best, scores=scores)
    return scores


class Rounds(Callback):  # type: ignore[misc] # lightning is not typed
    """What happens between steps: progress, validation, weights, checkpoints, interruption."""

    def __init__(
        self,
        plan: TrainingPlan,
        validation: Validation,
        lock: RunLock,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> None:
        self.plan, self.validation, self.lock = plan, validation, lock
        self.progress, self.cancelled = progress, cancelled
        self._versions = _versions(plan)
        self.step = 0
        self._stop = False
        self._best = math.nan
        self._stale = 0
        self._validated = 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {"best": self._best, "stale": self._stale, "validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._best, self._stale, self._validated = (state_dict[key] for key in ("best", "stale", "validated"))

    def stopping(self) -> bool:
        """Whether someone asked for an early end."""
        self._stop = self._stop or self.cancelled()
        return self._stop

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._validated == self.step and (self.step == self.plan.train.steps or self._exhausted())

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a wish to stop; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._asked_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def make_up(self, trainer: Trainer, learner: Learner) -> None:
        """Hold a round that was due but interrupted."""
        self.step = trainer.global_step
        if self._due() and self._validated != self.step and not self.stopping():
            self._round(trainer, learner)

    def on_train_start(self, trainer: Trainer, learner: Learner) -> None:
        """Continue where the checkpoint was written."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._asked_to_stop)  # Lightning's own handler would skip the checkpoint
        self.make_up(trainer, learner)
        trainer.should_stop = trainer.should_stop or self.stopping() or self._exhausted()

    def on_train_batch_end(
        self, trainer: Trainer, learner: Learner, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """After each step: tell, log, and hold a round when it is due."""
        del outputs, batch, batch_idx
        if trainer.global_step == self.step:
            return  # gradients are still being accumulated
        self.step = trainer.global_step
        losses = learner.take_losses()
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        _log(trainer, {**{f"train.{name}": value for name, value in losses.items()}, "rate": rate}, self.step)
        self._tell("training", self.step, self.plan.train.steps, losses)
        if self._due():
            self._round(trainer, learner)
        elif self.stopping():
            self._save(trainer)
        trainer.should_stop = trainer.should_stop or self.stopping() or self._exhausted()

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True

    def _tell(self, what: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        try:
            self.progress(what, done, total, numbers)
        except KeyboardInterrupt:  # Lightning would end the process
            self._stop = True

    def _due(self) -> bool:
        train = self.plan.train
        return self.step > 0 and (self.step % train.validate_every == 0 or self.step == train.steps)

    def _exhausted(self) -> bool:
        return self.plan.train.stop_after is not None and self._stale >= self.plan.train.stop_after

    def _round(self, trainer: Trainer, learner: Learner) -> None:
        """Validate, keep what is best, write a checkpoint."""

        def told(done: int, total: int) -> None:
            self._tell("validation", done, total, {})

        try:
            found = self.validation.scores(learner.network, told, self.stopping)
        except Interrupted:  # the checkpoint says that this step was not validated
            self._save(trainer)
            return
        scores = {f"validation.{name}": value for name, value in found.items()}
        _log(trainer, scores, self.step)
        self._validated = self.step
        better = self._better(found)
        self._stale = 0 if better else self._stale + 1
        self.lock.hold()
        header = self.plan.header(scores=scores, versions=self._versions, provenance=self._provenance())
        state = learner.network.state_dict()
        if better:
            save_weights(self.plan.folder / "best.safetensors", state, header)
        save_weights(self.plan.folder / "last.safetensors", state, header)
        self._save(trainer)

    def _better(self, scores: Mapping[str, float]) -> bool:
        """A larger score is better, a smaller loss; the headline of a metric is its first score."""
        names = [name for name in scores if name != "loss"]
        value = scores[names[0]] if self.plan.metric else -scores["loss"]
        if not (math.isnan(self._best) or value > self._best):
            return False
        self._best = value
        return True

    def _save(self, trainer: Trainer) -> None:
        self.lock.hold()
        for logger in trainer.loggers:
            logger.save()
        write_aside(self.plan.folder / CHECKPOINT, trainer.save_checkpoint)

    def _provenance(self) -> dict[str, Any]:
        plan = self.plan
        parent = {"parent": plan.tables["weights"]} if "weights" in plan.tables else {}
        return {
            "training": plan.digest,
            "seed": plan.seed,
            "step": self.step,
            "volumes": [Path(volume.path).name for volume in plan.volumes],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **parent,
        }


def _log(trainer: Trainer, numbers: Mapping[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(dict(numbers), step)


def _versions(plan: TrainingPlan) -> dict[str, str]:
    """Of all that the weights depend on: core, torch and the distribution of the model's plugin."""
    plugin = plan.component.partition("/")[0]
    dists = [point.dist for point in importlib.metadata.entry_points(group=API_GROUP, name=plugin) if point.dist]
    found = {dist.name: dist.version for dist in dists}
    return {"mitocore": mitocore.__version__, "torch": torch.__version__, **found}


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
