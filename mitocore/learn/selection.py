"""What follows the last step of a training: the best weights are calibrated, given thresholds, and tested once."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from mitocore.durable import write_json
from mitocore.header import read_header
from mitocore.learn.calibration import Classes, Histogram
from mitocore.learn.checkpoint import fill, load_weights, update_header
from mitocore.learn.reliability import draw
from mitocore.learn.rounds import BEST, LAST, Progress
from mitocore.learn.validation import Told, Validation
from mitocore.specs import Head
from mitocore.training import TrainingPlan

SCORES, CALIBRATION, PICTURE = "scores.json", "calibration.json", "reliability.png"
_STEPS = "steps"
"""In the provenance of the best weights: how many steps the training took. Only one that is over has it."""


@dataclass(frozen=True)
class Found:
    """What the validation parts say of one head."""

    temperature: float | None
    """None: dividing its logits by any number gains nothing."""
    thresholds: Mapping[str, float]
    """By HEAD, and HEAD:CHANNEL if there are several channels; of probabilities at this temperature."""


def finish(
    plan: TrainingPlan, network: nn.Module, validation: Validation, test: Validation, progress: Progress
) -> dict[str, float]:
    """Calibrate the best weights, choose their thresholds, and score them on the test parts.

    One pass over the validation parts finds temperature and thresholds, one over the test parts uses them; both go into
    the header of the best weights, with all scores. The folder receives `scores.json`, `calibration.json` and, where
    matplotlib is installed, `reliability.png`. A training that was finished before is not tested again.

    Parameters
    ----------
    network
        On its device; left with the best weights.

    Returns
    -------
    Scores of the best weights: `validation.…`, and `test.…` if there is a test part.

    Raises
    ------
    DataError
        If the best weights cannot be read or written.
    ResourceError
        If the disk is full.
    """
    best = plan.folder / BEST
    header = read_header(best)
    scores: dict[str, float] = dict(header.scores)
    if _STEPS in header.provenance:
        return scores
    fill(network, load_weights(best), str(best))
    sums = validation.sums()
    if sums:
        validation.scores(network, _telling(progress, "calibration"), sums=sums)
    heads = {head.name: head for head in plan.model.heads()}
    found = {name: _found(heads[name], counted) for name, counted in sums.items()}
    scores |= _probability_scores("validation", sums, found)
    tested = test.sums()
    if test.volumes:
        result = test.scores(network, _telling(progress, "test"), sums=tested)
        scores |= {f"test.{name}": value for name, value in result.items()}
        scores |= _probability_scores("test", tested, found)
    write_json(plan.folder / SCORES, scores)
    if found:
        write_json(plan.folder / CALIBRATION, {name: _table(sums[name], one) for name, one in found.items()})
    update_header(
        best,
        scores=scores,
        thresholds={name: value for one in found.values() for name, value in one.thresholds.items()},
        temperature={name: one.temperature for name, one in found.items() if one.temperature},
        provenance={**header.provenance, _STEPS: read_header(plan.folder / LAST).provenance["step"]},
    )
    if found and importlib.util.find_spec("matplotlib"):  # last: whatever becomes of a picture, the weights are whole
        draw(plan.folder / PICTURE, {name: _curves(sums[name], one) for name, one in found.items()})
    return scores


def _telling(progress: Progress, what: str) -> Told:
    return lambda done, total: progress(what, done, total, {})


def _found(head: Head, counted: Histogram | Classes) -> Found:
    temperature = counted.temperature()
    if isinstance(counted, Classes):
        return Found(temperature, {})
    best, each = counted.thresholds(temperature or 1.0)
    named = dict(zip((f"{head.name}:{channel}" for channel in head.channels), each, strict=True))
    several = named if len(each) > 1 else {}
    return Found(temperature, {k: value for k, value in {head.name: best, **several}.items() if value is not None})


def _probability_scores(
    part: str, sums: Mapping[str, Histogram | Classes], found: Mapping[str, Found]
) -> dict[str, float]:
    """Expected calibration error, and Dice at the threshold, of each head."""
    scores = {}
    for name, counted in sums.items():
        temperature = found[name].temperature or 1.0
        threshold = found[name].thresholds.get(name)
        if isinstance(counted, Histogram) and threshold is not None:
            scores[f"{part}.{name}.dice_at_threshold"] = counted.dice(threshold, temperature)
        scores[f"{part}.{name}.ece"] = counted.reliability(temperature).ece
    return scores


def _curves(counted: Histogram | Classes, found: Found) -> dict[str, Any]:
    """Reliability by what it is of."""
    after = {f"temperature {found.temperature:g}": counted.reliability(found.temperature)} if found.temperature else {}
    return {"as trained": counted.reliability(1.0), **after}


def _table(counted: Histogram | Classes, found: Found) -> dict[str, Any]:
    before, after = counted.reliability(1.0), counted.reliability(found.temperature or 1.0)
    return {**asdict(found), "before": asdict(before), "after": asdict(after)}
