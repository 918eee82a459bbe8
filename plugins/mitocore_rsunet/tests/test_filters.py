from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from mitocore import ArraySpec, Block, Kind, Roi, WiringError
from mitocore_rsunet.filters import BinaryMedian
from mitocore_rsunet.median import majority

PARITY = Path(__file__).parents[4] / "shared" / "parity" / "connectomics"
ODD = st.tuples(*[st.sampled_from([1, 3, 5, 7, 9])] * 3)
SHAPES = st.tuples(*[st.integers(1, 12)] * 3)
RNGS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(deadline=None, max_examples=40)
@given(RNGS, SHAPES, ODD, st.floats(0.2, 0.8))
def test_the_majority_is_scipys_median_even_if_the_box_is_larger_than_the_volume(rng, shape, size, density):
    mask = rng.random(shape) < density
    given_to = mask.copy()
    result = majority(given_to, size)
    assert result.dtype == np.bool_
    assert np.array_equal(result, ndimage.median_filter(mask.view("u1"), size, mode="reflect"))
    assert np.array_equal(given_to, mask)


@settings(deadline=None, max_examples=40)
@given(RNGS, SHAPES, ODD, st.data())
def test_a_block_with_its_halo_gives_what_the_volume_gives(rng, shape, size, data):
    step = BinaryMedian(threshold=0.5, size=size)
    probability = rng.random((2, *shape), "f4")
    whole = Roi.whole(shape)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    write = Roi(start, tuple(data.draw(st.integers(s + 1, n)) for s, n in zip(start, shape, strict=True)))
    read = write.grow(step.halo()).clip(whole)
    block = Block(write, read, {"mask": probability[(..., *read.slices)]}, whole)
    expected = [ndimage.median_filter((channel > 0.5).view("u1"), size, mode="reflect") for channel in probability]
    assert np.array_equal(block.crop(step.process(block)["mask"]), np.stack(expected)[(..., *write.slices)])


def test_boxes_of_more_than_65535_voxels_are_counted_without_overflow():
    mask = np.ones((3, 3, 3), bool)
    assert majority(mask, (41, 41, 41)).all()


@pytest.mark.skipif(not PARITY.exists(), reason="needs ../shared/parity")
@pytest.mark.parametrize(
    ("size", "threshold"), [((7, 7, 7), 0.8), ((3, 3, 3), 0.5), ((1, 5, 5), 0.6), ((7, 7, 7), 0.4)]
)
def test_it_is_the_peers_binarise_and_median(size, threshold):
    probability = np.load(PARITY / "inputs_iso.npz")["pred_uint8"][:1] / 255.0
    expected = np.load(PARITY / "median_v1_iso.npz")[f"iso_med_{'x'.join(map(str, size))}_t{threshold:g}"]
    whole = Roi.whole(expected.shape)
    step = BinaryMedian(thres=threshold, size=list(size))
    assert np.array_equal(step.process(Block(whole, whole, {"mask": probability}, whole))["mask"][0], expected)


def test_an_even_box_is_refused():
    with pytest.raises(ValidationError, match=r"\[4, 7, 7\] are not three odd numbers"):
        BinaryMedian(size=(4, 7, 7))


def test_a_threshold_for_a_mask_is_refused_and_without_one_its_voxels_are_counted():
    with pytest.raises(WiringError, match=r"threshold = 0\.6 does not apply to a mask"):
        BinaryMedian(threshold=0.6).gives({"mask": ArraySpec(Kind.MASK)})
    mask = np.array([[[[1, 0, 1, 1]]]], bool)
    whole = Roi.whole(mask.shape[1:])
    step = BinaryMedian(size=(1, 1, 3))
    assert step.gives({"mask": ArraySpec(Kind.MASK)})["mask"].kind == Kind.MASK
    assert step.process(Block(whole, whole, {"mask": mask}, whole))["mask"].all()
