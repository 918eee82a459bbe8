"""Patches of a grid: where they lie, what they hold, and how often they are drawn."""

import pickle
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.builtin.samplers import patches as module
from mitocore.builtin.samplers import reading
from mitocore.builtin.samplers.balanced import Balanced
from mitocore.builtin.samplers.grid import Grid
from mitocore.builtin.samplers.lattice import NO_ID, lattice
from mitocore.builtin.samplers.reject import Reject
from mitocore.errors import DataError
from mitocore.geometry import Roi
from mitocore.interfaces import LabelledVolume
from mitocore.testing import MemoryVolume

SHAPE = (4, 8, 8)


def volume(labels, region=None, **options):
    arrays = {name: MemoryVolume(array) for name, array in labels.items()}
    shape = next(iter(labels.values())).shape
    return LabelledVolume(MemoryVolume(np.zeros(shape, "u1")), arrays, region or Roi.whole(shape), **options)


def drawn(sampler, index, number, seed=0):
    rng = np.random.default_rng(seed)
    return [sampler.draw(index, SHAPE, i, rng) for i in range(number)]


def starts(length, patch, stride):
    regular = [*range(0, length - patch + 1, stride)]
    return regular if regular[-1] == length - patch else [*regular, length - patch]


@settings(deadline=None, max_examples=30)
@given(st.tuples(st.integers(4, 13), st.integers(8, 20), st.integers(8, 25)), st.tuples(*[st.integers(1, 11)] * 3))
def test_a_pass_over_a_grid_gives_each_patch_once_tail_patches_included(shape, stride):
    region = Roi((1, 2, 3), tuple(a + n for a, n in zip((1, 2, 3), shape, strict=True)))
    labels = {"a": np.zeros(tuple(n + 5 for n in shape), "u1")}
    expected = [starts(*lengths) for lengths in zip(shape, SHAPE, stride, strict=True)]
    expected = sorted((z + 1, y + 2, x + 3) for z, y, x in product(*expected))
    sampler = Grid(stride=stride, seed=4)
    index = sampler.index([volume(labels, region)], SHAPE)
    crops = drawn(sampler, index, 2 * len(expected))
    first, second = ([crop.roi.start for crop in half] for half in (crops[: len(expected)], crops[len(expected) :]))
    assert sorted(first) == sorted(second) == expected
    if len(expected) > 30:
        assert first != second
        assert first != expected


def test_a_patch_follows_from_the_number_and_the_seed_alone():
    labels = {"a": np.zeros((12, 30, 40), "u1")}
    one, other = (Grid(seed=seed).index([volume(labels)], SHAPE) for seed in (1, 2))
    assert drawn(Grid(seed=1), one, 50, seed=0) == drawn(Grid(seed=1), one, 50, seed=9)
    assert drawn(Grid(seed=1), one, 50) != drawn(Grid(seed=2), other, 50)


def test_the_fraction_is_taken_first_then_the_number_and_the_rest_is_never_seen():
    labels = {"a": np.zeros((12, 32, 40), "u1")}
    patches = 5 * 7 * 9
    for options, kept in (({"fraction": 0.2}, 63), ({"fraction": 0.2, "number": 10}, 10), ({"number": 400}, patches)):
        sampler = Grid(**options)
        index = sampler.index([volume(labels)], SHAPE)
        counts = Counter(crop.roi for crop in drawn(sampler, index, 3 * kept))
        assert len(counts) == kept
        assert set(counts.values()) == {3}
    some = [Grid(fraction=0.2, seed=seed).index([volume(labels)], SHAPE).arrays["patches"] for seed in (0, 0, 1)]
    assert (some[0] == some[1]).all()
    assert (some[0] != some[2]).any()


def test_a_grid_holds_the_patches_of_a_volume_in_proportion_to_its_weight():
    labels = {"a": np.zeros((4, 8, 48), "u1")}
    sampler = Grid(stride=SHAPE)
    index = sampler.index([volume(labels, weight=3.0), volume(labels, weight=1.0)], SHAPE)
    counts = Counter((crop.volume, crop.roi.start) for crop in drawn(sampler, index, 12 * 40))
    assert len(counts) == 12
    for (number, _), count in counts.items():
        assert 0.8 < count / (60 if number == 0 else 20) < 1.2


