"""The conformance kit, applied to every built-in component."""

from typing import ClassVar

import numpy as np
import pytest

from mitocore import VoxelSize
from mitocore.builtin import metrics, samplers
from mitocore.builtin.augments import Contrast, FlipRotate
from mitocore.builtin.losses import BCE, Dice, DiceCE
from mitocore.builtin.normalizers import DtypeRange, MinMax, Percentile, ZScore
from mitocore.builtin.npy import NpyReader, NpyWriter
from mitocore.builtin.postprocess import Argmax, Median, Threshold
from mitocore.builtin.sample import SampleReader
from mitocore.builtin.targets import Foreground
from mitocore.registry import discover
from mitocore.testing import (
    AugmentTests,
    ComponentTests,
    LossTests,
    MetricTests,
    NormalizerTests,
    PipelineTests,
    PostProcessorTests,
    ReaderTests,
    SamplerTests,
    TargetTests,
    WriterTests,
)


class TestNpyReader(ReaderTests):
    component = NpyReader(path="volume.npy")
    voxel_size = None

    def make_file(self, path, array, voxel_size):
        np.save(path, array)


class TestNpyWriter(WriterTests):
    component = NpyWriter(path="volume.npy")
    voxel_size = None
    keeps_kind = False

    def read_file(self, path, name):
        return np.load(path), None


class TestSampleReader(ComponentTests):
    component = SampleReader(shape=(4, 8, 8))


class TestNormalizers(NormalizerTests):
    def components(self):
        return Percentile(), MinMax(), ZScore()


class TestDtypeRange(NormalizerTests):
    component = DtypeRange()
    expected_failures: ClassVar = {"check_dtype": "the range of the dtype is what it is about"}


class TestTargets(TargetTests):
    def components(self):
        return Foreground(), Foreground(label="semantic", values=(1,))


class TestAugments(AugmentTests):
    def components(self):
        return FlipRotate(), Contrast(probability=1.0)


class TestSamplers(SamplerTests):
    def components(self):
        return samplers.Uniform(), samplers.Foreground(probability=0.8)


class TestMetrics(MetricTests):
    def components(self):
        voxels = metrics.Voxel(thresholds=(0.3, 0.6)), metrics.Dice(), metrics.IoU()
        return *voxels, metrics.Instance(), metrics.AdaptedRand(), metrics.VariationOfInformation()


class TestPostProcessors(PostProcessorTests):
    def components(self):
        return Threshold(), Argmax(), Median(size=(3, 5, 1))


class TestLosses(LossTests):
    def components(self):
        return BCE(pos_weight=2), Dice(), Dice(batch=False), DiceCE(pos_weight=5)


class TestPipeline(PipelineTests):
    voxel_size = VoxelSize(24.0, 16.0, 16.0)

    @pytest.fixture(autouse=True)
    def _written(self, tmp_path):
        """Blobs of a synthetic image, without a network."""
        type(self).pipeline = tmp_path / "pipeline.toml"
        self.pipeline.write_text(PIPELINE, "utf-8")


PIPELINE = """\
mitocore = 1
[input]
path = "raw.npy"
kind = "probability"

[[step]]
postprocessor = "median"

[[step]]
postprocessor = "threshold"
threshold = 0.4

[output]
path = "{name}.npy"
"""


def test_every_built_in_component_is_put_to_the_kit():
    tests = [kind for name, kind in globals().items() if name.startswith("Test") and issubclass(kind, ComponentTests)]
    checked = {type(component) for kind in tests for component in kind().components()}
    declared = {entry.load() for entry in discover().entries if entry.plugin == "builtin"}
    assert checked == declared
