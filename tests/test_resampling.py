import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mitocore.geometry import Roi, Shape, VoxelSize
from mitocore.resampling import Resampling, resampled
from mitocore.specs import VolumeSpec

RATIOS = st.one_of(st.sampled_from([1.0, 1.005, 2.0, 3.0, 0.5, 1 / 3, 1.5, 0.3 / 0.1]), st.floats(0.2, 5))


@st.composite
def lattices(draw: st.DrawFn) -> tuple[Resampling, NDArray[Any], Roi]:
    """A resampling, a volume for it, and a box of new voxels."""
    shape = draw(st.tuples(*[st.integers(1, 14)] * 3))
    ratios = draw(st.tuples(RATIOS, RATIOS, RATIOS))
    resampling = Resampling.between(shape, VoxelSize(10, 10, 10), VoxelSize(*(10 * ratio for ratio in ratios)))
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(2, *shape)).astype(np.float32)
    start, stop = [], []
    for length in resampling.shape:
        a = draw(st.integers(0, length - 1))
        start.append(a)
        stop.append(draw(st.integers(a + 1, length)))
    return resampling, values, Roi((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def reading(values: NDArray[Any], seen: list[Roi] | None = None) -> Any:
    def read(roi: Roi) -> NDArray[Any]:
        assert Roi.whole((values.shape[1], values.shape[2], values.shape[3])).contains(roi)
        if seen is not None:
            seen.append(roi)
        return values[(slice(None), *roi.slices)]

    return read


@settings(deadline=None, max_examples=70)
@given(lattices())
def test_a_box_read_by_itself_is_bit_for_bit_the_cut_of_the_whole(case: tuple[Resampling, NDArray[Any], Roi]) -> None:
    resampling, values, box = case
    whole, cut = Roi.whole(resampling.shape), (slice(None), *box.slices)
    image = resampling.image(reading(values), whole)
    assert resampling.image(reading(values), box).tobytes() == np.ascontiguousarray(image[cut]).tobytes()
    ids = np.arange(values.size).reshape(values.shape)
    labels = resampling.labels(reading(ids), whole)
    assert (resampling.labels(reading(ids), box) == labels[cut]).all()


@settings(deadline=None, max_examples=40)
@given(lattices(), st.integers(1, 60))
def test_a_box_made_of_too_many_voxels_is_read_in_parts_and_is_the_same(
    case: tuple[Resampling, NDArray[Any], Roi], most: int
) -> None:
    resampling, values, box = case
    ids = np.arange(values.size).reshape(values.shape)
    image, labels = resampling.image(reading(values), box), resampling.labels(reading(ids), box)
    seen: list[Roi] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mitocore.resampling._AT_ONCE", most)
        assert resampling.image(reading(values, seen), box).tobytes() == image.tobytes()
        assert (resampling.labels(reading(ids, seen), box) == labels).all()
    largest = max(
        resampling.footprint(Roi(place, (place[0] + 1, place[1] + 1, place[2] + 1))).voxels
        for place in [(int(z), int(y), int(x)) for z, y, x in np.argwhere(np.ones(box.shape)) + box.start]
    )
    assert max(roi.voxels for roi in seen) <= max(most, largest)


@settings(deadline=None, max_examples=70)
@given(lattices())
def test_only_voxels_in_the_footprint_are_read_and_labels_come_from_them(
    case: tuple[Resampling, NDArray[Any], Roi],
) -> None:
    resampling, values, box = case
    seen: list[Roi] = []
    resampling.image(reading(values, seen), box)
    resampling.labels(reading(values, seen), box)
    footprint = resampling.footprint(box)
    assert seen[0] == footprint
    assert footprint.contains(seen[1])
    reach = [int(max(1, ratio) * n + 2 + ratio) for ratio, n in zip(resampling.ratio, box.shape, strict=True)]
    assert all(n <= most for n, most in zip(footprint.shape, reach, strict=True))


@settings(deadline=None, max_examples=70)
@given(lattices(), st.integers(0, 2))
def test_boxes_that_are_a_guard_apart_are_made_of_no_common_voxel(
    case: tuple[Resampling, NDArray[Any], Roi], axis: int
) -> None:
    resampling, _, box = case
    before = list(box.start)
    before[axis] -= resampling.guard[axis]
    if before[axis] > 0:
        stop = [n if a != axis else before[axis] for a, n in enumerate(resampling.shape)]
        other = resampling.footprint(Roi((0, 0, 0), (stop[0], stop[1], stop[2])))
        assert other.stop[axis] <= resampling.footprint(box).start[axis]


@settings(deadline=None, max_examples=50)
@given(lattices(), st.data())
def test_a_box_of_the_file_holds_the_new_voxels_whose_labels_come_from_it(
    case: tuple[Resampling, NDArray[Any], Roi], data: st.DataObject
) -> None:
    resampling, values, _ = case
    at = data.draw(st.integers(1, values.shape[1]))
    planes = np.broadcast_to(np.arange(values.shape[1])[:, None, None], values.shape[1:])[None]
    found = resampling.labels(reading(planes), Roi.whole(resampling.shape))[0, :, 0, 0]
    box = resampling.box(Roi((0, 0, 0), (at, *resampling.source[1:])))
    assert (box.start[0], box.stop[0]) == (0, np.count_nonzero(found < at))


@pytest.mark.parametrize(
    ("size", "wanted", "shape"),
    [
        ((8, 8, 8), (16, 16, 16), (8, 16, 20)),
        ((8, 8, 8), (4, 4, 4), (32, 64, 80)),
        ((40, 8, 8), (40, 16, 16), (16, 16, 20)),
        ((8, 8, 8), (8.05, 7.95, 8), (16, 32, 40)),
    ],
)
def test_larger_voxels_are_fewer(size: tuple[float, ...], wanted: tuple[float, ...], shape: Shape) -> None:
    spec, found = resampled(VolumeSpec((16, 32, 40), "uint8", voxel_size=VoxelSize(*size)), VoxelSize(*wanted))
    assert spec.shape == shape
    assert spec.voxel_size == VoxelSize(*wanted)
    assert (found is None) == (shape == (16, 32, 40))


def test_reducing_is_the_mean_of_what_a_voxel_covers_and_enlarging_is_linear() -> None:
    image = np.arange(12, dtype=np.float32).reshape(1, 1, 1, 12)
    thirds = Resampling((1, 1, 12), (1, 1, 3.0))
    assert thirds.image(reading(image), Roi.whole(thirds.shape)).ravel().tolist() == [1, 4, 7, 10]
    fine = Resampling((1, 1, 12), (1, 1, 0.5))
    middle = fine.image(reading(image), Roi((0, 0, 1), (1, 1, 23))).ravel()
    assert np.allclose(middle, np.arange(22) * 0.5 + 0.25)
    stripes = np.array([0.0, 1] * 20, np.float32).reshape(1, 1, 1, 40)
    coarse = Resampling((1, 1, 40), (1, 1, 2.5))
    assert np.abs(coarse.image(reading(stripes), Roi.whole(coarse.shape)) - 0.5).max() <= 0.11


def test_a_bar_lies_at_the_same_place_in_nanometres() -> None:
    image = np.zeros((1, 1, 1, 60), np.float32)
    image[..., 20:40] = 1
    for ratio in (0.25, 0.7, 1.5, 2.0, 4.0):
        lattice = Resampling((1, 1, 60), (1, 1, ratio))
        for values in (
            lattice.image(reading(image), Roi.whole(lattice.shape)),
            lattice.labels(reading(image), Roi.whole(lattice.shape)),
        ):
            line = values.ravel()
            places = (np.arange(len(line)) + 0.5) * ratio
            assert abs((line * places).sum() / line.sum() - 30) < max(0.5, ratio / 2)


def test_labels_are_never_mixed() -> None:
    ids = np.random.default_rng(0).choice(np.array([0, 7, 2**63 + 1], np.uint64), (1, 9, 9, 9))
    for ratio in itertools.product((0.4, 2.5), repeat=3):
        lattice = Resampling((9, 9, 9), ratio)
        found = lattice.labels(reading(ids), Roi.whole(lattice.shape))
        assert found.dtype == np.uint64
        assert set(np.unique(found)) <= set(np.unique(ids))
