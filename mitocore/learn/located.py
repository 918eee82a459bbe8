"""Where the crops of a batch lie, for people who look for what went wrong."""

from collections.abc import Sequence

import numpy as np

from mitocore.config.split import AXES
from mitocore.learn.data import Crops

_MOST = 2  # crops that are named; an error has three lines


def located(crops: Crops, numbers: Sequence[int]) -> str:
    """Volume and box of the samples of these numbers, in words."""
    plan = crops.plan
    named = []
    for number in numbers[:_MOST]:
        crop = plan.sampler.draw(crops.index, plan.crop, number, np.random.default_rng([plan.seed, number]))
        path = plan.volumes[crops.places[crop.volume][0]].path
        box = zip(AXES, crop.roi.start, crop.roi.stop, strict=True)
        named.append(f"{path!r} at {', '.join(f'{axis} {a}:{b}' for axis, a, b in box)}")
    more = f" and {len(numbers) - _MOST} more" if len(numbers) > _MOST else ""
    return f"{'; '.join(named)}{more}"
