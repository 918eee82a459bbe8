import pytest
import torch
from pydantic import ValidationError

from mitocore import Kind
from mitocore_cryoet.models import UNet3D, UNet25D

SMALL = [
    UNet25D(widths=(4, 8, 8), groups=4),
    UNet25D(widths=(4, 6), slices=3, norm="instance", residual=True, outputs=("membrane", "semantic")),
    UNet3D(widths=(4, 8), norm="batch", residual=True),
]
small = pytest.mark.parametrize("model", SMALL, ids=repr)


def parameters(model):
    return sum(weights.numel() for weights in model.build().parameters())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (UNet25D(norm="none", dropout=0), 7_761_249),  # CryoET-Membrane-Seg
        (UNet25D(norm="none", dropout=0, slices=1), 7_761_249 - 6 * 9 * 32),
        (UNet25D(), 7_761_249 + 2 * 2 * (32 + 64 + 128 + 256) * 2 + 2 * 2 * 512),
        (UNet3D(norm="none"), 5_644_913),
    ],
    ids=["membrane-seg", "2-D", "group norm", "3-D"],
)
def test_networks_have_this_many_parameters(model, expected):
    assert parameters(model) == expected


def test_an_output_slice_sees_its_neighbours_and_no_further_ones():
    net = UNet25D(widths=(4, 8), slices=5, norm="none", dropout=0).build().eval()
    x = torch.randn(1, 1, 9, 8, 8).requires_grad_()
    logits = net(x)["membrane"]
    assert logits.shape == (1, 1, 5, 8, 8)
    for plane in range(5):
        (gradient,) = torch.autograd.grad(logits[:, :, plane].sum(), x, retain_graph=True)
        seen = gradient.abs().amax((0, 1, 3, 4)).nonzero().flatten().tolist()
        assert seen == list(range(plane, plane + 5))


@pytest.mark.parametrize("slices", [1, 3, 7, 15])
def test_the_window_gives_one_slice_of_as_many_as_the_network_sees(slices):
    window = UNet25D(slices=slices).window()
    assert window.planar
    assert window.shape == (slices, 256, 256)
    assert window.crop == (slices // 2, 0, 0)
    assert window.divisor == (1, 16, 16)


def test_a_deeper_network_has_a_window_that_it_can_pool():
    assert UNet3D(widths=(2,) * 8, norm="none").window().shape == (128, 128, 128)
    assert UNet25D(widths=(2,) * 10, norm="none").window().shape == (7, 512, 512)


@small
def test_parts_cover_every_tensor_once(model):
    prefixes = [prefix for part in model.parts().values() for prefix in part]
    for name, _ in model.build().named_parameters():
        assert sum(name.startswith(prefix) for prefix in prefixes) == 1, name


def test_dropout_is_at_the_bottom_and_in_training_alone():
    net, x = UNet25D(widths=(4, 8), groups=4, dropout=0.5).build(), torch.randn(1, 1, 7, 16, 16)
    assert not torch.equal(net(x)["membrane"], net(x)["membrane"])
    net.eval()
    assert torch.equal(net(x)["membrane"], net(x)["membrane"])


def test_heads_have_the_kind_and_activation_of_their_name():
    heads = UNet3D(outputs=("membrane", "distance", "semantic"), classes=("background", "membrane", "lumen")).heads()
    assert [(head.kind, head.activation, len(head.channels)) for head in heads] == [
        (Kind.PROBABILITY, "sigmoid", 1),
        (Kind.DISTANCE, "tanh", 1),
        (Kind.PROBABILITY, "softmax", 3),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slices": 4}, "4 slices have no middle"),
        ({"slices": 17}, "less than or equal to 15"),
        ({"widths": (12, 24)}, "groups = 8 does not divide"),
        ({"widths": (8,)}, "at least 2"),
        ({"outputs": ("membrane", "membrane")}, "names a head twice"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        UNet25D(**options)
