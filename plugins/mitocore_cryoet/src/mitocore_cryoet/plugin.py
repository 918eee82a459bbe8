"""Components of this plugin; importing it imports none of them."""

from typing import TYPE_CHECKING

from mitocore import hookimpl

if TYPE_CHECKING:
    from mitocore.registry import Registry


@hookimpl
def mitocore_register(registry: "Registry") -> None:
    """Declare the models."""
    models = "mitocore_cryoet.models"
    registry.add("model", "unet25d", f"{models}:UNet25D", "U-Net that segments a slice and sees those around it")
    registry.add("model", "unet3d", f"{models}:UNet3D", "the same U-Net in three dimensions")
