"""Where blocks are computed, and the one loop that drives them."""

import logging
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from mitocore.blockwise import spawned
from mitocore.durable import FREE_SPACE, disk_full
from mitocore.errors import MitocoreError, ResourceError, RunError


class Executor(Protocol):
    """Where blocks are computed. Nothing in a result depends on it."""

    workers: int
    """How many items run at the same time; 0: none beside the caller."""
    sharing: Literal["threads", "processes"]
    """What all of them, writing into one file at the same time, are to it."""

    def submit(self, call: Callable[[Any], Any], item: Any) -> "Future[Any]":
        """Start `call(item)`. Workers that died are reported by the future, as a `BrokenExecutor`."""

    def reset(self) -> None:
        """Replace the workers after one died; nothing may be running."""

    def close(self) -> None:
        """Wait for what runs and release the workers."""


class InProcess:
    """Computes each item at once, in the calling thread."""

    workers = 0
    sharing: Literal["threads", "processes"] = "threads"

    def submit(self, call: Callable[[Any], Any], item: Any) -> "Future[Any]":
        """Compute `call(item)` now; a failure is held by the future, an interruption is not."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(item))
        except Exception as error:  # noqa: BLE001 - `drive` decides what is tried again
            future.set_exception(error)
        return future

    def reset(self) -> None:
        """Nothing can die alone."""

    def close(self) -> None:
        """Nothing is held."""


class Threads:
    """Computes up to `workers` items at the same time, in threads of this process."""

    sharing: Literal["threads", "processes"] = "threads"

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mitocore")

    def submit(self, call: Callable[[Any], Any], item: Any) -> "Future[Any]":
        """Queue `call(item)`."""
        return self._pool.submit(call, item)

    def reset(self) -> None:
        """Nothing can die alone."""

    def close(self) -> None:
        """Wait for what runs; what is queued never starts."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Processes:
    """Computes up to `workers` items at the same time, each in a process of its own.

    The processes are started when they are needed, and end with this one, even if it is killed. What a call consists
    of is written once, to a temporary file that each worker reads; with an item only its name is sent.
    """

    sharing: Literal["threads", "processes"] = "processes"

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._folder = tempfile.TemporaryDirectory(prefix="mitocore-calls-")
        self._call: Callable[[Any], Any] | None = None
        self._written = 0
        self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        level = min(logging.getLogger(name).getEffectiveLevel() for name in ("", "mitocore"))
        return ProcessPoolExecutor(
            self.workers,
            mp_context=spawned.SpawnWithoutMain(),
            initializer=spawned.begin,
            initargs=(self._folder.name, level),
        )

    def submit(self, call: Callable[[Any], Any], item: Any) -> "Future[Any]":
        """Queue `call(item)`.

        Raises
        ------
        ConfigError
            If the call cannot be sent to another process.
        """
        future: Future[Any] = Future()
        path = self._file(call)
        try:
            ended = self._pool.submit(spawned.compute, str(path), item)
        except BrokenExecutor as error:
            future.set_exception(error)
        else:
            ended.add_done_callback(lambda ended: _pass_on(ended, future))
        return future

    def _file(self, call: Callable[[Any], Any]) -> Path:
        """Where the workers find a call; that of the pass before is no longer wanted."""
        folder = Path(self._folder.name)
        if self._call is not call:
            (folder / f"{self._written}.pickle").unlink(missing_ok=True)
            self._call, self._written = None, self._written + 1
            spawned.write_call(folder / f"{self._written}.pickle", call)
            self._call = call
        return folder / f"{self._written}.pickle"

    def reset(self) -> None:
        """Start new processes in the place of all."""
        self._pool.shutdown(wait=True)
        self._pool = self._started()

    def close(self) -> None:
        """Wait for what runs; what is queued never starts."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()


def _pass_on(ended: "Future[spawned.Ended]", future: "Future[Any]") -> None:
    """What came of an item to who waits for it, and what was logged to who listens here."""
    if ended.cancelled():
        future.cancel()
    elif error := ended.exception():
        future.set_exception(error)
    else:
        found = ended.result()
        try:
            for record in found.records:
                logger = logging.getLogger(record.name)
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)
        finally:  # a handler that fails must not leave `drive` waiting
            if found.error:
                future.set_exception(found.error)
            else:
                future.set_result(found.value)


def drive(
    executor: Executor,
    call: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    commit: Callable[[list[tuple[Any, Any]]], None],
    every: float = 0.5,
    cost: Callable[[Any], float] = lambda _: 0.0,
    budget: float = float("inf"),
    retries: int = 2,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Run `call(item)` for every item; `commit([(item, result), …])` here, in the driver, what finished together.

    Items start in order, no more of them at the same time than `budget` holds by their `cost` (one always may).
    Commits are `every` so many seconds apart: each waits for the disk. Whatever ends the run early, nothing new is
    started, what runs is awaited once, and what it finished is committed. When a worker dies, what it may have been
    working on is tried again one item at a time, so that only the guilty one collects attempts.

    Raises
    ------
    MitocoreError
        What an item raised that the user can fix; never tried again.
    ResourceError
        If an item found the disk full; trying again would not help.
    RunError
        If an item failed with any other error, or killed its worker, once more than `retries` allow.
    KeyboardInterrupt
        If interrupted, or `cancelled()` is true between items.
    """
    with _noted_interrupt(executor) as interrupted:
        _drive(executor, call, items, commit, every, cost, budget, retries, lambda: cancelled() or interrupted())
        if interrupted():
            raise KeyboardInterrupt


