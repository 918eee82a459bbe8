"""The conformance kit, applied to every built-in component."""

from typing import ClassVar

import numpy as np
import pytest

from mitocore import VoxelSize
from mitocore.builtin import metrics
from mitocore.builtin.augments.blur import Blur, MotionBlur
from mitocore.builtin.augments.copy_paste import CopyPaste
from mitocore.builtin.augments.flips import FlipRotate
from mitocore.builtin.augments.intensity import Contrast
from mitocore.builtin.augments.noise import Noise
from mitocore.builtin.augments.occlusions import CutBlur, CutNoise, CutOut, MissingParts
from mitocore.builtin.augments.sections import Misalignment, MissingSection
from mitocore.builtin.augments.tomograms import MissingWedge, Spectrum
from mitocore.builtin.augments.warps import Elastic, Rescale, Rotate
from mitocore.builtin.losses.entropy import BCE, CrossEntropy, Focal, TopKCrossEntropy
from mitocore.builtin.losses.overlap import Dice, FocalTversky, GeneralizedDice, Tversky, WeightedSoftDice
from mitocore.builtin.losses.points import PointRend
from mitocore.builtin.losses.regression import MAE, MSE, SmoothL1
from mitocore.builtin.losses.relations import (
    BoundaryDistance,
    Certainty,
    Exclusive,
    ForegroundBoundary,
    ForegroundDistance,
)
from mitocore.builtin.losses.skeleton import ClDice
from mitocore.builtin.losses.sums import BCEDice, DiceCE
from mitocore.builtin.normalizers import Clahe, DtypeRange, MinMax, Percentile, ZScore
from mitocore.builtin.npy import NpyReader, NpyWriter
from mitocore.builtin.postprocess import Argmax, Median, Threshold
from mitocore.builtin.sample import SampleReader
from mitocore.builtin.samplers.balanced import Balanced
from mitocore.builtin.samplers.foreground import Foreground as AroundForeground
from mitocore.builtin.samplers.grid import Grid
from mitocore.builtin.samplers.reject import Reject
from mitocore.builtin.samplers.uniform import Uniform
from mitocore.builtin.targets.affinities import Affinity
from mitocore.builtin.targets.boundaries import Boundary
from mitocore.builtin.targets.centers import Center, Offset
from mitocore.builtin.targets.descriptors import Descriptors
from mitocore.builtin.targets.distances import InstanceDistance, SignedDistance
from mitocore.builtin.targets.foreground import Foreground, SmallObjects
from mitocore.builtin.targets.semantic import Semantic
from mitocore.builtin.targets.skeletons import SkeletonDistance
from mitocore.builtin.targets.weights import BorderDistance, ClassWeights, Known
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
        return Percentile(), MinMax(), ZScore(), Clahe(), Clahe(tile=5, clip=2)


class TestDtypeRange(NormalizerTests):
    component = DtypeRange()
    expected_failures: ClassVar = {"check_dtype": "the range of the dtype is what it is about"}


class TestTargets(TargetTests):
    def components(self):
        classes = Semantic(classes=("background", "mitochondrion", "reticulum"))
        boundaries = Boundary(side="contour", dilate=1), Boundary(width="17 nm", per_slice=False, erode=1)
        affinities = Affinity(offsets=((2, 0, 0), (0, -3, 1)), edge="destination"), Affinity(edge="middle")
        weights = ClassWeights(factors=(1, 5)), Known(), BorderDistance(sigma="20 nm", per_slice=False)
        objects = Foreground(), Foreground(label="semantic", values=(1,)), SmallObjects(area=6)
        whole = InstanceDistance(normalize="object", anisotropy=2), SkeletonDistance(context=8, anisotropy=2, bins=4)
        centred = Center(context=6, sigma=2, anisotropy=2), Offset(context=6, per_slice=True)
        shapes = *whole, *centred, SignedDistance(limit=6, anisotropy=2), Descriptors(sigma=2, anisotropy=2)
        return *objects, *boundaries, *affinities, classes, *weights, *shapes


class TestAugments(AugmentTests):
    def components(self):
        turned = FlipRotate(symmetries="all"), Rotate(probability=1), Rotate(probability=1, angle=9, tilt=20)
        bent = Rescale(probability=1), Elastic(probability=1), Elastic(probability=1, alpha=40, dimensions=3)
        faults = MissingSection(probability=1, sections=3), Misalignment(probability=1)
        grey = Contrast(probability=1, by_section=0.5, inversion=0.5), Noise(probability=1, shot=(0, 0.3))
        unsharp = Blur(probability=1), MotionBlur(probability=1, kernel=5)
        boxes = CutOut(probability=1), CutBlur(probability=1, downsample_z=True), CutNoise(probability=1)
        tilted = MissingWedge(probability=1), Spectrum(probability=1)
        added = CopyPaste(probability=1, margin=0), MissingParts(reach=2)
        return *turned, *bent, *faults, *grey, *unsharp, *boxes, *tilted, *added


class TestSamplers(SamplerTests):
    def components(self):
        return (
            Uniform(gamma=0.5),
            AroundForeground(probability=0.8),
            AroundForeground(probability=0.8, per_class=True),
            Grid(fraction=0.7, seed=1),
            Balanced(minimum=20, gamma=0.5),
            Reject(minimum=20, diversity=2),
        )


class TestMetrics(MetricTests):
    def components(self):
        voxels = metrics.Voxel(thresholds=(0.3, 0.6)), metrics.Dice(), metrics.IoU()
        numbers = metrics.MeanAbsolute(), metrics.MeanSquared()
        overlaps = (
            metrics.Instance(),
            metrics.Instance(criterion="iot"),
            metrics.AveragePrecision(ranges=(9, "1e5 nm3")),
        )
        tables = metrics.AdaptedRand(), metrics.AdaptedRand(form="cremi"), metrics.VariationOfInformation()
        shapes = metrics.SkeletonAccuracy(threshold=0.1, lengths=(9, 30)), metrics.Surface(threshold=0.1)
        return *voxels, *numbers, *overlaps, *tables, *shapes, metrics.Affinity()


class TestPostProcessors(PostProcessorTests):
    def components(self):
        return Threshold(), Argmax(), Median(size=(3, 5, 1))


class TestLosses(LossTests):
    def components(self):
        softmax = {"activation": "softmax"}
        entropy = BCE(pos_weight=2, balance="crop"), CrossEntropy(label_smoothing=0.02), Focal(alpha=0.75)
        worst = TopKCrossEntropy(), TopKCrossEntropy(**softmax)
        overlap = Dice(power=2), Dice(batch=False), Dice(**softmax, background=False), GeneralizedDice(**softmax)
        other = Tversky(), FocalTversky(), WeightedSoftDice(), ClDice(iterations=2), ClDice(per_slice=True, **softmax)
        both = DiceCE(pos_weight=5), DiceCE(**softmax), BCEDice(balance="crop_grown", mean="voxels")
        numbers = MSE(activation="tanh"), MAE(channels="sum"), SmoothL1(activation="sigmoid", beta=0.1)
        relations = Certainty(), ForegroundBoundary(), BoundaryDistance(), ForegroundDistance(), Exclusive()
        points = PointRend(), PointRend(**softmax, label_smoothing=0.1)
        return *entropy, *worst, *overlap, *other, *both, *numbers, *relations, *points


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
