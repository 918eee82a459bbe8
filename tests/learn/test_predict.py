"""The model step: tiles on a lattice, blended, each computed once."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mitocore.blockwise.tiles import TileLattice
from mitocore.errors import ContractError
from mitocore.geometry import Roi
from mitocore.learn.predict import Inference, forget_seam, precision_of, rows_within, slab_boxes, slabs
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
    lattice = TileLattice(image.shape, window, options.pop("region", None))
    wanted = options.pop("wanted", Roi.whole(image.shape))
    found = {head.name: np.full((len(head.channels), *image.shape), np.nan, np.float32) for head in HEADS}

    def read(roi):
        assert wanted.contains(roi)
        assert lattice.reads.contains(roi)
        read_boxes.append(roi)
        return image[None][(slice(None), *roi.slices)]

    numbers, read_boxes = [], []
    for slab in slabs(network, HEADS, read, lattice, Inference(**options), finished=finished, seams=seams):
        numbers.append((slab.number, slab.roi))
        for name, values in slab.heads.items():
            place = found[name][(slice(None), *slab.roi.slices)]
            assert np.isnan(place).all(), "a voxel was finished twice"
            place[:] = values
    if not finished:
        ends = [[getattr(box, end) for box in read_boxes] for end in ("start", "stop")]
        assert lattice.reads == Roi(tuple(np.min(ends[0], axis=0)), tuple(np.max(ends[1], axis=0)))
    return found, numbers


def reference(image, window, blending="ramp"):
    """The same by the plain definition: every tile, summed in double precision."""
    lattice = TileLattice(image.shape, window)
    network = Blur(window.crop).eval()
    grown = [t + s for t, s in zip(lattice.tile, image.shape, strict=True)]
    mode = "reflect" if window.padding == "mirror" else "constant"
    padded = np.pad(image, [(c, g) for c, g in zip(window.crop, grown, strict=True)], mode=mode)
    sums = {head.name: np.zeros((len(head.channels), *padded.shape)) for head in HEADS}
    weights = np.zeros(padded.shape)
    weight = lattice.weight(blending).astype("f8")
    for start in product(*lattice.starts):
        tile = padded[tuple(slice(a, a + n) for a, n in zip(start, lattice.tile, strict=True))]
        with torch.no_grad():
            out = network(torch.from_numpy(tile[None, None].copy()))
        here = tuple(slice(a, a + n) for a, n in zip(start, lattice.output, strict=True))
        part = tuple(slice(0, n) for n in lattice.output)
        weights[here] += weight
        for head in HEADS:
            values = out[head.name][0].sigmoid() if head.activation == "sigmoid" else out[head.name][0]
            sums[head.name][(slice(None), *here)] += values.numpy()[(slice(None), *part)] * weight
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


@given(cases(), st.sampled_from(["ramp", "gaussian", "bump"]))
@settings(deadline=None, max_examples=40)
def test_slabs_are_the_weighted_mean_of_the_tiles_that_cover_a_voxel(case, blending):
    image, window = case
    found, _ = run(image, window, blending=blending)
    for name, expected in reference(image, window, blending).items():
        np.testing.assert_allclose(found[name], expected, atol=2e-5)


@given(cases(), st.integers(1, 3), st.integers(0, 100))
@settings(deadline=None, max_examples=25)
def test_strips_and_resumes_do_not_change_a_bit(tmp_path_factory, case, rows, cut):
    image, window = case
    seams = tmp_path_factory.mktemp("seams")
    blending = "bump" if cut % 2 else "ramp"
    whole, _ = run(image, window, blending=blending)
    cut_up, numbers = run(image, window, blending=blending, rows=rows, seams=seams)
    boxes = slab_boxes(TileLattice(image.shape, window), rows)
    assert numbers == list(enumerate(boxes))
    finished = cut % len(boxes)
    resumed, _ = run(image, window, blending=blending, rows=rows, seams=seams, finished=finished)
    for name, expected in whole.items():
        np.testing.assert_array_equal(cut_up[name], expected)
        for box in boxes[finished:]:
            part = (slice(None), *box.slices)
            np.testing.assert_array_equal(resumed[name][part], expected[part])


@st.composite
def regions(draw, shape):
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    return Roi(*(tuple(end[i] for end in ends) for i in range(2)))


@given(st.data(), cases(), st.sampled_from([None, 1, 2]), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_a_region_is_the_cut_of_the_full_run_bit_for_bit(tmp_path_factory, data, case, rows, cut):
    image, window = case
    region = data.draw(regions(image.shape))
    whole, _ = run(image, window)
    lattice = TileLattice(image.shape, window, region)
    boxes, seams = slab_boxes(lattice, rows), tmp_path_factory.mktemp("seams")
    network = Blur(window.crop)
    found, numbers = run(image, window, network, region=region, rows=rows, seams=seams)
    assert numbers == list(enumerate(boxes))
    assert network.calls == len(lattice)
    assert sum(box.voxels for box in boxes) == region.voxels
    finished = cut % len(boxes)
    resumed, _ = run(image, window, region=region, rows=rows, seams=seams, finished=finished)
    for name, expected in whole.items():
        np.testing.assert_array_equal(
            found[name][(slice(None), *region.slices)], expected[(slice(None), *region.slices)]
        )
        assert np.isfinite(found[name]).sum() == len(found[name]) * region.voxels
        for box in boxes[finished:]:
            part = (slice(None), *box.slices)
            np.testing.assert_array_equal(resumed[name][part], expected[part])


@given(st.data(), cases())
@settings(deadline=None, max_examples=60)
def test_the_tiles_of_a_region_are_those_of_the_volume_whose_outputs_meet_it(data, case):
    image, window = case
    region = data.draw(regions(image.shape))
    part, full = TileLattice(image.shape, window, region), TileLattice(image.shape, window)
    meeting = [
        start
        for start in product(*full.starts)
        if all(
            a < high and a + n > low
            for a, n, low, high in zip(start, full.output, region.start, region.stop, strict=True)
        )
    ]
    assert list(product(*part.starts)) == meeting
    assert len(part) == len(meeting)


def test_only_the_voxels_that_the_tiles_of_a_region_need_are_read():
    image = np.random.default_rng(0).random((16, 40, 40), dtype=np.float32)
    window, region = Window((6, 12, 12), crop=(1, 2, 2), overlap=(1, 2, 2)), Roi((5, 9, 20), (6, 14, 22))
    assert TileLattice(image.shape, window, region).starts == ((3,), (6, 12), (18,))
    run(image, window, region=region, wanted=Roi((2, 4, 16), (8, 22, 28)))


def test_a_whole_section_is_computed_and_cut_where_an_axis_is_all():
    image = np.random.default_rng(0).random((8, 20, 20), dtype=np.float32)
    window, region, network = Window((1, "all", "all")), Roi((3, 5, 6), (5, 9, 8)), Blur()
    run(image, window, network, region=region, wanted=Roi((3, 0, 0), (5, 20, 20)))
    assert network.calls == 2


def test_the_tiles_of_a_region_in_batches_have_the_values_of_the_full_run_to_the_last_bits():
    """Another tile beside it in the batch may change the last bit of a tile in float32: how a CPU cuts up the work of
    a convolution is not promised. One tile at a time, and settled values away from a threshold, are the same."""
    image = np.random.default_rng(0).random((9, 20, 26), dtype=np.float32)
    window, region = Window((4, 8, 8), overlap=(1, 3, 2)), Roi((2, 7, 3), (8, 15, 19))
    whole, _ = run(image, window, batch=3)
    found, _ = run(image, window, batch=3, region=region)
    for name, expected in whole.items():
        part = (slice(None), *region.slices)
        np.testing.assert_allclose(found[name][part], expected[part], rtol=1e-5, atol=1e-6)


def test_memory_for_sums_is_that_of_the_region_not_of_the_volume():
    window = Window((16, 64, 64), overlap=(4, 16, 16))
    small = TileLattice((160, 640, 640), window)
    region = Roi((70, 300, 300), (80, 400, 400))
    large = TileLattice((10**6, 10**6, 10**6), window, Roi((70, 300, 300), (80, 400, 400)))
    row = 2 * 3 * 10 * 64 * 100 * 4
    for memory in (1, 4 * row, 10**9):
        rows = rows_within(large, 3, memory)
        assert rows == rows_within(TileLattice(small.volume, window, region), 3, memory)
        most = max(len(members) for members, _, _ in large.strips(rows))
        assert most * row <= max(memory, 3 * row)  # two rows of tiles start above the region and belong to its first
    assert rows_within(small, 3, 4 * row) == 1


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


def test_what_a_strip_got_from_the_one_before_is_removed_once_it_is_used(tmp_path):
    image = np.random.default_rng(0).random((8, 20, 8), dtype=np.float32)
    lattice = TileLattice(image.shape, Window((4, 8, 8), overlap=(0, 2, 0)), Roi((1, 0, 0), (8, 20, 8)))
    read = lambda roi: image[None][(slice(None), *roi.slices)]  # noqa: E731 - one line, used once
    left = []
    for slab in slabs(Blur(), HEADS, read, lattice, Inference(rows=1), seams=tmp_path):
        forget_seam(tmp_path, lattice, slab.number)
        left.append(sorted(path.stem for path in tmp_path.iterdir()))
    assert left == [["0-0"], ["0-0", "0-1"], ["0-1", "1-0"], ["1-0", "1-1"], ["1-1"], []]


def test_a_region_of_a_volume_that_fits_no_memory_is_computed():
    def read(roi):
        return np.random.default_rng(roi.start).random((1, *roi.shape), dtype=np.float32)

    region = Roi((50_000, 40_000, 30_000), (50_010, 40_020, 30_007))
    lattice = TileLattice((10**5, 10**5, 10**5), Window((4, 8, 8), overlap=(1, 3, 2)), region)
    found = list(slabs(Blur(), HEADS, read, lattice, Inference()))
    assert [slab.roi for slab in found] == slab_boxes(lattice)
    assert all(np.isfinite(values).all() for slab in found for values in slab.heads.values())


@pytest.mark.parametrize(("has", "expected"), [((), "float32"), (("amx_tile",), "bf16"), (("avx512_bf16",), "bf16")])
def test_a_cpu_computes_in_bf16_only_if_its_instructions_do(has, expected, monkeypatch):
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in has, raising=False)
    assert precision_of("auto", "cpu") == expected
    assert precision_of("float32", "cpu") == "float32"
    assert precision_of("bf16", "cpu") == "bf16"


@pytest.mark.parametrize(("major", "expected"), [(7, "float32"), (8, "bf16"), (9, "bf16")])
def test_a_gpu_that_only_emulates_bf16_computes_in_float32(major, expected, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    assert precision_of("auto", "cuda:0") == expected
