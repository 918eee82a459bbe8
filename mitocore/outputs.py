"""The arrays of a run that go to files: whose they are, what is written in place, what is copied at the end."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mitocore.blockwise import passes
from mitocore.blockwise.arrays import Source, Stored, VolumeSink
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.workspace import Workspace
from mitocore.digests import short
from mitocore.errors import DataError, MitocoreError
from mitocore.geometry import Shape
from mitocore.interfaces import WritableVolume, Writer
from mitocore.pipeline import Plan, SavedArray
from mitocore.scaling import Rescaled, averaged
from mitocore.specs import Kind, VolumeSpec
from mitocore.volumes import Rewritable

_IDS = ("uint32", "uint64")


CHANGING = "changing"
"""The stamp that is noted while a file is created or finished: a run killed then left either what was, or what is."""


def place_of(writer: Writer | None, folder: Path) -> str:
    """What tells one output from another: the writer with all its options, its path as seen from the run folder.

    So a project that is moved as a whole keeps its outputs.
    """
    if writer is None:
        return ""
    options = {**writer.model_dump(mode="json"), "path": _from(folder, writer.path)}
    return f"{type(writer).__name__} {json.dumps(options)}"


def _from(folder: Path, path: str) -> str:
    if "://" in path:
        return path
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return path


def outline(plan: Plan, saved: SavedArray) -> dict[str, Any]:
    """What an array of the plan is created as; the dtype of ids follows from their number, so it is not said."""
    spec, _ = plan.header(saved)
    size, factors = spec.voxel_size, plan.config.scale_factors
    return {
        "shape": list(spec.shape),
        "origin": list(spec.origin),
        "voxel_size": list(size.edges) if size else None,
        "kind": saved.spec.kind.value,
        "channels": list(saved.spec.channels),
        "dtype": None if saved.spec.kind is Kind.INSTANCE else saved.dtype,
        "scale_factors": list(factors) if factors else None,
    }


def stamp_of(writer: Writer, name: str) -> str:
    """The stamp of an array that an output has; "": it is not finished, not there or not readable."""
    try:
        return writer.stamp(name)
    except DataError:
        return ""


def held(writer: Writer | None, name: str) -> VolumeSpec | None:
    """The header of an array that an output has already, finished or begun."""
    if writer is None:
        return None
    try:
        with writer.open(name) as volume:
            return volume.spec
    except DataError:
        return None


class Outputs:
    """What a run writes through the writer of its plan.

    Parameters
    ----------
    own
        What this run folder has created, by array: its place, what it was created as (`spec`), and its stamp: "" until
        it is finished. Kept in plan.json.
    save
        Writes plan.json: called before a file is created, so that a killed run knows it as its own.
    """

    def __init__(
        self,
        plan: Plan,
        writer: Writer,
        workspace: Workspace,
        own: dict[str, dict[str, Any]],
        save: Callable[[], None],
    ) -> None:
        self.plan, self.writer, self.workspace, self.own, self.save = plan, writer, workspace, own, save
        self.place = place_of(writer, workspace.folder)
        self.corner = plan.region.start if plan.region else (0, 0, 0)  # where the files begin in the volume
        self.saved = {saved.name: saved for saved in plan.saved}
        self.headers = {saved.name: plan.header(saved) for saved in plan.saved}
        self.placed: dict[str, WritableVolume] = {}
        """Volumes by array: open until all of them are copied, for one may be computed from another."""

    def target(self, name: str) -> str:
        """The place an array may be written into by the step that computes it; "": none."""
        shared = self.writer.sharing in ("processes", self.workspace.executor.sharing)
        direct = shared and self.writer.order == "any" and self.plan.config.scale_factors is None
        return self.place if name in self.saved and direct else ""

    def lost(self, name: str) -> bool:
        """Whether an array that is written in place is not there (any more)."""
        return bool(self.target(name)) and held(self.writer, name) is None

    def in_place(self, name: str, dtype: str, grid: BlockGrid, digest: str) -> VolumeSink | None:
        """The file as a sink for the blocks of `grid`; None: it takes no such blocks, or no such values."""
        saved = self.saved.get(name)
        if saved is None or not self.target(name):
            return None
        fits = self._ids(dtype)
        if saved.spec.kind is Kind.INSTANCE and not fits:
            return None
        volume = self._create(saved, fits[0] if saved.spec.kind is Kind.INSTANCE else saved.dtype, digest)
        if not _fits(grid, self.corner, volume.spec):
            volume.close()
            return None
        self.placed[name] = volume
        return VolumeSink(Rewritable(self.writer, name, volume), saved.spec, self.corner)

    def copy(self, name: str, source: Source, digest: str, objects: int | None) -> None:
        """Copy an array that was not written in place.

        Raises
        ------
        DataError
            If the format cannot hold so many objects.
        """
        if name in self.placed:
            return
        saved = self.saved[name]
        with self._closed_on_failure():
            volume = self._create(saved, self._exported_dtype(saved, source, objects), digest)
            self.placed[name] = volume
            journal, corner = self._journal(name, digest), self.corner
            _, resampling = self.headers[name]
            if resampling is not None and self.plan.region is not None:
                labels = not averaged(saved.spec.kind, saved.spec.dtype)
                source = Rescaled(source, resampling, self.plan.region, labels)
                corner = source.box.start
            passes.export(source, saved.spec, volume, self.writer.order, self.workspace, journal, origin=corner)

    def finish_all(self) -> None:
        """Make the arrays final, note their stamps and close them; only now, for until now one may be read."""
        with self._closed_on_failure():
            for name, volume in self.placed.items():
                self._note(name, CHANGING)
                volume.finish(partial(self.workspace.progress, f"{name}: finish"))
                volume.close()
                self._note(name, stamp_of(self.writer, name))

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for volume in self.placed.values():
                volume.close()
            raise

    def _note(self, name: str, stamp: str) -> None:
        self.own[name] = {"place": self.place, "spec": outline(self.plan, self.saved[name]), "stamp": stamp}
        self.save()

    def _journal(self, name: str, digest: str) -> str:
        """Of the copy of an array."""
        return f"output.{name}.{digest}.{short(self.place)}"

    def _create(self, saved: SavedArray, dtype: str, digest: str) -> WritableVolume:
        spec = replace(self.headers[saved.name][0], dtype=dtype)
        ours = self.own.get(saved.name, {}).get("place") == self.place
        self._note(saved.name, CHANGING)
        if held(self.writer, saved.name) is None:
            self.workspace.forget(self._journal(saved.name, digest))  # what it says is copied is gone
        try:
            volume = self.writer.create(saved.name, spec, resume=ours)
        except MitocoreError:
            if not ours:
                del self.own[saved.name]
                self.save()
            raise
        self._note(saved.name, "")
        return volume

    def _ids(self, dtype: str) -> list[str]:
        """Dtypes of this format for ids that are computed as `dtype`."""
        return [name for name in _IDS[_IDS.index(dtype) if dtype in _IDS else 0 :] if name in self.writer.dtypes]

    def _exported_dtype(self, saved: SavedArray, source: Source, objects: int | None) -> str:
        """The dtype an exported array gets; ids as narrow as the format forces, if they fit."""
        if saved.spec.kind is not Kind.INSTANCE:
            return saved.dtype
        fits = self._ids(source.files.dtype if isinstance(source, Stored) else "uint64")
        largest = int(np.iinfo(saved.dtype).max)
        if not fits and (objects is None or objects >= largest):
            raise DataError(
                f"{saved.name!r} has {objects or 2**32:,} objects, this format holds {largest - 1:,}",
                where=self.writer.path,
                hint="save to zarr, HDF5 or TIFF; the run folder keeps what was computed",
            )
        return fits[0] if fits else saved.dtype


def _fits(grid: BlockGrid, corner: Shape, file: VolumeSpec) -> bool:
    """Whether the blocks cover just the file, and no two share a chunk; voxels that lie by themselves nobody shares."""
    if (grid.region.start, grid.region.shape) != (corner, file.shape):
        return False
    axes: Any = zip(grid.counts, grid.block, grid.origin, corner, file.chunks or (1, 1, 1), strict=True)
    return all(n == 1 or block % chunk == (start - c) % chunk == 0 for n, block, start, c, chunk in axes)
