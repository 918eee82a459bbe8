"""Samplers as a training uses them: the same samples from any number of workers, and the sources of its file."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prepared_crops import crops_of

from mitocore.geometry import Roi
from mitocore.learn.loading import TrainingData
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


def batches(plan: TrainingPlan) -> list[Any]:
    return list(TrainingData(crops_of(plan)).train_dataloader())


@pytest.mark.parametrize("sampler", [{"sampler": "grid", "fraction": 0.5}, {"sampler": "reject", "diversity": 2}])
def test_a_training_draws_by_every_sampler_of_the_file(planned: Planned, sampler: dict[str, Any]) -> None:
    one, again = (batches(planned({"steps": 3}, sampler=sampler)) for _ in range(2))
    assert len(one) == 3
    for first, second in zip(one, again, strict=True):
        assert torch.equal(first["image"], second["image"])


@pytest.mark.parametrize("sampler", ["grid", "balanced", "reject", "foreground", "uniform"])
def test_a_sample_is_the_same_in_every_copy_whatever_was_drawn_before(planned: Planned, sampler: str) -> None:
    one = crops_of(planned(sampler=sampler))
    workers = [pickle.loads(pickle.dumps(one)) for _ in range(2)]
    shared = [workers[number % 2][number] for number in range(7, -1, -1)][::-1]
    for number, sample in enumerate(shared):
        assert torch.equal(sample["image"], one[number]["image"])
        assert torch.equal(sample["targets"][0], one[number]["targets"][0])


def test_a_file_of_points_is_looked_for_beside_the_file_of_the_training(planned: Planned, tmp_path: Path) -> None:
    (tmp_path / "errors.csv").write_text("z,y,x\n4,8,8\n20,8,8\n", "utf-8")  # the second is held back for validation
    sampler = {"sampler": "foreground", "probability": 0, "points": "errors.csv", "hard_share": 1}
    crops = crops_of(planned(sampler=sampler))
    assert crops.index.arrays["hard_voxels"].shape == (1,)
    plan = crops.plan
    for number in range(20):
        roi = plan.sampler.draw(crops.index, plan.crop, number, np.random.default_rng(number)).roi
        assert roi.contains(Roi((4, 8, 8), (5, 9, 9)))


@pytest.mark.slow
def test_two_workers_give_the_samples_of_none(planned: Planned) -> None:
    sampler = {"sampler": "balanced", "positive": 0.7}
    alone, shared = (batches(planned({"steps": 4, "workers": n}, sampler=sampler)) for n in (0, 2))
    assert [batch["number"].tolist() for batch in alone] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["number"], other["number"])
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["targets"][0], other["targets"][0])
