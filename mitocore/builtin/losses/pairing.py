"""Which heads and targets a loss can compare, and what to write if it cannot."""

from collections.abc import Sequence
from typing import ClassVar, get_args

from mitocore.builtin.losses.counted import CountedLoss
from mitocore.errors import WiringError
from mitocore.specs import ArraySpec, Head, Kind

_NAMED = (Kind.OFFSET, Kind.DESCRIPTOR)  # whose channels have an order that matters
_FOR = {
    "sigmoid": 'loss = "bce"',
    "softmax": 'loss = "cross_entropy"',
    "tanh": 'loss = { loss = "mse", activation = "tanh" }',
    "none": 'loss = "mse"',
}


class OneHead(CountedLoss):
    """Compares one head with a target of the same kind and channels."""

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.PROBABILITY, Kind.AFFINITY)
    """Kinds of heads it compares."""

    def ends_in(self) -> str:
        """The activation that the head must have."""
        return str(getattr(self, "activation", "sigmoid"))

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        where = place(heads)
        if len(heads) != 1:
            raise WiringError(f"this loss compares one head, not {len(heads)}", where=where, hint='head = "…"')
        (head,) = heads
        self.check_head(head, where)
        check_target(head, target, where)

    def check_head(self, head: Head, where: str) -> None:
        """Refuse a head of another kind or activation."""
        if head.kind not in self.kinds:
            kinds = " or ".join(self.kinds)
            problem = f"this loss compares {kinds}, and head {head.name!r} gives {head.kind}"
            raise WiringError(problem, where=where, hint=_FOR[head.activation])
        if head.activation != self.ends_in():
            problem = f"head {head.name!r} ends in {head.activation!r}, and this loss expects {self.ends_in()!r}"
            field = type(self).model_fields.get("activation")
            own = field is not None and head.activation in get_args(field.annotation)
            hint = f'activation = "{head.activation}"' if own else _FOR[head.activation]
            raise WiringError(problem, where=where, hint=hint)
        if head.activation == "softmax" and len(head.channels) < 2:
            problem = f"the softmax of head {head.name!r} has one channel, which is always 1"
            raise WiringError(problem, where=where, hint="a head with a channel per class, or with a sigmoid")


def place(heads: Sequence[Head]) -> str:
    """Where such an objective stands."""
    return f"[[objective]] {', '.join(head.name for head in heads)}"


def check_target(head: Head, target: ArraySpec | None, where: str) -> None:
    """Refuse a target of another kind, with other channels or other offsets than the head.

    Raises
    ------
    WiringError
        If they differ.
    """
    if target is None or target.kind is not head.kind:
        got = f"a target of kind {target.kind}" if target else "no target"
        problem = f"this loss needs a target of kind {head.kind}, not {got}"
        hint = 'target = "foreground"' if head.kind is Kind.PROBABILITY else f"a target that gives {head.kind}"
        raise WiringError(problem, where=where, hint=hint)
    if len(target.channels) != len(head.channels):
        problem = f"head and target have {len(head.channels)} and {len(target.channels)} channels"
        raise WiringError(problem, where=where, hint="choose a target with the channels of the head")
    if target.offsets != head.offsets:
        problem = f"head and target have the offsets {list(head.offsets)} and {list(target.offsets)}"
        raise WiringError(problem, where=where, hint="choose a target with the offsets of the head")
    if head.kind in _NAMED and target.channels != head.channels:
        problem = f"the channels of head and target are {list(head.channels)} and {list(target.channels)}"
        raise WiringError(problem, where=where, hint="choose a target with the channels of the head")


def check_alone(target: ArraySpec | None, where: str) -> None:
    """Refuse a target: the loss only relates heads.

    Raises
    ------
    WiringError
        If there is one.
    """
    if target is not None:
        raise WiringError("this loss relates heads and takes no target", where=where, hint="leave target out")
