"""Components of this plugin; importing it imports none of them."""

from typing import TYPE_CHECKING

from mitocore import hookimpl

if TYPE_CHECKING:
    from mitocore.registry import Registry


@hookimpl
def mitocore_register(registry: "Registry") -> None:
    """Declare the models, the post-processors and the demo."""
    models, instances = "mitocore_rsunet.models", "mitocore_rsunet.instances"
    registry.add("model", "rsunet", f"{models}:RSUNet", "residual symmetric U-Net; isotropic or anisotropic")
    registry.add("model", "monai_unet", f"{models}:MonaiUNet", "MONAI's U-Net with Catena's settings as defaults")
    summary = "residual 3-D U-Nets of PyTorch Connectomics"
    registry.add("model", "residual_unet", f"{models}:ResidualUNet", summary)
    postprocessors = {
        "connected_components": ("ConnectedComponents", "objects of a mask or a thresholded probability"),
        "size_filter": ("SizeFilter", "removes objects by size, or gives small ones to a neighbour"),
        "fill_holes": ("FillHoles", "fills cavities enclosed by one instance"),
    }
    for name, (component, summary) in postprocessors.items():
        registry.add("postprocessor", name, f"{instances}:{component}", summary)
    registry.demo("mito", "mitocore_rsunet:demos/mito", "mitochondria in a synthetic volume, as instances")
