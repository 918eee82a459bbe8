"""Weights that make up for rare foreground, computed from each crop."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Balance = Literal["none", "crop", "crop_grown"]
_RAREST = 0.05


def balanced(target: "Tensor", weight: "Tensor", balance: Balance) -> "Tensor":
    """Weights (n, c, z, y, x) under which foreground and background of a crop count alike.

    The share of foreground among what counts is clipped to 5 … 95 %, and voxels of the rarer side are multiplied by
    majority / minority, at most 19. A crop is taken as a whole, all channels together. "crop_grown" multiplies the
    foreground grown by one voxel in the plane (weights "1" and "1-1" of PyTorch Connectomics, Lin et al. 2021,
    arXiv:2112.05754).

    Parameters
    ----------
    target
        (n, c, z, y, x); above 0 is foreground.
    weight
        (n, 1, z, y, x); voxels of weight 0 are neither foreground nor background.
    balance
        "none" gives `weight` itself.

    Examples
    --------
    >>> import torch
    >>> target = torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 1, 1, 4)
    >>> balanced(target, torch.ones_like(target), "crop").flatten().tolist()
    [3.0, 1.0, 1.0, 1.0]
    >>> balanced(target, torch.ones_like(target), "crop_grown").flatten().tolist()
    [3.0, 3.0, 1.0, 1.0]
    """
    import torch
    from torch.nn.functional import max_pool3d

    if balance == "none":
        return weight
    weight = weight.expand_as(target)
    inside = (target > 0) & (weight > 0)
    crop = (1, 2, 3, 4)
    mass = weight.sum(crop, keepdim=True)
    share = (inside * weight).sum(crop, keepdim=True) / torch.where(mass > 0, mass, 1)
    share = share.clamp(_RAREST, 1 - _RAREST)
    factor = torch.maximum(share, 1 - share) / torch.minimum(share, 1 - share)
    if balance == "crop_grown":
        inside = max_pool3d(inside.float(), (1, 3, 3), stride=1, padding=(0, 1, 1)) > 0
    rarer = inside ^ (share > 0.5)
    return torch.where(rarer, factor * weight, weight)
