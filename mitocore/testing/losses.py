"""What losses promise. torch is imported where it is used."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mitocore.errors import WiringError
from mitocore.interfaces import Loss
from mitocore.specs import ArraySpec, Head, Kind
from mitocore.testing.checking import Check, NotChecked, require
from mitocore.testing.suite import ComponentTests

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["sigmoid", "softmax", "tanh", "none"]
SHAPE = (4, 6, 8)
POINTS = 40
_PLACES = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class Pair:
    """Heads and target that a loss compares."""

    heads: tuple[Head, ...]
    target: ArraySpec | None


@cache
def _pairs() -> tuple[Pair, ...]:
    """Pairs of which a loss may accept some: every kind and activation, one to three channels, one head or two, a
    target or none; heads that differ; points with their places."""
    real = (Kind.AFFINITY, Kind.OFFSET, Kind.DISTANCE, Kind.DESCRIPTOR, Kind.EMBEDDING)
    found = []
    for count, kind in product((1, 2, 3), (Kind.PROBABILITY, *real)):
        names = tuple(f"channel{number}" for number in range(count))
        offsets = tuple((0, 0, -1 - n) for n in range(count)) if kind is Kind.AFFINITY else ()
        usual: tuple[Activation, ...] = ("sigmoid", "softmax", "none", "tanh")
        for activation in usual if kind is Kind.PROBABILITY else ("none", "sigmoid", "tanh"):
            one, two = (Head(name, names, activation, kind, offsets) for name in ("one", "two"))
            targets = [ArraySpec(kind, names, offsets), *(ArraySpec(k) for k in (Kind.SEMANTIC, Kind.INSTANCE)), None]
            for target, heads in product(targets, ((one,), (one, two))):
                found.append(Pair(heads, target))
    probability = Head("one", ("",))
    squashed = Head("two", ("",), "tanh", Kind.DISTANCE)
    found += [Pair(heads, None) for heads in ((probability, squashed), (squashed, probability))]
    places = Head("places", _PLACES, "none", Kind.OFFSET, auxiliary=True)
    choices: tuple[tuple[int, Activation], ...] = ((1, "sigmoid"), (3, "sigmoid"), (3, "softmax"))
    for count, activation in choices:
        names = tuple(f"channel{number}" for number in range(count))
        points = Head("points", names, activation, auxiliary=True)
        found.append(Pair((points, places), ArraySpec(Kind.PROBABILITY, names)))
    return tuple(found)


def pair_of(loss: Loss) -> Pair:
    """The first pair that a loss accepts.

    Raises
    ------
    NotChecked
        If it accepts none.
    """
    for pair in _pairs():
        try:
            loss.accepts(pair.heads, pair.target)
        except WiringError:
            continue
        return pair
    raise NotChecked(f"{type(loss).__name__} accepts no usual pair of head and target: write pair()")


def _target(pair: Pair, seed: int = 0) -> "Tensor | None":
    import torch

    if pair.target is None:
        return None
    rng = torch.Generator().manual_seed(seed)
    channels, activation = len(pair.target.channels), pair.heads[0].activation
    noise = torch.rand((2, channels, *SHAPE), generator=rng)
    if pair.target.kind in (Kind.SEMANTIC, Kind.INSTANCE):
        return (noise * max(2, len(pair.heads[0].channels))).floor()
    if activation == "softmax":
        return (noise == noise.amax(1, keepdim=True)).float()
    if activation == "tanh":
        return 1.8 * noise - 0.9
    if pair.target.kind in (Kind.PROBABILITY, Kind.AFFINITY):
        return noise.round()
    return 0.05 + 0.9 * noise if activation == "sigmoid" else 4 * noise - 2


def _logits(pair: Pair, seed: int = 1) -> "list[Tensor]":
    import torch

    rng = torch.Generator().manual_seed(seed)
    made = []
    for head in pair.heads:
        space = (1, 1, POINTS) if head.auxiliary else SHAPE
        draw = torch.rand if _says_where(head) else torch.randn
        made.append(draw((2, len(head.channels), *space), generator=rng))
    return made


def _says_where(head: Head) -> bool:
    return head.auxiliary and head.activation == "none" and head.channels in (_PLACES, _PLACES[1:])


def _hidden(pair: Pair, logits: "Sequence[Tensor]", weight: "Tensor") -> "list[Tensor]":
    """Which logits belong to voxels of weight 0, (n, 1, …) for each head; of places none."""
    import torch

    places = next((values for head, values in zip(pair.heads, logits, strict=True) if _says_where(head)), None)
    found = []
    for head, values in zip(pair.heads, logits, strict=True):
        if _says_where(head):
            found.append(torch.zeros_like(values[:, :1], dtype=torch.bool))
        elif head.auxiliary and places is not None:
            at = (places.detach()[:, :, 0, 0] * torch.tensor(SHAPE).view(1, 3, 1)).long()
            crops = [weight[n, 0, z, y, x] == 0 for n, (z, y, x) in enumerate(at)]
            found.append(torch.stack(crops).view(len(at), 1, 1, 1, -1))
        else:
            found.append(weight == 0)
    return found


def _perfect(pair: Pair) -> "Tensor | None":
    """Logits of the first head that agree with the target; None where only the author knows them."""
    import torch

    head, target = pair.heads[0], _target(pair)
    if target is None or len(pair.heads) != 1 or pair.target is None:
        return None
    if pair.target.kind is Kind.SEMANTIC and head.activation == "softmax":
        classes = torch.arange(len(head.channels)).view(1, -1, 1, 1, 1)
        return 12 * (2 * (target == classes).float() - 1)
    if target.shape[1] != len(head.channels) or pair.target.kind in (Kind.SEMANTIC, Kind.INSTANCE):
        return None
    if head.activation == "softmax":
        return 12 * (2 * target - 1)
    if head.activation == "none":
        return target
    return torch.atanh(target) if head.activation == "tanh" else torch.logit(target, eps=1e-5)


def _weight() -> "Tensor":
    import torch

    return torch.ones((2, 1, *SHAPE))


def check_value(loss: Loss, pair: Pair | None = None) -> None:
    """The value is one number, finite and not negative."""
    pair = pair or pair_of(loss)
    value = loss.build()(*_logits(pair), target=_target(pair), weight=_weight())
    require(value.ndim == 0, f"a value of shape {tuple(value.shape)}", "return a scalar: the mean or the sum by weight")
    require(value.isfinite(), f"a value of {value.item():g}", "divide by no 0, take no logarithm of 0")
    require(value >= 0, f"a value of {value.item():g}", "let 0 be the best value")


def check_perfect(loss: Loss, pair: Pair | None = None) -> None:
    """A perfect prediction has a smaller loss than a random one."""
    pair = pair or pair_of(loss)
    perfect = _perfect(pair)
    if perfect is None:
        return
    compared, target = loss.build(), _target(pair)
    best = compared(perfect, target=target, weight=_weight())
    other = compared(*_logits(pair), target=target, weight=_weight())
    seen = f"a perfect prediction has a loss of {best.item():g}, a random one of {other.item():g}"
    require(best < other, seen, "look for an activation applied twice, or a sign")


def check_weight_zero(loss: Loss, pair: Pair | None = None) -> None:
    """Voxels of weight 0 have no gradient, and what is predicted or true there does not matter."""
    import torch

    pair = pair or pair_of(loss)
    compared, target, weight = loss.build(), _target(pair), _weight()
    weight[:, :, :2, 1:4] = 0
    logits = [values.requires_grad_() for values in _logits(pair)]
    hidden = _hidden(pair, logits, weight)
    value = compared(*logits, target=target, weight=weight)
    torch.autograd.backward(value)
    change = "multiply every voxel's term by `weight`, and divide by the sum of weights, not by the number of voxels"
    for head, values, out in zip(pair.heads, logits, hidden, strict=True):
        leak = 0.0 if values.grad is None else float((values.grad * out).abs().max())
        require(leak == 0, f"head {head.name!r} has a gradient of {leak:g} where the weight is 0", change)
    other = [torch.where(out, 5 - 2 * values, values).detach() for values, out in zip(logits, hidden, strict=True)]
    if target is not None:
        target = target.clone()
        target[:, :, :2, 1:4] = 1 - target[:, :, :2, 1:4]
    found = compared(*other, target=target, weight=weight)
    seen = f"the loss is {found.item():g}, not {value.item():g}, after a change where the weight is 0"
    require(abs(found.item() - value.item()) <= 1e-6 * max(1, abs(value.item())), seen, change)


def check_no_weight(loss: Loss, pair: Pair | None = None) -> None:
    """A batch without any weight has a finite loss and a finite gradient."""
    import torch

    pair = pair or pair_of(loss)
    logits = [values.requires_grad_() for values in _logits(pair)]
    value = loss.build()(*logits, target=_target(pair), weight=0 * _weight())
    torch.autograd.backward(value)
    finite = bool(value.isfinite()) and all(v.grad is None or bool(v.grad.isfinite().all()) for v in logits)
    require(finite, f"a batch of weight 0 has a loss of {value.item():g}", "divide by a sum of weights that may be 0")


def check_batch_order(loss: Loss, pair: Pair | None = None) -> None:
    """The order of the crops in a batch does not matter."""
    pair = pair or pair_of(loss)
    compared, target = loss.build(), _target(pair)
    value = compared(*_logits(pair), target=target, weight=_weight())
    turned = None if target is None else target.flip(0)
    found = compared(*(values.flip(0) for values in _logits(pair)), target=turned, weight=_weight())
    seen = f"{found.item():g} with the crops of a batch in another order, not {value.item():g}"
    require(abs(found.item() - value.item()) <= 1e-5 * max(1, abs(value.item())), seen, "treat all crops alike")


def check_half_precision(loss: Loss, pair: Pair | None = None) -> None:
    """Logits of ±60 000 in half precision give a finite loss and a finite gradient."""
    import torch

    pair = pair or pair_of(loss)
    logits = [
        (values if _says_where(head) else values.sign() * 60_000).to(torch.float16).requires_grad_()
        for head, values in zip(pair.heads, _logits(pair), strict=True)
    ]
    value = loss.build()(*logits, target=_target(pair), weight=_weight())
    change = "begin with logits.float(), and use functions of logits, such as binary_cross_entropy_with_logits"
    require(value.isfinite(), f"a loss of {value.item():g} for logits of 60 000 in half precision", change)
    torch.autograd.backward(value)
    finite = all(values.grad is None or bool(values.grad.isfinite().all()) for values in logits)
    require(finite, "a gradient that is not finite for logits of 60 000 in half precision", change)


def check_accepts(loss: Loss, pair: Pair | None = None) -> None:
    """`accepts` refuses pairs that it cannot compare, with a WiringError; what it accepts can be compared."""
    accepted = [pair] if pair else []
    for other in _pairs():
        try:
            loss.accepts(other.heads, other.target)
        except WiringError:
            continue
        accepted.append(other)
    seen = f"accepts refuses none of {len(_pairs())} pairs of heads and targets"
    require(len(accepted) < len(_pairs()), seen, "raise mitocore.WiringError for kinds and channels that do not fit")
    compared = loss.build()
    for one in accepted:
        value = compared(*_logits(one), target=_target(one), weight=_weight())
        what = f"{[head.kind.value for head in one.heads]} with {one.target.kind.value if one.target else 'no target'}"
        require(value.ndim == 0, f"{what} is accepted but gives no scalar", "refuse it in `accepts`")


CHECKS: tuple[Check, ...] = (
    check_value,
    check_perfect,
    check_weight_zero,
    check_no_weight,
    check_batch_order,
    check_half_precision,
    check_accepts,
)


class LossTests(ComponentTests):
    """Tests of a loss. Set `component`; write `pair` if it compares none of the usual heads and targets."""

    checks: ClassVar[tuple[Check, ...]] = CHECKS

    def pair(self) -> tuple[Sequence[Head], ArraySpec | None] | None:
        """Heads and target to compare; None: the first usual pair that `accepts` lets pass."""
        return None

    def apply(self, check: Check, component: Any, folder: Path) -> None:
        """Hand the check the pair."""
        own = self.pair()
        check(component, Pair(tuple(own[0]), own[1]) if own else None)
