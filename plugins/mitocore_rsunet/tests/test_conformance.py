"""The conformance kit, applied to every component of the plugin."""

from typing import ClassVar

from mitocore.testing import ModelTests, PostProcessorTests
from mitocore_rsunet.instances import ConnectedComponents, FillHoles, SizeFilter
from mitocore_rsunet.models import MonaiUNet, RSUNet


class TestPostProcessors(PostProcessorTests):
    def components(self):
        return (
            ConnectedComponents(min_size=20),
            ConnectedComponents(threshold=0.55, connectivity=6),
            SizeFilter(min_size=15, max_size=400),
            SizeFilter(min_size=15, remove_small_mode="neighbor"),
            FillHoles(),
        )


class TestModels(ModelTests):
    def components(self):
        return (
            RSUNet(widths=(4, 4, 6)),
            RSUNet(widths=(4, 4, 6), preset="anisotropic", outputs="bc"),
            MonaiUNet(widths=(4, 6), strides=(2,)),
            MonaiUNet(widths=(4, 6), strides=((1, 2, 2),), outputs="bc", image_channels=("sem", "edx")),
        )


class TestModelsThatNormaliseOverTheWindow(ModelTests):
    expected_failures: ClassVar = {"check_locality": "these norms see the whole window; tiles are blended by overlap"}

    def components(self):
        return RSUNet(widths=(4, 4, 6), norm="instance"), MonaiUNet(widths=(4, 6), strides=(2,), norm="group", groups=2)
