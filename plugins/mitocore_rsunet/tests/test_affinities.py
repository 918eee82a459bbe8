"""Instances from affinities: exact out of core, whichever side of an edge they are stored at."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitocore import ArraySpec, Block, Kind, Lattice, Roi, WiringError
from mitocore.testing import reference
from mitocore.testing.one_step import Example, results
from mitocore_rsunet.affinities import AffinityComponents
from mitocore_rsunet.agglomeration import AffinityAgglomeration
from mitocore_rsunet.mutex import MutexWatershed

NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
FAR = (*NEAR, (-2, 0, 0), (0, -3, 0), (0, 0, -3))
SMALL_TILES = Lattice((4, 5, 6), (1, 2, 2))
STEPS = (AffinityComponents(), MutexWatershed(), AffinityAgglomeration(), AffinityAgglomeration(tiles=SMALL_TILES))
RNGS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
BLOCKS = st.tuples(*[st.integers(2, 9)] * 3)


def opposite(offsets):
    return tuple(tuple(-step for step in offset) for offset in offsets)


def pairs(shape, offset):
    """Raster indices of all v and v + offset inside a volume."""
    v = np.stack(np.indices(shape), -1).reshape(-1, 3)
    w = v + offset
    inside = ((w >= 0) & (w < shape)).all(axis=1)
    return np.ravel_multi_index(v[inside].T, shape), np.ravel_multi_index(w[inside].T, shape)


def truth(ids, offsets):
    """Affinities of instances: 1 where both voxels are of one."""
    found = np.zeros((len(offsets), ids.size), "f4")
    for channel, offset in zip(found, offsets, strict=True):
        v, w = pairs(ids.shape, offset)
        channel[v] = (ids.ravel()[v] == ids.ravel()[w]) & (ids.ravel()[v] > 0)
    return found.reshape(-1, *ids.shape)


def at_the_other_side(affinities, offsets):
    """The same pairs, stored at their other voxel."""
    found = np.zeros_like(affinities).reshape(len(offsets), -1)
    for target, channel, offset in zip(found, affinities, offsets, strict=True):
        v, w = pairs(channel.shape, offset)
        target[w] = channel.ravel()[v]
    return found.reshape(affinities.shape)


def smooth(rng, shape, channels, levels=2**16):
    """Random affinities in which objects of more than a few voxels exist."""
    noise = ndimage.gaussian_filter(rng.random((channels, *shape)), (0, 1, 1, 1))
    noise = (noise - noise.min()) / max(np.ptp(noise), 1e-9)
    return (np.floor(noise * levels) / levels).astype("f4")


def example(affinities, offsets=(), **others):
    given = {"affinities": ArraySpec(Kind.AFFINITY, tuple(map(str, range(len(affinities)))), offsets)}
    given |= {name: ArraySpec(Kind.PROBABILITY, (name,)) for name in others}
    return Example({"affinities": affinities, **others}, given)


def instances(step, affinities, offsets=(), block=(99, 99, 99), **others):
    return results(step, example(affinities, offsets, **others), block)["instances"][0]


def touching_objects():
    """Objects with no background between them, some of one voxel in width, and some background."""
    ids = np.kron(np.arange(1, 13).reshape(2, 2, 3), np.ones((4, 5, 4), "u8")).astype("u8")
    ids[2:6, 4:7, :5] = 0
    ids[:, 9, :] = 13
    return in_raster_order(ids)


def in_raster_order(labels):
    ids, first, place = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.zeros(len(ids), "u8")
    order = np.argsort(np.where(ids == 0, -1, first))
    rank[order] = np.arange(len(ids)) + (0 not in ids)
    return rank[place].reshape(labels.shape)


# --- ground truth and sides -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS, ids=repr)
@pytest.mark.parametrize("offsets", [FAR, opposite(FAR), (*NEAR[:2], (0, 0, 1), *opposite(FAR[3:]))])
def test_affinities_of_touching_objects_give_back_these_objects(step, offsets):
    ids = touching_objects()
    assert np.array_equal(instances(step, truth(ids, offsets), offsets, (3, 6, 7)), ids)


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_the_side_that_affinities_are_stored_at_changes_nothing(step):
    affinities = smooth(np.random.default_rng(3), (9, 12, 11), 6, levels=50)
    other = at_the_other_side(affinities, FAR)
    expected = instances(step, affinities, FAR)
    assert expected.max() > 3
    assert np.array_equal(instances(step, other, opposite(FAR)), expected)
    assert np.array_equal(instances(step.model_copy(update={"offsets": opposite(FAR)}), other), expected)


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_affinities_that_are_not_numbers_join_nothing(step):
    ids = touching_objects()
    affinities = truth(ids, FAR)
    affinities[:, ids == 5] = np.nan
    found = instances(step, affinities, FAR)
    others = (ids > 0) & (ids != 5)
    assert np.array_equal(in_raster_order(found * others) > 0, in_raster_order(ids * others) > 0)


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_only_the_foreground_becomes_objects(step):
    ids = touching_objects()
    foreground = np.where(ids > 2, np.float32(0.9), np.float32(0.5))[None]
    found = instances(step, truth(ids, FAR), FAR, (5, 5, 5), foreground=foreground)
    assert np.array_equal(found, in_raster_order(ids * (ids > 2)))


def test_the_foreground_is_the_channel_of_that_name_and_may_be_absent():
    for step in STEPS:
        need = step.needs()["foreground"]
        assert need.optional
        assert need.channels == ("foreground",)


# --- components -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=12)
@given(RNGS, st.tuples(*[st.integers(1, 9)] * 3), BLOCKS, st.floats(0.3, 0.7), st.integers(0, 6), st.booleans())
def test_components_are_those_of_the_graph_of_all_voxels(rng, shape, block, threshold, min_size, negative):
    offsets = (*NEAR, (0, -2, 0)) if negative else (*opposite(NEAR), (0, -2, 0))
    affinities = smooth(rng, shape, 4)
    step = AffinityComponents(threshold=threshold, min_size=min_size)
    found = instances(step, affinities, offsets, block)
    edges = [np.zeros((2, 0), int)]
    for channel, offset in zip(affinities[:3], offsets, strict=False):
        v, w = pairs(shape, offset)
        edges.append(np.stack([v, w])[:, channel.ravel()[v] > threshold])
    edges = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(edges.shape[1]), edges), shape=(np.prod(shape),) * 2)
    group = connected_components(graph, directed=False)[1]
    size = np.bincount(group)[group]
    assert np.array_equal(
        found, in_raster_order(np.where((size > 1) & (size >= min_size), group + 1, 0).reshape(shape))
    )


# --- mutex watershed --------------------------------------------------------------------------------------------------


def mutex_by_loop(affinities, offsets, bias, strides, mask):
    """The strongest pair first: join what attracts unless it is forbidden, forbid what repels."""
    shape, edges = mask.shape, []
    coordinates = np.stack(np.unravel_index(np.arange(mask.size), shape), -1)
    for channel, offset in zip(affinities, offsets, strict=True):
        near = sum(map(abs, offset)) == 1
        for v, w in zip(*pairs(shape, offset), strict=True):
            if mask.flat[v] and mask.flat[w] and (near or not (coordinates[max(v, w)] % strides).any()):
                edges.append((float(channel.flat[v]) + bias[not near], v, w))
    cluster = {v: {v} for v in np.flatnonzero(mask)}
    forbidden = set()
    for weight, v, w in sorted(edges, key=lambda edge: -abs(edge[0])):
        one, other = cluster[v], cluster[w]
        if weight < 0:
            forbidden.add((v, w))
        elif one is not other and not any((a in one and b in other) or (b in one and a in other) for a, b in forbidden):
            one |= other
            for member in other:
                cluster[member] = one
    labels = np.zeros(mask.size, "i8")
    for v, members in cluster.items():
        labels[v] = min(members) + 1 if len(members) > 1 else 0
    return labels.reshape(shape)


@settings(deadline=None, max_examples=12)
@given(RNGS, st.tuples(*[st.integers(2, 5)] * 3), BLOCKS, st.sampled_from([(-0.5, -0.5), (-0.3, -0.7), (0, -1)]))
def test_the_strongest_edge_decides_first_in_the_mutex_watershed(rng, shape, block, bias):
    offsets = ((0, 0, 1), *NEAR[:2], (0, -2, 0), (2, 0, -1))
    affinities = (rng.permutation(5 * np.prod(shape)).reshape(5, *shape) / 1024 / 8 + 0.01).astype("f4") * 5
    foreground = ndimage.binary_opening(rng.random(shape) < 0.9, np.ones((1, 1, 2)))
    assume(ndimage.label(foreground)[1] == 1)
    step = MutexWatershed(bias=bias, strides=(1, 2, 1), min_size=2)
    affinities %= 1
    found = instances(step, affinities, offsets, block, foreground=foreground[None].astype("f4"))
    assert np.array_equal(found, in_raster_order(mutex_by_loop(affinities, offsets, bias, (1, 2, 1), foreground)))


def test_pairs_beyond_the_component_do_not_count():
    affinities = np.zeros((2, 1, 1, 8), "f4")
    affinities[0, ..., 1:3] = affinities[0, ..., 5:8] = 1  # 0 1 2 and 4 5 6 7 are one each, and near to each other
    affinities[1] = 1
    found = instances(MutexWatershed(), affinities, ((0, 0, -1), (0, 0, -3)))
    assert found.ravel().tolist() == [1, 1, 1, 0, 2, 2, 2, 2]


@pytest.mark.parametrize("shape", [(1, 9, 12), (2, 3, 30), (7, 1, 5), (1, 1, 1)])
def test_ranges_longer_than_a_box_do_not_count_in_it(shape):
    offsets = (*NEAR, (-2, 0, 0), (0, -4, 0), (0, 0, -27), (3, -4, 0))
    affinities = smooth(np.random.default_rng(5), shape, len(offsets))
    strange = affinities.copy()
    for channel, offset in zip(strange, offsets, strict=True):
        if any(abs(step) >= n for step, n in zip(offset, shape, strict=True)):
            channel[:] = 1
    tiled = MutexWatershed(oversize="tile", largest=9, tiles=SMALL_TILES)
    for step in (MutexWatershed(), MutexWatershed(strides=(2, 3, 5)), tiled):
        expected = instances(step, affinities, offsets)
        for block in ((99, 99, 99), (2, 3, 4)):
            assert np.array_equal(instances(step, strange, offsets, block), expected)


def test_the_memory_of_the_mutex_watershed_grows_with_the_channels():
    few, many = (MutexWatershed(offsets=offsets).bytes_per_voxel for offsets in (FAR[:4], FAR))
    assert few < many


# --- agglomeration ----------------------------------------------------------------------------------------------------

WATERZ = {
    "mean": "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
    "quantile": "OneMinus<HistogramQuantileAffinity<RegionGraphType, 75, ScoreValue, 256, false>>",
    "quantile_of_maxima": "OneMinus<HistogramQuantileAffinity<RegionGraphType, 75, ScoreValue, 256, true>>",
}


@settings(deadline=None, max_examples=40)
@given(RNGS, st.tuples(*[st.integers(1, 8)] * 3), st.sampled_from([4, 16, 2**16]), st.sampled_from([0.0001, 0.4]))
def test_fragments_are_those_of_waterz(rng, shape, levels, low):
    waterz = pytest.importorskip("waterz")
    from mitocore_rsunet.basins import ascents, parts

    affinities = smooth(rng, shape, 3, levels)
    for axis in range(3):
        np.moveaxis(affinities[axis], axis, 0)[0] = 0
    joined = ascents(affinities, low, 0.9)
    found = parts(joined, joined.any(axis=0) | (parts(joined, np.ones(shape, bool)) > 0))
    (expected,) = waterz.agglomerate(affinities, [0.0], aff_threshold_low=low, aff_threshold_high=0.9)
    alone = np.bincount(found.ravel())[found] == 1
    assert np.array_equal(in_raster_order(np.where(alone, 0, found)), in_raster_order(expected))


def merged_by_loop(histograms, regions, threshold, percent):
    """Merge the best pair, look at all contacts again; the groups, and whether two were ever equally good."""
    group, tied = list(range(regions)), False
    histograms = {pair: (histogram.copy(), pair) for pair, histogram in histograms.items()}

    def score(histogram):
        if percent is None:
            return (histogram * (np.arange(256) + 0.5)).sum() / 256 / histogram.sum()
        place = min(percent * int(histogram.sum()) // 100 + 1, int(histogram.sum()))
        return (np.searchsorted(histogram.cumsum(), place) + 0.5) / 256

    while histograms:
        scores = {pair: score(histogram) for pair, (histogram, _) in histograms.items()}
        best = min(histograms, key=lambda pair: (-scores[pair], histograms[pair][1]))
        if scores[best] <= threshold:
            break
        tied |= sum(abs(value - scores[best]) < 1e-5 for value in scores.values()) > 1
        into, gone = best
        group = [into if member == gone else member for member in group]
        old, histograms = histograms, {}
        for pair, (histogram, earliest) in old.items():
            a, b = sorted(into if end == gone else end for end in pair)
            if a != b:
                before, rank = histograms.get((a, b), (0, earliest))
                histograms[a, b] = before + histogram, min(rank, earliest)
    return group, tied


@settings(deadline=None, max_examples=60)
@given(RNGS, st.integers(1, 14), st.floats(0, 0.9), st.sampled_from([None, 0, 50, 80, 100]), st.sampled_from([3, 256]))
def test_the_best_contact_merges_first_and_equals_by_their_place(rng, regions, threshold, percent, levels):
    from mitocore_rsunet.merging import merged_regions

    ends = [pair for pair in product(range(regions), repeat=2) if pair[0] < pair[1] and rng.random() < 0.5]
    rows = [(pair, level) for pair in ends for level in np.unique(rng.integers(0, levels, rng.integers(1, 6)))]
    count = rng.integers(1, 5, len(rows))
    histograms = {pair: np.zeros(256, int) for pair in ends}
    for (pair, level), times in zip(rows, count, strict=True):
        histograms[pair][level * 255 // (levels - 1)] = times
    level = np.array([level * 255 // (levels - 1) for _, level in rows], "u1")
    pairs_of_rows = np.array([pair for pair, _ in rows], int).reshape(-1, 2)
    found = merged_regions(pairs_of_rows, level, count, regions, threshold, percent)
    expected, _ = merged_by_loop(histograms, regions, threshold, percent)
    assert np.array_equal(in_raster_order(found + 1), in_raster_order(np.array(expected) + 1))


@settings(deadline=None, max_examples=30)
@given(RNGS, st.tuples(*[st.integers(1, 3)] * 3), st.sampled_from(sorted(WATERZ)), st.floats(0.2, 0.8))
def test_the_partition_of_fragments_is_that_of_waterz(rng, several, scoring, threshold):
    waterz = pytest.importorskip("waterz")
    fragments = np.kron(np.arange(np.prod(several)).reshape(several) + 1, np.ones((2, 3, 2), int)).astype("u8")
    affinities = ((rng.integers(0, 256, (3, *fragments.shape)) + 0.5) / 256).astype("f4")
    step = AffinityAgglomeration(scoring=scoring, quantile=75, threshold=threshold, offsets=NEAR)
    box = Roi.whole(fragments.shape)
    links = step.link(Block(box, box, {"affinities": affinities}, box), fragments)
    objects = np.zeros(fragments.max(), [("first", "u8"), ("size", "u8")])
    objects["first"], objects["size"] = np.unique(fragments, return_index=True)[1], 12
    histograms = {}
    for a, b, times, level in links.tolist():
        histograms.setdefault((a - 1, b - 1), np.zeros(256, int))[level] = times
    if scoring == "quantile_of_maxima":
        histograms = {pair: np.eye(256, dtype=int)[np.flatnonzero(h)[-1]] for pair, h in histograms.items()}
    _, tied = merged_by_loop(histograms, len(objects), threshold, None if scoring == "mean" else 75)
    assume(not tied)  # waterz leaves it to its queue who is first of equals
    (expected,) = waterz.agglomerate(
        affinities, [1 - threshold], fragments=fragments.copy(), scoring_function=WATERZ[scoring]
    )
    assert np.array_equal(step.resolve(objects, links)[fragments], in_raster_order(expected))


def test_an_object_that_crosses_tiles_is_one_and_a_weak_contact_keeps_two_apart():
    ids = np.ones((6, 10, 20), "u8")
    ids[:, :, 9:] = 2
    affinities = truth(ids, NEAR) * np.float32(0.8)
    affinities[2, :, :, 9] = 0.3
    step = AffinityAgglomeration(tiles=SMALL_TILES)
    assert np.array_equal(instances(step, affinities, NEAR), ids)
    assert instances(step.model_copy(update={"threshold": 0.25}), affinities, NEAR).max() == 1


def test_the_engine_gives_what_the_scopes_mean_in_memory():
    affinities = smooth(np.random.default_rng(1), (7, 9, 11), 6)
    for step, means in zip(STEPS, (reference.stitched, reference.objectwise, *[reference.stitched] * 2), strict=True):
        whole = example(affinities, FAR)
        meant = means(step.reading(whole.given), whole.arrays, step.gives(whole.given))["instances"][0]
        assert np.array_equal(instances(step, affinities, FAR, (3, 5, 8)), meant)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "channels", "offsets", "problem"),
    [
        (AffinityComponents(), 2, ((-2, 0, 0), (0, -1, -1)), r"beside; they lead to \[\[-2, 0, 0\], \[0, -1, -1\]\]"),
        (AffinityAgglomeration(), 1, ((0, 0, 5),), r"no channel of the affinities leads to a voxel beside"),
        (MutexWatershed(), 3, NEAR, r"needs long-range affinities too; all 3 channels lead to neighbours"),
        (MutexWatershed(), 2, FAR[3:5], r"no channel of the affinities leads to a voxel beside"),
        (AffinityComponents(), 3, (), r"nothing says where the 3 channels of the affinities lead"),
        (
            AffinityComponents(offsets=NEAR[:2]),
            3,
            (),
            r"offsets = \[\[-1, 0, 0\], \[0, -1, 0\]\] does not fit 3 channels",
        ),
        (AffinityComponents(offsets=opposite(NEAR)), 3, NEAR, r"contradicts the affinities, which lead to"),
    ],
)
def test_affinities_that_a_step_cannot_use_are_refused(step, channels, offsets, problem):
    spec = ArraySpec(Kind.AFFINITY, tuple(map(str, range(channels))), offsets)
    with pytest.raises(WiringError, match=problem) as refused:
        step.gives({"affinities": spec})
    assert refused.value.hint


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (AffinityComponents, {"threshold": 1.0}),
        (AffinityComponents, {"threshold": 128}),
        (MutexWatershed, {"bias": (-0.5, 0.1)}),
        (MutexWatershed, {"bias": (-1, -0.5)}),
        (MutexWatershed, {"strides": (0, 1, 1)}),
        (AffinityAgglomeration, {"threshold": -0.1}),
        (AffinityAgglomeration, {"quantile": 101}),
    ],
)
def test_options_outside_their_range_are_refused(kind, options):
    with pytest.raises(ValidationError):
        kind(**options)
