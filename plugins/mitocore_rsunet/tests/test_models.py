import math
from functools import partial

import pytest
import torch
from monai.networks.nets import AttentionUnet, BasicUNet, SegResNet, SwinUNETR, UNet
from pydantic import ValidationError

from mitocore import Kind
from mitocore_rsunet.models import FPN, ResidualUNet, RSUNet
from mitocore_rsunet.monai_models import (
    MonaiAttentionUNet,
    MonaiBasicUNet,
    MonaiSegResNet,
    MonaiSwinUNETR,
    MonaiUNet,
)

SMALL = [
    RSUNet(widths=(3, 4, 5, 6)),
    RSUNet(widths=(3, 4, 5, 6), preset="anisotropic", outputs="bc"),
    RSUNet(widths=(2, 4, 8), norm="instance"),
    RSUNet(widths=(2, 4, 8), norm="group", groups=2, image_channels=("sem", "edx")),
    MonaiUNet(widths=(4, 6, 8), strides=(2, 2)),
    MonaiUNet(widths=(4, 6, 8), strides=((1, 2, 2), 2), kernel_size=(1, 3, 3), outputs="bc", act="elu", bias=False),
    MonaiUNet(widths=(4, 6), strides=(3,), num_res_units=2, norm="instance", dropout=0, adn_ordering="NAD"),
    MonaiUNet(widths=(4, 6), strides=(2,), norm="group", groups=2, image_channels=("sem", "edx")),
    MonaiUNet(widths=(4, 6), strides=(2,), outputs=("affinity", "semantic", "descriptors", "offset"), flat=True),
    RSUNet(widths=(3, 4, 5, 6), supervised=2, outputs="bcd"),
    ResidualUNet(widths=(4, 6, 8), isotropic=(False, False, True), supervised=2, outputs="ac"),
    ResidualUNet(
        widths=(4, 8), isotropic=(True, True), edge=5, block="residual_se_pa", act="leakyrelu", norm="instance"
    ),
    ResidualUNet(widths=(4, 6), isotropic=(True, True), block="residual", pooling=True, padding="zeros"),
    RSUNet(widths=(3, 4, 5), skips="sum", norm="none"),
    RSUNet(widths=(2, 3, 4, 5), catena_compat=True),
    FPN(widths=(4, 6, 8), isotropic=(False, False, True), blocks=(1, 2), supervised=2, outputs="bc"),
    FPN(widths=(4, 8), isotropic=(True, True), blocks=(1,), edge=5, block="residual_se_pa", norm="group", act="gelu"),
    MonaiBasicUNet(widths=(4, 4, 6, 6, 8, 4), norm="batch", outputs="bc"),
    MonaiAttentionUNet(widths=(4, 6, 8), strides=((1, 2, 2), 2), kernel_size=(1, 3, 3), image_channels=("sem", "edx")),
    MonaiSegResNet(width=8, blocks_down=(1, 1, 2), blocks_up=(1, 1), outputs="bcd"),
]
small = pytest.mark.parametrize("model", SMALL, ids=repr)


def images(model, multiples=(2, 3, 2), batch=2, seed=0):
    """Noise whose shape is so many times the divisor."""
    shape = [n * d for n, d in zip(multiples, model.window().divisor, strict=True)]
    return torch.randn(batch, len(model.channels()), *shape, generator=torch.Generator().manual_seed(seed))


def build(model, seed=0):
    torch.manual_seed(seed)
    return model.build()


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (MonaiUNet(), 632_805),
        (RSUNet(), 3_436_001),
        (RSUNet(preset="anisotropic"), 3_264_577),
        (ResidualUNet(block="residual"), 923_201),  # the four of PyTorch Connectomics
        (ResidualUNet(), 934_881),
        (ResidualUNet(isotropic=(True,) * 5, edge=5), 1_053_089),
        (ResidualUNet(widths=(32, 64, 96, 128, 160), plus=True, outputs="bc"), 3_647_410),
        (FPN(), 1_293_177),
        (RSUNet(catena_compat=True), 2_824_377),
        (MonaiBasicUNet(), 5_749_377),
        (MonaiAttentionUNet(), 5_909_113),
        (MonaiSwinUNETR(), 15_702_979),
        (MonaiSegResNet(), 4_700_897),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_defaults_have_this_many_parameters(model, parameters):
    assert sum(weights.numel() for weights in model.build().parameters()) == parameters


