"""Components of this plugin; importing it imports none of them."""

from typing import TYPE_CHECKING

from mitocore import hookimpl

if TYPE_CHECKING:
    from mitocore.registry import Registry


@hookimpl
def mitocore_register(registry: "Registry") -> None:
    """Declare the models, the post-processors and the demo."""
    models, instances = "mitocore_rsunet.models", "mitocore_rsunet.instances"
    networks = {
        "rsunet": ("RSUNet", "residual symmetric U-Net; isotropic or anisotropic"),
        "residual_unet": ("ResidualUNet", "residual 3-D U-Nets of PyTorch Connectomics"),
        "fpn": ("FPN", "feature pyramid over a residual network, of PyTorch Connectomics"),
    }
    for name, (component, summary) in networks.items():
        registry.add("model", name, f"{models}:{component}", summary)
    monai = {
        "monai_unet": ("MonaiUNet", "MONAI's U-Net with Catena's settings as defaults"),
        "monai_basic_unet": ("MonaiBasicUNet", "MONAI's U-Net of five levels, full resolution included"),
        "monai_attention_unet": ("MonaiAttentionUNet", "MONAI's U-Net whose skips are weighed by attention"),
        "monai_swin_unetr": ("MonaiSwinUNETR", "MONAI's U-Net with an encoder of shifted-window attention"),
        "monai_segresnet": ("MonaiSegResNet", "MONAI's deep residual encoder with a light decoder"),
    }
    for name, (component, summary) in monai.items():
        registry.add("model", name, f"mitocore_rsunet.monai_models:{component}", summary)
    postprocessors = {
        "connected_components": ("ConnectedComponents", "objects of a mask or a thresholded probability"),
        "size_filter": ("SizeFilter", "removes objects by size, or gives small ones to a neighbour"),
        "fill_holes": ("FillHoles", "fills cavities enclosed by one instance"),
    }
    for name, (component, summary) in postprocessors.items():
        registry.add("postprocessor", name, f"{instances}:{component}", summary)
    watersheds = {
        "binary_watershed": ("BinaryWatershed", "instances around regions of very high foreground"),
        "bc_connected": ("BoundaryConnected", "instances between boundaries, widened by a box"),
        "bc_watershed": ("BoundaryWatershed", "instances from foreground and boundaries, by a watershed"),
        "bcd_watershed": ("BoundaryDistanceWatershed", "instances from foreground, boundaries and distances"),
        "distance_watershed": ("DistanceWatershed", "instances from a signed distance, by a watershed"),
    }
    for name, (component, summary) in watersheds.items():
        registry.add("postprocessor", name, f"mitocore_rsunet.watersheds:{component}", summary)
    affinities = {
        "affinity_components": ("affinities:AffinityComponents", "objects of neighbours with a high affinity"),
        "mutex_watershed": ("mutex:MutexWatershed", "objects of short- and long-range affinities"),
        "affinity_agglomeration": ("agglomeration:AffinityAgglomeration", "fragments of affinities, merged best first"),
    }
    for name, (component, summary) in affinities.items():
        registry.add("postprocessor", name, f"mitocore_rsunet.{component}", summary)
    summary = "the median of a mask or a thresholded probability"
    registry.add("postprocessor", "binary_median", "mitocore_rsunet.filters:BinaryMedian", summary)
    registry.demo("mito", "mitocore_rsunet:demos/mito", "mitochondria in a synthetic volume, as instances")
