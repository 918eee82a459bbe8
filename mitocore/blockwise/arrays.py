"""Arrays the passes read from and write to: scratch, open volumes, and what is computed where it is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise import contract
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.scratch import ScratchFiles
from mitocore.durable import damaged
from mitocore.errors import DataError
from mitocore.geometry import Roi, Shape, VoxelSize
from mitocore.interfaces import Block, LocalPostProcessor, Normalizer, Stats, Volume, WritableVolume
from mitocore.specs import UNIT, ArraySpec, Kind

_LABELS = {Kind.SEMANTIC: "uint16", Kind.INSTANCE: "uint64"}


class Source(Protocol):
    """What a pass reads; safe to call from several threads."""

    @property
    def voxel_bytes(self) -> int:
        """Bytes per voxel that a read holds, at most; blocks at work are counted by them."""

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) over `roi`, in the dtype components see."""


class Sink(Protocol):
    """What a pass writes; any worker, any number of times, always the same values."""

    def write(self, block: int, roi: Roi, values: NDArray[Any]) -> None:
        """Store `values` (c, z, y, x), packed, at `roi`, which is block number `block` of the pass."""

    def sync(self) -> None:
        """Make what was written durable; the driver calls it before it records the blocks as finished."""


def read_all(inputs: Mapping[str, Source], roi: Roi) -> dict[str, NDArray[Any]]:
    """What a component is given over `roi`: without gaps in memory, as compiled code (cc3d) misreads some others.

    Several inputs that are channels of one array are read at once.
    """
    whole: dict[int, NDArray[Any]] = {}
    found = {}
    for name, source in inputs.items():
        if isinstance(source, Selected):
            key = id(source.source)
            if key not in whole:
                whole[key] = source.source.read(roi)
            values = source.of(whole[key])
        else:
            values = source.read(roi)
        found[name] = np.ascontiguousarray(values)
    return found


def pack(values: NDArray[Any], spec: ArraySpec) -> NDArray[Any]:
    """What is stored of `values`: rounded to `spec.stored`; -0 becomes 0.

    uint8 is round(255 p), NaN 0; float16 is kept finite.

    >>> probability = ArraySpec(Kind.PROBABILITY, storage="uint8")
    >>> pack(np.array([0, 0.5, 1], np.float32), probability)
    array([  0, 128, 255], dtype=uint8)
    """
    if spec.stored == "uint8":
        scaled: NDArray[Any] = np.rint(np.clip(np.nan_to_num(values), 0, 1) * np.float32(255))
        return scaled.astype(np.uint8)
    if spec.stored == "float16":
        limit = np.float32(np.finfo(np.float16).max)
        values = np.clip(values, -limit, limit)
    packed = values.astype(spec.stored, copy=False)
    return packed + packed.dtype.type(0) if packed.dtype.kind == "f" else packed  # -0 + 0 is 0


def unpack(values: NDArray[Any], spec: ArraySpec) -> NDArray[Any]:
    """What components see of stored `values`: `spec.dtype`."""
    if spec.stored == "uint8":
        values = values / np.float32(255)
    return values.astype(spec.dtype, copy=False)


def settle(values: NDArray[Any], spec: ArraySpec) -> NDArray[Any]:
    """`values` as if stored and read again: what leaves a step, stored or not.

    >>> settle(np.array([0.1], np.float32), ArraySpec(Kind.PROBABILITY))
    array([0.09997559], dtype=float32)
    """
    return unpack(pack(values, spec), spec)


def voxel_bytes(spec: ArraySpec) -> int:
    """Bytes per voxel of an array as components see it.

    >>> voxel_bytes(ArraySpec(Kind.AFFINITY, ("z", "y", "x")))
    12
    """
    return len(spec.channels) * np.dtype(spec.dtype).itemsize


def widen(packed: NDArray[Any], dtype: str, spec: ArraySpec | None = None) -> NDArray[Any]:
    """Packed values in the dtype of a file: the same meaning, nothing lost.

    `spec` says what they mean; it matters for probabilities stored as uint8 that go to a file of floats. Without it
    they are copied as they are.

    Raises
    ------
    DataError
        If the file cannot hold an id, or the values that are to be copied as they are.
    """
    to = np.dtype(dtype)
    if packed.dtype == to:
        return packed
    if to.kind == "f" and spec:
        return unpack(packed, spec).astype(to)
    if not np.can_cast(packed.dtype, to):
        hint = f"write to a format that stores {packed.dtype}"
        if to.kind in "iu" and packed.dtype.kind in "iu":
            for extreme in (int(packed.min(initial=0)), int(packed.max(initial=0))):
                if not np.iinfo(to).min <= extreme <= np.iinfo(to).max:
                    beyond = "smaller" if extreme < 0 else "larger"
                    raise DataError(f"id {extreme} is {beyond} than {dtype} holds", hint=hint)
        elif spec is None:
            raise DataError(f"{dtype} does not hold {packed.dtype} as it is", hint=hint)
    return packed.astype(to)


