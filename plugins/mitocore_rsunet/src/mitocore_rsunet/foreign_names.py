"""What tensors of other programs are called in the networks of this plugin."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_CONNECTOMICS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^conv_in\.", "stem."),
        (r"^down_layers\.", "down."),
        (r"^up_layers\.(\d+)\.0\.", r"up.\1.before."),
        (r"^up_layers\.(\d+)\.1\.", r"up.\1.block."),
        (r"^conv_out\.0\.", "head."),
        (r"^feat_layers\.(\d+)\.", r"up.\1.spread."),
        (r"^non_local\.g\.", "deepest.value."),
        (r"^non_local\.theta\.", "deepest.query."),
        (r"^non_local\.phi\.", "deepest.key."),
        (r"^non_local\.W\.0\.", "deepest.out."),
        (r"^non_local\.W\.1\.", "deepest.norm."),
        (r"^backbone\.layer(\d+)\.", r"down.\1."),
        (r"^latlayers\.", "lateral."),
        (r"\.projector\.", ".project."),
        (r"\.conv\.1\.fc\.", ".excite.weigh."),
    )
)
_CONVOLUTION = re.compile(r"\.conv\.(?:0\.)?([01])\.([012])\.")
"""Of a residual block: which of its two convolutions, and which of the three layers around it; with squeeze and
excitation they lie one level deeper."""

_CATENA = {
    "conv0": "stem.0",
    **{f"conv{level + 1}": f"down.{level}" for level in range(4)},
    "conv_bottleneck": "down.4",
    **{f"up{8 - level}": f"up.{level}.up" for level in range(4)},
    **{f"conv{8 - level}": f"up.{level}.block" for level in range(4)},
    "conv9": "head",
}


def bare(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Tensors of a network that gives one tensor, under the names which they have behind its cut into heads."""
    return {name if name.startswith("net.") else f"net.{name}": tensor for name, tensor in state.items()}


def of_connectomics(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Tensors of `unet_3d`, `unet_plus_3d` and `fpn_3d` of PyTorch Connectomics 1.0; others keep their names."""
    return bare({_of_connectomics(name): tensor for name, tensor in state.items()})


def _of_connectomics(name: str) -> str:
    for pattern, ours in _CONNECTOMICS:
        name = pattern.sub(ours, name)
    return _CONVOLUTION.sub(lambda found: f".layers.{3 * int(found[1]) + int(found[2])}.", name)


def of_catena(state: "Mapping[str, Tensor]", *, biases: bool) -> "dict[str, Tensor]":
    """Tensors of Catena's RS-UNet; others keep their names.

    Its convolutions have a bias though a norm follows. Where ours have none (`biases` false), it is taken off the mean
    that the norm subtracts, which is the same.
    """
    if "conv_bottleneck.conv1.weight" not in state:
        return bare(state)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        found[f"{_CATENA.get(first, first)}.{rest.replace('bn', 'norm')}"] = tensor
    if not biases:
        for name in [name for name in found if re.search(r"\.conv[123]\.bias$", name)]:
            mean = re.sub(r"\.conv([123])\.bias$", r".norm\1.running_mean", name)
            found[mean] = found[mean] - found.pop(name)
    return bare(found)
