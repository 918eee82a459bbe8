"""What happens between the steps of a training."""

import importlib.metadata
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

import mitocore
from mitocore import pictures
from mitocore.blockwise.lock import RunLock
from mitocore.header import WeightsHeader, read_header
from mitocore.learn import curves
from mitocore.learn.checkpoint import save_weights
from mitocore.learn.module import Learner
from mitocore.learn.panels import Panels
from mitocore.learn.validation import Interrupted, Validation
from mitocore.registry import API_GROUP
from mitocore.training import TrainingPlan

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with what goes on ("statistics", "normalised", "training", "validation", "calibration" or "test"), done,
total, and numbers such as the loss."""

BEST, LAST, CHECKPOINT = "best.safetensors", "last.safetensors", "last.ckpt"
NUMBERED = "weights-{:06}.safetensors"


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
        drawn = plan.train.pictures and pictures.installed()
        self._panels = Panels(plan, validation) if drawn else None
        self._pace = _Pace(plan.train.batch * plan.train.accumulate * plan.train.processes)
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
        self._pace.rest()

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
        self._tell("training", self.step, self.plan.train.steps, {**losses, "crops/s": self._pace.step()})
        every = self.plan.train.checkpoint_every
        if every and self.step % every == 0:
            self._number(learner)
        if self._due():
            self._round(trainer, learner)
        elif self.stopping():
            self._save(trainer)
        trainer.should_stop = trainer.should_stop or self.stopping() or self._exhausted()
        self._pace.rest()

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
            seen = self._panels.see if self._panels else None
            found = self.validation.scores(learner.evaluated(), told, self.stopping, seen=seen)
        except Interrupted:  # the checkpoint says that this step was not validated
            self._save(trainer)
            return
        learner.check_validated(found["loss"])
        scores = {f"validation.{name}": value for name, value in found.items()}
        _log(trainer, scores, self.step)
        self._validated = self.step
        better = self._better(found)
        self._stale = 0 if better else self._stale + 1
        learner.validated(better=better)
        self.lock.hold()
        header, state = self._header(scores), learner.evaluated().state_dict()
        if better:
            save_weights(self.plan.folder / BEST, state, header)
        save_weights(self.plan.folder / LAST, state, header)
        self._save(trainer)
        if self._panels:  # last: whatever becomes of a picture, weights and checkpoint are whole
            self._draw(trainer, self._panels, scores, better=better)

    def _draw(self, trainer: Trainer, panels: Panels, scores: Mapping[str, float], *, better: bool) -> None:
        """The curves so far, and the panels of the validation that just ended."""
        picture = panels.draw(self.step, scores, better=better)
        for logger in trainer.loggers:
            if picture is not None and isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("validation.panels", picture, self.step, dataformats="HWC")
        headlines = [name for name in scores if name != "validation.loss"][:1]
        found = curves.recorded(self.plan.folder / "logs")
        best = read_header(self.plan.folder / BEST).provenance["step"]
        curves.draw(self.plan.folder / curves.PICTURE, found, best, headlines)

    def _better(self, scores: Mapping[str, float]) -> bool:
        """A larger score is better, a smaller loss or error; the headline of a metric is its first score."""
        headline = next((name for name in scores if name != "loss"), "loss")
        falls = self.plan.metric[1].lower_is_better if self.plan.metric else True
        value = -scores[headline] if falls else scores[headline]
        if not (math.isnan(self._best) or value > self._best):
            return False
        self._best = value
        return True

    def _number(self, learner: Learner) -> None:
        """Write weights that stay, whatever the scores."""
        self.lock.hold()
        path = self.plan.folder / NUMBERED.format(self.step)
        save_weights(path, learner.evaluated().state_dict(), self._header({}))

    def _header(self, scores: Mapping[str, float]) -> WeightsHeader:
        return self.plan.header(scores=dict(scores), versions=self._versions, provenance=self._provenance())

    def _save(self, trainer: Trainer) -> None:
        self.lock.hold()
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.plan.folder / CHECKPOINT)

    def _provenance(self) -> dict[str, Any]:
        plan = self.plan
        parents = [plan.tables[key] for key in ("weights", "initial") if key in plan.tables]
        return {
            "training": plan.digest,
            "seed": plan.seed,
            "step": self.step,
            "volumes": [Path(volume.path).name for volume in plan.volumes],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **({"parent": parents[0]} if parents else {}),
        }


class _Pace:
    """Crops per second of the last steps; the time of validations between them does not count."""

    def __init__(self, crops: int) -> None:
        self._crops, self._begun, self._mean = crops, time.monotonic(), 0.0

    def rest(self) -> None:
        """What follows is a step."""
        self._begun = time.monotonic()

    def step(self) -> float:
        """The pace after a step."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        self._mean = 0.9 * self._mean + 0.1 * seconds if self._mean else seconds
        return self._crops / self._mean


def _log(trainer: Trainer, numbers: Mapping[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(dict(numbers), step)


def _versions(plan: TrainingPlan) -> dict[str, str]:
    """Of all that the weights depend on: core, torch and the distribution of the model's plugin."""
    plugin = plan.component.partition("/")[0]
    dists = [point.dist for point in importlib.metadata.entry_points(group=API_GROUP, name=plugin) if point.dist]
    found = {dist.name: dist.version for dist in dists}
    return {"mitocore": mitocore.__version__, "torch": torch.__version__, **found}
