"""A network small enough for tests; a module of its own, so that spawned workers can import it."""

from typing import Any

from mitocore import Head, Model, Window


class TinyNet(Model):
    """Two convolutions with dropout between them."""

    width: int = 4
    """Feature maps of the hidden layer."""
    context: int = 0
    """Voxels of z that go in but do not come out, on each side."""
    dropout: float = 0.2
    """Share of hidden features left out in training."""
    two: bool = False
    """Whether there is a second head, "boundary"."""

    def window(self) -> Window:
        z = 4 + 2 * self.context
        return Window((z, 16, 16), crop=(self.context, 0, 0), overlap=(0, 4, 4), divisor=(1, 2, 2))

    def heads(self) -> tuple[Head, ...]:
        names = ("foreground", "boundary") if self.two else ("foreground",)
        return tuple(Head(name, channels=(name,)) for name in names)

    def build(self) -> Any:
        from torch import nn

        from mitocore.nn import Named

        first = nn.Conv3d(1, self.width, (1 + 2 * self.context, 3, 3), padding=(0, 1, 1))
        hidden = [nn.BatchNorm3d(self.width), nn.ReLU(), nn.Dropout3d(self.dropout)]
        names = {head.name: 1 for head in self.heads()}
        return Named(nn.Sequential(first, *hidden, nn.Conv3d(self.width, len(names), 1)), **names)

    def adapt(self, state: dict[str, Any]) -> dict[str, Any]:
        """Files of the old kind call the first layer "stem"."""
        return {name.replace("stem.", "net.0."): tensor for name, tensor in state.items()}
