"""One driver per run folder."""

import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mitocore.durable import reported
from mitocore.errors import DataError, RunError

if sys.platform != "win32":
    import fcntl

_held: set[str] = set()  # tokens of this process: an equal process number with another token is a dead namesake
_STALE = 600.0  # seconds without a heartbeat after which a process may be a namesake of the holder: numbers are reused


@dataclass(frozen=True)
class _Holder:
    """What `run.lock` says of who holds it."""

    host: str
    process: int
    token: str

    @property
    def alive(self) -> bool:
        """Whether a process of its number is at work on this host; of ours, whether it is this very lock."""
        if self.host != socket.gethostname():
            return False
        return self.token in _held if self.process == os.getpid() else _alive(self.process)


class RunLock:
    """The right to write in a run folder: `run.lock` holds host, process and token; its time is the heartbeat.

    A holder on this host whose process is gone is replaced; so is, with `take_over`, one of another host, and one that
    has shown no sign of life for ten minutes; should it be alive, its driver stops at its next commit.

    Raises
    ------
    DataError
        If the folder cannot be created or written to.
    ResourceError
        If the disk is full.
    RunError
        If another driver is at work in the folder.
    """

    def __init__(self, folder: Path, *, take_over: bool = False) -> None:
        self._path = folder / "run.lock"
        self._token = uuid.uuid4().hex
        own = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "token": self._token}).encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"{str(folder)!r} cannot be a run folder: {error.strerror}"
            raise DataError(problem, hint="choose another folder") from error
        with _alone(folder):
            if not _create(self._path, own):
                self._refuse(take_over)
                aside = self._path.with_name(f"run.lock.{self._token}.tmp")
                _create(aside, own)
                aside.replace(self._path)
                if not self._ours():  # another driver found the same dead holder where `_alone` has no effect
                    raise RunError(self._in_use(), hint="wait for it")
        _held.add(self._token)

    def hold(self) -> None:
        """Check that the folder is still ours and show that we are alive; called before every commit.

        Raises
        ------
        RunError
            If another driver took over.
        """
        if not self._ours():
            raise RunError(f"{str(self._path.parent)!r} was taken over by another run; this one stops")
        os.utime(self._path)

    def release(self) -> None:
        """Let others in. Calling it twice, or after a take-over, is allowed."""
        _held.discard(self._token)
        with _alone(self._path.parent):
            if self._ours():
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _holder(self) -> _Holder | None:
        """Who holds the lock; None: it does not say, for it is damaged, just removed, or just being written."""
        try:
            found = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        match found:
            case {"host": str(host), "process": int(process), "token": str(token)} if 0 < process < 2**31:
                return _Holder(host, process, token)
        return None

    def _ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.token == self._token

    def _refuse(self, take_over: bool) -> None:
        """Refuse if the holder is at work, or if nobody can tell and nobody has said that it is gone."""
        holder, age = self._holder(), self._age()
        if age is None:
            return  # it was let go of just now
        alive = holder is not None and holder.alive
        if holder and alive and take_over and age < _STALE:
            raise RunError(
                f"{str(self._path.parent)!r} cannot be taken over: process {holder.process} is alive; stop it first",
                hint="Ctrl-C where it runs: what it has finished is kept",
            )
        dead = holder is not None and not alive and holder.host == socket.gethostname()
        if not dead and not take_over:
            raise RunError(self._in_use(), hint="add --take-over if that run is gone")

    def _age(self) -> float | None:
        """Seconds since the last heartbeat; None: there is no lock."""
        try:
            return max(0.0, time.time() - self._path.stat().st_mtime)
        except FileNotFoundError:
            return None

    def _in_use(self) -> str:
        holder, age = self._holder(), self._age()
        who = f"process {holder.process} on {holder.host!r}" if holder else "a process that run.lock does not name"
        seen = "" if age is None else f", seen {age:.0f} s ago"
        return f"{str(self._path.parent)!r} is in use by {who}{seen}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other driver decide about the lock of a folder meanwhile; the death of a process ends it too.

    Where the system has no such thing, as Windows and some file systems on networks, nobody is kept waiting.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # the folder was removed
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was forked meanwhile would keep it
        os.close(handle)


def _create(path: Path, text: bytes) -> bool:
    """Write a new file; False if there is one."""
    with reported(path):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            os.write(handle, text)
            os.fsync(handle)
        except OSError:
            path.unlink()  # a lock without a holder would keep everybody out
            raise
        finally:
            os.close(handle)
    return True


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, and another user's
        return True
    return True
