"""Crops of a planned training, without the training."""

import numpy as np

from mitocore.blockwise import passes
from mitocore.geometry import Roi
from mitocore.learn.data import Crops, Prepared, build_index
from mitocore.training import TrainingPlan


def crops_of(plan: TrainingPlan) -> Crops:
    """All samples, of volumes whose statistics were measured."""
    volumes = []
    for volume in plan.volumes:
        with volume.image.open() as image:
            volumes.append(Prepared(volume, plan.normalizer, passes.fit(plan.normalizer, image)))
    return Crops(plan, volumes, build_index(plan, volumes))


def drawn(crops: Crops, number: int) -> Roi:
    """Where sample `number` lies."""
    plan = crops.plan
    return plan.sampler.draw(crops.index, plan.crop, number, np.random.default_rng([plan.seed, number])).roi
