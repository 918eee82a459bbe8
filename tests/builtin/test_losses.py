"""Losses against plain formulas; voxels of weight 0 have no say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mitocore.builtin.losses import BCE, Dice, DiceCE
from mitocore.errors import WiringError
from mitocore.specs import ArraySpec, Head, Kind

PARITY = Path(__file__).parents[3] / "shared" / "parity" / "connectomics"
ALL = [BCE(), BCE(pos_weight=5), Dice(), Dice(batch=False), DiceCE(pos_weight=3)]
each = pytest.mark.parametrize("loss", ALL, ids=repr)
HEAD, TARGET = Head("foreground", ("mito",)), ArraySpec(Kind.PROBABILITY, ("foreground",))


def example(channels=1, seed=0):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 2, (2, channels, 3, 4, 5)), dtype=torch.float32)
    target = torch.tensor(rng.random(logits.shape) < 0.3, dtype=torch.float32)
    weight = torch.tensor(rng.random((2, 1, 3, 4, 5)) < 0.8, dtype=torch.float32)
    return logits, target, weight


def value(loss, logits, target, weight):
    result = loss.build()(logits, target=target, weight=weight)
    assert result.shape == ()
    return result


def plain_bce(logits, target, weight, pos_weight=1.0):
    total = mass = 0.0
    for (n, c, *at), x in np.ndenumerate(logits.double().numpy()):
        w, t = float(weight[(n, 0, *at)]), float(target[(n, c, *at)])
        total += w * (pos_weight * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x))
        mass += w
    return total / mass


def plain_dice(logits, target, weight, smooth=1.0):
    scores = []
    for c in range(logits.shape[1]):
        both = sums = 0.0
        for (n, *at), x in np.ndenumerate(logits[:, c].double().numpy()):
            p, t, w = 1 / (1 + np.exp(-x)), float(target[(n, c, *at)]), float(weight[(n, 0, *at)])
            both, sums = both + w * p * t, sums + w * (p + t)
        scores.append(1 - (2 * both + smooth) / (sums + smooth))
    return np.mean(scores)


@pytest.mark.parametrize("channels", [1, 2])
def test_bce_is_the_weighted_mean_of_its_definition(channels):
    logits, target, weight = example(channels)
    for soft in (weight, weight * torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))):
        assert float(value(BCE(), logits, target, soft)) == pytest.approx(plain_bce(logits, target, soft), rel=1e-5)
        got = float(value(BCE(pos_weight=5), logits, target, soft))
        assert got == pytest.approx(plain_bce(logits, target, soft, 5), rel=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_dice_is_its_definition_also_with_soft_weights(channels):
    logits, target, weight = example(channels)
    for soft in (weight, weight * torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))):
        assert float(value(Dice(), logits, target, soft)) == pytest.approx(plain_dice(logits, target, soft), rel=1e-5)


def test_dice_ce_is_the_sum_of_both():
    data = example()
    both = float(value(DiceCE(pos_weight=3), *data))
    assert both == pytest.approx(float(value(BCE(pos_weight=3), *data)) + float(value(Dice(), *data)))


def test_dice_per_crop_is_the_mean_over_crops():
    logits, target, weight = example()
    crops = [plain_dice(logits[i : i + 1], target[i : i + 1], weight[i : i + 1]) for i in range(2)]
    assert float(value(Dice(batch=False), logits, target, weight)) == pytest.approx(np.mean(crops), rel=1e-5)


@each
def test_voxels_of_weight_zero_change_neither_value_nor_gradient(loss):
    logits, target, weight = example(2)
    results = []
    for noise in (0.0, 1.0):
        hidden = (weight == 0).expand_as(logits)
        x = torch.where(hidden, logits + 30 * noise, logits).requires_grad_()
        t = torch.where(hidden, (target + noise) % 2, target)
        result = value(loss, x, t, weight)
        result.backward()
        assert not x.grad[hidden].any()
        results.append((result.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@each
def test_nothing_that_counts_is_no_loss(loss):
    logits, target, weight = example()
    logits.requires_grad_()
    result = value(loss, logits, target, weight * 0)
    result.backward()
    assert float(result.detach()) == pytest.approx(0)
    assert not logits.grad.any()


@each
def test_perfect_is_better_than_random_and_the_order_of_the_batch_does_not_matter(loss):
    logits, target, weight = example()
    random = float(value(loss, logits, target, weight))
    assert 0 <= float(value(loss, (target * 2 - 1) * 20, target, weight)) < 1e-3 < random
    assert float(value(loss, logits.flip(0), target.flip(0), weight.flip(0))) == pytest.approx(random, rel=1e-6)


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_stay_finite(loss, dtype):
    _, target, weight = example()
    logits = ((target * 2 - 1) * -60000).to(dtype).requires_grad_()
    result = value(loss, logits, target, weight)
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(logits.grad).all()


@each
def test_a_crop_without_foreground_has_a_gradient(loss):
    logits, target, weight = example()
    logits.requires_grad_()
    value(loss, logits, target * 0, weight).backward()
    assert (logits.grad[weight.bool()] > 0).all()


@each
@pytest.mark.parametrize(
    ("heads", "target", "said"),
    [
        ([HEAD, HEAD], TARGET, "one head, not 2"),
        ([HEAD], None, "no target"),
        ([HEAD], ArraySpec(Kind.DISTANCE), "kind distance"),
        ([Head("d", ("",), "none", Kind.DISTANCE)], TARGET, "distance"),
        ([Head("s", ("a", "b"), "softmax")], TARGET, "softmax"),
        ([Head("s", ("a", "b"))], TARGET, "2 and 1 channels"),
    ],
)
def test_pairs_that_do_not_fit_are_wiring_errors(loss, heads, target, said):
    loss.accepts([HEAD], TARGET)
    with pytest.raises(WiringError, match=said) as caught:
        loss.accepts(heads, target)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.skipif(not PARITY.exists(), reason="needs ../shared/parity")
def test_values_equal_those_of_catena_and_pytorch_connectomics():
    data = np.load(PARITY / "losses_inputs.npz")
    logits, target, weight = (torch.tensor(data[name]) for name in ("logit", "target", "weight"))
    expected = json.loads((PARITY / "losses_expected.json").read_text())
    ones = torch.ones_like(weight)
    for loss, name in (
        (Dice(), "catena DiceLoss"),
        (DiceCE(pos_weight=5), "catena DiceCE(loss_weights=5.0)"),
        (BCE(), "WeightedBCEWithLogitsLoss(no mask)"),
    ):
        assert float(value(loss, logits, target, ones)) == pytest.approx(expected[name], rel=1e-5)
