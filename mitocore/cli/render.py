"""What the command line shows: log lines, progress, tables."""

import logging
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mitocore.cli.main import Voice
from mitocore.errors import DataError, MitocoreError
from mitocore.specs import VolumeSpec

EVERY = 5.0
"""Seconds between two lines of progress where there is no terminal."""
_LEVELS = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}

KEPT = "interrupted; what is finished is kept, the same command goes on from there"
"""What a user is told who stops a run."""
MOST_BARS = 8
"""Bars on the screen at the same time; older ones that are full make room."""

Told = Callable[..., None]
"""Called with label, done and total; training adds numbers such as the loss."""


@contextmanager
def speaking(voice: Voice) -> Iterator[Told]:
    """Log and report progress on stderr while a command works; gives the callback for the progress."""
    console = Console(stderr=True)
    with logged(_Spoken(console, _LEVELS[voice.verbosity])):
        if voice.verbosity < 0:
            yield _unheard
        elif console.is_terminal:
            with _bars(console) as told:
                yield told
        else:
            yield Lines(lambda text: typer.echo(text, err=True))


@contextmanager
def logged(handler: logging.Handler) -> Iterator[None]:
    """Send what the library logs to a handler, too."""
    logger, level = logging.getLogger("mitocore"), logging.getLogger("mitocore").level
    logger.setLevel(min(handler.level or logging.DEBUG, level or logging.CRITICAL))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Append to `run.log` of a run folder: the command, what the library logs, and the error that ends it.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "run.log", encoding="utf-8")
    except OSError as error:
        problem = f"{str(folder)!r} cannot be a run folder: {error.strerror}"
        raise DataError(problem, hint='folder = "…" in [run]') from error
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def note(level: int, text: str) -> None:
        handler.handle(logging.LogRecord("mitocore", level, "", 0, text, None, None))

    with logged(handler):
        note(logging.INFO, shlex.join(["mitocore", *sys.argv[1:]]))
        try:
            yield
        except MitocoreError as error:
            note(logging.ERROR, " ".join(str(error).split()))
            raise
        except KeyboardInterrupt:
            note(logging.INFO, "interrupted")
            raise


class _Spoken(logging.Handler):
    """Prints log lines on the console, above the bars."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self._console.print(prefix + self.format(record), markup=False, highlight=False, soft_wrap=True)


def _unheard(*_told: object) -> None:
    """Show nothing."""


class Lines:
    """Progress as lines of text: at most one every few seconds, and one at the end of each piece of work.

    >>> lines = Lines(print, clock=iter([0.0, 2.0, 8.0, 10.0]).__next__)
    >>> for done in (0, 1, 4, 5):
    ...     lines("net: tiles", done, 5)
    net: tiles  4/5 · 0.5/s · 2 s left
    net: tiles  5/5 · 10 s
    """

    def __init__(self, write: Callable[[str], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._label, self._ended = "", False
        self._begun = self._shown = 0.0
        self._before = 0

    def __call__(self, label: str, done: int, total: int, numbers: Mapping[str, float] | None = None) -> None:
        """Say how far the work of this label is, if it is time to."""
        now = self._clock()
        if label != self._label or (self._ended and done < total):
            self._label, self._ended, self._begun, self._shown, self._before = label, False, now, now, done
        if done == self._before or self._ended:
            return
        if done >= total:
            self._ended = True
            self._write(f"{label}  {done:,}/{total:,} · {spoken(now - self._begun)}{_listed(numbers)}")
        elif now - self._shown >= EVERY:
            self._shown = now
            rate = (done - self._before) / (now - self._begun)
            left = spoken((total - done) / rate)
            self._write(f"{label}  {done:,}/{total:,} · {rate:.3g}/s · {left} left{_listed(numbers)}")


@contextmanager
def _bars(console: Console) -> Iterator[Told]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def told(label: str, done: int, total: int, numbers: Mapping[str, float] | None = None) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, rate="", numbers="")
                seen = [task for task in bars.tasks if task.visible]
                for task in [task for task in seen if task.finished][: max(len(seen) - MOST_BARS, 0)]:
                    bars.update(task.id, visible=False)
            elif bars.tasks[tasks[label]].finished and done < total:  # again, such as the next validation
                bars.reset(tasks[label])
            speed = bars.tasks[tasks[label]].speed
            rate = f"{speed:.3g}/s" if speed else ""
            bars.update(tasks[label], completed=done, total=total, rate=rate, numbers=_listed(numbers).strip(" ·"))

        yield told


def _listed(numbers: Mapping[str, float] | None) -> str:
    def text(value: float) -> str:
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"

    return "".join(f" · {name} {text(value)}" for name, value in (numbers or {}).items())


def spoken(seconds: float) -> str:
    """A duration for people.

    >>> spoken(8.4), spoken(200), spoken(7400)
    ('8 s', '3 min 20 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def table(rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Rows as aligned text.

    >>> print(table([("iou", "0.9"), ("dice", "0.95")]))
    iou   0.9
    dice  0.95
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(indent + line for line in lines)


def described(spec: VolumeSpec) -> str:
    """The header of a volume in one line."""
    channels = f" × {len(spec.channels)}" if len(spec.channels) > 1 else ""
    size = spec.voxel_size or "voxel size unknown"
    return f"{spec.kind}{channels} {spec.dtype} {' x '.join(map(str, spec.shape))}, {size}"


@contextmanager
def stoppable(then: str) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for an end, a second one stops at once; gives the question whether to stop.

    Parameters
    ----------
    then
        What an interrupted user is told.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        if asked.is_set():
            raise KeyboardInterrupt(then)
        asked.set()
        sys.stderr.write("\nfinishing what is being computed; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(then) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
