import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage.segmentation import watershed

from mitocore_rsunet.flood import flood

SHAPES = st.tuples(*[st.integers(1, 13)] * 3)
RNGS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def case(rng, shape, top, density, dtype="u1"):
    """Landscape, seeds of few labels in many pieces, some of them outside the mask, and a ragged mask."""
    landscape = rng.integers(0, top + 1, shape).astype(dtype)
    seeds = np.where(rng.random(shape) < density, rng.integers(1, 5, shape), 0).astype("i4")
    return landscape, seeds, rng.random(shape) < rng.choice([0.5, 0.8, 1])


def agrees(landscape, seeds, mask):
    before = [array.copy() for array in (landscape, seeds, mask)]
    for array in (landscape, seeds, mask):
        array.flags.writeable = False
    labels = flood(landscape, seeds, mask)
    assert all(np.array_equal(*pair) for pair in zip(before, (landscape, seeds, mask), strict=True))
    return labels.dtype == "i4" and np.array_equal(labels, watershed(landscape, seeds, mask=mask))


@settings(deadline=None, max_examples=50)
@given(RNGS, SHAPES, st.sampled_from([0, 1, 2, 5, 254, 255]), st.sampled_from([0, 0.02, 0.15, 0.5, 1]))
def test_labels_are_those_of_scikit_image_voxel_by_voxel_on_level_ground_too(rng, shape, top, density):
    assert agrees(*case(rng, shape, top, density))


@settings(deadline=None, max_examples=25)
@given(RNGS, SHAPES, st.sampled_from([3, 300, 65534, 65535]), st.sampled_from([0.02, 0.15, 0.5]))
@example(np.random.default_rng(0), (5, 5, 5), 65535, 0.2)
def test_a_landscape_of_16_bits_is_flooded_like_one_of_8(rng, shape, top, density):
    assert agrees(*case(rng, shape, top, density, "u2"))


@settings(deadline=None, max_examples=5)
@given(RNGS)
def test_queues_and_the_heap_grow_with_what_is_flooded(rng):
    landscape, seeds, mask = case(rng, (40, 50, 60), 40, 0.001)
    assert agrees(landscape, seeds, mask | True)
    landscape, seeds, mask = case(rng, (40, 50, 60), 3, 0.4)
    assert agrees(landscape, seeds, mask)


@settings(deadline=None, max_examples=15)
@given(RNGS, SHAPES)
def test_a_landscape_of_real_numbers_is_flooded_by_scikit_image_itself(rng, shape):
    _, seeds, mask = case(rng, shape, 1, 0.1)
    assert agrees(rng.random(shape, "f4"), seeds, mask)


def test_views_that_are_not_contiguous_are_flooded_as_they_are():
    landscape, seeds, mask = (array[1:-1, ::2, 3:] for array in case(np.random.default_rng(1), (9, 20, 12), 4, 0.1))
    assert agrees(landscape, seeds.view("u4"), mask)


def test_threads_may_flood_at_the_same_time():
    cases = [case(np.random.default_rng(n), (20, 20, 20), 6, 0.1) for n in range(4)]
    found = [None] * len(cases)

    def work(n):
        found[n] = flood(*cases[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(labels, watershed(*c[:2], mask=c[2])) for labels, c in zip(found, cases, strict=True))


def test_what_no_seed_reaches_and_an_empty_box_are_background():
    line = np.zeros((1, 1, 5), "u1")
    seeds, mask = np.array([[[7, 0, 0, 0, 0]]], "i4"), np.array([[[1, 1, 0, 1, 1]]], bool)
    assert flood(line, seeds, mask).tolist() == [[[7, 7, 0, 0, 0]]]
    assert flood(line[:0], seeds[:0], mask[:0]).shape == (0, 1, 5)


def test_arguments_that_cannot_be_flooded_are_refused():
    line, mask = np.zeros((1, 1, 5), "u1"), np.ones((1, 1, 5), bool)
    with pytest.raises(ValueError, match="must share one box"):
        flood(line, np.zeros((1, 1, 4), "i4"), mask)
    with pytest.raises(ValueError, match="seeds are int64"):
        flood(line, np.zeros((1, 1, 5), "i8"), mask)
    with pytest.raises(ValueError, match=r"the lowest label is -3"):
        flood(line, np.full((1, 1, 5), -3, "i4"), mask)
    huge = np.broadcast_to(np.zeros(1, "u1"), (2**12, 2**10, 2**10))
    with pytest.raises(ValueError, match="too large"):
        flood(huge, np.broadcast_to(np.zeros(1, "i4"), huge.shape), huge.view(bool))
