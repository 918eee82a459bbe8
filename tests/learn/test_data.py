import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared_crops import crops_of, drawn

from mitocore.blockwise import passes
from mitocore.blockwise.arrays import Normalised, Opened
from mitocore.errors import ConfigError, ContractError, DataError
from mitocore.geometry import Roi
from mitocore.registry import Registry
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    pairs = zip([a["image"], *a["targets"], *a["weights"]], [b["image"], *b["targets"], *b["weights"]], strict=True)
    return all(one.equal(other) for one, other in pairs)


@pytest.mark.parametrize("normalizer", ["zscore", "percentile", "minmax", "dtype_range"])
def test_a_crop_for_training_equals_the_same_voxels_read_by_a_run(planned: Planned, normalizer: str) -> None:
    plan = planned(augment=[], normalizer=normalizer)
    crops = crops_of(plan)
    with plan.volumes[0].image.open() as volume:
        source = Normalised(Opened(volume), plan.normalizer, passes.fit(plan.normalizer, volume))
        for number in range(5):
            assert (crops[number]["image"].numpy() == source.read(drawn(crops, number))).all()


def test_a_sample_is_a_function_of_seed_and_number(planned: Planned) -> None:
    one, other = crops_of(planned()), pickle.loads(pickle.dumps(crops_of(planned())))
    backwards = {number: other[number] for number in (7, 3, 0)}
    assert all(equal(one[number], backwards[number]) for number in (0, 3, 7))
    assert not equal(one[0], one[3])
    assert not equal(one[0], crops_of(planned(seed=6))[0])


def test_context_beyond_the_region_is_mirrored_and_never_read(planned: Planned, tmp_path: Path) -> None:
    image = np.load(tmp_path / "raw.npy").astype(np.uint16)
    image[15:] = 60_000  # whatever is not for training: in no crop may it be seen
    np.save(tmp_path / "raw.npy", image)
    mirrored = np.pad(image[:15], [(9, 9), (0, 0), (0, 0)], mode="reflect")
    for shift in (-9, -1, 0, 4):
        augment = [{"augment": "wide", "reach": 9, "shift": shift}]
        crops = crops_of(planned(augment=augment, normalizer="dtype_range", sampler="uniform"))
        scale = crops.volumes[0].normalizer.apply(mirrored[None], crops.volumes[0].stats)
        for number in range(12):
            roi = drawn(crops, number)
            moved = Roi((roi.start[0] + 9 - shift, *roi.start[1:]), (roi.stop[0] + 9 - shift, *roi.stop[1:]))
            assert (crops[number]["image"].numpy() == scale[(slice(None), *moved.slices)]).all()


def test_targets_with_context_are_encoded_as_inside_the_volume(planned: Planned, tmp_path: Path) -> None:
    objectives = [{"head": "foreground", "target": "near", "loss": "bce"}]
    crops = crops_of(planned(augment=[], objective=objectives, sampler="uniform"))
    truth = np.load(tmp_path / "truth.npy")[:15] > 0
    padded = np.pad(truth, [(1, 1), (0, 0), (0, 0)], mode="reflect")
    near = padded[:-2] | padded[1:-1] | padded[2:]
    for number in range(6):
        assert (crops[number]["targets"][0].numpy()[0] == near[drawn(crops, number).slices]).all()


