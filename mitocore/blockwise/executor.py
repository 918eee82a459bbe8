"""Where blocks are computed, and the one loop that drives them."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from mitocore.durable import FREE_SPACE, disk_full
from mitocore.errors import MitocoreError, ResourceError, RunError


class Executor(Protocol):
    """Where blocks are computed. Nothing in a result depends on it."""

    workers: int
    """How many items run at the same time; 0: none beside the caller."""

    def submit(self, call: Callable[[Any], Any], item: Any) -> "Future[Any]":
        """Start `call(item)`."""

    def close(self) -> None:
        """Wait for what runs and release the workers."""


class InProcess:
    """Computes each item at once, in the calling thread."""

    workers = 0

    def submit(self, call: Callable[[Any], Any], item: Any) -> "Future[Any]":
        """Compute `call(item)` now; a failure is held by the future, an interruption is not."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(item))
        except Exception as error:  # noqa: BLE001 - `drive` decides what is tried again
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing is held."""


class Threads:
    """Computes up to `workers` items at the same time, in threads of this process."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mitocore")

    def submit(self, call: Callable[[Any], Any], item: Any) -> "Future[Any]":
        """Queue `call(item)`."""
        return self._pool.submit(call, item)

    def close(self) -> None:
        """Wait for what runs; what is queued never starts."""
        self._pool.shutdown(wait=True, cancel_futures=True)


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
    started, what runs is awaited once, and what it finished is committed.

    Raises
    ------
    MitocoreError
        What an item raised that the user can fix; never tried again.
    ResourceError
        If an item found the disk full; trying again would not help.
    RunError
        If an item failed with any other error once more than `retries` allow.
    KeyboardInterrupt
        If interrupted, or `cancelled()` is true between items.
    """
    waiting = deque((item, 0) for item in items)
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
        while waiting or running:
            while (waiting and len(running) < 2 * executor.workers) or not running:
                if cancelled():
                    raise KeyboardInterrupt  # noqa: TRY301 - ends like a real one
                item, tried = waiting[0]
                if running and cost(item) + sum(cost(other) for other, _ in running.values()) > budget:
                    break
                waiting.popleft()
                running[executor.submit(call, item)] = (item, tried)
            for item, tried, error in gather(FIRST_COMPLETED):
                if isinstance(error, MitocoreError):
                    raise error
                if disk_full(error):
                    raise ResourceError(f"block {item} cannot be written: {error}", hint=FREE_SPACE) from error
                if tried >= retries:
                    problem = f"block {item} failed {tried + 1} times: {error!r}"
                    raise RunError(problem, hint="run again to resume; what is finished is kept") from error
                waiting.appendleft((item, tried + 1))  # at once: some passes keep to an order
            if time.monotonic() - last >= every:
                flush()
                last = time.monotonic()
        flush()
    except (MitocoreError, KeyboardInterrupt):
        gather(ALL_COMPLETED)
        flush()
        raise
