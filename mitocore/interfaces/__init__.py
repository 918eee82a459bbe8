"""What a plugin may implement: one file, one kind."""

from mitocore.interfaces.augment import VALID, Augment
from mitocore.interfaces.loss import Loss
from mitocore.interfaces.metric import Metric, ObjectMetric, Seen
from mitocore.interfaces.model import Model
from mitocore.interfaces.normalizer import Normalizer, Stats
from mitocore.interfaces.postprocessor import (
    OBJECT,
    Block,
    LocalPostProcessor,
    ObjectwisePostProcessor,
    PostProcessor,
    StitchedPostProcessor,
    WholePostProcessor,
)
from mitocore.interfaces.reader import Reader
from mitocore.interfaces.sampler import Crop, LabelledVolume, Sampler, SamplerIndex
from mitocore.interfaces.target import Labels, Target
from mitocore.interfaces.volume import Progress, Volume, WritableVolume
from mitocore.interfaces.writer import Writer

__all__ = [
    "OBJECT",
    "VALID",
    "Augment",
    "Block",
    "Crop",
    "LabelledVolume",
    "Labels",
    "LocalPostProcessor",
    "Loss",
    "Metric",
    "Model",
    "Normalizer",
    "ObjectMetric",
    "ObjectwisePostProcessor",
    "PostProcessor",
    "Progress",
    "Reader",
    "Sampler",
    "SamplerIndex",
    "Seen",
    "Stats",
    "StitchedPostProcessor",
    "Target",
    "Volume",
    "WholePostProcessor",
    "WritableVolume",
    "Writer",
]
