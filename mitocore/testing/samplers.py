"""What samplers promise."""

import pickle
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import DataError
from mitocore.geometry import Roi, Shape, as_shape
from mitocore.interfaces import LabelledVolume, Sampler
from mitocore.specs import Kind
from mitocore.testing.checking import Check, limited, refused, require, require_equal, undisturbed
from mitocore.testing.examples import instances
from mitocore.testing.suite import ComponentTests
from mitocore.testing.volumes import MemoryVolume

CROP: Shape = (4, 8, 6)
SECONDS = 10.0
"""How long a sampler may take here at most; what takes longer never ends."""
_ENDLESS = "bound every loop, and raise mitocore.DataError in `index` if no crop can be drawn"
_DRAWS = 60
_MANY = 500


class _Counting(MemoryVolume):
    """Counts how often it is read."""

    reads = 0

    def read(self, roi: Roi) -> NDArray[Any]:
        self.reads += 1
        return super().read(roi)


def _volume(array: NDArray[Any], kind: Kind, chunks: Shape | None) -> MemoryVolume:
    return _Counting(array, kind=kind, chunks=chunks)


def labelled(chunks: Shape | None = None, *, empty: bool = False) -> list[LabelledVolume]:
    """Two volumes with labels, of which a part may be used."""
    made = []
    for seed, shape, region in (
        (0, (12, 24, 20), Roi((1, 2, 3), (11, 24, 17))),
        (1, (6, 16, 30), Roi((0, 0, 8), (6, 15, 30))),
    ):
        ids = instances(as_shape(shape), np.random.default_rng(seed))
        ids = np.zeros_like(ids) if empty else ids
        image = (np.random.default_rng(seed).random(shape) * 255).astype(np.uint8)
        labels = {
            "instances": _volume(ids, Kind.INSTANCE, chunks),
            "semantic": _volume((ids > 0).astype(np.uint16), Kind.SEMANTIC, chunks),
        }
        made.append(LabelledVolume(_volume(image, Kind.IMAGE, chunks), labels, region, weight=1.0 + seed))
    return made


def check_crops(sampler: Sampler) -> None:
    """Crops have the shape that is asked for and lie inside the region of their volume."""
    volumes = labelled()
    with limited(SECONDS, "drawing crops", _ENDLESS):
        index = sampler.index(volumes, CROP)
        for number in range(_DRAWS):
            crop = sampler.draw(index, CROP, number, np.random.default_rng(number))
            require(0 <= crop.volume < 2, f"crop of volume {crop.volume} of 2", "number volumes from 0")
            require(crop.roi.shape == CROP, f"a crop of {crop.roi.shape} where {CROP} was asked for", "give `shape`")
            region = volumes[crop.volume].region
            change = "keep crops inside `region` of the volume: beyond it lies what is kept for validation"
            require(region.contains(crop.roi), f"{crop.roi} leaves the region {region}", change)


def check_draws_read_nothing(sampler: Sampler) -> None:
    """Drawing reads no voxel: workers have the index alone, and a sample must not wait for labels."""
    volumes = labelled()
    files = [v for volume in volumes for v in (volume.image, *volume.labels.values()) if isinstance(v, _Counting)]
    with limited(SECONDS, "drawing crops", _ENDLESS):
        index = sampler.index(volumes, CROP)
        before = sum(file.reads for file in files)
        for number in range(_DRAWS):
            sampler.draw(index, CROP, number, np.random.default_rng(number))
        reads = sum(file.reads for file in files) - before
    require(not reads, f"{_DRAWS} draws read the volumes {reads} times", "keep what `draw` needs in the SamplerIndex")


def check_regions(sampler: Sampler) -> None:
    """The index names the region of every volume, in their order."""
    with limited(SECONDS, "index", _ENDLESS):
        volumes = labelled()
        found = sampler.index(volumes, CROP).regions
    seen = f"regions {found} of volumes with {tuple(v.region for v in volumes)}"
    require(found == tuple(volume.region for volume in volumes), seen, "give SamplerIndex the region of every volume")


