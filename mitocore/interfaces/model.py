"""What a network takes, what it gives, and how it is built."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from mitocore.component import Component
from mitocore.specs import Head, Window

if TYPE_CHECKING:
    from torch import Tensor, nn


class Model(Component):
    """A network: what it takes, what it gives, and how to build it.

    Everything but `build`, `load` and `adapt` must work without torch installed: it is called to check a pipeline.
    Options are what the weights depend on, or carry the mark `AtInference`. How large a window is *used* belongs to
    the engine (`predict.window`).
    """

    kind: ClassVar[str] = "model"

    def channels(self) -> tuple[str, ...]:
        """Names of the input channels."""
        return ("image",)

    @abstractmethod
    def window(self) -> Window:
        """The window used unless training or `predict` asks for another that fits `divisor`."""

    @abstractmethod
    def heads(self) -> tuple[Head, ...]: ...

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Parts that training may freeze or give a rate of their own, from input to output: by name, what the dotted
        names of their tensors begin with. Empty: the children of the network are the parts, by their own names.
        """
        return {}

    @abstractmethod
    def build(self) -> "nn.Module":
        """A fresh network with random weights, on the CPU, in training mode.

        Its ``forward(x: Tensor) -> Mapping[str, Tensor]`` takes float32 (n, c, z, y, x), normalised as the
        header says, and returns logits per head: (n, len(head.channels), *cropped input). In training mode the
        keys are exactly the names of `heads()`; in evaluation mode auxiliary heads may be missing. No activation,
        no loss and no device handling inside.
        """

    def load(self, path: str) -> "nn.Module | None":
        """A network from a weights file that is not safetensors (TorchScript, tuned or not); None: fill `build()`."""
        return None

    def adapt(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Rename tensors of a foreign state dict; used by `mitocore weights add`, and by a training whose
        first tensors are those of a file."""
        return state
