import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared_crops import crops_of, drawn

from mitocore import Head
from mitocore.blockwise import passes
from mitocore.builtin.losses.entropy import CrossEntropy
from mitocore.builtin.targets.semantic import Semantic
from mitocore.config.labelled import VolumeTable
from mitocore.errors import ConfigError, DataError, MitocoreError, WiringError
from mitocore.geometry import Roi
from mitocore.learn.data import Crops, Prepared
from mitocore.registry import Registry
from mitocore.training import PlannedObjective, TrainingPlan, objectives

Planned = Callable[..., TrainingPlan]


@pytest.fixture
def folder(tmp_path: Path, tables: dict[str, Any]) -> Path:
    """Volumes a10, a9 and b beside their labels, and labels in a folder of their own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "ids").mkdir()
    for name in ("a10", "a9", "b"):
        shutil.copy(tmp_path / "raw.npy", tmp_path / "data" / f"{name}.npy")
        shutil.copy(tmp_path / "truth.npy", tmp_path / "data" / f"{name}_ids.npy")
        shutil.copy(tmp_path / "truth.npy", tmp_path / "ids" / f"{name}.npy")
    return tmp_path


SPLIT = {"validation": "z:16-24"}
BESIDE = "data/{stem}_ids.npy"


@pytest.mark.parametrize(
    ("path", "labels", "found"),
    [
        ("data/*.npy", BESIDE, ["data/a9.npy", "data/a10.npy", "data/b.npy"]),
        ("data/a*.npy", BESIDE, ["data/a9.npy", "data/a10.npy"]),
        ("data", BESIDE, ["data/a9.npy", "data/a10.npy", "data/b.npy"]),
        ("ids/", "data/{stem}_ids.npy", ["ids/a9.npy", "ids/a10.npy", "ids/b.npy"]),
        (["data/b.npy", "data/a*.npy", "data/b.npy"], BESIDE, ["data/b.npy", "data/a9.npy", "data/a10.npy"]),
        (["data/b.npy"], "ids/b.npy", ["data/b.npy"]),
        ("data/b.npy", "ids/{stem}.npy", ["data/b.npy"]),
        ("*/b.npy", "{path}", ["data/b.npy", "ids/b.npy"]),
    ],
)
def test_one_table_may_stand_for_several_volumes(
    path: Any, labels: str, found: list[str], planned: Planned, folder: Path
) -> None:
    plan = planned(volume=[{"path": path, "labels": labels, "split": SPLIT}])
    assert [volume.path for volume in plan.volumes] == found
    for volume in plan.volumes:
        stem = Path(volume.path).stem
        assert Path(volume.labels["instances"].reader.path).name in (f"{stem}_ids.npy", f"{stem}.npy")


@pytest.mark.parametrize(
    ("volume", "family", "problem", "hint"),
    [
        (
            {"path": "dta/*.npy", "labels": BESIDE},
            DataError,
            r"nothing that can be read matches 'dta/\*.npy'",
            "did you mean 'data/*.npy'?",
        ),
        ({"path": "data/c*.npy", "labels": BESIDE}, DataError, "nothing that can be read matches", "there are"),
        ({"path": "data/*.npy", "labels": "ids/b.npy"}, ConfigError, "would have the same labels", "{stem}"),
        ({"path": ["data/b.npy", "data/a9.npy"], "labels": "ids/b.npy"}, ConfigError, "2 volumes would have", "{path}"),
        ({"path": "data/?.npy", "labels": "gone/{stem}.npy"}, DataError, r"gone/b\.npy", "skip_unlabelled = true"),
    ],
)
def test_places_that_name_no_volumes_are_refused(
    volume: dict[str, Any], family: type[MitocoreError], problem: str, hint: str, planned: Planned, folder: Path
) -> None:
    with pytest.raises(family, match=problem) as error:
        planned(volume=[{**volume, "split": SPLIT}])
    assert hint in error.value.hint
    assert "[[volume]]" in error.value.where
    assert len(str(error.value).splitlines()) <= 3


def test_volumes_without_labels_may_be_left_out_and_stand_in_the_plan(planned: Planned, folder: Path) -> None:
    (folder / "ids" / "a10.npy").unlink()
    table = {"path": "data/*[0-9b].npy", "labels": "ids/{stem}.npy", "split": SPLIT}
    with pytest.raises(DataError, match=r"a10\.npy"):
        planned(volume=[table])
    plan = planned(volume=[{**table, "skip_unlabelled": True}])
    assert [volume.path for volume in plan.volumes] == ["data/a9.npy", "data/b.npy"]
    assert "left out: data/a10.npy" in str(plan)


def test_a_folder_of_catena_is_read_as_it_is(planned: Planned, registry: Registry, folder: Path) -> None:
    zarr = pytest.importorskip("zarr")
    io = pytest.importorskip("mitocore_io.plugin")
    registry._plugin = "io"
    io.mitocore_register(registry)
    truth = np.load(folder / "truth.npy").astype(np.uint64)
    truth[0, 0, :4] = 2**64 - 3
    for name in ("cube_10", "cube_2"):
        for key, values in (
            ("raw", np.load(folder / "raw.npy")),
            ("labels/mito_ids", truth),
            ("labels/neuron_ids", np.minimum(truth, 1)),
        ):
            if (name, key) != ("cube_2", "labels/neuron_ids"):
                array = zarr.create_array(
                    folder / "cubes" / f"{name}.zarr", name=f"volumes/{key}", data=values, zarr_format=2
                )
                array.attrs["resolution"] = [8, 8, 8]
    (folder / "cubes" / "notes.txt").write_text("not a volume")
    mito = {"path": "cubes::volumes/raw", "labels": "{path}::volumes/labels/mito_ids", "split": SPLIT}
    plan = planned(volume=[mito])
    assert [volume.path for volume in plan.volumes] == [
        "cubes/cube_2.zarr::volumes/raw",
        "cubes/cube_10.zarr::volumes/raw",
    ]
    assert str(plan.voxel_size) == "8 x 8 x 8 nm"
    with crops_of_one(plan) as labels:
        found = labels.read(Roi((0, 0, 0), (1, 1, 8)))[0, 0, 0]
    assert found.tolist() == [2**64 - 1] * 4 + [0] * 4
    neurons = {**mito, "labels": "{path}::volumes/labels/neuron_ids"}
    stored = zarr.open_group(folder / "cubes" / "cube_10.zarr", mode="r+")["volumes"]
    stored["raw"].attrs["offset"] = [80, 0, 0]
    assert planned(volume=[mito]).volumes  # labels that do not say where they begin
    stored["labels/mito_ids"].attrs["offset"] = [84, 0, 0]
    assert planned(volume=[mito]).volumes
    stored["labels/mito_ids"].attrs["offset"] = [88, 0, 0]
    with pytest.raises(DataError, match=r"begin at \(88.0, 0.0, 0.0\) nm, the image at \(80.0, 0.0, 0.0\) nm"):
        planned(volume=[mito])
    with crops_of_one(planned(volume=[{**neurons, "path": "cubes/cube_10.zarr::volumes/raw"}])) as labels:
        assert (labels.read(Roi((1, 0, 0), (24, 32, 32)))[0] == np.minimum(truth, 1)[1:]).all()
    with pytest.raises(DataError, match=r"'cube_2\.zarr' has no array 'volumes/labels/neuron_ids'"):
        planned(volume=[neurons])


def crops_of_one(plan: TrainingPlan) -> Any:
    return Prepared(plan.volumes[0], plan.normalizer, {}).open().labels["instances"]


def test_what_uint64_reserves_is_ignored_or_background(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    truth = np.load(tmp_path / "truth.npy").astype(np.uint64)
    truth[0, 0, :5] = [2**64 - 1, 2**64 - 2, 2**64 - 3, 2**64 - 4, 5]
    np.save(tmp_path / "truth.npy", truth)
    ignore = 2**64 - 1
    expected = {"ignore": [ignore, ignore, ignore, 2**64 - 4, 5], "background": [ignore, 0, 0, 2**64 - 4, 5]}
    for reserved, ids in expected.items():
        plan = planned(volume=[{**tables["volume"][0], "label_values": {"reserved": reserved}}])
        with crops_of_one(plan) as labels:
            assert labels.read(Roi((0, 0, 0), (1, 1, 5))).ravel().tolist() == ids


def test_large_ids_that_floats_cannot_tell_apart_are_not_taken_for_each_other(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    truth = np.load(tmp_path / "truth.npy").astype(np.uint64)
    truth[0, 0, :4] = [2**63 + 5, 2**63 + 6, 2**53, 2**53 + 1]
    np.save(tmp_path / "truth.npy", truth)
    ignore = 2**64 - 1
    stated = {
        "ignore": ([2**63 + 6, 2**53, -7], [2**63 + 5, ignore, ignore, 2**53 + 1]),
        "foreground": ([2**63 + 6, 2**53], [0, 1, 1, 0]),
    }
    for key, (values, ids) in stated.items():
        plan = planned(volume=[{**tables["volume"][0], "label_values": {key: values}}])
        with crops_of_one(plan) as labels:
            assert labels.read(Roi((0, 0, 0), (1, 1, 4))).ravel().tolist() == ids


def with_labels(tables: dict[str, Any], labels: Any, **more: Any) -> list[dict[str, Any]]:
    return [{**tables["volume"][0], "labels": labels, **more}]


SEMANTIC = [{"head": "foreground", "target": {"target": "foreground", "label": "semantic"}, "loss": "bce"}]


def test_semantic_labels_of_several_values_must_say_what_they_are(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    count = int((np.delete(np.load(tmp_path / "truth.npy"), 15, 0) == 3).sum())  # all but the gap
    labels = {"semantic": "truth.npy"}

    def index(**more: Any) -> Crops:
        return crops_of(planned(volume=with_labels(tables, labels, **more), objective=SEMANTIC))

    with pytest.raises(
        DataError, match=rf"hold 5 values, and nothing says what they are: .*3 \({count} voxels\)"
    ) as error:
        index()
    assert "classes" in error.value.hint
    with pytest.raises(DataError, match=rf"without a class: 3 \({count} voxels\), 4 \(.* voxels\); there are 3"):
        index(classes=["background", "mito", "er"])
    names = ("background", "mito", "er", "golgi", "vesicle")
    shown = crops_of_one_volume(index(classes=list(names), source="hospital"))
    assert (shown.classes, shown.name, shown.source) == (names, "raw.npy", "hospital")
    index(label_values={"foreground": "any"})
    index(label_values={"foreground": [2]})


@pytest.mark.parametrize(
    ("classes", "options", "problem"),
    [
        (["background", "mito", "er"], {}, None),
        (["background", "mito", "er"], {"ranges": [[0, 0], [1, 1], [2, 9]]}, None),
        (["background", "er", "mito"], {"ranges": [[0, 0], [2, 2], [1, 1]]}, None),
        (["background", "er", "mito"], {}, "class 'er' is id 1 in 'raw.npy', but not in the target"),
        (["background", "mito", "er", "golgi"], {}, "label 3 is of no class"),
        ([], {}, None),
    ],
)
def test_a_target_that_takes_an_id_for_another_class_than_the_volume_is_refused(
    classes: list[str], options: dict[str, Any], problem: str | None
) -> None:
    table = VolumeTable(path="raw.npy", labels={"semantic": "truth.npy"}, classes=tuple(classes))
    target = Semantic(classes=("background", "mito", "er"), **options)
    objective = PlannedObjective((Head("semantic", target.classes, "softmax"),), target, CrossEntropy(), 1.0)
    with pytest.raises(MitocoreError, match=problem) if problem else nullcontext():
        objectives.check_labels(objective, table, "[[objective]] 1")


def crops_of_one_volume(crops: Crops) -> Any:
    return crops.volumes[0].open().labelled(crops.plan.volumes[0].drawn[0].inside)


def test_label_arrays_have_names_kinds_and_values_of_their_own(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    labels = {
        "instances": "truth.npy",
        "neurons": {"path": "truth.npy", "label_values": {"foreground": [1, 2]}},
        "membrane": {"path": "truth.npy", "kind": "semantic", "label_values": {"foreground": [3], "ignore": [4]}},
    }
    plan = planned(volume=with_labels(tables, labels))
    volume = Prepared(plan.volumes[0], plan.normalizer, {}).open()
    found = {name: array.read(Roi.whole((24, 32, 32)))[0] for name, array in volume.labels.items()}
    truth = np.load(tmp_path / "truth.npy")
    assert {name: str(ids.dtype) for name, ids in found.items()} == {
        "instances": "uint64",
        "neurons": "uint64",
        "membrane": "uint16",
    }
    assert (found["instances"] == truth).all()
    assert (found["neurons"] == np.isin(truth, (1, 2))).all()
    assert (found["membrane"] == np.select([truth == 4, truth == 3], [65535, 1])).all()
    volume.close()
    wrong = {"semantic": {"path": "truth.npy", "kind": "instances"}}
    with pytest.raises(WiringError, match=r"array 'semantic' of 'raw\.npy' holds instance ones"):
        planned(volume=with_labels(tables, wrong), objective=SEMANTIC)


def test_nothing_outside_of_the_region_is_used(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> None:
    region = Roi((2, 3, 0), (22, 32, 30))
    volume = {**tables["volume"][0], "region": "2:22,3:,:30", "split": {"validation": "z:0.75-1.0", "gap": 1}}
    plan = planned(volume=[volume], sampler="uniform")
    parts = plan.volumes[0].parts
    assert parts.validation == (Roi((17, 3, 0), (22, 32, 30)),)
    assert parts.train == (Roi((2, 3, 0), (16, 32, 30)),)
    crops = crops_of(plan)
    assert all(region.contains(drawn(crops, number)) for number in range(20))


@pytest.mark.parametrize("sampler", ["uniform", "foreground"])
def test_every_crop_sees_an_annotated_box_and_nothing_outside_counts(
    sampler: str, planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    stated = ["2:6,6:12,6:12", "9:13,20:28,8:14"]
    volume = {**tables["volume"][0], "annotated": stated}
    crops = crops_of(planned(volume=[volume], sampler=sampler, augment=[]))
    inside = np.zeros((24, 32, 32), bool)
    for text in stated:
        inside[Roi.parse(text, (24, 32, 32)).slices] = True
    truth = np.load(tmp_path / "truth.npy")
    seen = set()
    for number in range(25):
        sample, roi = crops[number], drawn(crops, number)
        weight = sample["weights"][0].numpy()[0]
        assert (weight == inside[roi.slices]).all()
        assert weight.any()
        assert (sample["targets"][0].numpy()[0] == (inside & (truth > 0))[roi.slices]).all()
        seen.add(crops.index.regions[0].contains(roi))
    assert seen == {True, False}


def test_an_object_that_leaves_an_annotated_box_has_no_border_at_its_face(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    truth = np.zeros((24, 32, 32), np.uint8)
    truth[2:6, 6:12, 6:12] = 1  # all of the box, and nothing beyond it was labelled
    np.save(tmp_path / "truth.npy", truth)
    volume = {"path": "raw.npy", "labels": "truth.npy", "annotated": ["2:6,6:12,6:12", "16:24,:,:"]}
    truth[20, 4:9, 4:9] = 1
    np.save(tmp_path / "truth.npy", truth)
    objective = [{"head": "foreground", "target": "boundary", "loss": "bce"}]
    plan = planned(volume=[{**volume, "split": {"validation": "z:16-24"}}], objective=objective, augment=[])
    sample = crops_of(plan).sample(0)
    (target, weight), *_ = sample.pairs
    assert weight.any()
    assert not target.any()


def test_context_around_an_annotated_box_is_read_and_not_mirrored(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    volume = {**tables["volume"][0], "annotated": ["6:8,14:18,14:18"]}
    table = {
        "augment": [{"augment": "wide", "reach": 3, "shift": 3}],
        "normalizer": "dtype_range",
        "sampler": "uniform",
    }
    crops = crops_of(planned(volume=[volume], **table))
    prepared = crops.volumes[0]
    image = prepared.normalizer.apply(np.load(tmp_path / "raw.npy")[None], prepared.stats)
    number = next(n for n in range(50) if drawn(crops, n).start[0] == crops.index.regions[0].start[0])
    roi = drawn(crops, number)
    assert roi.start[0] >= 3
    assert (crops[number]["image"].numpy() == image[(slice(None), *roi.moved((-3, 0, 0)).slices)]).all()


@pytest.mark.parametrize(
    ("size", "shape"),
    [([5, 5, 5], (24, 32, 32)), ([5.04, 5, 5], (24, 32, 32)), (10, (12, 16, 16)), ([5, 2.5, 2.5], (24, 64, 64))],
)
def test_volumes_are_resampled_to_the_voxel_size_of_training(
    size: Any, shape: Any, planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    volume = {**tables["volume"][0], "voxel_size": 5, "valid": "valid.npy"}
    np.save(tmp_path / "valid.npy", (np.load(tmp_path / "truth.npy") != 2).astype(np.uint8))
    train = {"voxel_size": size, "crop": [2, 8, 8]}
    plan = planned(train, volume=[volume], augment=[], normalizer="zscore")
    assert plan.volumes[0].spec.shape == shape
    assert plan.volumes[0].spec.voxel_size == plan.voxel_size == plan.header().voxel_size == plan.train.voxel_size
    crops = crops_of(plan)
    with plan.volumes[0].image.open() as image:
        assert crops.volumes[0].stats == passes.fit(plan.normalizer, image)
    opened = crops.volumes[0].open()
    whole = Roi.whole(shape)
    picture, labels = opened.read_image(whole, whole), opened.read_labels(whole, whole)
    opened.close()
    bright = np.isin(labels["instances"], (1, 3, 4))
    assert picture[0][bright].mean() > picture[0][labels["instances"] == 0].mean() + 1
    assert ((labels["valid"] == 0) == (labels["instances"] == 2)).all()
    for number in range(5):
        sample, roi = crops[number], drawn(crops, number)
        cut = (slice(None), *roi.slices)
        assert (sample["image"].numpy() == picture[cut]).all()
        assert (sample["targets"][0].numpy() == (labels["instances"] > 0)[None][cut]).all()
        assert (sample["weights"][0].numpy() == labels["valid"][None][cut]).all()


def test_a_size_for_training_needs_that_of_the_volume(planned: Planned) -> None:
    with pytest.raises(
        ConfigError, match=r"'raw\.npy' is to be resampled to 5 x 5 x 5 nm, and its voxel size"
    ) as error:
        planned({"voxel_size": 5})
    assert "voxel_size = " in error.value.hint


def test_stated_boxes_are_in_voxels_of_the_file(planned: Planned, tables: dict[str, Any]) -> None:
    volume = {**tables["volume"][0], "voxel_size": 5, "region": "4:24,:,:", "annotated": ["8:12,0:16,:"]}
    plan = planned({"voxel_size": 10, "crop": [2, 8, 8]}, volume=[volume])
    (found,) = plan.volumes
    assert (found.region, found.annotated) == (Roi((2, 0, 0), (12, 16, 16)), (Roi((4, 0, 0), (6, 8, 16)),))
    assert found.parts.validation == (Roi((8, 0, 0), (12, 16, 16)),)
    assert found.parts.train == (Roi((2, 0, 0), (7, 16, 16)),)  # a gap of one voxel of the file is one of training


@pytest.mark.parametrize(
    "change", [{"weight": 2.0}, {"annotated": ["0:8,:,:"]}, {"label_values": {"ignore": [1]}}, {"voxel_size": 4}]
)
def test_the_digest_tells_whatever_decides_the_result(
    change: dict[str, Any], planned: Planned, tables: dict[str, Any]
) -> None:
    assert planned(volume=[{**tables["volume"][0], **change}]).digest != planned().digest
