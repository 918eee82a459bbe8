"""The conformance kit, applied to every component of the plugin."""

from typing import ClassVar

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mitocore.registry import discover
from mitocore.testing import ComponentTests, ModelTests, PostProcessorTests
from mitocore_rsunet.affinities import AffinityComponents
from mitocore_rsunet.agglomeration import AffinityAgglomeration
from mitocore_rsunet.filters import BinaryMedian
from mitocore_rsunet.instances import ConnectedComponents, FillHoles, SizeFilter
from mitocore_rsunet.models import FPN, ResidualUNet, RSUNet
from mitocore_rsunet.monai_models import (
    MonaiAttentionUNet,
    MonaiBasicUNet,
    MonaiSegResNet,
    MonaiSwinUNETR,
    MonaiUNet,
)
from mitocore_rsunet.mutex import MutexWatershed
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
            BinaryMedian(threshold=0.5, size=(3, 5, 3)),
            ConnectedComponents(min_size=20, connectivity=6),
            SizeFilter(min_size=15, max_size=400, remove_small_mode="neighbor"),
            SizeFilter(min_size=4, remove_small_mode="neighbor_2d"),
            FillHoles(),
            BinaryWatershed(seed_threshold=0.6, threshold=0.5, min_seed_size=2, min_size=9),
            BoundaryConnected(seed_threshold=0.5, boundary_threshold=0.6, min_size=9),
            BoundaryWatershed(threshold=0.4, seeds_from="input", min_size=9),
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


class TestPostProcessorsOfAffinities(PostProcessorTests):
    def components(self):
        return (
            AffinityComponents(threshold=0.55, min_size=8),
            MutexWatershed(bias=(-0.45, -0.55), strides=(1, 2, 3), min_size=4),
            AffinityAgglomeration(threshold=0.45, low=0.4, min_size=4),
        )

    def example(self, rng):
        """Affinities in which objects of more than a few voxels exist."""
        noise = gaussian_filter(rng.random((7, 12, 20, 24)), (0, 1, 1, 1))
        noise = ((noise - noise.min()) / np.ptp(noise)).astype("f4")
        return {"affinities": noise[:6], "foreground": 1 - noise[6:] / 2}


class TestModels(ModelTests):
    def components(self):
        return (
            RSUNet(widths=(4, 4, 6)),
            RSUNet(widths=(4, 4, 6), preset="anisotropic", outputs="bc"),
            MonaiUNet(widths=(4, 6), strides=(2,)),
            MonaiUNet(widths=(4, 6), strides=((1, 2, 2),), outputs="bc", image_channels=("sem", "edx")),
            RSUNet(widths=(4, 4, 6), catena_compat=True),
            ResidualUNet(widths=(4, 6), isotropic=(False, True), block="residual", supervised=1, outputs="ac"),
            MonaiBasicUNet(widths=(4, 4, 4, 4, 4, 4), norm="batch"),
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


@pytest.mark.slow
class TestModelsTooLargeToLearnHere(ModelTests):
    """Only what needs no training: the smallest of them has millions of parameters."""

    checks = tuple(check for check in ModelTests.checks if check.__name__ not in {"check_learns", "check_locality"})
    component = MonaiSwinUNETR(feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))


def test_every_component_of_the_plugin_is_put_to_the_kit():
    tests = [kind for name, kind in globals().items() if name.startswith("Test") and issubclass(kind, ComponentTests)]
    checked = {type(component) for kind in tests for component in kind().components()}
    declared = {entry.load() for entry in discover().entries if entry.plugin == "rsunet" and entry.kind != "demo"}
    assert checked == declared