@dataclass(frozen=True, slots=True)
class BlockFiles(ScratchFiles):
    """A scratch array: its blocks lie beside each other. It is a `Sink`, and reads what it holds as it is packed.

    Only what was written can be read: of an array of which some blocks are not wanted, a reader keeps to the others.
    """

    grid: BlockGrid
    channels: int
    dtype: str

    def load(self, block: int) -> NDArray[Any]:
        """A whole block (c, z, y, x) in the dtype of its file, which may be narrower than the array.

        Raises
        ------
        RunError
            If its file is missing or damaged.
        """
        values = self._checked(block)
        if values is not None:
            return values
        return np.zeros((self.channels, *self.grid.box(block).shape), np.uint8 if self.dtype[0] == "u" else self.dtype)

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) over `roi`, packed, assembled from the blocks it meets; one file is mapped at a time.

        Raises
        ------
        RunError
            If one of their files is missing or damaged.
        """
        blocks = self.grid.meeting(roi)
        if len(blocks) == 1 and self.grid.box(blocks[0]) == roi:
            return self.load(blocks[0]).astype(self.dtype, copy=False)
        values = np.zeros((self.channels, *roi.shape), self.dtype)
        for block in blocks:
            if (stored := self._checked(block, mapped=True)) is not None:
                box = self.grid.box(block)
                part = box.clip(roi)
                values[(..., *part.within(roi))] = stored[(..., *part.within(box))]
        return values

    def _checked(self, block: int, *, mapped: bool = False) -> NDArray[Any] | None:
        """What is stored of a block, if it has the shape and a dtype that were written there."""
        values = self.stored(block, mapped=mapped)
        if values is None:
            return None
        if values.shape != (self.channels, *self.grid.box(block).shape) or not np.can_cast(values.dtype, self.dtype):
            raise damaged(self.path(block))
        return values


@dataclass(frozen=True, slots=True)
class Stored:
    """A scratch array as components see it."""

    files: BlockFiles
    spec: ArraySpec

    @property
    def voxel_bytes(self) -> int:
        """Of the packed and of the unpacked values."""
        return voxel_bytes(self.spec) + len(self.spec.channels) * np.dtype(self.files.dtype).itemsize

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) over `roi`, unpacked."""
        return unpack(self.files.read(roi), self.spec)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open volume as components see it.

    Without `kind`, values are as the file holds them. With it they become what that kind is in memory: a mask is what
    is not 0, class and instance ids are uint16 and uint64 whatever the file's width (NaN is 0), probabilities and
    affinities of uint8 are value / 255, all else is float32.

    "Ignore", the maximum of uint16 or uint64, is of class and instance ids: the maximum of the file's dtype if that is
    unsigned and has 16 bits or more; -1 in a file of signed numbers; and what `ignore` names. 255 in uint8 is none of
    these: masks of 0 and 255 are common.
    """

    volume: Volume
    kind: Kind | None = None
    ignore: tuple[int, ...] = ()
    """Values of the file that mean "ignore" besides."""

    @property
    def voxel_bytes(self) -> int:
        """Of the values of the file and of what they become."""
        spec = self.volume.spec
        held = len(spec.channels) * np.dtype(spec.dtype).itemsize
        return held + voxel_bytes(ArraySpec(self.kind, spec.channels)) if self.kind is not None else held

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) over `roi`.

        Raises
        ------
        DataError
            If an id is negative, or a class id does not fit.
        """
        values = self.volume.read(roi)
        if self.kind is None:
            return values
        if self.kind is Kind.MASK:
            return values.astype(bool)
        if self.kind in _LABELS:
            return label_ids(values, self.kind, self.ignore)
        if self.kind in UNIT and values.dtype == np.uint8:
            values = values / np.float32(255)
        return values.astype(np.float32, copy=False)


def one_of(values: NDArray[Any], numbers: Iterable[int]) -> NDArray[np.bool_]:
    """Where integers are one of these numbers, compared as they are: left to itself, numpy makes floats of large ids.

    >>> one_of(np.array([2**63 + 5, 2**63 + 6, 3], np.uint64), (2**63 + 6, -1))
    array([False,  True, False])
    """
    whole = values.view(np.uint8) if values.dtype.kind == "b" else values
    info = np.iinfo(whole.dtype)
    return np.isin(whole, np.array([n for n in numbers if info.min <= n <= info.max], whole.dtype))


