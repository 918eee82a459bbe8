"""What tests of the core and of plugins share: the conformance kit, synthetic volumes, volumes in memory."""

from mitocore.builtin.cells import Cells, cells
from mitocore.testing.augments import AugmentTests
from mitocore.testing.checking import CheckFailed, Finding, NotChecked
from mitocore.testing.isolation import isolated_registry
from mitocore.testing.losses import LossTests
from mitocore.testing.metrics import MetricTests
from mitocore.testing.models import ModelTests
from mitocore.testing.normalizers import NormalizerTests
from mitocore.testing.pipelines import PipelineTests
from mitocore.testing.postprocessors import PostProcessorTests
from mitocore.testing.readers import ReaderTests
from mitocore.testing.samplers import SamplerTests
from mitocore.testing.suite import ComponentTests
from mitocore.testing.targets import TargetTests
from mitocore.testing.tomogram import Tomogram, tomogram
from mitocore.testing.volumes import MemoryVolume
from mitocore.testing.writers import WriterTests

__all__ = [
    "AugmentTests",
    "Cells",
    "CheckFailed",
    "ComponentTests",
    "Finding",
    "LossTests",
    "MemoryVolume",
    "MetricTests",
    "ModelTests",
    "NormalizerTests",
    "NotChecked",
    "PipelineTests",
    "PostProcessorTests",
    "ReaderTests",
    "SamplerTests",
    "TargetTests",
    "Tomogram",
    "WriterTests",
    "cells",
    "isolated_registry",
    "tomogram",
]
