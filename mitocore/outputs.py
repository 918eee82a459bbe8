"""The arrays of a run that go to files: whose they are, what is written in place, what is copied at the end."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mitocore.blockwise import passes
from mitocore.blockwise.arrays import Source, Stored, VolumeSink
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.workspace import Workspace
from mitocore.digests import short
from mitocore.errors import DataError
from mitocore.geometry import Shape
from mitocore.interfaces import WritableVolume, Writer
from mitocore.pipeline import Plan, SavedArray
from mitocore.specs import Kind, VolumeSpec
from mitocore.volumes import Rewritable

_IDS = ("uint32", "uint64")


def place_of(writer: Writer | None) -> str:
    """What tells one output from another: the writer with all its options, its path among them."""
    return f"{type(writer).__name__} {writer.model_dump_json()}" if writer else ""


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
        Place by array of what this run folder has created; kept in plan.json.
    save
        Writes plan.json: called before a file is created, so that a killed run knows it as its own.
    """

    def __init__(
        self,
        plan: Plan,
        writer: Writer,
        workspace: Workspace,
        own: dict[str, str],
        save: Callable[[], None],
    ) -> None:
        self.writer, self.spec, self.workspace, self.own, self.save = writer, plan.result, workspace, own, save
        self.corner = plan.region.start if plan.region else (0, 0, 0)  # where the files begin in the volume
        self.saved = {saved.name: saved for saved in plan.saved}
        self.placed: dict[str, WritableVolume] = {}

    def target(self, name: str) -> str:
        """The place an array may be written into by the step that computes it; "": none."""
        shared = self.writer.sharing in ("processes", self.workspace.executor.sharing)
        return place_of(self.writer) if name in self.saved and shared and self.writer.order == "any" else ""

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

    def finish(self, name: str, source: Source, digest: str, objects: int | None) -> None:
        """Copy an array that was not written in place, and make it final.

        Raises
        ------
        DataError
            If the format cannot hold so many objects.
        """
        volume = self.placed.get(name)
        if volume is None:
            saved = self.saved[name]
            volume = self._create(saved, self._exported_dtype(saved, source, objects), digest)
            journal = self._journal(name, digest)
            passes.export(source, saved.spec, volume, self.writer.order, self.workspace, journal, origin=self.corner)
        volume.finish(lambda done, total: self.workspace.progress(f"{name}: finish", done, total))
        volume.close()

    def _journal(self, name: str, digest: str) -> str:
        """Of the copy of an array."""
        return f"output.{name}.{digest}.{short(place_of(self.writer))}"

    def _create(self, saved: SavedArray, dtype: str, digest: str) -> WritableVolume:
        spec = VolumeSpec(
            shape=self.spec.shape,
            dtype=dtype,
            channels=saved.spec.channels,
            voxel_size=self.spec.voxel_size,
            origin=self.spec.origin,
            kind=saved.spec.kind,
        )
        place, before = place_of(self.writer), self.own.get(saved.name)
        self.own[saved.name] = place
        self.save()
        if held(self.writer, saved.name) is None:
            self.workspace.forget(self._journal(saved.name, digest))  # what it says is copied is gone
        try:
            return self.writer.create(saved.name, spec, resume=before == place)
        except DataError:
            if before != place:
                del self.own[saved.name]
                self.save()
            raise

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
