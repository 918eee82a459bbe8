"""A loss for thin structures, which looks at centre lines and middle surfaces."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mitocore.builtin.losses.overlap import Overlap

if TYPE_CHECKING:
    from torch import Tensor

    from mitocore.builtin.losses.counted import Compared


class ClDice(Overlap):
    """1 - clDice of soft skeletons (Shit et al. 2021, arXiv:2003.07311): whether each skeleton lies in the other mask.

    The skeletons are MONAI's; the sums are ours, because MONAI's loss takes no weights. Voxels of weight 0 are
    background of both sides. A thin structure keeps its score if it is predicted too thick: add Dice.
    """

    background: bool = False
    """Whether the first class of a softmax counts like the others."""
    iterations: Annotated[int, Field(ge=1)] = 5
    """Erosions of the skeleton: at least half the thickness of a structure, in voxels."""
    per_slice: bool = False
    """Skeletons of each plane, not of the volume."""

    def comparison(self) -> "Compared":
        import torch
        from monai.losses.cldice import soft_skel

        def skeleton(mask: "Tensor") -> "Tensor":
            if not self.per_slice:
                result: Tensor = soft_skel(mask, self.iterations)
                return result
            planes: Tensor = soft_skel(mask.transpose(1, 2).flatten(0, 1), self.iterations)
            return planes.reshape(mask.transpose(1, 2).shape).transpose(1, 2)

        space = (0, 2, 3, 4) if self.batch else (2, 3, 4)

        def inside(lines: "Tensor", mask: "Tensor", weight: "Tensor") -> "Tensor":
            within = (weight * lines * mask).sum(space)
            return (within + self.smooth) / ((weight * lines).sum(space) + self.smooth)

        def compared(logits: "Tensor", *, target: "Tensor", weight: "Tensor") -> "Tensor":
            probability, target = self.chosen(logits, target)
            hidden = weight == 0
            probability, target = probability.masked_fill(hidden, 0), target.masked_fill(hidden, 0)
            with torch.no_grad():
                lines = skeleton(target)
            precision, recall = inside(skeleton(probability), target, weight), inside(lines, probability, weight)
            return (1 - 2 * precision * recall / (precision + recall)).mean()

        return compared
