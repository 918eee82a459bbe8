"""The run folder while a run is at work in it."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mitocore.blockwise.arrays import Sink
from mitocore.blockwise.executor import Executor, drive
from mitocore.blockwise.journal import Journal
from mitocore.blockwise.lock import RunLock
from mitocore.durable import read_npy, reported, sync_folder, write_npy

Table = NDArray[Any]
"""What one item of a pass leaves for later passes; often empty."""


@dataclass(frozen=True)
class Workspace:
    """A run folder, who computes in it, and who is told.

    Journals and scratch are named by the caller: step, pass, and a digest of all they depend on, so that a new
    configuration never reads the files of an old one.
    """

    folder: Path
    """Holds `state/` (journals, tables) and `scratch/` (arrays that are not output)."""
    executor: Executor
    lock: RunLock
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None
    """Called with label, items finished and items in all: once at the start of a pass and after every commit."""
    cancelled: Callable[[], bool] = lambda: False
    """Asked between items; once true, the pass ends as if interrupted."""
    retries: int = 2
    budget: float = float("inf")
    """Bytes that all blocks at work may hold together; one always may."""
    every: float = 0.5
    """Seconds between two commits: what a crash can cost, and what each commit waits for the disk is saved."""

    def state(self, file: str) -> Path:
        """The path of a file in `state/`, which exists."""
        return _made(self.folder / "state") / file

    def journal(self, name: str) -> Journal:
        """The journal `state/<name>.journal`, as a killed run left it."""
        return Journal(self.state(f"{name}.journal"))

    def table(self, name: str) -> Table | None:
        """The table `state/<name>.npy`, if it was saved.

        Raises
        ------
        RunError
            If it is damaged.
        """
        path = self.state(f"{name}.npy")
        return read_npy(path) if path.exists() else None

    def save(self, name: str, table: Table) -> None:
        """Save a table as `state/<name>.npy`: all of it or nothing."""
        self.lock.hold()
        write_npy(self.state(f"{name}.npy"), table)

    def scratch(self, name: str) -> Path:
        """The folder `scratch/<name>/`, without what a killed worker was writing."""
        folder = _made(self.folder / "scratch" / name)
        for left in folder.glob("*.tmp"):
            left.unlink()
        return folder

    def forget(self, name: str) -> None:
        """Remove a journal: what it recorded is no longer finished."""
        path = self.state(f"{name}.journal")
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def discard(self, name: str) -> None:
        """Remove a scratch array. Whoever may need it again forgets the journal of its pass first."""
        shutil.rmtree(self.folder / "scratch" / name, ignore_errors=True)

    def run(
        self,
        name: str,
        label: str,
        call: Callable[[int], Table],
        items: Sequence[int],
        *,
        sinks: Iterable[Sink] = (),
        cost: Callable[[int], float] = lambda _: 0.0,
        executor: Executor | None = None,
    ) -> dict[int, Table]:
        """Run a pass: `call(item)` for what the journal `name` does not hold yet; the tables of all items, in order.

        What finished together is committed together: the lock is confirmed, `sinks` are made durable, the journal is
        written. `cost(item)` is what an item takes of the budget while it is at work; `executor` stands in for that of
        the run where a pass must keep to an order.

        Raises
        ------
        RunError
            If an item keeps failing, or another driver took over the folder.
        ResourceError
            If the disk is full.
        KeyboardInterrupt
            If interrupted or cancelled; what ran is finished and committed.
        """
        sinks = tuple(sinks)
        with self.journal(name) as journal:

            def commit(finished: list[tuple[int, Table]]) -> None:
                self.lock.hold()
                for sink in sinks:
                    sink.sync()
                journal.commit(dict(finished))
                self.progress(label, len(journal.tables), len(items))

            left = [item for item in items if item not in journal.tables]
            self.progress(label, len(items) - len(left), len(items))
            drive(
                executor or self.executor,
                call,
                left,
                commit=commit,
                every=self.every,
                cost=cost,
                budget=self.budget,
                retries=self.retries,
                cancelled=self.cancelled,
            )
            return {item: journal.tables[item] for item in items}


def _made(folder: Path) -> Path:
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
