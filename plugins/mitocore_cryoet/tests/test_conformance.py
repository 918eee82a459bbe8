"""The conformance kit, applied to every component of the plugin."""

from typing import ClassVar

from mitocore.testing import ModelTests
from mitocore_cryoet.models import UNet3D, UNet25D


class TestModels(ModelTests):
    def components(self):
        return (
            UNet25D(widths=(4, 8, 8), norm="none", dropout=0),
            UNet25D(widths=(4, 8), slices=3, norm="batch", outputs=("membrane", "distance"), image_channels=("a", "b")),
            UNet25D(widths=(4, 8), slices=1, norm="batch", residual=True, outputs="semantic"),
            UNet3D(widths=(4, 8), norm="batch"),
        )


class TestModelsThatNormaliseOverTheWindow(ModelTests):
    expected_failures: ClassVar = {"check_locality": "these norms see the whole window; tiles are blended by overlap"}

    def components(self):
        return UNet25D(widths=(8, 8), slices=3), UNet3D(widths=(4, 8), norm="instance", residual=True)