def label_ids(values: NDArray[Any], kind: Kind, ignore: tuple[int, ...]) -> NDArray[Any]:
    """Ids of a kind, as `Opened` says, of the values of a file.

    Raises
    ------
    DataError
        If an id is negative, or a class id does not fit.
    """
    if values.dtype.kind == "f":
        values = np.rint(np.nan_to_num(values, posinf=0, neginf=0)).astype(np.int64)
    ignored = one_of(values, ignore)
    if values.dtype.kind == "i":
        ignored |= values == -1
    elif values.dtype.kind == "u" and values.dtype.itemsize > 1:
        ignored |= values == np.iinfo(values.dtype).max
    ids = np.where(ignored, values.dtype.type(0), values)
    if ids.size and ids.dtype.kind == "i" and ids.min() < 0:
        hint = f"-1 means ignore; for {ids.min()} too, say so: ignore = [{ids.min()}]"
        raise DataError(f"label {ids.min()} is negative", hint=hint)
    dtype = np.dtype(_LABELS[kind])
    top = np.iinfo(dtype).max
    if ids.size and ids.dtype.kind in "iu" and ids.max() >= top:
        raise DataError(f"class id {ids.max()} is larger than {top - 1}", hint="are these instances?")
    return np.where(ignored, dtype.type(top), ids.astype(dtype))


@dataclass(frozen=True, slots=True)
class Selected:
    """Some channels of another source, in this order."""

    source: Source
    channels: tuple[int, ...]

    @property
    def voxel_bytes(self) -> int:
        """Of all channels: they are read before some are chosen."""
        return self.source.voxel_bytes

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) over `roi`."""
        return self.of(self.source.read(roi))

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The channels of what the source has read."""
        first, last = self.channels[0], self.channels[-1]
        if self.channels == tuple(range(first, last + 1)):
            return values[first : last + 1]
        return values[list(self.channels)]


@dataclass(frozen=True, slots=True)
class Foreground:
    """Ids without those that mean "ignore": to what works on objects these are background."""

    source: Source

    @property
    def voxel_bytes(self) -> int:
        """Of the ids as they are and without."""
        return 2 * self.source.voxel_bytes

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) over `roi`."""
        ids = self.source.read(roi)
        return np.where(ids == np.iinfo(ids.dtype).max, ids.dtype.type(0), ids)


@dataclass(frozen=True, slots=True)
class Placed:
    """A source whose first voxel lies at `corner` of the volume, such as the file of a region."""

    source: Source
    corner: Shape

    @property
    def voxel_bytes(self) -> int:
        """Of the source."""
        return self.source.voxel_bytes

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) over `roi`."""
        z, y, x = self.corner
        return self.source.read(roi.moved((-z, -y, -x)))


@dataclass(frozen=True, slots=True)
class Normalised:
    """Raw intensities as a voxel-wise normaliser turns them out."""

    source: Source
    normalizer: Normalizer
    stats: Stats

    @property
    def voxel_bytes(self) -> int:
        """Of the raw values, one byte each at least, and of their float32."""
        return 5 * self.source.voxel_bytes

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) float32 over `roi`."""
        return self.normalizer.apply(self.source.read(roi), self.stats)


@dataclass(frozen=True, slots=True)
class Computed:
    """An output of a Local step without halo, computed and settled where it is read instead of stored."""

    step: LocalPostProcessor
    output: str
    spec: ArraySpec
    """Of this output."""
    inputs: Mapping[str, Source]
    volume: Roi
    voxel_size: VoxelSize | None = None

    @property
    def voxel_bytes(self) -> int:
        """Of the inputs and of the output."""
        return sum(source.voxel_bytes for source in self.inputs.values()) + voxel_bytes(self.spec)

    def read(self, roi: Roi) -> NDArray[Any]:
        """(c, z, y, x) over `roi`.

        Raises
        ------
        ContractError
            If the step returns what it does not declare.
        """
        arrays = read_all(self.inputs, roi)
        values = self.step.process(Block(roi, roi, arrays, self.volume, self.voxel_size))
        contract.output(contract.name_of(self.step), self.output, values, self.spec, roi.shape)
        return settle(values[self.output], self.spec)


@dataclass(frozen=True, slots=True)
class VolumeSink:
    """An open volume that blocks are written into; they share no chunk of it."""

    volume: WritableVolume
    spec: ArraySpec | None = None
    """What the values mean; needed where `widen` needs it."""
    origin: Shape = (0, 0, 0)
    """Where the volume begins in the frame of the pass; other than 0 for the result of a region."""

    def write(self, block: int, roi: Roi, values: NDArray[Any]) -> None:
        """Store `values` (c, z, y, x), packed, widened to what the file holds."""
        del block
        z, y, x = self.origin
        self.volume.write(roi.moved((-z, -y, -x)), widen(values, self.volume.spec.dtype, self.spec))

    def sync(self) -> None:
        """Nothing: volumes write durably."""
