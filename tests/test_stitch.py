"""Pairs across faces and their union, beside the plain loops that say what they mean."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.blockwise.grid import BlockGrid
from mitocore.geometry import Roi
from mitocore.interfaces import OBJECT
from mitocore.stitch import LINK, faces, joined, merged, named, touching, unite

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(*[st.integers(1, 6)] * 3)
reaches = {6: 1, 18: 2, 26: 3}


def propagated(objects, links, keep):
    """Minimum label propagation until nothing changes; then names by first voxel."""
    root = list(range(len(objects) + 1))
    changed = True
    while changed:
        changed = False
        for a, b in zip(links["a"].tolist(), links["b"].tolist(), strict=True):
            lowest = min(root[a], root[b])
            changed |= (root[a], root[b]) != (lowest, lowest)
            root[a] = root[b] = lowest
    groups = {}
    for number in range(1, len(root)):
        groups.setdefault(root[number], []).append(number)
    rows = []
    for members in groups.values():
        row = np.zeros(1, objects.dtype)
        row["first"] = min(int(objects["first"][m - 1]) for m in members)
        for column in objects.dtype.names:
            if column != "first":
                row[column] = sum(objects[column][m - 1] for m in members)
        rows.append((int(row["first"][0]), row, members))
    final = np.zeros(len(objects) + 1, np.uint64)
    name = 0
    for _, row, members in sorted(rows, key=lambda entry: entry[0]):
        if keep(row)[0]:
            name += 1
            final[members] = name
    return final


@settings(deadline=None, max_examples=100)
@given(seeds, st.integers(0, 30), st.integers(0, 40))
def test_union_equals_minimum_label_propagation(seed, count, pairs):
    rng = np.random.default_rng(seed)
    objects = np.zeros(count, [*OBJECT, ("contact", "i4")])
    objects["first"] = rng.permutation(1000)[:count]
    objects["size"] = rng.integers(1, 20, count)
    objects["contact"] = rng.integers(0, 5, count)
    links = np.zeros(pairs if count else 0, LINK)
    links["a"], links["b"] = rng.integers(1, max(count, 1) + 1, (2, len(links)))

    def keep(rows):
        return (rows["size"] >= 12) | (rows["contact"] > 3)

    final = unite(objects, links, keep)
    assert final.dtype == np.uint64
    np.testing.assert_array_equal(final, propagated(objects, links, keep))


def test_no_objects_unite_to_the_background_alone():
    assert unite(np.zeros(0, OBJECT), np.zeros(0, LINK), lambda rows: np.ones(len(rows), bool)).tolist() == [0]


@settings(deadline=None, max_examples=100)
@given(seeds, shapes, st.sampled_from([6, 18, 26]))
def test_touching_finds_the_pairs_that_a_plain_loop_finds(seed, shape, connectivity):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, shape).astype(np.uint64)
    start = [int(rng.integers(0, n)) for n in shape]
    inner = tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(start, shape, strict=True))
    inside = np.zeros(shape, bool)
    inside[inner] = True
    expected = set()
    for here in np.ndindex(*shape):
        for step in product((-1, 0, 1), repeat=3):
            there = tuple(a + s for a, s in zip(here, step, strict=True))
            within = all(0 <= t < n for t, n in zip(there, shape, strict=True))
            if not within or not 0 < sum(map(abs, step)) <= reaches[connectivity]:
                continue
            if inside[here] and not inside[there] and ids[here] and ids[there]:
                expected.add((*sorted((int(ids[here]), int(ids[there]))), 1.0))
    assert touching(ids, inner, connectivity).tolist() == sorted(expected)


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(1, 7)] * 3), st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(0, 2)] * 3))
def test_two_voxels_of_different_blocks_within_reach_lie_in_exactly_one_slab(shape, block, reach):
    volume = Roi.whole(shape)
    grid = BlockGrid(volume, block)
    owner = np.zeros(shape, int)
    for number in range(len(grid)):
        owner[grid.box(number).slices] = number
    found = {}
    for number in range(len(grid)):
        for near, far in faces(grid.box(number), reach, volume):
            assert grid.box(number).contains(near)
            for a in product(*(range(lo, hi) for lo, hi in zip(near.start, near.stop, strict=True))):
                for b in product(*(range(lo, hi) for lo, hi in zip(far.start, far.stop, strict=True))):
                    if all(abs(i - j) <= r for i, j, r in zip(a, b, reach, strict=True)):
                        key = (a, b) if a < b else (b, a)
                        found[key] = found.get(key, 0) + 1
    steps = list(product(*(range(-r, r + 1) for r in reach)))
    expected = set()
    for a in np.ndindex(*shape):
        for step in steps:
            b = tuple(i + s for i, s in zip(a, step, strict=True))
            if a < b and all(0 <= j < n for j, n in zip(b, shape, strict=True)) and owner[a] != owner[b]:
                expected.add((a, b))
    assert found == dict.fromkeys(expected, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 9)), max_size=20), st.randoms())
def test_equal_pairs_merge_to_the_sum_of_their_weights_whatever_their_order(pairs, random):
    expected = {}
    for a, b, weight in pairs:
        key = (min(a, b), max(a, b))
        expected[key] = expected.get(key, 0) + weight
    random.shuffle(pairs)
    links = merged(np.array(pairs, LINK))
    assert links.tolist() == [(a, b, float(weight)) for (a, b), weight in sorted(expected.items())]


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 4)] * 2, st.integers(0, 9), st.integers(0, 2)), max_size=20))
def test_columns_of_the_author_tell_rows_of_one_pair_apart(rows):
    expected = {}
    for a, b, weight, level in rows:
        key = (min(a, b), max(a, b), level)
        expected[key] = expected.get(key, 0) + weight
    links = merged(np.array(rows, [*LINK.descr, ("level", "u1")]))
    assert links.tolist() == [(a, b, float(weight), level) for (a, b, level), weight in sorted(expected.items())]


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_ids_beyond_32_bits_are_told_apart(connectivity):
    high = 2**40
    ids = np.array([[[high + 1, high + 2], [1, 2]]], np.uint64)
    links = touching(ids, (slice(0, 1), slice(0, 1), slice(0, 2)), connectivity)
    across = [(1, high + 1, 1.0), (2, high + 2, 1.0)]
    diagonal = [(1, high + 2, 1.0), (2, high + 1, 1.0)]
    assert links.tolist() == sorted(across if connectivity == 6 else across + diagonal)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(0, 20), st.integers(0, 20))
def test_joined_objects_have_the_sums_and_the_extremes_of_their_parts(seed, count, pairs):
    rng = np.random.default_rng(seed)
    objects = np.zeros(count, [*OBJECT, ("start", "(3,)i8"), ("stop", "(3,)i8"), ("weight", "f4")])
    for column in objects.dtype.names:
        objects[column] = rng.integers(-5 if column in ("start", "stop") else 0, 50, objects[column].shape)
    links = np.zeros(pairs if count else 0, LINK)
    links["a"], links["b"] = rng.integers(1, max(count, 1) + 1, (2, len(links)))
    rows, group = joined(objects, links, {"start": np.minimum, "stop": np.maximum})
    assert (group[links["a"].astype(int) - 1] == group[links["b"].astype(int) - 1]).all()
    together = unite(objects[["first", "size"]], links, lambda found: np.ones(len(found), bool))
    assert len(rows) == together.max()
    for number, row in enumerate(rows):
        parts = objects[group == number]
        assert row["first"] == parts["first"].min()
        assert (row["size"], row["weight"]) == (parts["size"].sum(), parts["weight"].sum())
        np.testing.assert_array_equal(row["start"], parts["start"].min(axis=0))
        np.testing.assert_array_equal(row["stop"], parts["stop"].max(axis=0))


def test_names_follow_the_order_that_is_asked_for_and_leave_out_what_is_not_kept():
    group, alive = np.array([2, 0, 1, 1]), np.array([True, False, True])
    assert named(group, alive, np.array([2, 1, 0])).tolist() == [0, 1, 2, 0, 0]
    assert named(group[:0], alive[:0], group[:0]).tolist() == [0]