@small
@pytest.mark.parametrize("training", [True, False])
def test_heads_and_shapes_are_as_declared_for_windows_of_any_multiple_of_the_divisor(model, training):
    net = build(model).train(training)
    for multiples in [(2, 2, 2), (1, 3, 2)]:
        x = images(model, multiples)
        logits = net(x)
        heads = [head for head in model.heads() if training or not head.auxiliary]
        assert list(logits) == [head.name for head in heads]
        for head in heads:
            assert logits[head.name].shape == (2, len(head.channels), *x.shape[2:])
            assert logits[head.name].dtype == torch.float32
            assert logits[head.name].isfinite().all()


@small
def test_a_batch_of_two_equals_two_of_one_in_evaluation(model):
    net, x = build(model).eval(), images(model)
    with torch.no_grad():
        together, apart = net(x), [net(x[:1]), net(x[1:])]
    for name, logits in together.items():
        torch.testing.assert_close(logits, torch.cat([part[name] for part in apart]))


@small
def test_the_gradient_reaches_every_parameter(model):
    net = build(model)
    sum((logits * torch.randn_like(logits)).mean() for logits in net(images(model)).values()).backward()
    missing = [name for name, weights in net.named_parameters() if weights.grad is None]
    assert not missing
    assert all(weights.grad.any() for name, weights in net.named_parameters() if name.endswith("weight"))


@small
def test_state_survives_a_round_trip_into_a_fresh_network(model):
    net, fresh = build(model).eval(), build(model, seed=1).eval()
    fresh.load_state_dict(net.state_dict())
    for one, other in zip(net(images(model)).values(), fresh(images(model)).values(), strict=True):
        assert torch.equal(one, other)


def test_weights_of_a_bare_monai_unet_with_catenas_settings_fit():
    settings = {"channels": (28, 36, 48, 64, 80), "strides": (2, 2, 2, 2), "norm": "batch", "dropout": 0.1}
    bare, model, x = UNet(3, 1, 1, **settings).eval(), MonaiUNet(), torch.randn(1, 1, 16, 16, 16)
    net = model.build().eval()
    net.load_state_dict(model.adapt(bare.state_dict()))
    assert torch.equal(net(x)["foreground"], bare(x))
    assert model.adapt(net.state_dict()).keys() == net.state_dict().keys()


@pytest.mark.parametrize("preset", ["isotropic", "anisotropic"])
def test_every_skip_joins_features_of_its_own_level(preset):
    net = build(RSUNet(widths=(2, 3, 4, 5, 6), preset=preset)).net
    left, joined = {}, {}
    for level, block in enumerate(net.down):
        block.register_forward_hook(lambda _, __, given, level=level: left.update({level: given}))
    for level, up in enumerate(net.up):
        up.block.register_forward_hook(lambda _, taken, __, level=level: joined.update({level: taken[0]}))
    net(torch.randn(1, 1, 16, 16, 16))
    assert sorted(joined) == [0, 1, 2]
    for level, features in joined.items():
        width = left[level].shape[1]
        assert features.shape[1] == 2 * width
        assert torch.equal(features[:, width:], left[level])


