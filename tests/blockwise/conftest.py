import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from mitocore.blockwise.arrays import BlockFiles, Stored
from mitocore.blockwise.executor import InProcess
from mitocore.blockwise.lock import RunLock
from mitocore.blockwise.objectwise import objectwise
from mitocore.blockwise.scopes import local, stitched, whole
from mitocore.blockwise.workspace import Workspace
from mitocore.geometry import Roi
from mitocore.specs import VolumeSpec


@dataclass(frozen=True)
class Memory:
    """A source over an array (c, z, y, x)."""

    values: np.ndarray

    @property
    def voxel_bytes(self) -> int:
        return len(self.values) * self.values.itemsize

    def read(self, roi: Roi) -> np.ndarray:
        return self.values[(..., *roi.slices)]


@contextmanager
def working(folder, kind=Workspace, executor=None, **options) -> Iterator[Workspace]:
    """A workspace that commits every item by itself unless told otherwise."""
    executor = executor or InProcess()
    with RunLock(folder) as lock:
        try:
            yield kind(folder, executor, lock, **{"every": 0.0, **options})
        finally:
            executor.close()


@dataclass
class Job:
    """One step over one volume: what to run, and how to read what came out."""

    component: Any
    arrays: dict[str, np.ndarray]
    given: dict[str, Any]
    grid: Any
    voxel_size: Any = None
    digests: dict[str, str] = field(default_factory=lambda: {"early": "e", "late": "l"})
    made: dict[str, BlockFiles] = field(default_factory=dict)

    @property
    def gives(self):
        return self.component.gives(self.given)

    @property
    def volume(self) -> VolumeSpec:
        shape = next(iter(self.arrays.values())).shape[1:]
        return VolumeSpec(shape, "uint8", voxel_size=self.voxel_size)

    @property
    def inputs(self):
        return {name: Memory(values) for name, values in self.arrays.items()}

    def local(self, workspace, **options) -> dict[str, np.ndarray]:
        return self.stored(local, workspace, **options)

    def whole(self, workspace, **options) -> dict[str, np.ndarray]:
        return self.stored(whole, workspace, **options)

    def stitched(self, workspace, **options) -> dict[str, np.ndarray]:
        return self.counted(stitched, workspace, **options)

    def objectwise(self, workspace, **options) -> dict[str, np.ndarray]:
        return self.counted(objectwise, workspace, **options)

    def stored(self, scope, workspace, **options) -> dict[str, np.ndarray]:
        for name, spec in self.gives.items():
            channels = len(spec.channels)
            self.made[name] = BlockFiles(workspace.scratch(f"out.{name}"), self.grid, channels, spec.stored)
        args = self.component, self.inputs, self.made, self.gives, self.grid, self.volume, workspace
        scope(*args, name="step.d", **options)
        return self.results()

    def counted(self, scope, workspace, **options) -> dict[str, np.ndarray]:
        def make(array, dtype):
            folder = workspace.scratch(f"out.{array}.{self.digests['late']}")
            self.made[array] = BlockFiles(folder, self.grid, len(self.gives[array].channels), dtype)
            return self.made[array]

        options = {**self.digests, **options}
        args = self.component, self.inputs, make, self.gives, self.grid, self.volume, workspace
        self.count = scope(*args, name="step", **options)
        return self.results()

    def results(self) -> dict[str, np.ndarray]:
        return {name: Stored(self.made[name], spec).read(self.grid.region) for name, spec in self.gives.items()}


@pytest.fixture(scope="module")
def no_power_is_lost():
    """A process that dies does not lose what it wrote: tests of thousands of commits need not wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def memory():
    return Memory


@pytest.fixture(scope="session")
def at_work():
    return working


@pytest.fixture(scope="session")
def job():
    return Job


class Shuffled(Workspace):
    """Walks the items of every pass in another order."""

    def run(self, name, label, call, items, **options):
        order = np.random.default_rng(len(name)).permutation(items).tolist()
        found = super().run(name, label, call, order, **options)
        return {item: found[item] for item in items}


class Killed(BaseException):
    """Ends a run as a kill would: no one handles it."""


class KilledBefore(Workspace):
    """Dies when the lock is confirmed for commit number `fatal`: voxels are written, the record is not."""

    fatal = 0

    def run(self, name, label, call, items, **options):
        hold = self.lock.hold

        def count():
            type(self).fatal -= 1
            if type(self).fatal < 0:
                raise Killed
            hold()

        self.lock.hold = count
        try:
            return super().run(name, label, call, items, **options)
        finally:
            self.lock.hold = hold


def killed_after(fatal):
    left = [fatal]

    def progress(_label, _done, _total):
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return progress


@dataclass
class Deaths:
    """How runs are ended."""

    Killed = Killed
    KilledBefore = KilledBefore
    after = staticmethod(killed_after)

    def everywhere(self, folder, moment, begin) -> int:
        """Kill a run at every commit and resume it; `begin(workspace, killed)` runs it. Returns the number of kills."""
        for fatal in range(1000):
            place = folder / str(fatal)
            place.mkdir()
            KilledBefore.fatal = fatal
            kind = KilledBefore if moment == "before" else Workspace
            progress = killed_after(fatal) if moment == "after" else lambda *_: None
            try:
                with working(place, kind, progress=progress) as workspace:
                    begin(workspace)
            except Killed:
                pass
            else:
                return fatal
            with working(place) as workspace:
                begin(workspace)
        raise AssertionError


@pytest.fixture(scope="session")
def deaths():
    return Deaths()


@pytest.fixture(scope="session")
def shuffled_workspace():
    return Shuffled
