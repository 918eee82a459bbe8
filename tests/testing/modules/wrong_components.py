"""Components that each break one promise; the kit must say which."""

import time
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import PlainSerializer
from scipy.ndimage import distance_transform_edt, maximum_filter

from mitocore import (
    LINK,
    ArraySpec,
    DataError,
    Kind,
    Lattice,
    Need,
    ObjectwisePostProcessor,
    Roi,
    SamplerIndex,
    StitchedPostProcessor,
    VoxelSize,
    WholePostProcessor,
)
from mitocore.builtin.augments.flips import FlipRotate
from mitocore.builtin.augments.sections import Misalignment
from mitocore.builtin.losses.entropy import BCE
from mitocore.builtin.losses.points import PointRend
from mitocore.builtin.losses.relations import BoundaryDistance
from mitocore.builtin.metrics import Instance, IoU
from mitocore.builtin.normalizers import DtypeRange, MinMax, ZScore
from mitocore.builtin.npy import NpyReader, NpyWriter
from mitocore.builtin.samplers.uniform import Uniform
from mitocore.builtin.targets.foreground import Foreground
from mitocore.durable import ONE_HEADER
from mitocore.interfaces import Block, Crop, Normalizer, WritableVolume
from mitocore.testing.minimal import Components, Threshold, Widen

# every component


class WithoutDocstring(Threshold):
    pass


class WithoutDescription(Threshold):
    """An option without a word."""

    speed: int = 1


class WithList(Threshold):
    """An option that can be changed in place."""

    sizes: list[int] = [1]  # noqa: RUF012 - what is wrong with it
    """Sizes."""


