"""Losses against plain formulas; voxels of weight 0 have no say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.builtin.losses.balance import balanced
from mitocore.builtin.losses.entropy import BCE, CrossEntropy, Focal, TopKCrossEntropy
from mitocore.builtin.losses.overlap import Dice, FocalTversky, GeneralizedDice, Tversky, WeightedSoftDice
from mitocore.builtin.losses.points import PointRend
from mitocore.builtin.losses.regression import MAE, MSE, SmoothL1
from mitocore.builtin.losses.relations import (
    BoundaryDistance,
    Certainty,
    Exclusive,
    ForegroundBoundary,
    ForegroundDistance,
)
from mitocore.builtin.losses.skeleton import ClDice
from mitocore.builtin.losses.sums import BCEDice, DiceCE
from mitocore.errors import ContractError, WiringError
from mitocore.registry import discover
from mitocore.specs import ArraySpec, Head, Kind
from mitocore.testing import losses as kit

SOFTMAX = {"activation": "softmax"}
RELATIONS = [Certainty(), ForegroundBoundary(), BoundaryDistance(), ForegroundDistance(), Exclusive()]
DICES = [Dice(), Dice(batch=False), Dice(power=2), Dice(**SOFTMAX, background=False), WeightedSoftDice()]
INDICES = [Tversky(), FocalTversky(), GeneralizedDice(), GeneralizedDice(**SOFTMAX, batch=False), ClDice(iterations=2)]
SUMS = [DiceCE(pos_weight=3), DiceCE(**SOFTMAX), BCEDice(balance="crop")]
WORST = [TopKCrossEntropy(), TopKCrossEntropy(share=0.01, **SOFTMAX)]
BINARY = [BCE(), BCE(pos_weight=5, mean="voxels"), BCE(balance="crop_grown", label_smoothing=0.1)]
ENTROPY = [*BINARY, CrossEntropy(), Focal(alpha=0.3), Focal(**SOFTMAX)]
NUMBERS = [MSE(activation="tanh"), MAE(channels="sum"), SmoothL1(activation="sigmoid", mean="voxels")]
POINTS = [PointRend(), PointRend(**SOFTMAX)]
ALL = [*ENTROPY, *WORST, *DICES, *INDICES, *SUMS, *NUMBERS, *RELATIONS, *POINTS]
each = pytest.mark.parametrize("loss", ALL, ids=repr)
HEAD, TARGET = Head("foreground", ("mito",)), ArraySpec(Kind.PROBABILITY, ("foreground",))
CLASSES = Head("semantic", ("none", "er", "mito"), "softmax")
ONE_HOT = ArraySpec(Kind.PROBABILITY, ("none", "er", "mito"))


def test_these_tests_put_every_registered_loss_to_the_rules():
    declared = {e.load() for e in discover().entries if e.kind == "loss" and e.plugin == "builtin"}
    assert {type(loss) for loss in ALL} == declared


# rules for every loss


@each
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**31), soft=st.booleans())
def test_voxels_of_weight_zero_change_neither_value_nor_gradient(loss, seed, soft):
    rng = torch.Generator().manual_seed(seed)
    pair = kit.pair_of(loss)
    weight = torch.ones((2, 1, *kit.SHAPE))
    weight[..., :4] = (torch.rand(weight[..., :4].shape, generator=rng) < 0.6).float()
    weight *= 1 + 3 * torch.rand(weight.shape, generator=rng) if soft else 1
    target, logits = kit._target(pair, seed), kit._logits(pair, seed)
    hidden = kit._hidden(pair, logits, weight)
    results = []
    for garbage in (None, 50.0, torch.inf, torch.nan):
        x, t = [values.clone() for values in logits], target
        if garbage is not None:
            x = [values.masked_fill(h, garbage) for values, h in zip(logits, hidden, strict=True)]
            t = None if target is None else target.masked_fill(weight == 0, garbage)
        x = [values.requires_grad_() for values in x]
        result = loss.build()(*x, target=t, weight=weight)
        result.backward()
        gradients = [values.grad for values in x if values.grad is not None]
        for values, h in zip(x, hidden, strict=True):
            assert values.grad is None or not values.grad[h.expand_as(values)].any()
        results.append([result.detach(), *gradients])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert any(gradient.any() for gradient in results[0][1:])


@each
def test_nothing_that_counts_is_no_loss(loss):
    pair = kit.pair_of(loss)
    logits = [values.requires_grad_() for values in kit._logits(pair)]
    result = loss.build()(*logits, target=kit._target(pair), weight=torch.zeros((2, 1, *kit.SHAPE)))
    result.backward()
    assert float(result.detach()) == pytest.approx(0)
    assert not any(values.grad.any() for values in logits if values.grad is not None)


@pytest.mark.parametrize("loss", [loss for loss in ALL if loss not in RELATIONS], ids=repr)
def test_a_crop_whose_target_is_empty_has_finite_values_and_gradients(loss):
    pair = kit.pair_of(loss)
    empty = torch.zeros_like(kit._target(pair))
    for scale in (1.0, 1e4):
        logits = [scale * values for values in kit._logits(pair)]
        logits = [values.requires_grad_() for values in logits]
        result = loss.build()(*logits, target=empty, weight=torch.ones((2, 1, *kit.SHAPE)))
        result.backward()
        assert torch.isfinite(result)
        assert all(torch.isfinite(values.grad).all() for values in logits if values.grad is not None)


@each
def test_autocast_to_bfloat16_changes_no_bit(loss):
    pair = kit.pair_of(loss)
    target, weight = kit._target(pair), torch.ones((2, 1, *kit.SHAPE))
    # bfloat16 to begin with, as a network under autocast gives them
    logits = [values.bfloat16() for values in kit._logits(pair)]
    plain = loss.build()(*(values.float() for values in logits), target=target, weight=weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss.build()(*logits, target=target, weight=weight)
    assert found.dtype == torch.float32
    assert torch.equal(found, plain)


WEIGHED = [*ENTROPY, *DICES[:1], *DICES[2:4], *INDICES[:3], *INDICES[4:], *SUMS[:2], *NUMBERS[:2], *RELATIONS, *POINTS]


@pytest.mark.parametrize("loss", [w for w in WEIGHED if getattr(w, "mean", "") != "voxels"], ids=repr)
def test_a_crop_of_weight_two_counts_like_two_crops(loss):
    pair = kit.pair_of(loss)
    target, logits = kit._target(pair), kit._logits(pair)
    one = torch.ones((1, 1, *kit.SHAPE))
    weighed = loss.build()(*logits, target=target, weight=torch.cat([2 * one, one]))
    twice = [values[[0, 0, 1]] for values in logits]
    truth = None if target is None else target[[0, 0, 1]]
    doubled = loss.build()(*twice, target=truth, weight=torch.cat([one, one, one]))
    assert float(weighed) == pytest.approx(float(doubled), rel=1e-5)


# values


def example(channels=1, seed=0):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 2, (2, channels, 3, 4, 5)), dtype=torch.float32)
    target = torch.tensor(rng.random(logits.shape) < 0.3, dtype=torch.float32)
    weight = torch.tensor((rng.random((2, 1, 3, 4, 5)) < 0.8) * (1 + rng.random((2, 1, 3, 4, 5))), dtype=torch.float32)
    return logits, target, weight


def one_hot(seed=0):
    logits, _, weight = example(3, seed)
    ids = np.random.default_rng(seed + 1).integers(0, 3, (2, 3, 4, 5))
    return logits, torch.tensor(np.eye(3)[ids].transpose(0, 4, 1, 2, 3), dtype=torch.float32), weight


def value(loss, logits, target, weight):
    result = loss.build()(logits, target=target, weight=weight)
    assert result.shape == ()
    return float(result)


def voxels(*arrays):
    """Arrays (n, c, z, y, x) as (voxels, c) in float64."""
    return [np.moveaxis(array.double().numpy(), 1, -1).reshape(-1, array.shape[1]) for array in arrays]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def bce_terms(x, t, pos_weight=1.0, smoothing=0.0):
    t = t * (1 - smoothing) + smoothing / 2
    return pos_weight * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)


def plain_dice(p, t, w, smooth=1.0, power=1):
    both, sums = (w * p * t).sum(0), (w * (p**power + t**power)).sum(0)
    return (1 - (2 * both + smooth) / (sums + smooth)).mean()


@pytest.mark.parametrize("channels", [1, 2])
def test_bce_is_the_weighted_mean_of_its_definition(channels):
    data = example(channels)
    x, t, w = voxels(*data)
    w = np.broadcast_to(w, x.shape)
    for options in ({}, {"pos_weight": 5.0}, {"label_smoothing": 0.2}):
        terms = bce_terms(x, t, options.get("pos_weight", 1), options.get("label_smoothing", 0))
        assert value(BCE(**options), *data) == pytest.approx((w * terms).sum() / w.sum(), rel=1e-5)
        counted = value(BCE(**options, mean="voxels"), *data)
        assert counted == pytest.approx((w * terms).sum() / (w > 0).sum(), rel=1e-5)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("channels", [1, 2])
def test_dice_is_its_definition_also_with_soft_weights(channels, power):
    data = example(channels)
    x, t, w = voxels(*data)
    assert value(Dice(power=power), *data) == pytest.approx(plain_dice(sigmoid(x), t, w, power=power), rel=1e-5)
    crops = [voxels(*(array[i : i + 1] for array in data)) for i in range(2)]
    each_crop = np.mean([plain_dice(sigmoid(x), t, w, 3, power) for x, t, w in crops])
    assert value(Dice(batch=False, smooth=3, power=power), *data) == pytest.approx(each_crop, rel=1e-5)


def test_dice_of_classes_may_leave_out_the_background():
    data = one_hot()
    x, t, w = voxels(*data)
    p = softmax(x)
    assert value(Dice(**SOFTMAX), *data) == pytest.approx(plain_dice(p, t, w), rel=1e-5)
    without = value(Dice(**SOFTMAX, background=False), *data)
    assert without == pytest.approx(plain_dice(p[:, 1:], t[:, 1:], w), rel=1e-5)


def test_sums_are_the_sums_of_their_parts():
    data = example()
    bce, dice = value(BCE(pos_weight=3), *data), value(Dice(), *data)
    assert value(DiceCE(pos_weight=3), *data) == pytest.approx(bce + dice)
    assert value(BCEDice(pos_weight=3, share=0.2, batch=True), *data) == pytest.approx(0.2 * bce + 0.8 * dice)
    several = one_hot()
    parts = value(CrossEntropy(class_weights=(1, 2, 3)), *several) + value(Dice(**SOFTMAX), *several)
    assert value(DiceCE(**SOFTMAX, class_weights=(1, 2, 3)), *several) == pytest.approx(parts)


def test_cross_entropy_weighs_classes_and_smooths_the_truth():
    data = one_hot()
    x, t, w = voxels(*data)
    of_class, smoothing = np.array([1.0, 2.0, 0.5]), 0.3
    terms = -(of_class * (t * (1 - smoothing) + smoothing / 3) * np.log(softmax(x))).sum(1)
    found = value(CrossEntropy(class_weights=tuple(of_class), label_smoothing=smoothing), *data)
    assert found == pytest.approx((w[:, 0] * terms).sum() / w.sum(), rel=1e-5)


def test_focal_is_its_definition():
    data = example(2)
    x, t, w = voxels(*data)
    w = np.broadcast_to(w, x.shape)
    true = np.where(t > 0, sigmoid(x), sigmoid(-x))
    terms = np.where(t > 0, 0.8, 0.2) * (1 - true) ** 3 * -np.log(true)
    assert value(Focal(gamma=3, alpha=0.8), *data) == pytest.approx((w * terms).sum() / w.sum(), rel=1e-5)
    several = one_hot()
    x, t, w = voxels(*several)
    true = (softmax(x) * t).sum(1)
    terms = (1 - true) ** 2 * -np.log(true)
    assert value(Focal(**SOFTMAX), *several) == pytest.approx((w[:, 0] * terms).sum() / w.sum(), rel=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 1), st.integers(0, 100))
def test_top_k_is_the_weighted_mean_of_the_worst_share_of_what_counts(share, seed):
    for loss, data in (
        (TopKCrossEntropy(share=share), example(2, seed)),
        (TopKCrossEntropy(share=share, **SOFTMAX), one_hot(seed)),
    ):
        x, t, w = voxels(*data)
        terms = bce_terms(x, t) if loss.activation == "sigmoid" else -(t * np.log(softmax(x))).sum(1, keepdims=True)
        terms, w = terms.ravel(), np.broadcast_to(w, terms.shape).ravel()
        worst = np.argsort(-terms * w)[: max(1, int((w > 0).sum() * share))]
        assert value(loss, *data) == pytest.approx((terms * w)[worst].sum() / w[worst].sum(), rel=1e-4)


def test_top_k_never_counts_hidden_voxels_among_the_worst():
    logits = torch.tensor([-200.0] * 3 + [3.0] + [0.0] * 4).view(1, 1, 1, 1, 8)
    weight = torch.tensor([1.0] * 4 + [0.0] * 4).view(1, 1, 1, 1, 8)
    found = value(TopKCrossEntropy(share=1), logits, torch.zeros_like(logits), weight)
    assert found == pytest.approx(np.logaddexp(0, 3) / 4)


def test_tversky_weighs_false_positives_and_false_negatives():
    data = example()
    x, t, w = voxels(*data)
    p = sigmoid(x)
    hit, false, missed = ((w * part).sum() for part in (p * t, p * (1 - t), (1 - p) * t))
    index = (hit + 1) / (hit + 0.2 * false + 0.9 * missed + 1)
    assert value(Tversky(alpha=0.2, beta=0.9), *data) == pytest.approx(1 - index, rel=1e-5)
    focal = value(FocalTversky(alpha=0.2, beta=0.9, gamma=2), *data)
    assert focal == pytest.approx((1 - index) ** 0.5, rel=1e-5)
    assert value(Tversky(alpha=0.5, beta=0.5, smooth=0.5), *data) == pytest.approx(value(Dice(), *data), rel=1e-5)


def test_generalised_dice_weighs_classes_by_their_squared_volume():
    data = one_hot()
    x, t, w = voxels(*data)
    p, of_class = softmax(x), 1 / (w * t).sum(0) ** 2
    both, sums = (of_class * (w * p * t).sum(0)).sum(), (of_class * (w * (p + t)).sum(0)).sum()
    found = value(GeneralizedDice(**SOFTMAX, smooth=1e-3), *data)
    assert found == pytest.approx(1 - (2 * both + 1e-3) / (sums + 1e-3), rel=1e-5)


@pytest.mark.parametrize("activation", ["none", "tanh", "sigmoid"])
def test_regressions_compare_what_the_head_gives_at_inference(activation):
    logits, target, weight = example(2)
    target = target * 2.5 - 1
    x, t, w = voxels(logits, target, weight)
    p = {"none": x, "tanh": np.tanh(x), "sigmoid": sigmoid(x)}[activation]
    small = np.abs(p - t) < 0.5
    for loss, terms in (
        (MSE(activation=activation), (p - t) ** 2),
        (MAE(activation=activation), np.abs(p - t)),
        (SmoothL1(activation=activation, beta=0.5), np.where(small, (p - t) ** 2, np.abs(p - t) - 0.25)),
    ):
        mean = (w * terms.mean(1, keepdims=True)).sum() / w.sum()
        assert value(loss, logits, target, weight) == pytest.approx(mean, rel=1e-5)
        both = type(loss)(**{**loss.model_dump(), "channels": "sum"})
        assert value(both, logits, target, weight) == pytest.approx(2 * mean, rel=1e-5)


# thin structures


def sheet(thickness, gap=0):
    mask = np.zeros((1, 1, 12, 24, 24), np.float32)
    mask[..., 12 - thickness // 2 : 12 + thickness - thickness // 2, :] = 1
    mask[..., 10 : 10 + gap] = 0
    return torch.tensor(mask)


def test_cl_dice_forgives_thickness_but_not_a_gap():
    truth, weight = sheet(3), torch.ones(1, 1, 12, 24, 24)
    thick, broken = (40 * mask - 20 for mask in (sheet(7), sheet(3, gap=6)))
    assert value(Dice(), thick, truth, weight) > 0.35
    assert value(ClDice(), thick, truth, weight) < 0.05
    assert value(Dice(), broken, truth, weight) < value(Dice(), thick, truth, weight)
    assert value(ClDice(), broken, truth, weight) > 0.1


def test_cl_dice_per_slice_is_that_of_planes_one_by_one():
    truth = sheet(5) * (torch.arange(12).view(1, 1, 12, 1, 1) % 3 > 0)
    logits = 6 * sheet(7) - 3 + torch.randn((1, 1, 12, 24, 24), generator=torch.Generator().manual_seed(0))
    planes = [array.transpose(1, 2).reshape(12, 1, 1, 24, 24) for array in (logits, truth, torch.ones_like(truth))]
    whole = value(ClDice(per_slice=True), logits, truth, torch.ones_like(truth))
    assert whole == pytest.approx(value(ClDice(per_slice=True), *planes), rel=1e-5)
    assert whole != pytest.approx(value(ClDice(), logits, truth, torch.ones_like(truth)), rel=1e-2)


def test_cl_dice_of_classes_does_not_look_at_the_background():
    truth = sheet(3)
    both = torch.cat([1 - truth, truth], 1)
    logits = torch.randn((1, 2, 12, 24, 24), generator=torch.Generator().manual_seed(0)) + 3 * both
    alone = value(ClDice(), logits[:, 1:] - logits[:, :1], truth, torch.ones_like(truth))
    assert value(ClDice(**SOFTMAX), logits, both, torch.ones_like(truth)) == pytest.approx(alone, rel=1e-5)


# points


def test_points_are_compared_with_the_voxel_they_lie_in():
    rng = np.random.default_rng(0)
    shape, number = (3, 4, 5), 30
    truth, weight = rng.integers(0, 3, (2, *shape)), rng.integers(0, 3, (2, *shape))
    at = np.stack([rng.integers(0, n, (2, number)) for n in shape], 1)
    inside = rng.uniform(0.01, 0.99, at.shape)
    places = torch.tensor((at + inside) / np.array(shape)[:, None], dtype=torch.float32)[:, :, None, None]
    x = rng.normal(size=(2, 3, number))
    y, w = (np.stack([array[n][tuple(at[n])] for n in range(2)]) for array in (truth, weight))
    target = torch.tensor(np.eye(3)[truth].transpose(0, 4, 1, 2, 3), dtype=torch.float32)
    given = {"target": target, "weight": torch.tensor(weight[:, None], dtype=torch.float32)}
    logits = torch.tensor(x[:, :, None, None], dtype=torch.float32)
    chosen = np.eye(3)[y].transpose(0, 2, 1)
    terms = -(chosen * np.log(np.stack([softmax(one.T).T for one in x]))).sum(1)
    found = float(PointRend(**SOFTMAX).build()(logits, places, **given))
    assert found == pytest.approx((w * terms).sum() / w.sum(), rel=1e-5)
    found = float(PointRend().build()(logits, places, **given))
    assert found == pytest.approx((w[:, None] * bce_terms(x, chosen)).sum() / w.sum() / 3, rel=1e-5)


def test_points_at_the_far_face_lie_in_the_last_voxel_and_planes_need_two_coordinates():
    target = torch.tensor([0.0, 0.0, 0.0, 1.0]).view(1, 1, 1, 2, 2)
    logits, places = torch.full((1, 1, 1, 1, 1), 40.0), torch.ones((1, 2, 1, 1, 1))
    compared = PointRend().build()
    assert float(compared(logits, places, target=target, weight=torch.ones_like(target))) == pytest.approx(0, abs=1e-6)
    deep = target.expand(1, 1, 3, 2, 2)
    with pytest.raises(ContractError, match="the crop has 3 planes"):
        compared(logits, places, target=deep, weight=torch.ones_like(deep))


# relations between heads


def related(loss, *logits):
    return float(loss.build()(*logits, target=None, weight=torch.ones_like(logits[0][:, :1])))


def test_relations_are_their_definitions():
    rng = np.random.default_rng(0)
    a, b, c = (torch.tensor(rng.normal(0, 2, (1, 1, 2, 6, 7)), dtype=torch.float32) for _ in range(3))
    x, y, z = (array.double().numpy() for array in (a, b, c))
    sure = 1 / np.maximum(np.abs(sigmoid(x) - 0.5), 0.01) - 2
    assert related(Certainty(), a) == pytest.approx(sure.mean(), rel=1e-5)
    assert related(BoundaryDistance(), a, b) == pytest.approx(((sigmoid(x) * np.tanh(y)) ** 2).mean(), rel=1e-5)
    side = np.where(y > 0, np.logaddexp(0, -x), np.logaddexp(0, x))
    assert related(ForegroundDistance(), a, b) == pytest.approx((side * np.abs(np.tanh(y))).mean(), rel=1e-5)
    assert related(Exclusive(), a, b) == pytest.approx((sigmoid(x) * sigmoid(y)).mean(), rel=1e-5)
    three = related(Exclusive(), torch.cat([a, b, c], 1))
    assert three == pytest.approx((sigmoid(x) * sigmoid(y) * sigmoid(z)).mean(), rel=1e-5)


def test_where_exclusion_matters_is_not_learned():
    logits = torch.zeros((1, 3, 1, 2, 2), requires_grad=True)
    Exclusive().build()(logits, target=None, weight=torch.ones(1, 1, 1, 2, 2)).backward()
    assert logits.grad[:, :2].all()
    assert not logits.grad[:, 2].any()


def test_a_boundary_agrees_with_foreground_that_changes_there_and_only_there():
    inside = torch.zeros((1, 1, 2, 12, 12))
    inside[..., 4:8] = 1  # touches two faces of the crop, where no boundary is
    edge = torch.zeros_like(inside)
    edge[..., [2, 3, 4, 5, 6, 7, 8, 9]] = 1  # central difference, grown by one
    agree = related(ForegroundBoundary(), 40 * inside - 20, 40 * edge - 20)
    assert agree < 1e-6
    for wrong in (edge * 0, edge * 0 + 1, edge.transpose(3, 4)):
        assert related(ForegroundBoundary(), 40 * inside - 20, 40 * wrong - 20) > 0.2


# balance


def test_crops_are_balanced_one_by_one_and_only_by_what_counts():
    target = torch.zeros((2, 1, 1, 4, 5))
    target[0, ..., 0, :] = 1
    target[1, ..., :3, :] = 1
    weight = torch.ones_like(target)
    weight[0, ..., 3, :] = 0
    found = balanced(target, weight, "crop")
    assert found[0, 0, 0, :, 0].tolist() == pytest.approx([2, 1, 1, 0])
    assert found[1, 0, 0, :, 0].tolist() == pytest.approx([1, 1, 1, 3])
    grown = balanced(target, weight, "crop_grown")
    assert grown[0, 0, 0, :, 0].tolist() == pytest.approx([2, 2, 1, 0])


@pytest.mark.parametrize("foreground", [0, 1, 39, 40])
def test_balance_is_at_most_19_to_1_and_a_crop_of_one_side_stays_as_it_is(foreground):
    target = (torch.arange(40) < foreground).float().view(1, 1, 1, 1, 40)
    found = balanced(target, torch.ones_like(target), "crop")
    assert float(found.max()) == pytest.approx(1 if foreground in (0, 40) else 19)
    assert float(found.min()) == 1


def test_balance_makes_both_sides_count_alike_in_the_loss():
    logits = torch.zeros((1, 1, 1, 1, 10))
    target = (torch.arange(10) < 2).float().view_as(logits)
    weight = torch.ones_like(logits)
    confident = torch.full_like(logits, 3.0)
    one, zero = np.logaddexp(0, -3), np.logaddexp(0, 3)
    assert value(BCE(balance="crop"), confident, target, weight) == pytest.approx((one + zero) / 2, rel=1e-5)
    assert value(BCE(), confident, target, weight) == pytest.approx(0.2 * one + 0.8 * zero, rel=1e-5)


# what fits

PROBABILITIES = [BCE(), Dice(), DiceCE(), BCEDice(), Focal(), Tversky(), TopKCrossEntropy(), ClDice()]


@pytest.mark.parametrize("loss", PROBABILITIES, ids=repr)
@pytest.mark.parametrize(
    ("heads", "target", "said"),
    [
        ([HEAD, HEAD], TARGET, "one head, not 2"),
        ([HEAD], None, "no target"),
        ([HEAD], ArraySpec(Kind.DISTANCE), "kind distance"),
        ([Head("d", ("",), "none", Kind.DISTANCE)], TARGET, "gives distance"),
        ([CLASSES], ONE_HOT, "ends in 'softmax', and this loss expects 'sigmoid'"),
        ([Head("s", ("a", "b"))], TARGET, "2 and 1 channels"),
    ],
)
def test_pairs_that_do_not_fit_are_wiring_errors(loss, heads, target, said):
    loss.accepts([HEAD], TARGET)
    with pytest.raises(WiringError, match=said) as caught:
        loss.accepts(heads, target)
    assert len(str(caught.value).splitlines()) <= 3


AFFINITY = Head("affinity", ("z", "y"), "sigmoid", Kind.AFFINITY, ((-1, 0, 0), (0, -1, 0)))
OFFSET = Head("offset", ("y", "x"), "none", Kind.OFFSET)
DISTANCE = Head("distance", ("",), "tanh", Kind.DISTANCE)
BOTH = [Head("points", ("a",), auxiliary=True), Head("places", ("y", "x"), "none", Kind.OFFSET, auxiliary=True)]


@pytest.mark.parametrize(
    ("loss", "heads", "target", "said", "hint"),
    [
        (Dice(), [CLASSES], ONE_HOT, "expects 'sigmoid'", 'activation = "softmax"'),
        (Dice(**SOFTMAX), [HEAD], TARGET, "expects 'softmax'", 'activation = "sigmoid"'),
        (BCE(), [CLASSES], ONE_HOT, "expects 'sigmoid'", 'loss = "cross_entropy"'),
        (CrossEntropy(), [HEAD], TARGET, "expects 'softmax'", 'loss = "bce"'),
        (CrossEntropy(), [Head("s", ("a",), "softmax")], TARGET, "has one channel", "with a sigmoid"),
        (CrossEntropy(class_weights=(1, 2)), [CLASSES], ONE_HOT, "2 numbers, and .* 3 classes", "none, er, mito"),
        (BCE(), [DISTANCE], ArraySpec(Kind.DISTANCE), "gives distance", 'activation = "tanh"'),
        (MSE(), [DISTANCE], ArraySpec(Kind.DISTANCE), "expects 'none'", 'activation = "tanh"'),
        (MSE(activation="sigmoid"), [HEAD], None, "no target", "target ="),
        (MAE(), [OFFSET], ArraySpec(Kind.OFFSET, ("x", "y")), r"\['y', 'x'\] and \['x', 'y'\]", "channels of the head"),
        (
            BCE(),
            [AFFINITY],
            ArraySpec(Kind.AFFINITY, ("z", "y"), ((1, 0, 0), (0, 1, 0))),
            "offsets",
            "offsets of the head",
        ),
        (Focal(**SOFTMAX, balance="crop"), [CLASSES], ONE_HOT, "classes of a softmax", 'balance = "none"'),
        (DiceCE(**SOFTMAX, pos_weight=3), [CLASSES], ONE_HOT, "pos_weight = 3.0 does not", "class_weights"),
        (DiceCE(class_weights=(1,)), [HEAD], TARGET, "class_weights = .* does not", "pos_weight"),
        (GeneralizedDice(), [HEAD], TARGET, "no two classes", 'loss = "dice"'),
        (PointRend(), [HEAD], TARGET, "two auxiliary heads", "heads = "),
        (PointRend(), BOTH[::-1], TARGET, "gives offset", "loss ="),
        (PointRend(), [BOTH[0], BOTH[0]], TARGET, "not places", "z, y, x"),
        (PointRend(), BOTH, ONE_HOT, "1 and 3 channels", "channels of the head"),
        (ForegroundBoundary(), [HEAD, HEAD], TARGET, "takes no target", "leave target out"),
        (ForegroundBoundary(), [HEAD], None, "not probability after 'sigmoid'", "heads = "),
        (ForegroundBoundary(), [HEAD, Head("b", ("a", "b"))], None, r"one channel, not \[1, 2\]", "heads = "),
        (BoundaryDistance(), [DISTANCE, HEAD], None, "relates probability", '"boundary", "distance"'),
        (ForegroundDistance(), [HEAD, HEAD], None, "distance after 'tanh'", '"foreground", "distance"'),
        (Certainty(), [DISTANCE], None, "one head after a sigmoid", "head = "),
        (Exclusive(), [HEAD], None, "two or three channels", '"pre", "post"'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_says_what_to_choose(loss, heads, target, said, hint):
    with pytest.raises(WiringError, match=said) as caught:
        loss.accepts(heads, target)
    assert hint in caught.value.hint
    assert heads[0].name in caught.value.where
    assert len(str(caught.value).splitlines()) <= 3


def test_what_fits_is_accepted():
    BCE().accepts([AFFINITY], ArraySpec(Kind.AFFINITY, ("z", "y"), AFFINITY.offsets))
    MSE(activation="tanh").accepts([DISTANCE], ArraySpec(Kind.DISTANCE))
    MAE().accepts([OFFSET], ArraySpec(Kind.OFFSET, ("y", "x")))
    MSE().accepts([Head("center", ("center",), "none")], TARGET)
    PointRend().accepts(BOTH, TARGET)
    BoundaryDistance().accepts([HEAD, DISTANCE], None)
    Exclusive().accepts([HEAD, HEAD], None)
    Exclusive().accepts([Head("polarity", ("pre", "post", "cleft"))], None)
