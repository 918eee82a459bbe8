"""A network small enough for tests; a module of its own, so that spawned workers can import it."""

from typing import Any, ClassVar

import numpy as np

from mitocore import ArraySpec, Augment, Head, Kind, Model, Normalizer, Shape, Target, VoxelSize, Window


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


class PlainNet(TinyNet):
    """Without norm and dropout: what a sample gives does not depend on the others of its batch."""

    def build(self) -> Any:
        from torch import nn

        from mitocore.nn import Named

        return Named(nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 1)), "foreground")


class PartedNet(TinyNet):
    """Names its parts."""

    def parts(self) -> dict[str, tuple[str, ...]]:
        return {"encoder": ("net.0", "net.1"), "head": ("net.4",)}


class Wide(Augment):
    """Asks for context and moves the crop along z, so that the context can be seen."""

    reach: int = 3
    """Voxels of context."""
    shift: int = 0
    """Voxels to move by."""

    def halo(self, shape: Shape, voxel_size: VoxelSize | None) -> Shape:
        return (self.reach, self.reach, self.reach)

    def apply(self, image: Any, labels: Any, voxel_size: VoxelSize | None, rng: Any) -> Any:
        return np.roll(image, self.shift, 1), {name: np.roll(array, self.shift, 0) for name, array in labels.items()}


class Shrinking(Augment):
    """Breaks its contract."""

    def apply(self, image: Any, labels: Any, voxel_size: VoxelSize | None, rng: Any) -> Any:
        return image[:, 1:], labels


class Near(Target):
    """1 where an object lies within one voxel along z."""

    def halo(self, voxel_size: VoxelSize | None) -> Shape:
        return (1, 0, 0)

    def gives(self) -> ArraySpec:
        return ArraySpec(Kind.PROBABILITY, ("near",))

    def encode(self, labels: Any, voxel_size: VoxelSize | None) -> Any:
        inside = labels["instances"] > 0
        near = inside.copy()
        near[1:] |= inside[:-1]
        near[:-1] |= inside[1:]
        return near[None].astype(np.float32)


class PlaneMean(Normalizer):
    """Subtracts the mean of each plane: not voxel-wise."""

    voxelwise: ClassVar[bool] = False

    def fit(self, boxes: Any, spec: Any) -> Any:
        return {}

    def apply(self, values: Any, stats: Any) -> Any:
        return (values - values.mean(axis=(2, 3), keepdims=True, dtype=np.float32)).astype(np.float32)

    def block_shape(self, volume: Any, preferred: Shape) -> Shape:
        return (4, *volume.shape[1:])
