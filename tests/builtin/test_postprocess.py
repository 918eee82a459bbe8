"""Local steps: the same voxels whatever the block."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from mitocore.builtin.postprocess import Argmax, Median, Threshold
from mitocore.errors import WiringError
from mitocore.geometry import Roi
from mitocore.interfaces import Block
from mitocore.specs import ArraySpec, Kind

PARITY = Path(__file__).parents[3] / "shared" / "parity" / "connectomics"


def whole(step, **arrays):
    box = Roi.whole(next(iter(arrays.values())).shape[1:])
    return step.process(Block(box, box, arrays, box))


def blockwise(step, name, array, cuts):
    volume = Roi.whole(array.shape[1:])
    out = None
    edges = [[0, *sorted({c for c in cut if 0 < c < n}), n] for cut, n in zip(cuts, array.shape[1:], strict=True)]
    for z in zip(edges[0], edges[0][1:], strict=False):
        for y in zip(edges[1], edges[1][1:], strict=False):
            for x in zip(edges[2], edges[2][1:], strict=False):
                write = Roi((z[0], y[0], x[0]), (z[1], y[1], x[1]))
                read = write.grow(step.halo()).clip(volume)
                block = Block(write, read, {name: array[(slice(None), *read.slices)]}, volume)
                (values,) = step.process(block).values()
                if out is None:
                    out = np.zeros((len(values), *volume.shape), values.dtype)
                out[(slice(None), *write.slices)] = block.crop(values)
    return out


CUTS = st.tuples(*[st.lists(st.integers(1, 8), max_size=2)] * 3)


def test_the_threshold_itself_is_background():
    probability = np.array([[[[0.4, 0.5, 0.50001, 1.0]]]], "f4")
    np.testing.assert_array_equal(whole(Threshold(), probability=probability)["mask"], [[[[False, False, True, True]]]])


def test_threshold_gives_a_mask_per_channel():
    given = {"probability": ArraySpec(Kind.PROBABILITY, ("mito", "er"))}
    assert Threshold().gives(given) == {"mask": ArraySpec(Kind.MASK, ("mito", "er"))}


def test_argmax_names_its_classes_and_takes_the_first_of_equals():
    given = {"probability": ArraySpec(Kind.PROBABILITY, ("background", "mito", "er"))}
    assert Argmax().gives(given)["semantic"].classes == ("background", "mito", "er")
    probability = np.array([[[[0.2, 0.5]]], [[[0.7, 0.5]]], [[[0.1, 0.0]]]], "f4")
    result = whole(Argmax(), probability=probability)["semantic"]
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, [[[[1, 0]]]])


def test_argmax_of_one_channel_is_a_wiring_error():
    with pytest.raises(WiringError, match="mito") as caught:
        Argmax().gives({"probability": ArraySpec(Kind.PROBABILITY, ("mito",))})
    assert "threshold" in caught.value.hint


@pytest.mark.parametrize("size", [(3, 1, 1), (3, 3, 3), (1, 5, 3)])
@pytest.mark.parametrize("dtype", ["f4", "?"])
@settings(deadline=None, max_examples=15)
@given(cuts=CUTS, seed=st.integers(0, 99))
def test_the_median_does_not_depend_on_blocks(size, dtype, cuts, seed):
    values = np.random.default_rng(seed).random((2, 9, 8, 7))
    array = values > 0.5 if dtype == "?" else values.astype(dtype)
    result = blockwise(Median(size=size), "values", array, cuts)
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, whole(Median(size=size), values=array)["values"])


def test_a_point_further_than_the_halo_changes_nothing():
    step, array = Median(size=(3, 5, 1)), np.random.default_rng(0).random((1, 7, 9, 5)).astype("f4")
    before = whole(step, values=array)["values"][0, 3, 4, 2]
    for point in ((1, 4, 2), (3, 1, 2), (3, 4, 1)):
        changed = array.copy()
        changed[(0, *point)] = 9
        assert whole(step, values=changed)["values"][0, 3, 4, 2] == before


def test_the_median_keeps_what_it_is_given():
    spec = ArraySpec(Kind.PROBABILITY, ("mito",), storage="uint8")
    assert Median().gives({"values": spec}) == {"values": spec}


@pytest.mark.parametrize("size", [(2, 3, 3), (0, 1, 1), (3, 3)])
def test_a_median_of_even_size_is_refused(size):
    with pytest.raises(ValueError, match="size"):
        Median(size=size)


@pytest.mark.skipif(not PARITY.exists(), reason="needs ../shared/parity")
def test_binarised_medians_equal_those_of_pytorch_connectomics():
    prediction = np.load(PARITY / "inputs_iso.npz")["pred_uint8"][:1] / 255.0
    expected = np.load(PARITY / "median_v1_iso.npz")
    for size, threshold, name in (((3, 3, 3), 0.5, "3x3x3_t0.5"), ((1, 5, 5), 0.6, "1x5x5_t0.6")):
        mask = whole(Threshold(threshold=threshold), probability=prediction)["mask"]
        result = whole(Median(size=size), values=mask)["values"]
        np.testing.assert_array_equal(result[0], expected[f"iso_med_{name}"] > 0)


def test_the_median_is_that_of_scipy():
    array = np.random.default_rng(0).random((1, 5, 6, 7)).astype("f4")
    np.testing.assert_array_equal(whole(Median(), values=array)["values"][0], median_filter(array[0], 3))
