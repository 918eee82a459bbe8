"""Plugin framework for segmenting electron-microscopy volumes.

Public names are resolved on first use (PEP 562), so that ``import mitocore`` stays fast and never imports torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from mitocore import nn as nn
    from mitocore.builtin.contingency import ContingencyTable as ContingencyTable
    from mitocore.component import AtInference as AtInference
    from mitocore.component import Component as Component
    from mitocore.component import File as File
    from mitocore.component import PathOption as PathOption
    from mitocore.conversion import convert as convert
    from mitocore.errors import ConfigError as ConfigError
    from mitocore.errors import ContractError as ContractError
    from mitocore.errors import DataError as DataError
    from mitocore.errors import MitocoreError as MitocoreError
    from mitocore.errors import PluginError as PluginError
    from mitocore.errors import ResourceError as ResourceError
    from mitocore.errors import RunError as RunError
    from mitocore.errors import WiringError as WiringError
    from mitocore.geometry import Roi as Roi
    from mitocore.geometry import Shape as Shape
    from mitocore.geometry import SizeOption as SizeOption
    from mitocore.geometry import VoxelSize as VoxelSize
    from mitocore.geometry import VoxelSizeOption as VoxelSizeOption
    from mitocore.geometry import as_shape as as_shape
    from mitocore.geometry import size_in_voxels as size_in_voxels
    from mitocore.header import WeightsHeader as WeightsHeader
    from mitocore.interfaces import Augment as Augment
    from mitocore.interfaces import Block as Block
    from mitocore.interfaces import Crop as Crop
    from mitocore.interfaces import LabelledVolume as LabelledVolume
    from mitocore.interfaces import Labels as Labels
    from mitocore.interfaces import LocalPostProcessor as LocalPostProcessor
    from mitocore.interfaces import Loss as Loss
    from mitocore.interfaces import Metric as Metric
    from mitocore.interfaces import Model as Model
    from mitocore.interfaces import Normalizer as Normalizer
    from mitocore.interfaces import ObjectMetric as ObjectMetric
    from mitocore.interfaces import ObjectwisePostProcessor as ObjectwisePostProcessor
    from mitocore.interfaces import Reader as Reader
    from mitocore.interfaces import Sampler as Sampler
    from mitocore.interfaces import SamplerIndex as SamplerIndex
    from mitocore.interfaces import Seen as Seen
    from mitocore.interfaces import Stats as Stats
    from mitocore.interfaces import StitchedPostProcessor as StitchedPostProcessor
    from mitocore.interfaces import Target as Target
    from mitocore.interfaces import Volume as Volume
    from mitocore.interfaces import WholePostProcessor as WholePostProcessor
    from mitocore.interfaces import WritableVolume as WritableVolume
    from mitocore.interfaces import Writer as Writer
    from mitocore.pipeline import Plan as Plan
    from mitocore.recommended import segment as segment
    from mitocore.runs import Pipeline as Pipeline
    from mitocore.runs import Result as Result
    from mitocore.runs import Step as Step
    from mitocore.runs import evaluate as evaluate
    from mitocore.runs import load as load
    from mitocore.runs import preview as preview
    from mitocore.runs import train as train
    from mitocore.specs import DESCRIPTORS as DESCRIPTORS
    from mitocore.specs import ArraySpec as ArraySpec
    from mitocore.specs import Head as Head
    from mitocore.specs import Kind as Kind
    from mitocore.specs import Lattice as Lattice
    from mitocore.specs import Need as Need
    from mitocore.specs import VolumeSpec as VolumeSpec
    from mitocore.specs import Window as Window
    from mitocore.stitch import LINK as LINK
    from mitocore.stitch import touching as touching
    from mitocore.stitch import unite as unite
    from mitocore.volumes import open_volume as open  # noqa: A004, F401 - `mitocore.open`, never a star import

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("mitocore")
"""Marks a plugin's `mitocore_register(registry)`."""

_HOME = {
    "mitocore.builtin.contingency": "ContingencyTable",
    "mitocore.component": "AtInference Component File PathOption",
    "mitocore.conversion": "convert",
    "mitocore.errors": (
        "ConfigError ContractError DataError MitocoreError PluginError ResourceError RunError WiringError"
    ),
    "mitocore.geometry": "Roi Shape SizeOption VoxelSize VoxelSizeOption as_shape size_in_voxels",
    "mitocore.header": "WeightsHeader",
    "mitocore.interfaces": (
        "Augment Block Crop LabelledVolume Labels LocalPostProcessor Loss Metric Model Normalizer "
        "ObjectMetric ObjectwisePostProcessor Reader Sampler SamplerIndex Seen Stats StitchedPostProcessor Target "
        "Volume WholePostProcessor WritableVolume Writer"
    ),
    "mitocore.pipeline": "Plan",
    "mitocore.recommended": "segment",
    "mitocore.runs": "Pipeline Result Step evaluate load preview train",
    "mitocore.specs": "DESCRIPTORS ArraySpec Head Kind Lattice Need VolumeSpec Window",
    "mitocore.stitch": "LINK touching unite",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted([*_MODULE_OF, "hookimpl", "nn", "open"])  # noqa: PLE0605 - one table, not two


def __getattr__(name: str) -> Any:
    if name == "nn":
        return importlib.import_module("mitocore.nn")
    if name == "open":
        return importlib.import_module("mitocore.volumes").open_volume
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'mitocore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
