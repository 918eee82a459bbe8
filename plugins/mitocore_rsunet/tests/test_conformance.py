"""The conformance kit, applied to every component of the plugin."""

from typing import ClassVar

from mitocore.testing import ModelTests, PostProcessorTests
from mitocore_rsunet.instances import ConnectedComponents, FillHoles, SizeFilter
from mitocore_rsunet.models import FPN, RSUNet
from mitocore_rsunet.monai_models import MonaiAttentionUNet, MonaiSegResNet, MonaiUNet
from mitocore_rsunet.watersheds import (
    BinaryWatershed,
    BoundaryConnected,
    BoundaryDistanceWatershed,
    BoundaryWatershed,
    DistanceWatershed,
)


class TestPostProcessors(PostProcessorTests):
    def components(self):
        return (
            ConnectedComponents(min_size=20),
            ConnectedComponents(threshold=0.55, connectivity=6),
            SizeFilter(min_size=15, max_size=400),
            SizeFilter(min_size=15, remove_small_mode="neighbor"),
            SizeFilter(min_size=4, remove_small_mode="neighbor_2d"),
            FillHoles(),
            BinaryWatershed(seed_threshold=0.6, threshold=0.5, min_seed_size=2, min_size=9),
            BoundaryConnected(seed_threshold=0.5, boundary_threshold=0.6, min_size=9),
            BoundaryWatershed(seed_threshold=0.5, threshold=0.4, min_seed_size=2, min_size=9),
            BoundaryDistanceWatershed(
                seed_threshold=0.5,
                threshold=0.4,
                seed_distance=0,
                distance_threshold=-1,
                min_seed_size=2,
                min_size=9,
                landscape="distance",
            ),
            DistanceWatershed(seed_distance=0.5, threshold=0, min_seed_size=2, min_size=9, landscape="mask"),
        )


class TestModels(ModelTests):
    def components(self):
        return (
            RSUNet(widths=(4, 4, 6)),
            RSUNet(widths=(4, 4, 6), preset="anisotropic", outputs="bc"),
            MonaiUNet(widths=(4, 6), strides=(2,)),
            MonaiUNet(widths=(4, 6), strides=((1, 2, 2),), outputs="bc", image_channels=("sem", "edx")),
            RSUNet(widths=(4, 4, 6), catena_compat=True),
            FPN(widths=(4, 6), isotropic=(False, True), blocks=(1,), block="residual"),
        )


class TestModelsThatNormaliseOverTheWindow(ModelTests):
    expected_failures: ClassVar = {"check_locality": "these norms see the whole window; tiles are blended by overlap"}

    def components(self):
        return (
            RSUNet(widths=(4, 4, 6), norm="instance"),
            MonaiUNet(widths=(4, 6), strides=(2,), norm="group", groups=2),
            MonaiSegResNet(width=8, blocks_down=(1, 1), blocks_up=(1,)),
            MonaiAttentionUNet(widths=(4, 6), strides=((1, 2, 2),)),
        )
