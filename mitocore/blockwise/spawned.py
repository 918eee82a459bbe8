"""What happens in a worker process, and how one is started and sent its work."""

import logging
import os
import pickle
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing import connection, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from queue import SimpleQueue
from types import FunctionType
from typing import Any

import numpy as np

from mitocore.component import Component
from mitocore.errors import ConfigError
from mitocore.interfaces import Volume

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "BLIS_NUM_THREADS")
_INSTEAD = 'engine = "threads" in [run], or workers = 0'


class _Process(SpawnProcess):
    """A process that does not import the user's script again, computes in one thread, and is deaf to Ctrl-C."""

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - the name of multiprocessing
        with _without_main(), _one_thread(), _without_interrupts():
            return SpawnProcess._Popen(process)


class SpawnWithoutMain(SpawnContext):
    """What process pools are made with, so that a script needs no ``if __name__ == "__main__"``.

    Nothing of `__main__` is ever sent to a worker (`packed` refuses it), so a worker need not have it.
    """

    Process = _Process


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide from `multiprocessing` where the script lies that it would import again."""
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        del main["__spec__"]
        main.update(hidden)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Start what follows with libraries that use one thread each: they read this when they are loaded."""
    added = [name for name in _THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start what follows with SIGINT blocked: Ctrl-C reaches all processes of a terminal, and the driver decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Pickler(pickle.Pickler):
    """Refuses what could be written but not be read, or not be meant, in another process."""

    at: Component | Volume | None = None
    """The last of these that was begun: the likely owner of what cannot be pickled."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Component | Volume):
            self.at = value
        if getattr(value, "__module__", "") == "__main__" and isinstance(value, type | FunctionType):
            problem = f"{value.__qualname__} is defined in the script itself, which worker processes do not see"
            raise ConfigError(problem, hint=f"{_INSTEAD}; or move it into a module that the script imports")
        if isinstance(value, np.memmap):
            problem = f"{value.filename or 'an array'} is mapped into memory, which worker processes cannot share"
            raise ConfigError(problem, hint=f"give its path instead of the array; or {_INSTEAD}")
        return NotImplemented


def write_call(path: Path, call: Callable[[Any], Any]) -> None:
    """Write what workers are to compute, once for all items of a pass.

    Raises
    ------
    ConfigError
        If a part of it exists in this process alone.
    """
    with path.open("wb") as file:
        pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
        try:
            pickler.dump(call)
        except ConfigError:  # a ValueError, but said well already
            raise
        except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:  # what pickle and objects raise
            who = (
                getattr(call, "__qualname__", type(call).__name__) if pickler.at is None else type(pickler.at).__name__
            )
            problem = f"{who} cannot be sent to worker processes: {error}"
            remedy = "give the path of its file" if isinstance(pickler.at, Volume) else "keep only plain values in it"
            raise ConfigError(problem, hint=f"{remedy}; or {_INSTEAD}") from error


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of an item in a worker."""

    value: Any
    error: Exception | None
    records: list[logging.LogRecord]
    """What was logged meanwhile, and the warnings."""


_said: "SimpleQueue[logging.LogRecord]" = SimpleQueue()
_latest: tuple[str, Callable[[Any], Any]] | None = None


def begin(folder: str, level: int) -> None:
    """Prepare a new worker, whose driver keeps its calls in `folder` and logs from `level` on."""
    threading.Thread(target=_follow_the_driver, args=(folder,), daemon=True).start()
    logging.basicConfig(handlers=[QueueHandler(_said)], level=level)
    logging.captureWarnings(capture=True)


def _follow_the_driver(folder: str) -> None:
    """End when the driver does, however that was: a killed one can tell nobody."""
    driver = parent_process()
    if driver is not None:
        connection.wait([driver.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def compute(path: str, item: Any) -> Ended:
    """Compute `call(item)` for the call that lies at `path`; the latest one is kept."""
    global _latest  # noqa: PLW0603 - what a worker process holds from one item to the next
    value = failure = None
    try:
        if _latest is None or _latest[0] != path:
            _latest = None  # what it held is released first
            _latest = path, pickle.loads(Path(path).read_bytes())  # noqa: S301 - the driver wrote it
        value = _latest[1](item)
    except Exception as error:  # noqa: BLE001 - `drive` decides what is tried again
        failure = _portable(error)
    return Ended(value, failure, [_said.get() for _ in range(_said.qsize())])


def _portable(error: Exception) -> Exception:
    """An error that survives the way to the driver, and says where in the worker it arose."""
    error.add_note(f"in a worker process:\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made a moment ago
    except Exception:  # noqa: BLE001 - errors of anybody's classes, which pickle in any way
        copy = RuntimeError(f"{type(error).__name__}: {error}")
        copy.__notes__ = error.__notes__
        return copy
    return error
