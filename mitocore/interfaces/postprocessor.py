"""What turns predictions into objects, by how much it must see."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from mitocore.component import Component
from mitocore.geometry import Roi, Shape, VoxelSize
from mitocore.specs import ArraySpec, Lattice, Need, VolumeSpec
from mitocore.stitch import touching, unite

OBJECT = [("first", "u8"), ("size", "u8")]  # the engine's columns; `columns()` adds the author's


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of work: `read` is `write` grown by the halo, clipped, never padded, at the volume's faces."""

    write: Roi
    read: Roi
    arrays: Mapping[str, NDArray[Any]]
    volume: Roi
    """The whole volume; tells which faces of a block are faces of the volume."""
    voxel_size: VoxelSize | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The input `name` over `read`, as (c, z, y, x)."""
        return self.arrays[name]

    def crop(self, array: NDArray[Any]) -> NDArray[Any]:
        """Cut an array over `read` (any leading axes) down to `write`."""
        return array[(..., *self.write.within(self.read))]


class PostProcessor(Component):
    """Base of the scopes. Inherit from a scope, not from this."""

    kind: ClassVar[str] = "postprocessor"

    @abstractmethod
    def needs(self) -> Mapping[str, Need]:
        """Inputs by name."""

    @abstractmethod
    def gives(self, given: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """Outputs by name, from the specs of the wired inputs. May raise WiringError."""

    def in_voxels(self, voxel_size: VoxelSize | None) -> Self:
        """This step with its physical options (nm, µm³) turned into voxels; called once, when a run is planned.

        Raises
        ------
        ConfigError
            If an option is physical and the voxel size is not known.
        """
        del voxel_size
        return self

    def reading(self, given: Mapping[str, ArraySpec]) -> Self:
        """This step with what it takes over from the specs of its inputs, such as the offsets of affinities.

        Called once, when a run is planned, after `gives` has accepted them. What is taken over must become an option,
        so that it is part of the digest.
        """
        del given
        return self

    def halo(self) -> Shape:
        """Voxels of context needed on every side."""
        return (0, 0, 0)

    def block_shape(self, volume: VolumeSpec, preferred: Shape) -> Shape:
        """Blocks this step insists on, e.g. whole planes. Default: the engine's choice."""
        return preferred

    def hint_if_empty(self) -> str:
        """What to look at if this step gives instances and gave none, such as inputs that were swapped.

        It ends a warning that names the options and the range of every input.
        """
        return "is a threshold too high?"


class LocalPostProcessor(PostProcessor):
    """Each output voxel depends on inputs within `halo` only."""

    @abstractmethod
    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        """Outputs over `block.read`; the engine keeps `block.write`."""


class StitchedPostProcessor(PostProcessor):
    """Objects are found block by block, then joined exactly.

    The engine runs four passes: `label` every block, `link` along the faces of every block, `resolve` once on
    tables (memory grows with objects, not voxels), `relabel` every block.
    Provisional ids live in a scratch array that no later pass changes, so every pass may be repeated.
    """

    late: ClassVar[tuple[str, ...]] = ()
    """Options that only `keep`, `resolve` and `relabel` read, e.g. min_size: a new value repeats only those passes."""
    link_over: ClassVar[Literal["faces", "blocks"]] = "faces"
    """What `link` is called with: the slabs along the upper faces; or whole blocks, for pairs inside a block too."""

    def lattice(self) -> Lattice | None:
        """Tiles that the result is defined on, for methods that blocks would change (watershed, agglomeration).

        The tiles are then the blocks of this step, whatever `run.block` says: `label` is called once per tile, whose
        halo is that of the lattice, and `link` along the faces of tiles. Return one of your own options, so that it is
        part of the digest.
        """
        return None

    def halo(self) -> Shape:
        """Voxels of context that `label` needs on every side; by default, and at least, those of the lattice."""
        tiles = self.lattice()
        return tiles.halo if tiles else (0, 0, 0)

    def rereads(self) -> tuple[str, ...]:
        """Inputs that `link` and `relabel` read again; their blocks hold no others."""
        return ()

    def neighbourhood(self) -> Literal[6, 18, 26]:
        """Which voxels touch: across faces (6), edges (18) or corners (26)."""
        return 6

    def reach(self) -> Shape:
        """How far beyond a face `link` looks; more than one voxel for long-range affinities."""
        return (1, 1, 1)

    def columns(self) -> list[tuple[str, str]]:
        """The author's own columns, as numpy (name, dtype). Additive, unless `resolve` is overridden."""
        return []

    def read_late(self) -> tuple[str, ...]:
        """`late`, or fewer where another option lets `label` or `link` read one of them."""
        return self.late

    def link_columns(self) -> list[tuple[str, str]]:
        """The author's own columns of links, as numpy (name, dtype): part of the key, so that a pair has a row for
        each of their values, e.g. the bins of a histogram. Only weights are summed."""
        return []

    @abstractmethod
    def label(self, block: Block) -> tuple[NDArray[np.uint32], NDArray[Any] | None]:
        """Objects of this block alone.

        Returns
        -------
        ids
            (z, y, x) over `block.write`; every number 1..n occurs, in any order; 0 background.
        columns
            Structured array of n rows with `columns()`, or None if there are none. `first` (raster index of the
            first voxel in the *volume*) and `size` are added by the engine.
        """

    def link(self, block: Block, ids: NDArray[np.uint64]) -> NDArray[Any]:
        """Pairs of objects that may belong together, as a `LINK` array, with `link_columns()` if there are any.

        `ids` (z, y, x) over `block.read` are provisional and unique over the volume. Over faces, `block.write` is a
        block's (or tile's) own side of one face, `reach` deep; count pairs of a voxel in it and one outside: ids are 0
        where a pair belongs to another slab. Over blocks, `block.read` is `block.write` grown by `reach`; count a
        pair where its lower voxel (raster order) is written. Weights of equal rows are summed, and sums are exact.
        Default: pairs that touch across the surface of `block.write`, by `neighbourhood`; their weight has no meaning.
        """
        return touching(ids, block.write.within(block.read), self.neighbourhood())

    def keep(self, objects: NDArray[Any]) -> NDArray[np.bool_]:
        """Which *complete* objects survive. Called on merged rows, so a size filter is exact."""
        return np.ones(len(objects), bool)

    def resolve(self, objects: NDArray[Any], links: NDArray[Any]) -> NDArray[np.uint64]:
        """The final id of every provisional object 0..n; 0 removes it. Must not depend on the order of blocks.

        `objects` has one row per provisional object, unmerged. Default: union of all links, `keep`, then ids 1..n in
        raster order of each object's first voxel. Agglomeration walks `links` by weight, ties by `first`.
        """
        return unite(objects, links, self.keep)

    def relabel(self, block: Block, ids: NDArray[np.uint64], final: NDArray[np.uint64]) -> Mapping[str, NDArray[Any]]:
        """Outputs over `block.write`. Default: look `ids` up in `final`."""
        return {"instances": final[ids][None]}