@pytest.mark.parametrize("preset", ["isotropic", "anisotropic"])
def test_an_image_shifted_by_the_coarsest_stride_gives_logits_shifted_as_much(preset):
    """Centre crops of another level's features, a known defect of this network elsewhere, break this."""
    model = RSUNet(widths=(2, 3, 4, 5), preset=preset)
    net, stride = build(model).eval(), model.window().divisor[2]
    x = torch.randn(1, 1, 8, 8, 160, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits, shifted = net(x)["foreground"], net(x.roll(stride, dims=4))["foreground"]
    inside = slice(60, 100)  # sees nothing of the faces
    torch.testing.assert_close(logits.roll(stride, dims=4)[..., inside], shifted[..., inside])
    assert not torch.allclose(logits[..., inside], shifted[..., inside])


def test_anisotropic_kernels_and_pools_stay_in_the_plane_at_full_resolution():
    net = build(RSUNet(widths=(2, 3, 4, 5), preset="anisotropic")).net
    x = torch.randn(1, 1, 4, 16, 16)
    assert torch.equal(net.down[0](net.stem(x))[:, :, 1], net.down[0](net.stem(x.roll(1, dims=2)))[:, :, 2])
    assert net.pool[0](x).shape == (1, 1, 4, 8, 8)
    assert [tuple(up.up.stride) for up in net.up] == [(1, 2, 2), (2, 2, 2)]


@pytest.mark.parametrize(
    "model", [RSUNet(widths=(4, 4, 8), norm_momentum=0.1), MonaiUNet(widths=(4, 8), strides=(2,))], ids=repr
)
def test_a_small_network_learns_a_simple_crop(model):
    net, x = build(model), images(model, (4, 4, 4), batch=1)
    truth = (torch.nn.functional.avg_pool3d(x, 3, 1, 1) > 0).float()
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x)["foreground"], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_logits_of_a_fresh_network_are_of_moderate_size():
    for model in (RSUNet(), RSUNet(preset="anisotropic"), MonaiUNet()):
        logits = build(model)(torch.randn(1, 1, 32, 32, 32))["foreground"]
        assert 0.05 < logits.std() < 5


@pytest.mark.parametrize("model", [*SMALL, RSUNet(), MonaiUNet(), MonaiUNet(strides=(3, 2, 2, 5))], ids=repr)
def test_the_default_window_fits_the_strides(model):
    window = model.window()
    assert all(size % divisor == 0 for size, divisor in zip(window.shape, window.divisor, strict=True))
    assert not window.planar


def test_the_divisor_is_the_product_of_strides():
    assert RSUNet().window().divisor == (16, 16, 16)
    assert RSUNet(preset="anisotropic").window().divisor == (8, 16, 16)
    assert MonaiUNet(widths=(2, 3, 4), strides=((1, 2, 2), 3)).window().divisor == (3, 6, 6)
    assert math.prod(MonaiUNet().strides) == 16


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (MonaiUNet, {"strides": (2, 2)}, "write one stride fewer than widths"),
        (MonaiUNet, {"kernel_size": 4}, "kernel 4 has an even size"),
        (MonaiUNet, {"up_kernel_size": (1, 2, 3)}, r"kernel \(1, 2, 3\) has an even size"),
        (MonaiUNet, {"norm": "group", "groups": 5}, "groups = 5 does not divide"),
        (MonaiUNet, {"norm": "group", "groups": 2, "num_res_units": 1}, r"does not divide all features .* 1\]"),
        (MonaiUNet, {"adn_ordering": "XY"}, "adn_ordering"),
        (RSUNet, {"widths": (4, 8)}, "at least 3"),
        (RSUNet, {"widths": (4, 6, 9), "norm": "group", "groups": 2}, "groups = 2 does not divide"),
        (RSUNet, {"preset": "cubic"}, "isotropic"),
        (RSUNet, {"image_channels": ()}, "at least 1"),
        (RSUNet, {"catena_compat": True, "preset": "anisotropic"}, "catena_compat goes with"),
        (RSUNet, {"supervised": 5}, "the decoder has 4 coarser levels"),
        (ResidualUNet, {"supervised": 5}, "the decoder has 4 coarser levels"),
        (ResidualUNet, {"widths": (2, 4), "isotropic": (True, True)}, "at least 4 feature maps"),
        (ResidualUNet, {"filters": (4, 8), "widths": (4, 8)}, "filters and widths are the same"),
        (FPN, {"blocks": (2, 2)}, "one number fewer than widths"),
        (MonaiBasicUNet, {"widths": (4, 8)}, "at least 6"),
        (MonaiAttentionUNet, {"strides": (2,)}, "write one stride fewer than widths"),
        (MonaiSwinUNETR, {"feature_size": 20}, "multiple of 12"),
        (MonaiSwinUNETR, {"num_heads": (5, 6, 12, 24)}, "do not divide the features of the stages"),
        (MonaiSegResNet, {"blocks_up": (1,)}, "one number fewer in blocks_up"),
        (MonaiSegResNet, {"width": 12}, "groups = 8 does not divide"),
    ],
)
def test_options_that_do_not_fit_are_refused(model, options, message):
    with pytest.raises(ValidationError, match=message):
        model(**options)


