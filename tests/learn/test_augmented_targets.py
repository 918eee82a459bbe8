"""What is learned of a moved crop: targets of the labels as they lie afterwards."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from prepared_crops import crops_of

from mitocore.builtin.augments.flips import FlipRotate
from mitocore.builtin.augments.sections import Misalignment, MissingSection
from mitocore.builtin.augments.warps import Elastic, Rescale, Rotate
from mitocore.builtin.targets.affinities import Affinity
from mitocore.geometry import Shape, VoxelSize
from mitocore.interfaces import Augment
from mitocore.training import TrainingPlan


@pytest.fixture
def learned(
    planned: Callable[..., TrainingPlan], tables: dict[str, Any], tmp_path: Path
) -> Callable[[tuple[Augment, ...]], TrainingPlan]:
    """Affinities, on an image that shows the number of every object."""
    rng = np.random.default_rng(1)
    ids = rng.integers(1, 6, (6, 8, 8)).repeat(4, 0).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    np.save(tmp_path / "truth.npy", ids)
    np.save(tmp_path / "raw.npy", ids * 40)
    volume = {**tables["volume"][0], "voxel_size": [8, 8, 8]}
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 3), (2, -2, 0))

    def plan(augments: tuple[Augment, ...]) -> TrainingPlan:
        made = planned({"crop": [8, 8, 8]}, volume=[volume], normalizer="dtype_range", augment=[])
        (objective,) = made.objectives
        return replace(made, augments=augments, objectives=(replace(objective, target=Affinity(offsets=offsets)),))

    return plan


@pytest.mark.parametrize(
    "augments",
    [
        (FlipRotate(),),
        (FlipRotate(symmetries="all"),),
        (MissingSection(probability=1), Misalignment(probability=1, displacement=3, rotation=0), FlipRotate()),
    ],
    ids=["plane", "cube", "sections"],
)
def test_affinities_of_a_moved_crop_are_those_of_its_moved_labels(
    learned: Callable[..., TrainingPlan], augments: tuple[Augment, ...]
) -> None:
    crops = crops_of(learned(augments))
    (objective,) = crops.plan.objectives
    still = crops_of(learned(()))
    moved = 0
    for number in range(12):
        sample = crops[number]
        shown = sample["image"].numpy()[0]  # whole voxels were moved: each grey level is still one object
        ids = np.unique(shown, return_inverse=True)[1].reshape(shown.shape).astype(np.uint64) + 1
        assert objective.target is not None
        expected = objective.target.encode({"instances": ids}, None)
        inner = (slice(None), *(slice(3, -3),) * 3)  # there, no affinity leaves the crop
        np.testing.assert_array_equal(sample["targets"][0].numpy()[inner], expected[inner])
        moved += int(not sample["image"].equal(still[number]["image"]))
    assert moved > 6


def test_every_voxel_that_was_read_counts_after_a_warp_and_no_mirrored_one(
    learned: Callable[..., TrainingPlan],
) -> None:
    beyond = []
    for augment in (Rotate(probability=1), Rescale(probability=1), Elastic(probability=1, alpha=2, sigma=6)):
        plan = learned((augment,))
        (objective,) = plan.objectives
        plan = replace(plan, objectives=(replace(objective, target=Affinity(offsets=((-1, 0, 0),))),))
        crops = crops_of(plan)
        (region,) = (drawn.region for _, drawn in crops.places)
        reach = augment.halo((10, 8, 8), plan.voxel_size)
        within = []
        for number in range(60):
            box = crops.sample(number).roi.grow((reach[0] + 1, *reach[1:]))
            known = within if box.clip(region) == box else beyond
            known.append(bool(crops[number]["weights"][0].all()))
        assert len(within) > 3
        assert all(within)
    assert not all(beyond)


class Asking(Rescale):
    """Keeps what it was asked."""

    asked: ClassVar[list[tuple[int, ...]]] = []

    def halo(self, shape: Shape, voxel_size: VoxelSize | None) -> Shape:
        self.asked.append(shape)
        return (0, 2, 3)


def test_each_augment_gives_right_what_those_after_it_and_the_targets_read(
    learned: Callable[..., TrainingPlan],
) -> None:
    crops = crops_of(learned((Asking(), Asking(), FlipRotate())))
    Asking.asked.clear()
    sample = crops.sample(0)
    last, first = Asking.asked[:2]
    assert last == (8 + 2 * 2, 8 + 2 * 2, 8 + 2 * 3)  # the crop and what affinities reach around it
    assert first == (last[0], last[1] + 2 * 2, last[2] + 2 * 3)
    assert sample.image.shape == (1, 8, 8, 8)
