"""What compares logits with targets."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from mitocore.component import Component
from mitocore.specs import ArraySpec, Head

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Component):
    """Compares one head with one target; or relates several heads, with or without a target."""

    kind: ClassVar[str] = "loss"

    @abstractmethod
    def accepts(self, heads: Sequence[Head], target: ArraySpec | None) -> None:
        """Raise WiringError if this loss cannot compare them."""

    @abstractmethod
    def build(self) -> "Callable[..., Tensor]":
        """A function or module, called as f(*logits, target=…, weight=…) → scalar; logits in the order of heads,
        float32 (n, c, z, y, x); target the same or None; weight (n, 1, z, y, x).
        Voxels of weight 0 must not influence value or gradient."""
