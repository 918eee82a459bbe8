"""Networks that see what they turn: the prediction of an equivariant model does not change under any augmentation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mitocore.learn.turned import Tempered, Turning, turn, turn_back
from mitocore.specs import DESCRIPTORS, Head, Kind
from mitocore.symmetry import of_the_cube, symmetries

OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, -3, 0), (0, 0, 3))
HEADS = (
    Head("foreground", ("foreground",)),
    Head("affinity", tuple("abcde"), kind=Kind.AFFINITY, offsets=OFFSETS),
    Head("offset", ("z", "y", "x"), "none", Kind.OFFSET),
    Head("descriptors", DESCRIPTORS, "sigmoid", Kind.DESCRIPTOR),
)
TURNS = ("flips", "plane", "all")
CUBE = (5, 6, 6)


class Ideal(nn.Module):
    """What a perfectly trained network gives: values that follow the image and its neighbours, whatever their pose."""

    def forward(self, x):
        image = x[:, 0]
        ids = image.round()
        found = [image.sigmoid()]
        for offset in OFFSETS:
            shifted = torch.roll(ids, [-o for o in offset], (-3, -2, -1))
            found.append((shifted == ids).float())
        found += self.gradient(image)
        gradient = self.gradient(image.tanh())
        found += [0.5 + 0.1 * g for g in gradient]
        found += [0.1 * g * g for g in gradient]
        found += [0.5 + 0.1 * gradient[a] * gradient[b] for a, b in ((0, 1), (0, 2), (1, 2))]
        found.append(image.sigmoid())
        return torch.stack(found, dim=1)

    @staticmethod
    def gradient(image):
        return [torch.roll(image, -1, axis) - torch.roll(image, 1, axis) for axis in (-3, -2, -1)]


def predicted(network, tiles):
    return network(tiles)


def tiles_of(seed, shape=CUBE):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (2, 1, *shape)).astype(np.float32))


@given(st.sampled_from(list(of_the_cube())), st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_what_is_turned_comes_back(symmetry, seed):
    values = torch.from_numpy(np.random.default_rng(seed).random((1, 2, 3, 4, 5), np.float32))
    assert torch.equal(turn_back(turn(values, symmetry), symmetry), values)


@given(st.sampled_from(TURNS), st.sampled_from(["mean", "min", "max"]), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_augmentation_of_an_equivariant_network_changes_nothing(turns, reduce, seed):
    tiles = tiles_of(seed)
    plain = Turning(HEADS).values([Ideal()], tiles, predicted)
    augmented = Turning(HEADS, turns, reduce).values([Ideal()], tiles, predicted)
    # an affinity that leaves the tile is rolled around by this network, which is not what a turned one sees
    whole = torch.ones_like(plain, dtype=torch.bool)
    for channel, offset in enumerate(OFFSETS, 1):
        for axis, step in enumerate(offset, 2):
            edge = [slice(None)] * 5
            edge[1] = channel
            if step:
                edge[axis] = slice(-abs(step), None)
                whole[tuple(edge)] = False
                edge[axis] = slice(0, abs(step))
                whole[tuple(edge)] = False
    torch.testing.assert_close(augmented[whole], plain[whole], atol=1e-6, rtol=0)


def test_a_network_that_prefers_a_direction_is_evened_out():
    class Shifted(nn.Module):
        def forward(self, x):
            return torch.roll(x, 1, -1)

    heads = (Head("foreground", ("foreground",)),)
    tiles = torch.zeros(1, 1, 1, 5, 5)
    tiles[..., 2, 2] = 8.0
    mean = Turning(heads, "plane").values([Shifted()], tiles, predicted)[0, 0, 0]
    assert torch.equal(mean, mean.T)
    assert torch.equal(mean, mean.flip(0))
    assert mean[2, 3] == mean[1, 2] == 2.0


def test_the_least_and_the_largest_value_are_taken_over_symmetries_and_networks():
    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return torch.full_like(x, self.value)

    heads, tiles = (Head("foreground", ("foreground",)),), torch.zeros(1, 1, 1, 2, 2)
    networks = [Constant(0.2), Constant(0.6), Constant(0.4)]
    found = {r: float(Turning(heads, "flips", r).values(networks, tiles, predicted)[0, 0, 0, 0, 0])
             for r in ("mean", "min", "max")}  # fmt: skip
    assert found == pytest.approx({"mean": 0.4, "min": 0.2, "max": 0.6})


def test_affinities_at_the_border_are_those_of_the_symmetries_that_see_them():
    heads = (Head("affinity", ("x",), kind=Kind.AFFINITY, offsets=((0, 0, 1),)),)

    class Columns(nn.Module):
        """Affinity of a column: how bright it is in the tile as it lies."""

        def forward(self, x):
            return x

    tiles = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 1, 1, 3)
    found = Turning(heads, "flips").values([Columns()], tiles, predicted)[0, 0, 0, 0]
    assert found.tolist() == [1.5, 3.0, 4.0]  # mean of (1, 2), of (2, 4), and 4 alone


def test_every_symmetry_is_seen_once_by_every_network():
    seen = []

    class Seeing(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.flatten().tolist()))
            return x

    heads = (Head("foreground", ("foreground",)),)
    tiles = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    Turning(heads, "all").values([Seeing()], tiles, predicted)
    assert len(seen) == len(set(seen)) == len(symmetries("all"))


def test_logits_are_divided_by_the_temperature_of_their_head():
    class Two(nn.Module):
        def forward(self, x):
            return {"a": x, "b": x}

    found = Tempered(Two(), {"a": 2.0})(torch.full((1, 1, 1, 1, 1), 3.0))
    assert (float(found["a"]), float(found["b"])) == (1.5, 3.0)
