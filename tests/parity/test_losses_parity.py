"""Losses and weights beside those of PyTorch Connectomics v1, Catena and empanada.

Where a value differs on purpose, the peer's is wrong or depends on what should not count:

- Sums over channels are means by default (`channels = "sum"` restores them), and means divide by the sum of weights, or
  by the voxels that count (`mean = "voxels"`), never by voxels that are ignored.
- Dice counts weights; PyTorch Connectomics' ignores them, even where labels are unknown.
- The regulariser between foreground and contour pads by the nearest voxel: with zeros, as the peer, objects cut by the
  crop have a contour at its faces.
- Foreground hidden by the mask does not grow into its surroundings under `balance = "crop_grown"`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mitocore.builtin.losses.balance import balanced
from mitocore.builtin.losses.entropy import BCE, Focal, TopKCrossEntropy
from mitocore.builtin.losses.overlap import Dice, WeightedSoftDice
from mitocore.builtin.losses.points import PointRend
from mitocore.builtin.losses.regression import MAE, MSE
from mitocore.builtin.losses.sums import DiceCE

PARITY = Path(__file__).parents[3] / "shared" / "parity"
CONNECTOMICS, EMPANADA = PARITY / "connectomics", PARITY / "empanada"
pytestmark = pytest.mark.skipif(not PARITY.exists(), reason="needs ../shared/parity")

ROWS = {
    "DiceLoss(sigmoid)": (Dice(smooth=100, batch=False), "none"),
    "WeightedBCEWithLogitsLoss(no mask)": (BCE(), "none"),
    "WeightedBCEWithLogitsLoss(mask)": (BCE(mean="voxels"), "mask"),
    "WeightedMSE(tanh,mask)": (MSE(activation="tanh", channels="sum", mean="voxels"), "mask"),
    "WeightedMSE(tanh)": (MSE(activation="tanh", channels="sum"), "none"),
    "WeightedBCEFocalLoss(mask)": (Focal(gamma=2, alpha=0.75, mean="voxels"), "mask"),
    "WSDiceLoss(sigmoid)": (WeightedSoftDice(), "none"),
    "catena DiceLoss": (Dice(), "none"),
    "catena DiceCE(loss_weights=5.0)": (DiceCE(pos_weight=5), "none"),
}


@pytest.fixture(scope="module")
def connectomics():
    data = np.load(CONNECTOMICS / "losses_inputs.npz")
    expected = json.loads((CONNECTOMICS / "losses_expected.json").read_text("utf-8"))
    return {name: torch.tensor(data[name]) for name in data}, expected


@pytest.mark.parametrize("name", ROWS)
def test_losses_equal_those_of_pytorch_connectomics_and_catena(name, connectomics):
    data, expected = connectomics
    loss, weighed = ROWS[name]
    weight = data["weight"] if weighed == "mask" else torch.ones_like(data["weight"])
    target = 2 * data["target"] - 1 if "MSE" in name else data["target"]
    found = loss.build()(data["logit"], target=target, weight=weight)
    assert float(found) == pytest.approx(expected[name], rel=1e-5)


def test_every_row_of_the_losses_has_a_counterpart(connectomics):
    _, expected = connectomics
    assert {name for name in expected if not name.startswith("update_name")} == set(ROWS)


@pytest.mark.parametrize(
    ("target", "balance", "masked", "wanted"),
    [
        ("t_0", "crop", False, "w_fg_1"),
        ("t_0", "crop", True, "w_fg_1_mask"),
        ("t_0", "none", True, "w_fg_0_mask"),
        ("t_4-1-1", "crop", False, "w_ct_1"),
        ("t_4-1-1", "crop_grown", False, "w_ct_1-1"),
        ("t_2", "crop", False, "w_aff_1"),
    ],
)
def test_balance_gives_the_weights_of_pytorch_connectomics(target, balance, masked, wanted):
    data = np.load(CONNECTOMICS / "targets_v1_iso.npz")
    truth = torch.tensor(data[target])[None]
    weight = torch.ones((1, 1, *truth.shape[2:]))
    if masked:
        weight[:, :, :, :20] = 0  # rows along y
    found = balanced(truth, weight, balance)
    np.testing.assert_allclose(found[0].numpy(), data[wanted], rtol=1e-5)


class Empanada:
    """Inputs of the loss units of one set, as our losses take them: planes of one slice, axes in the order z, y, x."""

    def __init__(self, kind):
        data = np.load(EMPANADA / "units.npz")
        self.data, self.several = data, kind == "m"
        self.logits = self.volume("lossm_out_sem_logits" if self.several else "lossb_out_sem_logits")
        points = data["lossm_out_sem_points" if self.several else "lossb_out_sem_points"]
        self.points = torch.tensor(points)[:, :, None, None]
        # the peer's places are x, y
        places = data["lossb_out_point_coords"].transpose(0, 2, 1)[:, ::-1]
        self.places = torch.tensor(places.copy())[:, :, None, None]
        truth = torch.tensor(data["lossm_tgt_sem" if self.several else "lossb_tgt_sem"])
        self.foreground = (truth > 0).float()[:, None, None]
        one_hot = torch.nn.functional.one_hot(truth.long(), 3).permute(0, 3, 1, 2).float()
        self.target = (one_hot if self.several else truth.float()[:, None])[:, :, None]
        self.ones = torch.ones_like(self.target[:, :1])
        self.activation = "softmax" if self.several else "sigmoid"

    def volume(self, name):
        return torch.tensor(self.data[name])[:, :, None]


@pytest.mark.parametrize("kind", ["b", "m"])
def test_the_panoptic_loss_is_the_sum_of_four_objectives(kind):
    unit = Empanada(kind)
    expected = json.loads((EMPANADA / "units.json").read_text("utf-8"))[{"b": "loss_binary", "m": "loss_multi"}[kind]]
    ce = TopKCrossEntropy(activation=unit.activation, share=0.2).build()
    found = {"ce": ce(unit.logits, target=unit.target, weight=unit.ones)}
    heat, wanted = unit.volume("lossb_out_ctr_hmp"), unit.volume("lossb_tgt_ctr_hmp")
    found["mse"] = MSE().build()(heat, target=wanted, weight=unit.ones)
    offsets, truth = unit.volume("lossb_out_offsets"), unit.volume("lossb_tgt_offsets")
    inside = unit.foreground  # offsets count inside objects only: weight_map = "foreground"
    found["l1"] = MAE(channels="sum").build()(offsets, target=truth, weight=inside)
    points = PointRend(activation=unit.activation).build()
    found["pointrend_ce"] = points(unit.points, unit.places, target=unit.target, weight=unit.ones)
    for name, value in found.items():
        assert float(value) == pytest.approx(expected[name], rel=1e-5), name
    factors = {"ce": 1, "mse": 200, "l1": 0.01, "pointrend_ce": 1}
    total = sum(factors[name] * float(value) for name, value in found.items())
    assert total == pytest.approx(expected["total_loss"], rel=1e-5)


def test_the_boundary_contour_loss_is_the_sum_of_two_objectives():
    unit = Empanada("b")
    expected = json.loads((EMPANADA / "units.json").read_text("utf-8"))["loss_bc"]
    worst = TopKCrossEntropy(share=0.15).build()
    semantic = worst(unit.logits, target=unit.target, weight=unit.ones)
    contour = torch.tensor(unit.data["lossbc_cnt"])[:, None, None]
    boundary = worst(unit.volume("lossbc_cnt_logits"), target=contour, weight=unit.ones)
    assert float(semantic) == pytest.approx(expected["sem_ce"], rel=1e-5)
    assert float(boundary) == pytest.approx(expected["cnt_ce"], rel=1e-5)
    assert float(semantic + boundary) == pytest.approx(expected["total_loss"], rel=1e-5)
