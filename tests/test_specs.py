"""What arrays hold in memory and on disk, and which windows there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitocore.errors import WiringError
from mitocore.specs import ArraySpec, Kind, Window

sizes = st.integers(1, 40)


@pytest.mark.parametrize(
    ("kind", "memory", "disk"),
    [
        (Kind.MASK, "bool", "bool"),
        (Kind.SEMANTIC, "uint16", "uint16"),
        (Kind.INSTANCE, "uint64", "uint64"),
        (Kind.PROBABILITY, "float32", "float16"),
        (Kind.AFFINITY, "float32", "float16"),
        (Kind.EMBEDDING, "float32", "float16"),
        (Kind.OFFSET, "float32", "float16"),
        (Kind.DISTANCE, "float32", "float32"),
        (Kind.IMAGE, "float32", "float32"),
    ],
)
def test_each_kind_has_a_dtype_in_memory_and_one_on_disk(kind, memory, disk):
    assert (ArraySpec(kind).dtype, ArraySpec(kind).stored) == (memory, disk)


@pytest.mark.parametrize("storage", ["float32", "float16", "uint8"])
def test_storage_is_a_choice_for_probabilities_and_affinities_alone(storage):
    assert ArraySpec(Kind.PROBABILITY, storage=storage).stored == storage
    assert ArraySpec(Kind.AFFINITY, storage=storage).stored == storage
    for kind in set(Kind) - {Kind.PROBABILITY, Kind.AFFINITY}:
        with pytest.raises(WiringError, match=f"storage = '{storage}' does not apply to {kind}"):
            ArraySpec(kind, storage=storage)


@given(st.tuples(sizes, sizes, sizes), st.tuples(sizes, sizes, sizes))
def test_an_axis_of_all_is_the_whole_axis_padded_to_a_multiple_of_the_divisor(volume, divisor):
    window = Window(("all", "all", "all"), divisor=divisor)
    assert window.output(volume) == volume
    for tile, n, d in zip(window.tile(volume), volume, divisor, strict=True):
        assert tile % d == 0
        assert n <= tile < n + d


@given(st.tuples(sizes, sizes, sizes), st.data())
def test_a_window_is_accepted_if_and_only_if_its_neighbours_move_on(shape, data):
    crop = tuple(data.draw(st.integers(0, 20)) for _ in range(3))
    overlap = tuple(data.draw(st.integers(0, 20)) for _ in range(3))
    fits = all(v < n - 2 * c for n, c, v in zip(shape, crop, overlap, strict=True))
    if not fits:
        with pytest.raises(ValueError, match="too large"):
            Window(shape, crop, overlap)
        return
    window = Window(shape, crop, overlap)
    assert window.tile((100, 100, 100)) == shape
    assert all(o > v for o, v in zip(window.output((1, 1, 1)), overlap, strict=True))


def test_a_window_that_the_divisor_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="window axis of 30: not a multiple of 8"):
        Window((8, 30, 32), divisor=(1, 8, 8))


@pytest.mark.parametrize("options", [{"crop": (1, 0, 0)}, {"overlap": (1, 0, 0)}])
def test_an_axis_of_all_has_neither_crop_nor_overlap(options):
    with pytest.raises(ValueError, match='"all" has neither crop nor overlap'):
        Window(("all", 8, 8), **options)


def test_a_negative_overlap_is_refused():
    with pytest.raises(ValueError, match="overlap -1"):
        Window((8, 8, 8), overlap=(-1, 0, 0))


def test_a_negative_crop_is_refused():
    with pytest.raises(ValueError, match="crop"):
        Window((8, 8, 8), crop=(-1, 0, 0))


@pytest.mark.parametrize("shape", [(0, 8, 8), (-4, 8, 8)])
def test_a_window_without_voxels_is_refused(shape):
    with pytest.raises(ValueError, match="window axis"):
        Window(shape)


@pytest.mark.parametrize(
    ("window", "planar"),
    [
        (Window((1, 64, 64)), True),
        (Window((1, "all", "all")), True),
        (Window((5, 64, 64), crop=(2, 0, 0)), True),
        (Window((8, 64, 64)), False),
        (Window(("all", 64, 64)), False),
    ],
)
def test_a_window_is_planar_if_one_plane_goes_out(window, planar):
    assert window.planar is planar