def test_ignored_and_masked_voxels_have_no_weight(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> None:
    truth = np.load(tmp_path / "truth.npy")
    valid = np.ones(truth.shape, np.uint8)
    valid[:, :10] = 0
    np.save(tmp_path / "valid.npy", valid)
    volume = {**tables["volume"][0], "valid": "valid.npy", "label_values": {"foreground": [2, 3], "ignore": [1]}}
    crops = crops_of(planned(volume=[volume], augment=[]))
    counted = (valid == 1) & (truth != 1)
    for number in range(6):
        sample, roi = crops[number], drawn(crops, number)
        assert (sample["weights"][0].numpy()[0] == counted[roi.slices]).all()
        assert (sample["targets"][0].numpy()[0] == np.isin(truth, (2, 3))[roi.slices]).all()


def test_the_mask_turns_with_the_image(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "valid.npy", (np.load(tmp_path / "raw.npy") > 120).astype(np.uint8))
    volume = {**tables["volume"][0], "valid": "valid.npy"}
    table = {"normalizer": "dtype_range"}
    crops = crops_of(planned(volume=[volume], augment=["flip_rotate"], normalizer=table))
    edge = np.load(tmp_path / "raw.npy") > 120
    for number in range(6):
        sample = crops[number]
        bright = sample["image"].numpy()[0]
        inside = sample["weights"][0].numpy()[0] == 1
        if inside.any() and not inside.all():
            assert bright[inside].min() > bright[~inside].max()
    assert edge.any()


def test_a_network_with_context_gets_targets_of_its_output(planned: Planned) -> None:
    model = {"model": "tinynet", "context": 1}
    plan = planned(model=model, augment=[])
    sample = crops_of(plan)[0]
    assert sample["image"].shape == (1, 6, 16, 16)
    assert sample["targets"][0].shape == (1, 4, 16, 16)
    assert sample["weights"][0].shape == (1, 4, 16, 16)


def test_an_augment_that_changes_shapes_is_named(planned: Planned) -> None:
    with pytest.raises(ContractError, match="augment Shrinking changes shapes"):
        crops_of(planned(augment=["shrinking"]))[0]


def test_the_labels_of_two_volumes_stay_with_their_images(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    np.save(tmp_path / "raw2.npy", np.load(tmp_path / "raw.npy")[:, ::-1])
    np.save(tmp_path / "truth2.npy", np.load(tmp_path / "truth.npy")[:, ::-1])
    second = {"path": "raw2.npy", "labels": {"instances": "truth2.npy"}, "weight": 3.0}
    plan = planned(volume=[tables["volume"][0], second], augment=[])
    crops = crops_of(plan)
    seen = set()
    for number in range(12):
        rng = np.random.default_rng([plan.seed, number])
        crop = plan.sampler.draw(crops.index, plan.crop, number, rng)
        seen.add(crop.volume)
        truth = np.load(tmp_path / ("truth.npy", "truth2.npy")[crop.volume])
        assert (crops[number]["targets"][0].numpy()[0] == (truth > 0)[crop.roi.slices]).all()
    assert seen == {0, 1}


@pytest.mark.parametrize(
    ("dtype", "value", "ignored"),
    [("uint8", 255, False), ("uint16", 65535, True), ("uint32", 2**32 - 1, True), ("int16", -1, True)],
)
@pytest.mark.parametrize("foreground", [None, [2, 255]])
def test_what_is_ignored_stays_so_whatever_counts_as_foreground(
    dtype: str,
    value: int,
    ignored: bool,
    foreground: list[int] | None,
    planned: Planned,
    tables: dict[str, Any],
    tmp_path: Path,
) -> None:
    truth = np.load(tmp_path / "truth.npy").astype(dtype)
    truth[:, :10] = value
    np.save(tmp_path / "truth.npy", truth)
    values = {"foreground": foreground} if foreground else {}
    crops = crops_of(planned(volume=[{**tables["volume"][0], "label_values": values}], augment=[]))
    inside = np.isin(truth, foreground) if foreground else truth > 0
    for number in range(4):
        sample, roi = crops[number], drawn(crops, number)
        counted = (truth != value)[roi.slices] if ignored else np.ones(roi.shape, bool)
        assert (sample["weights"][0].numpy()[0] == counted).all()
        assert (sample["targets"][0].numpy()[0] == inside[roi.slices])[counted].all()


def test_255_in_a_file_of_bytes_is_ignored_where_it_is_stated(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    truth = np.load(tmp_path / "truth.npy")
    truth[:, :10] = 255
    np.save(tmp_path / "truth.npy", truth)
    crops = crops_of(planned(volume=[{**tables["volume"][0], "label_values": {"ignore": [255]}}], augment=[]))
    for number in range(4):
        counted = (truth != 255)[drawn(crops, number).slices]
        assert (crops[number]["weights"][0].numpy()[0] == counted).all()


@pytest.mark.parametrize("planes", [slice(0, 12), slice(20, 22)], ids=["training", "validation"])
def test_negative_labels_are_refused_before_the_first_step(
    planes: slice, planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    truth = np.load(tmp_path / "truth.npy").astype(np.int16)
    truth[planes, :10] = -7
    np.save(tmp_path / "truth.npy", truth)
    with pytest.raises(DataError, match="-7 is negative") as error:
        crops_of(planned(volume=[{**tables["volume"][0], "label_values": {"foreground": [2]}}]))
    assert error.value.where == "instances labels of 'raw.npy'"


@pytest.mark.parametrize(
    "target",
    [
        {"target": "boundary", "width": "15 nm"},
        {"target": "signed_distance", "unit": "nm", "limit": 5},
        {"target": "center", "context": "90 nm", "per_slice": True},
    ],
)
def test_a_length_that_needs_an_unknown_voxel_size_is_refused_before_a_voxel_is_read(
    target: dict[str, Any], planned: Planned, registry: Registry
) -> None:
    registry.add("loss", "squared", "many_heads:Squared")
    with pytest.raises(ConfigError, match="voxel size") as error:
        planned(objective=[{"head": "foreground", "target": target, "loss": "squared"}])
    assert "[[objective]]" in error.value.where
    assert error.value.hint


def test_class_ids_out_of_range_are_refused_before_the_first_step(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    truth = np.load(tmp_path / "truth.npy").astype(np.uint32)
    truth[20] = 65535
    np.save(tmp_path / "truth.npy", truth)
    objective = {"head": "foreground", "target": {"target": "foreground", "label": "semantic"}, "loss": "bce"}
    with pytest.raises(DataError, match="class id 65535 is larger than 65534"):
        crops_of(planned(volume=[{**tables["volume"][0], "labels": {"semantic": "truth.npy"}}], objective=[objective]))
