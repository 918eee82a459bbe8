"""The model step: tiles on a lattice, blended, each computed once."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mitocore.blockwise.tiles import TileLattice
from mitocore.errors import ContractError
from mitocore.geometry import Roi
from mitocore.learn.predict import Inference, slab_boxes, slabs
from mitocore.specs import Head, Window

HEADS = (Head("foreground", ("mito",)), Head("values", ("a", "b"), activation="none"))


class Blur(nn.Module):
    """A small non-local network: its tiles differ where they overlap."""

    def __init__(self, crop=(0, 0, 0)):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 3, 3, padding=1)
        self.crop = crop
        self.calls = 0

    def forward(self, x):
        self.calls += len(x)
        values = self.conv(x) + x.mean(dim=(2, 3, 4), keepdim=True)
        z, y, x_ = (slice(c, n - c) for c, n in zip(self.crop, values.shape[2:], strict=True))
        values = values[:, :, z, y, x_]
        return {"foreground": values[:, :1], "values": values[:, 1:]}


def run(image, window, network=None, **options):
    network = network or Blur(window.crop)
    seams = options.pop("seams", None)
    finished = options.pop("finished", 0)
    lattice = TileLattice(image.shape, window)
    found = {head.name: np.full((len(head.channels), *image.shape), np.nan, np.float32) for head in HEADS}

    def read(roi):
        assert Roi.whole(image.shape).contains(roi)
        return image[None][(slice(None), *roi.slices)]

    numbers = []
    for slab in slabs(network, HEADS, read, lattice, Inference(**options), finished=finished, seams=seams):
        numbers.append((slab.number, slab.roi))
        for name, values in slab.heads.items():
            place = found[name][(slice(None), *slab.roi.slices)]
            assert np.isnan(place).all(), "a voxel was finished twice"
            place[:] = values
    return found, numbers


def reference(image, window):
    """The same by the plain definition: every tile, summed in double precision."""
    lattice = TileLattice(image.shape, window)
    network = Blur(window.crop).eval()
    grown = [t + s for t, s in zip(lattice.tile, image.shape, strict=True)]
    mode = "reflect" if window.padding == "mirror" else "constant"
    padded = np.pad(image, [(c, g) for c, g in zip(window.crop, grown, strict=True)], mode=mode)
    sums = {head.name: np.zeros((len(head.channels), *padded.shape)) for head in HEADS}
    weights = np.zeros(padded.shape)
    ramp = lattice.ramp(0)[:, None, None] * lattice.ramp(1)[:, None] * lattice.ramp(2).astype("f8")
    for start in product(*lattice.starts):
        tile = padded[tuple(slice(a, a + n) for a, n in zip(start, lattice.tile, strict=True))]
        with torch.no_grad():
            out = network(torch.from_numpy(tile[None, None].copy()))
        here = tuple(slice(a, a + n) for a, n in zip(start, lattice.output, strict=True))
        part = tuple(slice(0, n) for n in lattice.output)
        weights[here] += ramp
        for head in HEADS:
            values = out[head.name][0].sigmoid() if head.activation == "sigmoid" else out[head.name][0]
            sums[head.name][(slice(None), *here)] += values.numpy()[(slice(None), *part)] * ramp
    inside = tuple(slice(0, n) for n in image.shape)
    return {name: total[(slice(None), *inside)] / weights[inside] for name, total in sums.items()}


@st.composite
def cases(draw):
    shape = tuple(draw(st.integers(1, 14)) for _ in range(3))
    axes = []
    for _ in range(3):
        if draw(st.booleans()) and draw(st.booleans()):
            axes.append(("all", 0, 0, draw(st.sampled_from([1, 4]))))
        else:
            crop = draw(st.integers(0, 2))
            output = draw(st.integers(1, 8))
            axes.append((output + 2 * crop, crop, draw(st.integers(0, output - 1)), 1))
    window = Window(
        *(tuple(axis[i] for axis in axes) for i in range(4)), padding=draw(st.sampled_from(["mirror", "zero"]))
    )
    image = np.random.default_rng(draw(st.integers(0, 99))).random(shape, dtype=np.float32)
    return image, window


@given(cases())
@settings(deadline=None, max_examples=60)
def test_slabs_are_the_weighted_mean_of_the_tiles_that_cover_a_voxel(case):
    image, window = case
    found, _ = run(image, window)
    for name, expected in reference(image, window).items():
        np.testing.assert_allclose(found[name], expected, atol=2e-5)


@given(cases(), st.integers(1, 3), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_strips_and_resumes_do_not_change_a_bit(tmp_path_factory, case, rows, cut):
    image, window = case
    seams = tmp_path_factory.mktemp("seams")
    whole, _ = run(image, window)
    cut_up, numbers = run(image, window, rows=rows, seams=seams)
    boxes = slab_boxes(TileLattice(image.shape, window), rows)
    assert numbers == list(enumerate(boxes))
    finished = cut % len(boxes)
    resumed, _ = run(image, window, rows=rows, seams=seams, finished=finished)
    for name, expected in whole.items():
        np.testing.assert_array_equal(cut_up[name], expected)
        for box in boxes[finished:]:
            part = (slice(None), *box.slices)
            np.testing.assert_array_equal(resumed[name][part], expected[part])


@pytest.mark.parametrize("rows", [None, 1, 2])
def test_every_tile_is_computed_once_whatever_the_strips(tmp_path, rows):
    image = np.random.default_rng(0).random((9, 20, 13), dtype=np.float32)
    window = Window((4, 8, 6), overlap=(1, 3, 2))
    network = Blur()
    run(image, window, network, rows=rows, seams=tmp_path)
    assert network.calls == len(TileLattice(image.shape, window))


def test_the_last_batch_is_padded_to_full_size():
    image = np.random.default_rng(0).random((4, 8, 20), dtype=np.float32)
    network = Blur()
    run(image, Window((4, 8, 8), overlap=(0, 0, 2)), network, batch=2)
    assert network.calls == 4  # three tiles


def test_a_missing_head_blames_the_network():
    network = nn.Identity()
    with pytest.raises(ContractError, match="foreground"):
        run(np.zeros((4, 8, 8), np.float32), Window((4, 8, 8)), network)


def test_what_strips_share_is_durable_before_the_slab_is_given_away(tmp_path, monkeypatch):
    image = np.random.default_rng(0).random((4, 20, 8), dtype=np.float32)
    lattice = TileLattice(image.shape, Window((4, 8, 8), overlap=(0, 2, 0)))
    done = []
    monkeypatch.setattr("mitocore.durable.sync_folder", lambda folder: done.append(sorted(folder.iterdir())))
    walk = slabs(
        Blur(), HEADS, lambda roi: image[None][(slice(None), *roi.slices)], lattice, Inference(rows=1), seams=tmp_path
    )
    first = next(walk)
    walk.close()
    assert first.number == 0
    assert done == [[tmp_path / "0-0.npy"]]
