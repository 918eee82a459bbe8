"""What worker processes of the tests are told to do; they import it from here."""

import logging
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mitocore import DataError, Roi
from mitocore.builtin.npy import NpyReader


def square(item):
    return item * item


def thread_limit(_):
    return os.environ["OMP_NUM_THREADS"]


def say(item):
    logging.getLogger("mitocore.duties").warning("item %d is odd", item)
    warnings.warn(f"item {item} is even odder", stacklevel=1)
    return item


def whoami(_):
    time.sleep(0.05)
    return os.getpid()


def linger(item):
    time.sleep(0.3)
    return item


class Fussy(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fuss(item):
    raise Fussy(item, "nothing")


def complain(item):
    raise DataError(f"item {item} is bad", where="a file", hint="take another")


def full(item):
    raise OSError(28, "No space left on device", f"block-{item}")


@dataclass
class Counted:
    """Squares; notes each call, and ends its process (or raises) the first `times` times it is given a `deadly` one."""

    folder: Path
    deadly: tuple[int, ...] = ()
    times: int = 99
    raises: bool = False

    def __call__(self, item):
        note = self.folder / f"{item}-{time.monotonic_ns()}-{os.getpid()}"
        note.touch()
        if item in self.deadly and len(self.calls(item)) <= self.times:
            if self.raises:
                raise OSError(f"no luck with {item}")
            os._exit(9)
        time.sleep(0.02)
        return item * item

    def calls(self, item):
        return [path for path in self.folder.iterdir() if path.name.split("-")[0] == str(item)]


class Heavy:
    """A call that notes how often it was written and read."""

    def __init__(self, folder):
        self.folder, self.table = folder, np.arange(1000)

    def __call__(self, item):
        return int(self.table[item])

    def __getstate__(self):
        (self.folder / f"written-{time.monotonic_ns()}").touch()
        return vars(self)

    def __setstate__(self, state):
        vars(self).update(state)
        (self.folder / f"read-{os.getpid()}-{time.monotonic_ns()}").touch()


def as_table(call, item):
    return np.array([call(item)])


def total(source, z):
    _, height, width = source.volume.spec.shape
    return int(source.read(Roi((z, 0, 0), (z + 1, height, width))).sum())


class CountedReader(NpyReader):
    """Leaves a file beside its own each time it opens it."""

    def open(self):
        Path(self.path).with_name(f"opened-{os.getpid()}-{time.monotonic_ns()}").touch()
        return super().open()


@dataclass(frozen=True)
class Fill:
    """Fills each block with its number."""

    sink: Any
    grid: Any

    def __call__(self, number):
        box = self.grid.box(number)
        self.sink.write(number, box, np.full((1, *box.shape), number, "u4"))