class Unpicklable(Threshold):
    """Refuses to be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a lock")


class NoJson(Threshold):
    """Writes its option in a way that it does not read."""

    width: Annotated[float, PlainSerializer(lambda value: f"{value} nm")] = 2.0
    """Width."""


class RandomDigest(Threshold):
    """Another digest each time it is imported."""

    def digest(self) -> str:
        return f"{id(type(self)):x}"


# post-processors


class WrongShape(Threshold):
    """Leaves the channel out."""

    def process(self, block):
        return {"mask": super().process(block)["mask"][0]}


class WrongDtype(Threshold):
    """Integers for a mask."""

    def process(self, block):
        return {"mask": super().process(block)["mask"].astype(np.uint8)}


class BeyondOne(Widen):
    """Probabilities of two, before they are settled."""

    def process(self, block):
        return {"widened": 2 * super().process(block)["widened"]}


class HaloTooSmall(Widen):
    """Looks farther than it says."""

    def halo(self):
        return (0, self.radius, self.radius)


class Remembers(Threshold):
    """Keeps the first volume in its class, so that it looks at another level in every process."""

    seen: ClassVar[dict[int, float]] = {}

    def process(self, block):
        mean = self.seen.setdefault(0, float(block["probability"].mean()))
        return {"mask": block["probability"] > mean}


class LooksBack(Threshold):
    """Uses the volume before."""

    before: ClassVar[list[float]] = [0.5]

    def process(self, block):
        self.before.append(float(block["probability"].mean()))
        return {"mask": block["probability"] > self.before[-2]}


class DrawsGlobally(Threshold):
    """Uses the random numbers of everybody; its result does not depend on them."""

    def process(self, block):
        np.random.rand()  # noqa: NPY002
        return super().process(block)


class ChangesInputs(Threshold):
    """Works in place."""

    def process(self, block):
        values = block["probability"]
        mask = values >= np.float32(self.level)
        values[:] = 0
        return {"mask": mask}


class LeavesGaps(Components):
    """Final ids with gaps."""

    def resolve(self, objects, links):
        return 2 * super().resolve(objects, links)


class MissingFaces(Components):
    """Links along z alone."""

    def link(self, block, ids):
        thin = block.write.shape[0] == 1 and block.read.shape[0] == 2
        return super().link(block, ids) if thin else np.zeros(0, LINK)


class OrderOfRows(Components):
    """Numbers objects in the order of the table."""

    def resolve(self, objects, links):
        final = super().resolve(objects, links)
        _, first, back = np.unique(final, return_index=True, return_inverse=True)
        rank = np.zeros(len(first), np.uint64)
        rank[np.argsort(first)] = np.arange(len(first))
        swap = np.arange(len(first), dtype=np.uint64)
        if len(objects) and objects["first"][0] != objects["first"].min():
            swap[1:] = swap[1:][::-1]
        return swap[back.reshape(-1)]


class LateThreshold(StitchedPostProcessor):
    """Says that an option is late which `label` reads."""

    late: ClassVar[tuple[str, ...]] = ("level",)
    level: float = 0.5
    """Level."""

    def needs(self):
        return {"probability": Need((Kind.PROBABILITY,), channels=1)}

    def gives(self, given):
        return {"instances": ArraySpec(Kind.INSTANCE)}

    def label(self, block):
        from scipy.ndimage import label

        return label(block["probability"][0] > self.level)[0].astype(np.uint32), None


class FloodsPerBlock(StitchedPostProcessor):
    """Seeds per block, as if a block were the volume."""

    def needs(self):
        return {"mask": Need((Kind.MASK,), channels=1)}

    def gives(self, given):
        return {"instances": ArraySpec(Kind.INSTANCE)}

    def label(self, block):
        from scipy.ndimage import label

        return label(distance_transform_edt(np.pad(block["mask"][0], 1))[1:-1, 1:-1, 1:-1] > 1.5)[0].astype(
            np.uint32
        ), None


class Greedy(ObjectwisePostProcessor):
    """Says that it needs one byte per voxel."""

    bytes_per_voxel: ClassVar[int] = 1

    def needs(self):
        return {"mask": Need((Kind.MASK,), channels=1)}

    def gives(self, given):
        return {"distance": ArraySpec(Kind.DISTANCE)}

    def mask(self, block):
        return block["mask"][0]

    def process(self, block, mask):
        return {"distance": np.stack([np.cumsum(mask.astype("f8"), axis=0) * 0 + 1]).astype("f4") * mask}


class GreedyWhole(WholePostProcessor):
    """Says that it needs nothing."""

    def needs(self):
        return {"mask": Need((Kind.MASK,), channels=1)}

    def gives(self, given):
        return {"distance": ArraySpec(Kind.DISTANCE)}

    def memory(self, volume):
        return 0

    def process(self, block):
        return {"distance": distance_transform_edt(~block["mask"][0])[None].clip(0, 50).astype(np.float32)}


class SevenInstances(WholePostProcessor):
    """Ids with gaps, of a whole volume."""

    def needs(self):
        return {"mask": Need((Kind.MASK,), channels=1)}

    def gives(self, given):
        return {"instances": ArraySpec(Kind.INSTANCE)}

    def memory(self, volume):
        return 2**30

    def process(self, block):
        return {"instances": 7 * block["mask"].astype(np.uint64)}


class EmptyBreaks(Components):
    """Does not expect a volume without objects."""

    def resolve(self, objects, links):
        objects["size"].max()
        return super().resolve(objects, links)


class MeasuredOnce(Components):
    """Measures the smallest size on the first volume, and keeps it."""

    smallest: ClassVar[dict[str, float]] = {}

    def keep(self, objects):
        measured = float(np.median(objects["size"])) if len(objects) else 0.0
        return objects["size"] >= self.smallest.setdefault("size", measured)


SCRATCH = np.zeros((64, 128, 128), np.float32)


class SharedScratch(Widen):
    """Uses one array of the module in all threads."""

    def process(self, block):
        _, z, y, x = block["probability"].shape
        scratch, widened = SCRATCH[:z, :y, :x], []
        for channel in block["probability"]:
            scratch[:] = channel
            time.sleep(0.002)  # others get in between, on any machine
            widened.append(maximum_filter(scratch, size=2 * self.radius + 1, mode="nearest"))
        return {"widened": np.stack(widened)}


class NeedsVoxelSize(Widen):
    """A radius in nm, of whatever voxel size."""

    def in_voxels(self, voxel_size):
        return self.model_copy(update={"radius": int(16 // voxel_size.z)})


class FloatColumns(Components):
    """Sums floats."""

    def columns(self):
        return [("third", "f8")]

    def label(self, block):
        ids, _ = super().label(block)
        rows = np.zeros(int(ids.max(initial=0)), self.columns())
        rows["third"] = np.bincount(ids.reshape(-1), minlength=len(rows) + 1)[1:] / 3
        return ids, rows


# readers and writers


class ChannelGuess(NpyReader):
    """Takes a short first axis for channels."""

    def open(self):
        volume = super().open()
        if 1 < volume._array.shape[1] < 5:
            swapped = volume._array.swapaxes(0, 1)
            volume.__init__(swapped, self.voxel_size)
        return volume


class SquareSwap(NpyReader):
    """Swaps y and x of square planes."""

    def open(self):
        volume = super().open()
        if volume._array.shape[2] == volume._array.shape[3]:
            volume._array = np.asarray(volume._array.swapaxes(2, 3))
        return volume


class LoadsAll(NpyReader):
    """Loads the file for every box."""

    def open(self):
        volume = super().open()

        def read(roi):
            with ONE_HEADER:  # what is wrong here is not what ast of Python 3.11 does to threads
                return np.load(self.path).reshape((1, *volume.spec.shape))[(..., *roi.slices)].copy()

        volume.read = read
        return volume


class Views(NpyReader):
    """Gives views of what it keeps."""

    def open(self):
        volume = super().open()
        kept = volume.read(Roi.whole(volume.spec.shape)) if volume.spec.shape != (64, 256, 256) else None
        if kept is not None:
            volume.read = lambda roi: kept[(..., *roi.slices)]
        return volume


class Buffered(WritableVolume):
    """Keeps boxes until it is closed or finished."""

    def __init__(self, inner):
        self.inner, self.kept = inner, []

    @property
    def spec(self):
        return self.inner.spec

    def read(self, roi):
        self.flush()
        return self.inner.read(roi)

    def write(self, roi, values):
        self.kept.append((roi, values.copy()))

    def flush(self):
        for roi, values in self.kept:
            self.inner.write(roi, values)
        self.kept = []

    def finish(self, progress=lambda _done, _total: None):
        self.flush()
        self.inner.finish(progress)

    def close(self):
        self.flush()
        self.inner.close()


class Buffers(NpyWriter):
    """Writes when it is closed."""

    def create(self, name, spec, *, resume=False):
        return Buffered(super().create(name, spec, resume=resume))

    def open(self, name):
        return Buffered(super().open(name))


class BuffersInProcesses(Buffers):
    """Says that processes may write at the same time, too."""

    sharing: ClassVar[str] = "processes"


class BeyondRoi(NpyReader):
    """Reads one voxel more along x."""

    def open(self):
        volume = super().open()
        read = volume.read

        def more(roi):
            wide = Roi(roi.start, (*roi.stop[:2], roi.stop[2] + 1)).clip(Roi.whole(volume.spec.shape))
            return read(wide)

        volume.read = more
        return volume


class XyzReader(NpyReader):
    """Gives (x, y, z)."""

    def open(self):
        volume = super().open()
        turned = np.asarray(volume._array.transpose(0, 3, 2, 1))
        volume._spec = type(volume)(turned, self.voxel_size).spec
        volume.read = lambda roi: turned[(slice(None), *roi.slices)].copy()
        return volume


class OneNanometre(NpyReader):
    """Takes an unknown voxel size for 1 nm."""

    voxel_size: Any = VoxelSize(1, 1, 1)
    """Edges."""

    def open(self):
        return NpyReader(path=self.path, voxel_size=self.voxel_size or VoxelSize(1, 1, 1)).open()


class Truncates(NpyWriter):
    """Keeps 32 bits of ids."""

    def create(self, name, spec, *, resume=False):
        volume = super().create(name, spec, resume=resume)
        write = volume.write
        if spec.dtype == "uint64":
            volume.write = lambda roi, values: write(roi, values.astype(np.uint32))
        return volume


class Overwrites(NpyWriter):
    """Creates over what exists."""

    def create(self, name, spec, *, resume=False):
        return super().create(name, spec, resume=True)


# what training uses


class LastBox(MinMax):
    """Remembers the last box alone."""

    def fit(self, boxes, spec):
        return super().fit([list(boxes)[-1]], spec) if len(list(boxes)) > 1 else super().fit(boxes, spec)


class OwnStatistics(ZScore):
    """Measures the box that it normalises."""

    def apply(self, values, stats):
        finite = values[np.isfinite(values)].astype(float)
        return super().apply(values, {"mean": float(finite.mean()), "std": float(finite.std()) or 1.0})


class AnyVolume(DtypeRange):
    """Takes a constant volume."""

    def fit(self, boxes, spec):
        return {"maximum": 255.0}


class ByBoxes(ZScore):
    """Averages over boxes what it measures in each."""

    def fit(self, boxes, spec):
        found = [super(ByBoxes, self).fit([box], spec) for box in boxes if np.ptp(box[np.isfinite(box)])]
        if not found:
            raise DataError("nothing varies")
        return {name: tuple(np.mean([one[name] for one in found], axis=0).tolist()) for name in ("mean", "std")}


class PaddingCounts(Normalizer):
    """From the smallest to the largest value, padding included."""

    def fit(self, boxes, spec):
        low, high = np.inf, -np.inf
        for box in boxes:
            finite = box[np.isfinite(box)].astype(float)
            low, high = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
        if low >= high:
            raise DataError("nothing varies")
        return {"low": float(low), "high": float(high)}

    def apply(self, values, stats):
        centre, half = (stats["low"] + stats["high"]) / 2, (stats["high"] - stats["low"]) / 2
        return np.where(np.isfinite(values), (values - centre) / half, 0).astype(np.float32)


class SquareWraps(ZScore):
    """Squares in the dtype of the file."""

    def fit(self, boxes, spec):
        stats = super().fit(boxes, spec)
        if spec.dtype != "uint8":
            return stats
        squares = sum(np.square(box).sum() for box in boxes) / sum(box.size for box in boxes)
        return {**stats, "std": (float(abs(squares - stats["mean"][0] ** 2)) ** 0.5,)}


class OnlyUint8(DtypeRange):
    """Refuses all dtypes but one; right."""

    def fit(self, boxes, spec):
        if spec.dtype != "uint8":
            raise DataError(f"{spec.dtype} image: this takes uint8", hint="convert it")
        return super().fit(boxes, spec)


class IgnoreIsObject(Foreground):
    """Takes voxels to ignore for foreground."""

    def encode(self, labels, voxel_size):
        return (labels["instances"] > 0)[None].astype(np.float32)


class TargetInNanometres(Foreground):
    """Divides by a voxel size, known or not."""

    def halo(self, voxel_size):
        return (int(8 // voxel_size.z),) * 3


class BorderTarget(Foreground):
    """Widens objects without saying that it looks at neighbours."""

    def encode(self, labels, voxel_size):
        return maximum_filter(super().encode(labels, voxel_size), size=(1, 3, 3, 3))


class HalfOptional(Foreground):
    """Says that it can do without labels, and cannot."""

    def needs(self):
        return {"instances": Need((Kind.INSTANCE,), optional=True)}


class Nowhere(Foreground):
    """Affinities that do not say which voxels they are of."""

    def gives(self):
        return ArraySpec(Kind.AFFINITY, ("x",))


class OddIds(Foreground):
    """Only odd ids are foreground."""

    def encode(self, labels, voxel_size):
        return super().encode(labels, voxel_size) * (labels["instances"] % 2 == 1)[None].astype(np.float32)


class HalfBatch(BCE):
    """Counts voxels of weight 0 in part."""

    def build(self):
        compared = super().build()
        return lambda logits, *, target, weight: compared(logits, target=target, weight=weight + 0.01)


class AcceptsAll(BCE):
    """Accepts any heads."""

    def accepts(self, heads, target):
        return None


class Overflows(BCE):
    """Computes in the precision of the logits."""

    def build(self):
        def compared(logits, *, target, weight):
            return ((logits.exp().add(1).log() - logits * target) * weight).sum() / weight.sum().clamp(min=1)

        return compared


class PointsAnywhere(PointRend):
    """Counts points in hidden voxels."""

    def build(self):
        compared = super().build()

        def everywhere(points, places, *, target, weight):
            return compared(points, places, target=target, weight=weight * 0 + 1)

        return everywhere


class RelatesHidden(BoundaryDistance):
    """Relates heads in hidden voxels too."""

    def build(self):
        compared = super().build()
        return lambda *logits, target, weight: compared(*logits, target=target, weight=weight * 0 + 1)


class OutsideRegion(Uniform):
    """Crops from the whole volume."""

    def draw(self, index, shape, number, rng):
        crop = super().draw(index, shape, number, rng)
        return Crop(crop.volume, Roi((0, 0, 0), shape)) if number == 7 else crop


class Endless(Uniform):
    """Searches until a crop fits."""

    def index(self, volumes, shape):
        while True:
            try:
                return super().index(volumes, shape)
            except DataError:
                continue


class Forgetful(Uniform):
    """Draws with numbers of its own."""

    calls: ClassVar[list[int]] = []

    def draw(self, index, shape, number, rng):
        self.calls.append(number)
        return super().draw(index, shape, number, np.random.default_rng(len(self.calls)))


class ByChunks(Uniform):
    """Keeps the chunks of files in its index."""

    def index(self, volumes, shape):
        index = super().index(volumes, shape)
        chunks = np.array([v.image.spec.chunks or (0, 0, 0) for v in volumes])
        return SamplerIndex(index.regions, {**index.arrays, "chunks": chunks})


class ReadsAgain(Uniform):
    """Looks at labels while it draws."""

    shown: ClassVar[list[Any]] = []

    def index(self, volumes, shape):
        self.shown[:] = volumes
        return super().index(volumes, shape)

    def draw(self, index, shape, number, rng):
        crop = super().draw(index, shape, number, rng)
        self.shown[crop.volume].labels["instances"].read(crop.roi)
        return crop


class IgnoresWeights(Uniform):
    """All volumes alike, but for those of weight 0."""

    def index(self, volumes, shape):
        return super().index([replace(volume, weight=float(volume.weight > 0)) for volume in volumes], shape)


class FlipsImageAlone(FlipRotate):
    """Forgets the labels."""

    def apply(self, image, labels, voxel_size, rng):
        return super().apply(image, labels, voxel_size, rng)[0], labels


class FlipsOneLabel(FlipRotate):
    """Forgets all labels but one."""

    def apply(self, image, labels, voxel_size, rng):
        image, flipped = super().apply(image, labels, voxel_size, rng)
        return image, {**labels, "instances": flipped["instances"]}


class ForgetsMask(FlipRotate):
    """Leaves the mask where it was."""

    def apply(self, image, labels, voxel_size, rng):
        image, flipped = super().apply(image, labels, voxel_size, rng)
        return image, {**flipped, "valid": labels["valid"]}


class LooksNearby(Misalignment):
    """Trusts that nobody else reads further sections around a crop of one."""

    def halo(self, shape, voxel_size):
        return super().halo(shape, voxel_size) if shape[0] > 1 else (0, 0, 0)


class ShiftsLabels(FlipRotate):
    """Labels lie one voxel beside the image."""

    def apply(self, image, labels, voxel_size, rng):
        return image, {name: np.concatenate([a[..., :1], a[..., :-1]], -1) for name, a in labels.items()}


class InPlace(FlipRotate):
    """Flips the array it was given."""

    def apply(self, image, labels, voxel_size, rng):
        image[:] = image[..., ::-1].copy()
        return super().apply(image, labels, voxel_size, rng)


class Interpolates(FlipRotate):
    """Blurs labels."""

    def apply(self, image, labels, voxel_size, rng):
        image, labels = super().apply(image, labels, voxel_size, rng)
        blurred = {name: (a // 2 + np.roll(a, 1, -1) // 2).astype(a.dtype) for name, a in labels.items()}
        return image, {**labels, "instances": blurred["instances"]}


class PadsZeros(FlipRotate):
    """Shifts, and lets zeros in."""

    def apply(self, image, labels, voxel_size, rng):
        shifted = {name: np.roll(array, 2, -1) for name, array in labels.items()}
        for array in shifted.values():
            array[..., :2] = 0
        return image, shifted


class MeanOfRatios(IoU):
    """Adds ratios instead of counts."""

    def partial(self, block):
        return np.array([*super().total(super().partial(block)).values()])

    def total(self, partial):
        return {"iou": float(partial.sum())}


class EmptyBlocks(IoU):
    """Does not expect a block without objects."""

    def partial(self, block):
        np.nonzero(block["truth"])[0].max()
        return super().partial(block)


class EmptyVolume(IoU):
    """Divides by 0 where there is nothing."""

    def partial(self, block):
        truth, found = block.crop(block["truth"]) > 0, block.crop(block["predicted"]) > 0.5
        return np.array([(truth & found).sum(), (truth | found).sum()])

    def total(self, partial):
        return {"iou": int(partial[0]) / int(partial[1])}


class Backwards(Instance):
    """Scores the errors."""

    def total(self, partial):
        return {"f1": 1.5 - super().total(partial)["f1_50"]}


class SumOfIds(Instance):
    """Depends on the numbers of ids."""

    def total(self, partial):
        scores = super().total(partial)
        return {**scores, "ids": float(partial.truth.sum())}


class OnTiles(Components):
    """Components of tiles, joined across them; right."""

    tiling: Lattice = Lattice()
    """Tiles."""

    def lattice(self):
        return self.tiling

    def label(self, block):
        mask = {"mask": block.crop(block["mask"])}
        return super().label(Block(block.write, block.write, mask, block.volume, block.voxel_size))


class Modest(Greedy):
    """Says what it needs; right."""

    bytes_per_voxel: ClassVar[int] = 32


class ModestWhole(GreedyWhole):
    """Says what it needs; right."""

    def memory(self, volume):
        return 64 * int(np.prod(volume.shape))