def test_presets_and_lists_of_heads_say_the_same():
    named = RSUNet(outputs=("foreground", "boundary", "distance"))
    assert RSUNet(outputs="bcd").heads() == named.heads()
    kinds = {head.name: (head.kind, head.activation, len(head.channels)) for head in named.heads()}
    assert kinds["distance"] == (Kind.DISTANCE, "tanh", 1)


def test_affinities_carry_their_offsets():
    (head,) = ResidualUNet(outputs="a", offsets=((-1, 0, 0), (0, 0, 5))).heads()
    assert head.kind is Kind.AFFINITY
    assert head.offsets == ((-1, 0, 0), (0, 0, 5))
    assert head.channels == ("z-1", "x+5")


@small
def test_parts_cover_every_tensor_once(model):
    prefixes = [prefix for part in model.parts().values() for prefix in part]
    for name, _ in model.build().named_parameters():
        assert sum(name.startswith(prefix) for prefix in prefixes) == 1, name


def test_a_non_local_block_sees_the_whole_window():
    model = ResidualUNet(widths=(4, 6, 8), isotropic=(False, True, True), plus=True, norm="batch")
    net = build(model).eval()
    torch.nn.init.ones_(net.net.deepest.norm.weight)
    x = torch.zeros(1, 1, 6, 32, 32)
    far = x.clone()
    far[..., 0, 0, 0] = 9.0
    with torch.no_grad():
        change = (net(x)["foreground"] - net(far)["foreground"]).abs()
    assert float(change[..., -1, -1, -1]) > 0


def test_a_transformer_has_its_heads_its_parts_and_a_gradient_everywhere():
    """Of the smallest there is, as even that has millions of parameters."""
    model = MonaiSwinUNETR(feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), v2=True, outputs="bc")
    net = build(model)
    found = net(images(model, (1, 1, 2), batch=1))
    assert {name: tuple(logits.shape) for name, logits in found.items()} == {
        "foreground": (1, 1, 32, 32, 64),
        "boundary": (1, 1, 32, 32, 64),
    }
    sum((logits * torch.randn_like(logits)).mean() for logits in found.values()).backward()
    prefixes = [prefix for part in model.parts().values() for prefix in part]
    for name, weights in net.named_parameters():
        assert weights.grad is not None, name
        assert sum(name.startswith(prefix) for prefix in prefixes) == 1, name


@pytest.mark.parametrize(
    ("model", "bare"),
    [
        (MonaiBasicUNet(), partial(BasicUNet, out_channels=1)),
        (MonaiSwinUNETR(), partial(SwinUNETR, 1, 1)),
        (MonaiSegResNet(), partial(SegResNet, init_filters=16, out_channels=1)),
        (MonaiAttentionUNet(), partial(AttentionUnet, 3, 1, 1, (16, 32, 64, 128, 256), (2, 2, 2, 2))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_weights_of_a_bare_network_of_monai_fit_the_defaults(model, bare):
    theirs, ours = bare().state_dict(), model.build().state_dict()
    assert {name: t.shape for name, t in model.adapt(theirs).items()} == {name: t.shape for name, t in ours.items()}
