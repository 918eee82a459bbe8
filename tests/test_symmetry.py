import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitocore.errors import WiringError
from mitocore.specs import Head, Kind
from mitocore.symmetry import Move, Symmetry, moves, of_the_cube, symmetries

TURN_X = Symmetry(flips=(False, False, True))
every = st.sampled_from(list(of_the_cube()))


@given(every)
def test_the_inverse_of_the_inverse_is_the_symmetry(symmetry):
    assert symmetry.inverse.inverse == symmetry


@given(every, st.tuples(*[st.integers(-5, 5)] * 3))
def test_a_vector_keeps_its_length_and_comes_back(symmetry, vector):
    turned = symmetry.back(vector)
    assert sorted(map(abs, turned)) == sorted(map(abs, vector))
    assert symmetry.inverse.back(turned) == vector


@pytest.mark.parametrize("turns", ["none", "flips", "plane", "all"])
def test_sets_of_symmetries_begin_with_the_identity_and_are_groups(turns):
    found = symmetries(turns)
    assert found[0] == Symmetry()
    assert len(set(found)) == len(found)
    assert {one.inverse for one in found} == set(found)


def test_an_affinity_turned_round_is_its_neighbours_own():
    head = Head("affinity", ("x",), kind=Kind.AFFINITY, offsets=((0, 0, 1),))
    assert moves(head, TURN_X) == (Move(0, shift=(0, 0, 1)),)


def test_affinities_of_both_directions_change_places():
    head = Head("affinity", ("+", "-"), kind=Kind.AFFINITY, offsets=((0, 0, 1), (0, 0, -1)))
    assert moves(head, TURN_X) == (Move(1), Move(0))


def test_affinities_that_have_no_counterpart_are_refused():
    head = Head("affinity", ("y", "x"), kind=Kind.AFFINITY, offsets=((0, 1, 0), (0, 0, 3)))
    assert moves(head, TURN_X)
    with pytest.raises(WiringError, match="offset"):
        moves(head, Symmetry((0, 2, 1)))


def test_embeddings_are_refused():
    with pytest.raises(WiringError, match="embedding"):
        moves(Head("e", ("a",), "none", Kind.EMBEDDING), TURN_X)


def test_descriptors_need_their_names():
    with pytest.raises(WiringError, match="channels"):
        moves(Head("d", tuple("abcdefghij"), "sigmoid", Kind.DESCRIPTOR), TURN_X)


@given(every)
def test_channels_of_probabilities_stay(symmetry):
    head = Head("semantic", ("a", "b"), "softmax")
    assert moves(head, symmetry) == (Move(0), Move(1))


def test_numbers_of_symmetries_agree_with_the_volume_they_make():
    volume = np.arange(8).reshape(2, 2, 2)
    seen = {np.flip(volume.transpose(s.axes), [a for a in range(3) if s.flips[a]]).tobytes() for s in of_the_cube()}
    assert len(seen) == 48
