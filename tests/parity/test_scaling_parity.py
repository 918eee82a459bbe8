"""Scaled outputs, window positions and tiles against recorded outputs of PyTorch Connectomics."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mitocore.blockwise.arrays import Opened
from mitocore.blockwise.grid import starts
from mitocore.blockwise.tiles import TileLattice
from mitocore.builtin.normalizers import DtypeRange, MinMax
from mitocore.geometry import Roi, as_shape
from mitocore.resampling import Resampling
from mitocore.scaling import Rescaled
from mitocore.specs import VolumeSpec, Window
from mitocore.volumes import ArrayVolume

SHARED = Path(__file__).parents[3] / "shared" / "parity" / "connectomics"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the recorded outputs are not on this machine")


def expected(name):
    return json.loads((SHARED / name).read_text())


@pytest.mark.parametrize(
    ("case", "unscaled", "factors"),
    [
        ("bconn_scale_half", "bconn_t05_background", (1, 0.5, 0.5)),
        ("bconn_scale_up", "bconn_t05_background", (2, 1, 1)),
    ],
)
def test_ids_at_another_resolution_are_those_of_the_voxels_the_peer_takes(case, unscaled, factors):
    with np.load(SHARED / "decode_v1_iso.npz") as arrays:
        ids, wanted = arrays[unscaled], arrays[case]
    whole = Roi.whole(as_shape(ids.shape))
    source = Rescaled(Opened(ArrayVolume(ids)), Resampling.by(whole.shape, factors), whole, labels=True)
    assert source.box.stop == wanted.shape
    np.testing.assert_array_equal(source.read(source.box)[0], wanted)


def test_windows_lie_where_those_of_the_peer_lie():
    for case in expected("tiling_expected.json")["window_positions"]:
        overlap = [w - s for w, s in zip(case["window"], case["stride"], strict=True)]
        axes = map(starts, case["volume"], case["window"], overlap)
        assert [[0, *place] for place in product(*axes)] == case["positions"]
        lattice = TileLattice(as_shape(case["volume"]), Window(tuple(case["window"]), overlap=as_shape(overlap)))
        assert len(lattice) == case["n"]


def test_what_lies_beyond_a_face_is_reflected_as_by_the_peer():
    with np.load(SHARED / "tile2volume_v1.npz") as arrays:
        for number in range(4):
            coord, wanted = arrays[f"coord_{number}"], arrays[f"out_{number}"]
            shape = as_shape(coord[1::2] - coord[::2])
            volume = ArrayVolume(arrays["full"])
            lattice = TileLattice(volume.spec.shape, Window((1, 1, 1)))
            found = lattice.read(lambda roi, opened=volume: opened.read(roi), as_shape(coord[::2]), shape)
            np.testing.assert_array_equal(found[0], wanted)


def test_intensities_are_normalised_as_by_the_peer():
    with np.load(SHARED / "normalize_v1.npz") as arrays:
        raw, ranged, wanted = arrays["inp"], arrays["normalize_range"], arrays["normalize_image"]
    spec = VolumeSpec(as_shape(ranged.shape), "uint8")
    normalizer = DtypeRange(mean=0.5, std=0.5)
    found = normalizer.apply(ranged[None], normalizer.fit([ranged[None]], spec))
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)
    limits = MinMax()  # the same without the step to 8 bits
    found = limits.apply(raw[None], limits.fit([raw[None]], VolumeSpec(as_shape(raw.shape), "uint16")))
    np.testing.assert_allclose(found[0], wanted, atol=2.1 / 255)