@contextmanager
def _noted_interrupt(executor: Executor) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, to be asked when it suits; pressed again, it is raised at once.

    Raised inside a wait for other threads, `KeyboardInterrupt` can leave a lock of theirs closed for ever. Without
    other threads, and where the program handles the signal itself, nothing changes.
    """
    pressed: list[int] = []

    def note(number: int, _: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    main = threading.current_thread() is threading.main_thread()
    if not (executor.workers and main and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _drive(
    executor: Executor,
    call: Callable[[Any], Any],
    items: Iterable[Any],
    commit: Callable[[list[tuple[Any, Any]]], None],
    every: float,
    cost: Callable[[Any], float],
    budget: float,
    retries: int,
    cancelled: Callable[[], bool],
) -> None:
    waiting, suspects = deque((item, 0) for item in items), deque[tuple[Any, int]]()
    running: dict[Future[Any], tuple[Any, int]] = {}
    finished: list[tuple[Any, Any]] = []
    last = time.monotonic()

    def gather(when: str) -> list[tuple[Any, int, BaseException]]:
        done, _ = wait(running, return_when=when)
        ended = [(*running.pop(future), future) for future in [*running] if future in done]
        finished.extend((item, future.result()) for item, _, future in ended if future.exception() is None)
        return [(item, tried, error) for item, tried, future in ended if (error := future.exception())]

    def flush() -> None:
        if finished:
            commit([*finished])
            finished.clear()

    try:
        while waiting or suspects or running:
            alone = bool(suspects)  # until then nothing else starts
            queue = suspects or waiting
            while (queue and not alone and len(running) < 2 * executor.workers) or not running:
                if cancelled():
                    raise KeyboardInterrupt  # noqa: TRY301 - ends like a real one
                item, tried = queue[0]
                if running and cost(item) + sum(cost(other) for other, _ in running.values()) > budget:
                    break
                queue.popleft()
                running[executor.submit(call, item)] = (item, tried)
            failed = gather(FIRST_COMPLETED)
            if any(isinstance(error, BrokenExecutor) for _, _, error in failed):
                failed += gather(ALL_COMPLETED)  # all workers are gone: nothing that was under way will end
                executor.reset()
            for item, tried, error in failed:
                died = isinstance(error, BrokenExecutor)
                if isinstance(error, MitocoreError):
                    raise error
                if disk_full(error):
                    raise ResourceError(f"block {item} cannot be written: {error}", hint=FREE_SPACE) from error
                if died and not alone:
                    suspects.append((item, tried))  # one of them did it: each shows by itself whether it was that one
                    continue
                if tried >= retries:
                    raise _given_up(item, tried + 1, error) from error
                (suspects if died else waiting).appendleft((item, tried + 1))  # at once: some passes keep to an order
            if time.monotonic() - last >= every:
                flush()
                last = time.monotonic()
        flush()
    except (MitocoreError, KeyboardInterrupt):
        gather(ALL_COMPLETED)
        flush()
        raise


def _given_up(item: Any, times: int, error: BaseException) -> RunError:
    kept = "run again to resume; what is finished is kept"
    if isinstance(error, BrokenExecutor):
        problem = f"block {item} failed {times} times: its worker process was killed, alone at work"
        return RunError(problem, hint=f"smaller blocks if memory was short; {kept}")
    if isinstance(error, MemoryError):
        kept = f"smaller blocks or fewer workers; {kept}"
    elif not isinstance(error, OSError):  # of a disk or a network, which may be better the next time
        kept = "a bug in the step? --traceback shows where; what is finished is kept"
    return RunError(f"block {item} failed {times} times: {error!r}", hint=kept)
