"""Losses that relate heads to each other and need no truth (regularisers of PyTorch Connectomics, Lin et al. 2021)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mitocore.builtin.losses.counted import CountedLoss, mean_of
from mitocore.builtin.losses.pairing import check_alone, place
from mitocore.errors import WiringError
from mitocore.specs import ArraySpec, Head, Kind

if TYPE_CHECKING:
    from torch import Tensor

    from mitocore.builtin.losses.counted import Compared


class _Pair(CountedLoss):
    """Relates two heads of one channel."""

    second: ClassVar[tuple[Kind, str]] = (Kind.PROBABILITY, "sigmoid")
    example: ClassVar[str] = 'heads = ["foreground", "boundary"]'

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        where = place(heads)
        check_alone(target, where)
        wanted = [(Kind.PROBABILITY, "sigmoid"), self.second]
        if [(head.kind, head.activation) for head in heads] != wanted:
            said = " and ".join(f"{kind} after {activation!r}" for kind, activation in wanted)
            got = ", ".join(f"{head.kind} after {head.activation!r}" for head in heads)
            raise WiringError(f"this loss relates {said}, not {got}", where=where, hint=self.example)
        if any(len(head.channels) != 1 for head in heads):
            problem = f"this loss relates heads of one channel, not {[len(head.channels) for head in heads]}"
            raise WiringError(problem, where=where, hint=self.example)


class Certainty(CountedLoss):
    """Draws probabilities away from 0.5: mean of 1 / max(|p - 0.5|, 0.01) - 2, which is 0 for 0 and 1."""

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        where = place(heads)
        check_alone(target, where)
        if [head.activation for head in heads] != ["sigmoid"]:
            got = ", ".join(f"{head.name!r} after {head.activation!r}" for head in heads)
            raise WiringError(f"this loss takes one head after a sigmoid, not {got}", where=where, hint='head = "…"')

    def comparison(self) -> "Compared":
        import torch

        def compared(logits: "Tensor", *, target: "Tensor | None", weight: "Tensor") -> "Tensor":
            del target
            away = (torch.sigmoid(logits) - 0.5).abs().clamp(min=0.01)
            return mean_of(1 / away - 2, weight)

        return compared


class ForegroundBoundary(_Pair):
    """Boundaries lie where the foreground changes: squared difference of boundary and grown gradient of foreground.

    The gradient is the central difference in the plane; a voxel counts if all voxels it is compared with count.
    """

    grow: Annotated[int, Field(ge=0)] = 1
    """Voxels in the plane by which the gradient is grown; the boundary target's own."""

    def comparison(self) -> "Compared":
        import torch
        from torch.nn.functional import max_pool3d, pad

        size, reach = 2 * self.grow + 1, self.grow + 1

        def pooled(values: "Tensor", size: int) -> "Tensor":
            return max_pool3d(values, (1, size, size), stride=1, padding=(0, size // 2, size // 2))

        def compared(
            foreground: "Tensor", boundary: "Tensor", *, target: "Tensor | None", weight: "Tensor"
        ) -> "Tensor":
            del target
            inside = pad(torch.sigmoid(foreground), (1, 1, 1, 1, 0, 0), mode="replicate")
            along_y = inside[..., 2:, 1:-1] - inside[..., :-2, 1:-1]
            along_x = inside[..., 1:-1, 2:] - inside[..., 1:-1, :-2]
            change = (along_y**2 + along_x**2 + 1e-7).sqrt().clamp(max=1)
            terms = (pooled(change, size) - torch.sigmoid(boundary)) ** 2
            near_hidden = pooled((weight == 0).float(), 2 * reach + 1) > 0
            return mean_of(terms, weight.masked_fill(near_hidden, 0))

        return compared


class BoundaryDistance(_Pair):
    """Boundaries lie where the distance is 0: mean of (boundary * |distance|)²."""

    second: ClassVar = (Kind.DISTANCE, "tanh")
    example: ClassVar = 'heads = ["boundary", "distance"]'

    def comparison(self) -> "Compared":
        import torch

        def compared(boundary: "Tensor", distance: "Tensor", *, target: "Tensor | None", weight: "Tensor") -> "Tensor":
            del target
            return mean_of((torch.sigmoid(boundary) * torch.tanh(distance)) ** 2, weight)

        return compared


class ForegroundDistance(_Pair):
    """Foreground lies where the distance is positive: cross-entropy with the distance's sign, weighed by its size."""

    second: ClassVar = (Kind.DISTANCE, "tanh")
    example: ClassVar = 'heads = ["foreground", "distance"]'

    def comparison(self) -> "Compared":
        import torch
        from torch.nn.functional import logsigmoid

        def compared(
            foreground: "Tensor", distance: "Tensor", *, target: "Tensor | None", weight: "Tensor"
        ) -> "Tensor":
            del target
            signed = torch.tanh(distance)
            terms = -logsigmoid(foreground) * signed.clamp(min=0) + logsigmoid(-foreground) * signed.clamp(max=0)
            return mean_of(terms, weight)

        return compared


class Exclusive(CountedLoss):
    """Two probabilities are not both high: mean of their product.

    The channels of all heads in turn: one, other and, if there is a third, where it matters (it gets no gradient).
    """

    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        where = place(heads)
        check_alone(target, where)
        channels = sum(len(head.channels) for head in heads)
        if channels not in (2, 3) or any(head.activation != "sigmoid" for head in heads):
            got = ", ".join(f"{len(head.channels)} after {head.activation!r}" for head in heads)
            problem = f"this loss takes two or three channels after a sigmoid, not {got}"
            raise WiringError(problem, where=where, hint='heads = ["pre", "post"]')

    def comparison(self) -> "Compared":
        import torch

        def compared(*logits: "Tensor", target: "Tensor | None", weight: "Tensor") -> "Tensor":
            del target
            probability = torch.sigmoid(torch.cat(logits, 1))
            terms = probability[:, :1] * probability[:, 1:2]
            if probability.shape[1] == 3:
                terms = terms * probability[:, 2:].detach()
            return mean_of(terms, weight)

        return compared
