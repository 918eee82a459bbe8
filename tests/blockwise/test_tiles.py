"""Where tiles lie, and how a region of them is cut into strips."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.blockwise.tiles import TileLattice
from mitocore.geometry import Roi
from mitocore.specs import Blending, Window


@st.composite
def lattices(draw: st.DrawFn) -> TileLattice:
    volume, window, region = [], [], []
    for _ in range(3):
        length, output = draw(st.integers(1, 40)), draw(st.integers(1, 12))
        window.append((output, draw(st.integers(0, output - 1))))
        volume.append(length)
        low = draw(st.integers(0, length - 1))
        region.append((low, draw(st.integers(low + 1, length))))
    outputs, overlaps = zip(*window, strict=True)
    starts, stops = zip(*region, strict=True)
    return TileLattice(tuple(volume), Window(outputs, overlap=overlaps), Roi(starts, stops))


@given(lattices(), st.integers(1, 5))
@settings(deadline=None, max_examples=200)
def test_strips_share_out_the_rows_and_the_region_in_order(lattice: TileLattice, rows: int) -> None:
    bounds, height, y = lattice.bounds, lattice.stride[1] * rows, lattice.starts[1]
    strips = list(lattice.strips(rows))
    assert [row for members, _, _ in strips for row in members] == list(range(len(y)))
    assert [low for _, low, _ in strips] == [bounds.start[1] + n * height for n in range(len(strips))]
    assert [high for _, _, high in strips] == [*(low for _, low, _ in strips[1:]), bounds.stop[1]]
    for members, _, high in strips:
        assert len(members) > 0
        assert all(y[row] < high for row in members)
    early = sum(start < bounds.start[1] for start in y)
    assert all(len(members) <= rows + early for members, _, _ in strips[:-1])


@given(lattices(), st.sampled_from(["ramp", "gaussian", "bump"]))
@settings(deadline=None, max_examples=200)
def test_the_weights_of_a_region_are_the_cut_of_those_of_the_volume(lattice: TileLattice, blending: Blending) -> None:
    full, bounds = TileLattice(lattice.volume, lattice.window), lattice.bounds
    cut = full.totals(blending).over(*bounds.slices[:2])[..., bounds.slices[2]]
    totals = lattice.totals(blending).over(slice(0, bounds.shape[0]), slice(0, bounds.shape[1]))
    np.testing.assert_array_equal(totals, cut)
    assert (cut > 0).all()


@given(lattices(), st.sampled_from(["ramp", "gaussian", "bump"]))
@settings(deadline=None, max_examples=50)
def test_totals_are_the_weights_of_all_tiles_added_up(lattice: TileLattice, blending: Blending) -> None:
    reach = np.zeros([n + o for n, o in zip(lattice.volume, lattice.output, strict=True)])
    for start in product(*lattice.starts):
        reach[tuple(slice(a, a + n) for a, n in zip(start, lattice.output, strict=True))] += lattice.weight(blending)
    added = reach[lattice.bounds.slices]
    z, y, _ = lattice.bounds.shape
    np.testing.assert_allclose(lattice.totals(blending).over(slice(0, z), slice(0, y)), added, rtol=1e-5)


def test_what_the_tiles_of_a_region_see_includes_context_and_what_is_mirrored_at_a_face() -> None:
    window = Window((6, 12, 12), crop=(1, 2, 2), overlap=(1, 2, 2))
    assert TileLattice((16, 40, 40), window, Roi((5, 9, 20), (6, 14, 22))).reads == Roi((2, 4, 16), (8, 22, 28))
    assert TileLattice((16, 40, 40), window, Roi((0, 0, 39), (1, 1, 40))).reads == Roi((0, 0, 30), (5, 10, 40))
    assert TileLattice((16, 40, 40), window).reads == Roi.whole((16, 40, 40))
