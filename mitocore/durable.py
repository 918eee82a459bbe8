"""Files that are whole or absent, whatever happens while they are written, and that stay once they are there."""

import errno
import json
import math
import os
import threading
import tokenize
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import DataError, MitocoreError, ResourceError, RunError

FREE_SPACE = "free some disk space and run again to resume"
"""The hint of every error about a full disk."""
ANEW = "--fresh computes it again"
"""The hint of every error about files of a run folder that are damaged or gone."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replaced(path: Path, *, sync: bool = True, shared: bool = False) -> Iterator[BinaryIO]:
    """A new file that becomes `path` when the block ends; if it ends with an error, `path` stays as it was.

    Parameters
    ----------
    path
        The file, in a folder that exists. Until it is whole, its content lies beside it under a name ending in `.tmp`.
    sync
        Make the renaming durable too. Without it, call `sync_folder` before anything relies on the file.
    shared
        Several may write this file at the same time, always the same content: each gets a name of its own.

    Raises
    ------
    ResourceError
        If the disk is full, within the block or after it.
    DataError
        If the file cannot be written for another reason.
    """
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp" if shared else f"{path.name}.tmp")
    with reported(path):
        try:
            with aside.open("wb") as file:
                yield file
                file.flush()
                if os.fstat(file.fileno()).st_size:  # of an empty file, only its name has to last
                    os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)  # there only after an error
    if sync:
        sync_folder(path.parent)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON; what JSON does not know is written as text. Raises as `replaced` does."""
    with replaced(path) as file:
        file.write((json.dumps(data, indent=1, default=str) + "\n").encode())


def write_npy(path: Path, values: NDArray[Any], *, sync: bool = True, shared: bool = False) -> None:
    """Write an array as `.npy`; parameters and errors are those of `replaced`."""
    with replaced(path, sync=sync, shared=shared) as file:
        np.save(file, np.ascontiguousarray(values), allow_pickle=False)


def read_json(path: Path) -> dict[str, Any]:
    """What a file says that `write_json` wrote of a table.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    with _whole(path):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"{path} holds no table")
        return content


def read_npy(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """The array of a file that `write_npy` wrote; `mapped`: voxels are read where they are used, while the file stays.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    with _whole(path):
        if mapped:
            with ONE_HEADER:
                return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            with ONE_HEADER:
                version = np.lib.format.read_magic(file)
                header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, by_column, dtype = header(file)
            if dtype.hasobject:
                raise damaged(path)
            values = np.fromfile(file, dtype, math.prod(shape))
            return values.reshape(shape, order="F" if by_column else "C")


ONE_HEADER = threading.Lock()
"""Held while numpy parses a header: in Python 3.11, `ast` fails now and then in several threads at the same time."""


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what json and numpy say of a damaged file into one error; other failures of a disk may pass: those stay."""
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(f"{path.name!r} is missing", where=str(path), hint=ANEW) from error
    except (ValueError, TypeError, EOFError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> RunError:
    """The error about a file of a run folder that holds something else than was written."""
    return RunError(f"{path.name!r} is damaged", where=str(path), hint=ANEW)


def sync_folder(folder: Path) -> None:
    """Make the creation, renaming and removal of files in a folder durable.

    Raises
    ------
    ResourceError, DataError
        As of `replaced`.
    """
    with reported(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into the error that names `path` and says what to do.

    Raises
    ------
    ResourceError
        If the disk is full, or the file larger than allowed.
    DataError
        If anything else keeps it from being written.
    """
    try:
        yield
    except OSError as error:
        raise _explained(path, error) from error


def disk_full(error: BaseException) -> bool:
    """Whether an error says that a file cannot grow: the disk, the quota or the largest size of a file is reached."""
    return isinstance(error, OSError) and error.errno in _FULL


def _explained(path: Path, error: OSError) -> MitocoreError:
    if disk_full(error) or error.errno is None:  # None: numpy found fewer bytes written than it asked for
        reason = error.strerror or "the disk took only a part of it"
        return ResourceError(f"{str(path)!r} cannot be written: {reason}", hint=FREE_SPACE)
    hint = "check that the folder exists and may be written to"
    return DataError(f"{str(path)!r} cannot be written: {error.strerror}", hint=hint)