def test_too_fine_a_grid_is_refused_with_a_coarser_one(monkeypatch):
    monkeypatch.setattr(module, "MOST", 100)
    with pytest.raises(DataError, match="315 patches") as caught:
        Grid(stride=(2, 4, 4)).index([volume({"a": np.zeros((12, 32, 40), "u1")})], SHAPE)
    assert caught.value.hint == "stride = [4, 8, 8]"
    with pytest.raises(DataError, match="is none") as caught:
        Grid(fraction=0.1).index([volume({"a": np.zeros(SHAPE, "u1")})], SHAPE)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(4, 9), st.integers(8, 15), st.integers(8, 15)),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(2, 9)] * 3),
    st.integers(1, 5),
)
def test_what_a_patch_holds_is_what_counting_it_alone_gives(seed, shape, stride, box, most):
    rng = np.random.default_rng(seed)
    ids = rng.choice(np.array([0, 3, 2**40, 7, 9, NO_ID], "u8"), shape, p=[0.9, 0.04, 0.02, 0.01, 0.02, 0.01])
    cells = lattice(shape, SHAPE, stride)
    counts, smallest = np.zeros(cells.shape, np.int64), np.full((*cells.shape, most), NO_ID)
    for start in product(*(range(0, n, b) for n, b in zip(shape, box, strict=True))):
        part = np.ascontiguousarray(ids[tuple(slice(a, a + b) for a, b in zip(start, box, strict=True))])
        cells.add(counts, part == 3, start)
        cells.note(smallest, part, start)
    totals, distinct = cells.totals(counts), cells.distinct(smallest)
    along = [starts(*lengths) for lengths in zip(shape, SHAPE, stride, strict=True)]
    for place in np.ndindex(totals.shape):
        at = [axis[n] for axis, n in zip(along, place, strict=True)]
        alone = ids[tuple(slice(a, a + n) for a, n in zip(at, SHAPE, strict=True))]
        assert totals[place] == (alone == 3).sum()
        assert distinct[place] == min(most, len(set(alone.flat) - {NO_ID}))


def rare_or_common(positives):
    """Labels of 40 patches, of which so many hold 100 foreground voxels, and others 99."""
    labels = np.zeros((4, 8, 320), "u8")
    for number in range(40):
        patch = np.zeros(256, "u8")
        patch[: 100 if number < positives else 99] = 5
        labels[..., 8 * number : 8 * number + 8] = patch.reshape(SHAPE)
    return labels


@pytest.mark.parametrize("positives", [2, 38])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_share_of_positive_patches_holds_whether_they_are_few_or_many(positives, share):
    labels = rare_or_common(positives)
    sampler = Balanced(stride=SHAPE, positive=share)
    index = pickle.loads(pickle.dumps(sampler.index([volume({"instances": labels})], SHAPE)))
    crops = drawn(sampler, index, 1500)
    positive = [np.count_nonzero(labels[crop.roi.slices]) >= 100 for crop in crops]
    assert abs(np.mean(positive) - share) < 0.05
    assert len({crop.roi for crop in crops}) == 40


def test_where_all_patches_are_positive_all_are_drawn():
    sampler = Balanced(stride=SHAPE)
    index = sampler.index([volume({"instances": rare_or_common(40)})], SHAPE)
    assert len({crop.roi for crop in drawn(sampler, index, 800)}) == 40


def test_patches_with_too_little_foreground_are_refused_with_what_there_is():
    with pytest.raises(DataError, match="no patch holds 100 voxels of foreground; the fullest holds 99") as caught:
        Balanced(stride=SHAPE).index([volume({"instances": rare_or_common(0)})], SHAPE)
    assert "minimum = 49" in caught.value.hint
    for sampler in (Balanced(), Reject()):
        with pytest.raises(DataError, match="no foreground"):
            sampler.index([volume({"instances": np.zeros((8, 16, 16), "u8")})], SHAPE)


def test_ignored_and_masked_voxels_make_no_patch_positive():
    labels = rare_or_common(3)
    labels[..., :8] = np.where(labels[..., :8], NO_ID, 0)
    valid = np.ones(labels.shape, bool)
    valid[..., 8:16] = False
    index = Balanced(stride=SHAPE, positive=1.0).index([volume({"a": labels}, valid=MemoryVolume(valid))], SHAPE)
    assert {crop.roi.start for crop in drawn(Balanced(positive=1.0), index, 50)} == {(0, 0, 16)}


