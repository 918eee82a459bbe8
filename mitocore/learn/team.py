"""Processes that train together, each on its own device: the leader decides, writes and validates, the others follow.

The leader is the process that was asked to train. What it decides travels through a pipe to each follower, so that a
validation may last as long as it likes; gradients are averaged by torch (DDP) and nothing else is shared.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import ClusterEnvironment

from mitocore.blockwise.spawned import SpawnWithoutMain
from mitocore.errors import MitocoreError, RunError
from mitocore.learn.module import Learner, Taken

Said = TypeVar("Said", Taken, str)

_HERE, _GO, _SAVE, _STOP, _END = "here", "go", "save", "stop", "end"
_PATIENCE = 2.0
"""Seconds that a process which failed is given to say why."""
_FAREWELL = 30.0
"""Seconds that a process is given to end."""
_SET = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK")


class Place(ClusterEnvironment):  # type: ignore[misc] # lightning is not typed
    """Where a process stands among those that train together; it starts none."""

    def __init__(self, rank: int, ranks: int, port: int) -> None:
        super().__init__()
        self.rank, self.ranks, self.port = rank, ranks, port

    creates_processes_externally = True
    main_address = "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Where the leader listens."""
        return self.port

    @staticmethod
    def detect() -> bool:
        """Never found by itself."""
        return False

    def world_size(self) -> int:
        """How many processes there are."""
        return self.ranks

    def set_world_size(self, size: int) -> None:
        """Stated from the start."""

    def global_rank(self) -> int:
        """Number of this process."""
        return self.rank

    def set_global_rank(self, rank: int) -> None:
        """Stated from the start."""

    def local_rank(self) -> int:
        """Number of this process on this machine, which is the only one."""
        return self.rank

    def node_rank(self) -> int:
        """Number of this machine."""
        return 0


class Leader(Callback):  # type: ignore[misc] # lightning is not typed
    """Tells the followers, if there are any, what comes next; its callback runs after all that decides."""

    def __init__(self, links: Sequence[Connection] = ()) -> None:
        self.links = links
        self._step = 0

    def meet(self) -> None:
        """Wait until every follower is there: torch would wait for one that failed on the way for half an hour.

        Raises
        ------
        MitocoreError
            What ended a follower.
        """
        for link in self.links:
            _heard(link, str)

    def gathered(self, taken: Taken) -> list[Taken]:
        """What every process says of the step just taken.

        Raises
        ------
        MitocoreError
            What ended a follower.
        """
        return [taken, *(_heard(link, Taken) for link in self.links)]

    def tell(self, word: str) -> None:
        """Say a word to every follower."""
        for link in self.links:
            try:
                link.send(word)
            except OSError as error:
                raise self.failure() or _gone() from error

    def saving(self) -> None:
        """Say that all must take part in writing a checkpoint."""
        self.tell(_SAVE)

    def end(self) -> None:
        """Say that the training is over."""
        self.tell(_END)

    def failure(self) -> MitocoreError | None:
        """Why a follower failed, if one did."""
        for link in self.links:
            with suppress(EOFError, OSError):
                while link.poll(_PATIENCE):
                    said = link.recv()
                    if isinstance(said, MitocoreError):
                        return said
        return None

    def on_train_start(self, trainer: Trainer, learner: Learner) -> None:
        """Say whether there is anything to do."""
        del learner
        self._step = trainer.global_step
        self.tell(_STOP if trainer.should_stop else _GO)

    def on_train_batch_end(
        self, trainer: Trainer, learner: Learner, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """After each step, say whether there is another."""
        del learner, outputs, batch, batch_idx
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self.tell(_STOP if trainer.should_stop else _GO)


class Follower(Callback):  # type: ignore[misc] # lightning is not typed
    """Reports each step, and does what the leader says."""

    def __init__(self, link: Connection, checkpoint: Path) -> None:
        self.link, self.checkpoint = link, checkpoint
        self._step = 0

    def arrive(self) -> None:
        """Say that this process is ready to meet the others."""
        self.link.send(_HERE)

    def gathered(self, taken: Taken) -> list[Taken]:
        """Report to the leader."""
        self.link.send(taken)
        return [taken]

    def on_train_start(self, trainer: Trainer, learner: Learner) -> None:
        """Wait until there is something to do."""
        del learner
        self._step = trainer.global_step
        self.obey(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, learner: Learner, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """After each step, report it and wait."""
        del outputs, batch, batch_idx
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            learner.report()
            self.obey(trainer)

    def obey(self, trainer: Trainer) -> None:
        """Do what the leader says until it lets us go on."""
        while (word := self._word()) == _SAVE:
            trainer.save_checkpoint(self.checkpoint)  # the leader writes; all must be there
        trainer.should_stop = trainer.should_stop or word == _STOP

    def obey_to_the_end(self, trainer: Trainer) -> None:
        """After the last step: what the leader still has to write."""
        while (word := self._word()) != _END:
            if word == _SAVE:
                trainer.save_checkpoint(self.checkpoint)

    def _word(self) -> str:
        try:
            return str(self.link.recv())
        except (EOFError, OSError):
            os._exit(1)  # the leader is gone, and nothing here is worth saving


@contextmanager
def leading(ranks: int, follow: Callable[..., None], *arguments: Any) -> Iterator[tuple[Leader, Place | None]]:
    """Start the followers; when the block ends they are gone.

    Parameters
    ----------
    follow
        Called in each follower with its place, its link and `arguments`; like these, it can be pickled.
    """
    if ranks == 1:
        yield Leader(), None
        return
    port, spawn = _free_port(), SpawnWithoutMain()
    links: list[Connection] = []
    processes: list[BaseProcess] = []
    before = {name: os.environ.get(name) for name in _SET}
    leader = Leader(links)
    try:
        for rank in range(1, ranks):
            ours, theirs = spawn.Pipe()
            standing = (torch.get_num_threads(), follow, Place(rank, ranks, port), theirs)
            process = spawn.Process(target=_following, args=(*standing, *arguments))
            process.start()
            theirs.close()  # else we would not notice that the follower is gone
            links.append(ours)
            processes.append(process)
        try:
            yield leader, Place(0, ranks, port)
        except RuntimeError as error:  # what torch says when another process went away
            raise leader.failure() or error from error
        for started in processes:
            started.join(_FAREWELL)
    finally:
        for started, link in zip(processes, links, strict=True):
            started.kill()
            started.join()
            link.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():  # torch's meeting point, which Lightning leaves behind
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _following(threads: int, follow: Callable[..., None], place: Place, link: Connection, *arguments: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all; the leader decides what they mean
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        follow(place, link, *arguments)
    except MitocoreError as error:
        _say(link, error)
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        _say(link, RunError(f"process {place.rank} of {place.ranks} failed: {reason[0]}"))


def _say(link: Connection, error: MitocoreError) -> None:
    with suppress(OSError):  # the leader may be gone
        link.send(error)


def _heard(link: Connection, kind: type[Said]) -> Said:
    """The next thing of this kind that a follower says."""
    try:
        said = link.recv()
    except (EOFError, OSError) as error:
        raise _gone() from error
    if isinstance(said, MitocoreError):
        raise said
    if not isinstance(said, kind):
        raise _gone()
    return said


def _gone() -> RunError:
    return RunError(
        "one of the processes that train together ended", hint="--resume continues from the last checkpoint"
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
