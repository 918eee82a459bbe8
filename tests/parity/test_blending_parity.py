"""Weights of tiles against those recorded from PyTorch Connectomics."""

from pathlib import Path

import numpy as np
import pytest

from mitocore.blockwise.tiles import TileLattice
from mitocore.specs import Window

RECORDED = Path(__file__).parents[3] / "shared" / "parity" / "connectomics" / "blending_v1.npz"
pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason="needs ../shared/parity")

CASES = [f"{blending}_{shape}" for blending in ("gaussian", "bump") for shape in ("17x33x33", "16x24x24", "112x8x8")]


@pytest.mark.parametrize("case", CASES)
def test_tiles_are_weighted_as_in_pytorch_connectomics(case):
    blending, _, size = case.partition("_")
    shape = tuple(map(int, size.split("x")))
    expected = np.load(RECORDED, allow_pickle=False)[case]
    np.testing.assert_allclose(TileLattice(shape, Window(shape)).weight(blending), expected, rtol=1e-5)
