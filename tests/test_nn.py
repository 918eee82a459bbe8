import pytest
import torch
from torch import Tensor, nn

from mitocore.errors import ContractError
from mitocore.nn import Named, Planewise


class TwoHeads(nn.Module):
    """Gives (n, 1, …) and, while training, an auxiliary (n, 2, …)."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x, torch.cat([x, -x], 1)) if self.training else (x,)


class Recorded(nn.Module):
    """Gives its input and remembers its shape."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x


def test_one_tensor_becomes_the_only_head() -> None:
    x = torch.rand(2, 1, 4, 5, 6)
    heads = Named(nn.Identity(), "foreground")(x)
    assert list(heads) == ["foreground"]
    assert torch.equal(heads["foreground"], x)


def test_auxiliary_heads_may_be_missing_in_evaluation_only() -> None:
    net, x = Named(TwoHeads(), "foreground", "deep"), torch.rand(1, 1, 2, 2, 2)
    assert {name: logits.shape[1] for name, logits in net(x).items()} == {"foreground": 1, "deep": 2}
    assert list(net.eval()(x)) == ["foreground"]
    net.train().net.eval()
    with pytest.raises(ContractError, match="1 tensors for the heads foreground, deep"):
        net(x)


def test_a_tensor_too_many_is_refused() -> None:
    with pytest.raises(ContractError, match="2 tensors for the heads foreground"):
        Named(TwoHeads(), "foreground")(torch.rand(1, 1, 2, 2, 2))


def test_channels_are_cut_in_the_order_they_are_named() -> None:
    x = torch.rand(2, 4, 1, 3, 3)
    heads = Named(nn.Identity(), semantic=3, center=1)(x)
    assert torch.equal(heads["semantic"], x[:, :3])
    assert torch.equal(heads["center"], x[:, 3:])


def test_channels_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ContractError, match="cannot be cut into the channels semantic=3, center=1"):
        Named(nn.Identity(), semantic=3, center=1)(torch.rand(2, 5, 1, 3, 3))


def test_names_and_channels_exclude_each_other_and_one_is_required() -> None:
    with pytest.raises(ContractError, match="takes one of the two"):
        Named(nn.Identity())
    with pytest.raises(ContractError, match="takes one of the two"):
        Named(nn.Identity(), "foreground", center=1)


def test_planes_are_seen_one_by_one() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(2, 3, 3, padding=1), torch.rand(2, 2, 4, 8, 8)
    volume = Planewise(conv)(x)
    planes = torch.stack([conv(x[:, :, z]) for z in range(4)], dim=2)
    assert volume.shape == (2, 3, 4, 8, 8)
    torch.testing.assert_close(volume, planes)


def test_neighbouring_planes_become_channels_and_depth_shrinks() -> None:
    net, x = Planewise(recorded := Recorded(), slices=3), torch.rand(2, 2, 5, 4, 4)
    given = net(x)
    assert given.shape == (2, 6, 3, 4, 4)
    assert recorded.seen.shape == (6, 6, 4, 4)
    for z in range(3):
        torch.testing.assert_close(given[:, :, z], x[:, :, z : z + 3].flatten(1, 2))


@pytest.mark.parametrize("slices", [0, 2, -1])
def test_an_even_number_of_slices_is_refused(slices: int) -> None:
    with pytest.raises(ContractError, match=f"{slices} slices"):
        Planewise(nn.Identity(), slices)


def test_planewise_and_named_combine_either_way() -> None:
    x = torch.rand(1, 1, 3, 4, 4)
    inside, outside = Planewise(Named(nn.Identity(), "foreground")), Named(Planewise(nn.Identity()), "foreground")
    assert torch.equal(inside(x)["foreground"], x)
    assert torch.equal(outside(x)["foreground"], x)
    assert list(Named(Planewise(TwoHeads()), "foreground", "deep")(x)) == ["foreground", "deep"]
