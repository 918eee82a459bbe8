"""Probabilities of a file are handed on as they are, or refused with the worst of them and where it lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mitocore.blockwise.arrays import Opened
from mitocore.blockwise.probabilities import ROUNDING, Probabilities
from mitocore.errors import DataError
from mitocore.geometry import Roi
from mitocore.specs import Kind
from mitocore.volumes import ArrayVolume

SHAPE = (2, 4, 5, 6)
VALUES = st.floats(0, 1, width=32) | st.sampled_from([-ROUNDING / 2, 1 + ROUNDING / 2])
WRONG = st.sampled_from([np.nan, np.inf, -np.inf, -0.5, 1.002, 200])


@settings(deadline=None, max_examples=60)
@given(
    arrays("f4", SHAPE, elements=VALUES.map(np.float32)),
    st.lists(st.tuples(WRONG, *(st.integers(0, n - 1) for n in SHAPE)), max_size=3),
    st.sampled_from([Kind.PROBABILITY, Kind.AFFINITY]),
)
def test_a_block_is_refused_just_when_a_value_is_no_probability(values, wrong, kind):
    for value, *place in wrong:
        values[tuple(place)] = value
    roi = Roi((1, 0, 2), (4, 5, 5))
    given = values[:, *roi.slices]
    source = Probabilities(Opened(ArrayVolume(values, kind=kind), kind), "p.npy")
    if (np.isfinite(given) & (given >= -ROUNDING) & (given <= 1 + ROUNDING)).all():
        np.testing.assert_array_equal(source.read(roi), np.clip(given, 0, 1))
    else:
        with pytest.raises(DataError):
            source.read(roi)


def test_the_worst_value_is_told_with_its_place_in_the_volume():
    values = np.full(SHAPE, 0.5, "f4")
    values[1, 3, 4, 2], values[0, 1, 1, 3] = -7, 2
    source = Probabilities(Opened(ArrayVolume(values), Kind.PROBABILITY), "p.npy")
    with pytest.raises(DataError, match=r"probability -7 at voxel \(3, 4, 2\) of channel 1") as refused:
        source.read(Roi((1, 0, 2), (4, 5, 5)))
    assert refused.value.where == "p.npy, box 1:4,0:5,2:5"
    assert source.read(Roi((0, 0, 0), (1, 5, 6))).shape == (2, 1, 5, 6)


def test_every_level_of_uint8_is_a_probability():
    levels = np.arange(240, dtype="u1").reshape(4, 6, 10)
    whole = Roi.whole(levels.shape)
    found = Probabilities(Opened(ArrayVolume(levels), Kind.PROBABILITY), "p.npy").read(whole)
    np.testing.assert_array_equal(found[0], levels / np.float32(255))
