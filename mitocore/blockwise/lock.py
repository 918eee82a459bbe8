"""One driver per run folder."""

import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any, Self

from mitocore.durable import reported
from mitocore.errors import DataError, RunError

_held: set[str] = set()  # tokens of this process: an equal process number with another token is a dead namesake


class RunLock:
    """The right to write in a run folder: `run.lock` holds host, process and token; its time is the heartbeat.

    A holder on this host whose process is gone is replaced; so is any holder with `take_over`, and its driver stops at
    its next commit.

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
        if not _create(self._path, own):
            if not take_over:
                self._refuse_if_alive()
            aside = self._path.with_name(f"run.lock.{self._token}.tmp")
            _create(aside, own)
            aside.replace(self._path)
            if self._holder().get("token") != self._token:  # two drivers found the same dead holder
                raise RunError(self._in_use(), hint="wait for it")
        _held.add(self._token)

    def hold(self) -> None:
        """Check that the folder is still ours and show that we are alive; called before every commit.

        Raises
        ------
        RunError
            If another driver took over.
        """
        if self._holder().get("token") != self._token:
            raise RunError(f"{str(self._path.parent)!r} was taken over by another run; this one stops")
        os.utime(self._path)

    def release(self) -> None:
        """Let others in. Calling it twice, or after a take-over, is allowed."""
        _held.discard(self._token)
        if self._holder().get("token") == self._token:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _holder(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):  # just removed, or just being written
            return {}
        return found if isinstance(found, dict) else {}

    def _refuse_if_alive(self) -> None:
        holder = self._holder()
        process, here = holder.get("process", 0), holder.get("host") == socket.gethostname()
        alive = holder.get("token") in _held if process == os.getpid() else _alive(process)
        if self._path.exists() and (alive or not here):
            raise RunError(self._in_use(), hint="add --take-over if that run is gone")

    def _in_use(self) -> str:
        holder = self._holder()
        who = f"process {holder.get('process', '?')} on {holder.get('host', '?')!r}"
        try:
            seen = f", seen {max(0, time.time() - self._path.stat().st_mtime):.0f} s ago"
        except FileNotFoundError:
            seen = ""
        return f"{str(self._path.parent)!r} is in use by {who}{seen}"


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
