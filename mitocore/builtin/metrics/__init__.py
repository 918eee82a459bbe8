"""Scores of voxels and of objects. The first score of a metric is its headline."""

from mitocore.builtin.metrics.affinities import Affinity
from mitocore.builtin.metrics.objects import AdaptedRand, Instance, VariationOfInformation
from mitocore.builtin.metrics.ranking import AveragePrecision
from mitocore.builtin.metrics.skeletons import SkeletonAccuracy
from mitocore.builtin.metrics.surfaces import Surface
from mitocore.builtin.metrics.voxels import Dice, IoU, MeanAbsolute, MeanSquared, Voxel

__all__ = [
    "AdaptedRand",
    "Affinity",
    "AveragePrecision",
    "Dice",
    "Instance",
    "IoU",
    "MeanAbsolute",
    "MeanSquared",
    "SkeletonAccuracy",
    "Surface",
    "VariationOfInformation",
    "Voxel",
]