def test_of_the_crops_with_little_to_see_the_stated_share_is_rejected():
    """Weights 1 and 1 - p are what trial after trial comes to."""
    labels = np.zeros((4, 8, 80), "u8")
    labels[:, :, :16] = 1  # two patches full of one object
    labels[:, :4, 16:24], labels[:, 4:, 16:24] = 1, 2
    labels[:, :2, 24:32] = 3  # few voxels, two ids
    for options, good in (({}, {0, 8, 16}), ({"diversity": 2}, {16}), ({"minimum": 0, "diversity": 2}, {16, 24})):
        sampler = Reject(stride=SHAPE, probability=0.9, **options)
        crops = drawn(sampler, sampler.index([volume({"instances": labels})], SHAPE), 2000)
        counts = Counter(crop.roi.start[2] for crop in crops)
        expected = {x: (1 if x in good else 0.1) for x in range(0, 80, 8)}
        for x, weight in expected.items():
            assert abs(counts[x] / 2000 - weight / sum(expected.values())) < 0.05
        sampler = Reject(stride=SHAPE, probability=1, **options)
        crops = drawn(sampler, sampler.index([volume({"instances": labels})], SHAPE), 100)
        assert {crop.roi.start[2] for crop in crops} == good


def test_crops_mostly_outside_the_mask_are_never_drawn():
    labels, valid = np.ones((4, 8, 40), "u8"), np.ones((4, 8, 40), bool)
    valid[:, :4, 8:16] = valid[:, :5, 16:24] = valid[:, :, 24:] = False
    for share, kept in ((0, {0, 8, 16}), (0.4, {0, 8}), (0.5, {0})):
        sampler = Reject(stride=SHAPE, valid_share=share, minimum=1)
        index = sampler.index([volume({"a": labels}, valid=MemoryVolume(valid))], SHAPE)
        assert {crop.roi.start[2] for crop in drawn(sampler, index, 100)} == kept
    with pytest.raises(DataError, match="90 % inside the mask"):
        Reject(valid_share=0.9).index([volume({"a": labels}, valid=MemoryVolume(valid & (labels < 1)))], SHAPE)


def test_what_nothing_passes_is_refused_with_the_best_there_is():
    with pytest.raises(DataError, match="the most distinct ids of one are 1"):
        Reject(diversity=2).index([volume({"a": np.ones((8, 16, 16), "u8")})], SHAPE)


def test_the_index_of_patches_does_not_depend_on_boxes(monkeypatch):
    labels = np.random.default_rng(0).integers(0, 4, (10, 30, 30)).astype("u8")
    region = Roi((1, 2, 3), (10, 30, 30))
    for sampler in (Balanced(), Reject(diversity=3)):
        found = []
        for box in ((32, 512, 512), (3, 7, 11)):
            monkeypatch.setattr(reading, "BOX", box)
            found.append(sampler.index([volume({"a": labels}, region)], SHAPE).arrays)
        for name, array in found[0].items():
            np.testing.assert_array_equal(array, found[1][name])


@pytest.mark.parametrize("sampler", [Grid(), Balanced(), Reject()], ids=lambda s: type(s).__name__)
def test_a_crop_that_fits_into_no_region_is_refused(sampler):
    with pytest.raises(DataError, match=r"\(4, 8, 8\).*\(3, 30, 40\)"):
        sampler.index([volume({"a": np.ones((3, 30, 40), "u1")})], SHAPE)


def test_gamma_evens_out_the_patches_of_sources():
    long, short = (volume({"a": np.ones((4, 8, 8 * n), "u8")}, name=str(n)) for n in (90, 10))
    for gamma, share in ((0, 0.9), (1, 0.5), (0.5, 0.75)):
        sampler = Balanced(stride=SHAPE, gamma=gamma)
        index = sampler.index([long, short], SHAPE)
        assert index.arrays["chance"][89] == pytest.approx(share)
        grid = Grid(stride=SHAPE, gamma=gamma)
        crops = drawn(grid, grid.index([long, short], SHAPE), 400)
        assert abs(np.mean([crop.volume == 0 for crop in crops]) - share) < 0.02


def test_gamma_evens_out_the_positive_patches_of_sources_as_well_as_the_others():
    full, half, rare = np.ones((3, 4, 8, 80), "u8")
    half[..., 40:] = rare[..., 8:] = 0
    volumes = [volume({"a": labels}, name=str(n)) for n, labels in enumerate((full, half, rare))]
    sampler = Balanced(stride=SHAPE, gamma=1, positive=0.6)
    chance = np.diff(sampler.index(volumes, SHAPE).arrays["chance"], prepend=0).reshape(3, 10)
    positive = np.array([np.arange(10) < n for n in (10, 5, 1)])
    assert [chance[n, positive[n]].sum() for n in range(3)] == pytest.approx([0.2] * 3)
    assert [chance[n, ~positive[n]].sum() for n in range(3)] == pytest.approx([0, 0.2, 0.2])
