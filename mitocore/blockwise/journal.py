"""What a pass has finished; the record is the commit."""

import io
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<QQI")  # block, bytes, checksum


class Journal:
    """What one pass has finished: a table per block. Written by the driver alone."""

    def __init__(self, path: Path) -> None:
        self.tables: dict[int, NDArray[Any]] = {}
        self._file = path.open("a+b")
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        good = 0
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            block, length, checksum = _HEAD.unpack(head)
            if length > size - self._file.tell() or zlib.crc32(body := self._file.read(length)) != checksum:
                break
            self.tables[block] = np.load(io.BytesIO(body), allow_pickle=False)
            good = self._file.tell()
        self._file.truncate(good)  # a record torn by a crash never happened

    def commit(self, tables: Mapping[int, NDArray[Any]]) -> None:
        """Block files first (`sync`), then this: one fsync for all that finished together."""
        for block, table in tables.items():
            buffer = io.BytesIO()
            np.save(buffer, table, allow_pickle=False)
            body = buffer.getvalue()
            self._file.write(_HEAD.pack(block, len(body), zlib.crc32(body)) + body)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.tables.update(tables)