class ObjectwisePostProcessor(PostProcessor):
    """Each connected component of a mask is processed on its own, on its bounding box.

    This *defines* the result; it is not an optimisation. A component that crosses blocks is loaded whole, so blocks
    cannot show. One component must fit in memory, the volume need not. At most one output holds instances.
    """

    late: ClassVar[tuple[str, ...]] = ()
    """Options that only `keep` reads, e.g. min_size: a new value processes no object again."""
    bytes_per_voxel: ClassVar[int] = 64
    """Peak of `process` per voxel of its box; the engine never starts more objects than `run.memory` holds."""

    oversize: Literal["refuse", "tile"] = "refuse"
    """A component that does not fit `run.memory` stops the run; or every one whose box has more than `largest` voxels
    is processed tile by tile. What is smaller and does not fit is refused all the same."""
    largest: PositiveInt = 2**27
    """Voxels of its bounding box above which a component is oversize; only `oversize = "tile"` reads it."""
    tiles: Lattice = Lattice()
    """Tile and halo of `oversize = "tile"`, anchored at voxel 0; the halo is at least that of the step."""

    def neighbourhood(self) -> Literal[6, 18, 26]:
        """What connects a component of the mask: the widest connectivity anything in `process` uses."""
        return 26

    def mask_reads(self) -> Collection[str]:
        """Inputs that `mask` looks at; its blocks hold no others. Default: all."""
        return self.needs()

    def read_late(self) -> tuple[str, ...]:
        """`late`, or fewer where another option lets `process` read one of them."""
        return self.late

    @abstractmethod
    def mask(self, block: Block) -> NDArray[np.bool_]:
        """(z, y, x) over `block.read`; may use the halo."""

    @abstractmethod
    def process(self, block: Block, mask: NDArray[np.bool_]) -> Mapping[str, NDArray[Any]]:
        """Outputs over `block.read`, the bounding box of one component (or a tile of it) grown by the halo.

        `mask` (z, y, x) over `block.read` is this component alone. Instance ids are local: 1..n in any order, with or
        without gaps. Only voxels inside `mask` are kept, of every output; elsewhere is 0.
        """

    def keep(self, objects: NDArray[Any]) -> NDArray[np.bool_]:
        """Which *complete* instances survive; rows of `first`, `size`. Size filters belong here, not in `process`.

        Outputs of other kinds stay as `process` gave them. Not asked if no output holds instances.
        """
        return np.ones(len(objects), bool)


class WholePostProcessor(PostProcessor):
    """Needs everything at once. The honest last resort."""

    @abstractmethod
    def memory(self, volume: VolumeSpec) -> int:
        """Peak bytes for a volume like this; compared with `run.memory` before anything is read."""

    @abstractmethod
    def process(self, block: Block) -> Mapping[str, NDArray[Any]]:
        """Outputs over the volume; `block.read` and `block.write` cover it."""
