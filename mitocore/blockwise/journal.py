"""What a pass has finished; the record is the commit."""

import io
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mitocore.durable import reported, sync_folder

_HEAD = struct.Struct("<QQI")  # block, bytes, checksum of both and of the table


class Journal:
    """What one pass has finished: a table per block. Written by the driver alone.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with Journal(Path(folder) / "demo.journal") as journal:
    ...         journal.commit({7: np.arange(3)})
    ...     with Journal(Path(folder) / "demo.journal") as journal:
    ...         journal.tables
    {7: array([0, 1, 2])}
    """

    tables: dict[int, NDArray[Any]]
    """The finished blocks and what each found."""

    def __init__(self, path: Path) -> None:
        self.tables = {}
        self._path = path
        fresh = not path.exists()
        with reported(path):
            self._file = path.open("a+b", buffering=0)
        if fresh:
            sync_folder(path.parent)
        with path.open("rb") as file:
            self._end = self._replay(file, path.stat().st_size)

    def _replay(self, file: io.BufferedReader, size: int) -> int:
        """Read what is whole; returns where it ends. A record torn by a crash, and what follows it, never happened."""
        good = 0
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            block, length, checksum = _HEAD.unpack(head)
            if length > size - file.tell() or _checksum(block, body := file.read(length)) != checksum:
                break
            self.tables[block] = np.load(io.BytesIO(body), allow_pickle=False)
            good = file.tell()
        return good

    def commit(self, tables: Mapping[int, NDArray[Any]]) -> None:
        """Record blocks as finished, with one fsync for all; their files must be durable before.

        Raises
        ------
        ResourceError
            If the disk is full.
        DataError
            If it does not take the record for another reason.
        """
        records = []
        for block, table in tables.items():
            buffer = io.BytesIO()
            np.save(buffer, table, allow_pickle=False)
            body = buffer.getvalue()
            records.append(_HEAD.pack(block, len(body), _checksum(block, body)) + body)
        text = memoryview(b"".join(records))
        end = self._end + len(text)
        with reported(self._path):
            self._file.truncate(self._end)  # also what an interrupted commit left
            while text:
                text = text[self._file.write(text) :]
            os.fsync(self._file.fileno())
        self._end = end
        self.tables.update(tables)

    def close(self) -> None:
        """Release the file. Calling it twice is allowed."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _checksum(block: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(block.to_bytes(8, "little")))
