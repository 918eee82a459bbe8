"""The next batch is prepared while the network computes this one."""

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_AHEAD = 2
"""Batches that wait at most; more would only take memory."""
_POLL = 0.1  # seconds between two looks at whether anybody still wants batches


@dataclass(frozen=True)
class _Failed:
    error: Exception


class _Ended:
    """Follows the last batch."""


class Prefetched(Iterable[Any]):
    """What an iterable gives, in its order, prepared in one thread of its own.

    Reading, numpy and a GPU leave the interpreter to each other most of the time, so a thread is enough to keep a GPU
    busy where preparing a batch takes less than a step; otherwise `workers` helps.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        """Start the thread; it ends with the iterator."""
        ready: queue.Queue[Any] = queue.Queue(_AHEAD)
        over = threading.Event()
        thread = threading.Thread(target=self._prepare, args=(ready, over), name="crops", daemon=True)
        thread.start()
        try:
            while not isinstance(item := ready.get(), _Ended):
                if isinstance(item, _Failed):
                    raise item.error
                yield item
        finally:
            over.set()
            thread.join()

    def _prepare(self, ready: "queue.Queue[Any]", over: threading.Event) -> None:
        try:
            for batch in self.batches:
                if not _put(ready, batch, over):
                    return
            _put(ready, _Ended(), over)
        except Exception as error:  # noqa: BLE001 - whoever iterates gets it, whatever it is
            _put(ready, _Failed(error), over)


def _put(ready: "queue.Queue[Any]", item: Any, over: threading.Event) -> bool:
    """Whether somebody still wanted it."""
    while not over.is_set():
        try:
            ready.put(item, timeout=_POLL)
        except queue.Full:
            continue
        return True
    return False