def check_same_rng(sampler: Sampler) -> None:
    """The same number and equal random numbers give the same crop, whatever was drawn before."""
    with limited(SECONDS, "drawing crops", _ENDLESS):
        index = sampler.index(labelled(), CROP)
        first = [sampler.draw(index, CROP, number, np.random.default_rng(number)) for number in range(_DRAWS)]
        again = [sampler.draw(index, CROP, n, np.random.default_rng(n)) for n in reversed(range(_DRAWS))][::-1]
    differ = next((number for number in range(_DRAWS) if first[number] != again[number]), None)
    change = "let `draw` depend on `index`, `number` and `rng` alone, and keep no state"
    require(differ is None, f"sample {differ} is another crop when it is drawn again", change)


def check_random_state(sampler: Sampler) -> None:
    """The random numbers of the program stay as they are."""
    with limited(SECONDS, "drawing crops", _ENDLESS), undisturbed():
        index = sampler.index(labelled(), CROP)
        for number in range(_DRAWS):
            sampler.draw(index, CROP, number, np.random.default_rng(number))


def check_index(sampler: Sampler) -> None:
    """The index pickles and does not depend on how files are chunked."""
    with limited(SECONDS, "index", _ENDLESS):
        one, other = (sampler.index(labelled(chunks), CROP) for chunks in (None, (2, 5, 7)))
        copy = pickle.loads(pickle.dumps(one))  # noqa: S301 - made on the line it is read
    for what, found in (("other chunks", other), ("a round trip through pickle", copy)):
        names = f"after {what} the index holds {sorted(found.arrays)}, not {sorted(one.arrays)}"
        require(found.arrays.keys() == one.arrays.keys(), names, "keep plain numpy arrays")
        for name, array in one.arrays.items():
            change = "walk the labels in boxes of your own, and sum what does not depend on their order"
            require_equal(np.asarray(found.arrays[name]), np.asarray(array), f"{name!r} after {what}", change)


def check_nothing_to_draw(sampler: Sampler) -> None:
    """Where nothing can be drawn, `index` raises DataError; it never searches without end."""
    too_large = as_shape((13, 8, 6))
    what = "a crop that is larger than every region"
    with limited(SECONDS, what, _ENDLESS), refused(what, "raise mitocore.DataError in `index`"):
        sampler.index(labelled(), too_large)
    with limited(SECONDS, "drawing from labels that are all 0", _ENDLESS):
        try:
            index = sampler.index(labelled(empty=True), CROP)
        except DataError:
            return
        for number in range(5):
            sampler.draw(index, CROP, number, np.random.default_rng(number))


def check_weights(sampler: Sampler) -> None:
    """A volume of weight 0 is never drawn."""
    first, second = labelled()
    with limited(SECONDS, "drawing crops", _ENDLESS):
        index = sampler.index([replace(first, weight=0.0), second], CROP)
        drawn = {sampler.draw(index, CROP, n, np.random.default_rng(n)).volume for n in range(_DRAWS)}
    require(0 not in drawn, "a volume of weight 0 is drawn", "multiply the chance of a volume by its `weight`")


def check_proportions(sampler: Sampler) -> None:
    """A volume of eight times the weight is drawn far more often; a sampler that draws nothing at random is excused."""
    first, second = labelled()
    with limited(SECONDS, "drawing crops", _ENDLESS):
        odds = []
        for weight in (1.0, 8.0):
            index = sampler.index([replace(first, weight=weight), replace(second, weight=1.0)], CROP)
            drawn = [sampler.draw(index, CROP, n, np.random.default_rng(n)) for n in range(_MANY)]
            if drawn[:_DRAWS] == [
                sampler.draw(index, CROP, n, np.random.default_rng(_MANY + n)) for n in range(_DRAWS)
            ]:
                return
            count = sum(crop.volume == 0 for crop in drawn)
            odds.append((count + 1) / (_MANY - count + 1))
    seen = f"with eight times the weight, a volume is drawn {odds[1] / odds[0]:.1f} times as often as the other"
    require(odds[1] > 3 * odds[0], seen, "multiply the chance of a volume by its `weight`")


CHECKS: tuple[Check, ...] = (
    check_crops,
    check_draws_read_nothing,
    check_regions,
    check_same_rng,
    check_random_state,
    check_index,
    check_nothing_to_draw,
    check_weights,
    check_proportions,
)


class SamplerTests(ComponentTests):
    """Tests of a sampler. Set `component`; its labels, if it names any, are "instances" and "semantic"."""

    checks: ClassVar[tuple[Check, ...]] = CHECKS
