import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mitocore.builtin.npy import NpyReader
from mitocore.config.labelled import VolumeTable
from mitocore.config.partition import Stated, divided, write_split
from mitocore.config.split import Part, Parts, divide, meet
from mitocore.config.toml import Document
from mitocore.config.volumes import PlannedVolume
from mitocore.errors import ConfigError, DataError, MitocoreError
from mitocore.geometry import Roi, Shape, VoxelSize
from mitocore.interfaces import Volume
from mitocore.learn.data import OpenVolume, _ResampledSource
from mitocore.learn.fit import fit
from mitocore.resampling import Resampled, resampled
from mitocore.specs import VolumeSpec, Window
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


def whole(*shape: int) -> Roi:
    z, y, x = shape
    return Roi.whole((z, y, x))


@st.composite
def slabs(draw: st.DrawFn) -> tuple[Shape, Part, Part | None, int]:
    shape = draw(st.tuples(*[st.integers(4, 40)] * 3))
    axis = draw(st.integers(0, 2))
    ends = sorted(draw(st.lists(st.integers(0, shape[axis]), min_size=4, max_size=4, unique=True)))
    texts = [f"{'zyx'[axis]}:{a}-{b}" for a, b in (ends[:2], ends[2:])]
    if draw(st.booleans()):
        texts.reverse()
    return shape, Part.parse(texts[0]), Part.parse(texts[1]) if draw(st.booleans()) else None, draw(st.integers(0, 9))


@st.composite
def a_box(draw: st.DrawFn, shape: Shape) -> Roi:
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    return Roi((ends[0][0], ends[1][0], ends[2][0]), (ends[0][1], ends[1][1], ends[2][1]))


def filled(shape: Shape, boxes: Sequence[Roi]) -> NDArray[np.int64]:
    seen = np.zeros(shape, np.int64)
    for box in boxes:
        seen[box.slices] += 1
    return seen


@settings(deadline=None, max_examples=60)
@given(slabs())
def test_slabs_are_disjoint_and_training_is_all_but_a_gap_around_them(split: Any) -> None:
    shape, validation, test, gap = split
    around = tuple(gap if axis == validation.axis else 0 for axis in range(3))
    held = [part.boxes(Roi.whole(shape)) if part else () for part in (validation, test)]
    parts = divide(Roi.whole(shape), *held, around)
    assert filled(shape, [*parts.train, *parts.held]).max() == 1
    away = filled(shape, [box.grow(around).clip(Roi.whole(shape)) for box in parts.held]) > 0
    assert (filled(shape, parts.train) == ~away).all()


@settings(deadline=None, max_examples=60)
@given(st.data(), st.tuples(*[st.integers(0, 3)] * 3))
def test_listed_boxes_leave_training_all_that_is_a_gap_away_from_them(data: st.DataObject, gap: Shape) -> None:
    shape = data.draw(st.tuples(*[st.integers(3, 16)] * 3))
    region = data.draw(a_box(shape))
    drawn = [box.clip(region) for box in data.draw(st.lists(a_box(shape), min_size=1, max_size=4))]
    held: list[Roi] = []
    for box in drawn:
        if min(box.shape) > 0 and not any(meet(box, other) for other in held):
            held.append(box)
    parts = divide(region, held[1:], held[:1], gap, crop=(2, 2, 2))
    used = filled(shape, [region]) > 0
    away = filled(shape, [box.grow(gap).clip(Roi.whole(shape)) for box in held]) > 0
    assert (filled(shape, parts.train) == (used & ~away)).all()


def test_boxes_for_training_are_cut_so_that_crops_fit() -> None:
    hole = Roi((0, 14, 0), (20, 26, 40))
    train = divide(whole(20, 40, 40), [hole], [], (0, 0, 0), crop=(20, 14, 40)).train
    assert train == (Roi((0, 0, 0), (20, 14, 40)), Roi((0, 26, 0), (20, 40, 40)))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(0, 99), st.integers(1, 100))
def test_fractions_that_meet_share_no_plane_and_leave_none_out(length: int, low: int, more: int) -> None:
    middle = min(low + more, 99) / 100
    texts = [f"z:{low / 100:.2f}-{middle:.2f}", f"z:{middle:.2f}-1.0"]
    found = []
    for text in texts:
        try:
            found += Part.parse(text).boxes(whole(length, 2, 2))
        except ValueError:
            return  # too thin for this volume
    assert found[0].stop[0] == found[1].start[0]
    assert found[1].stop[0] == length


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("z:20-17", "is empty"),
        ("z:0.5-20", "is not a part"),
        ("w:0-5", "is not a part"),
        ("z:0.5-1.5", "leaves the volume"),
        ("17-20", "is not a part"),
        ("0:4,0:4", "is not a box"),
        (["0:4,0:4,0-4"], "is not a box"),
        ([], "is not a part"),
    ],
)
def test_what_is_not_a_part_is_refused(text: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Part.parse(text)


class Seen(Volume):
    """Marks the voxels of the file that are read."""

    def __init__(self, shape: Shape) -> None:
        self.marked = np.zeros(shape, bool)
        self.voxel_bytes = 4

    @property
    def spec(self) -> VolumeSpec:
        return VolumeSpec((*self.marked.shape,), "float32", voxel_size=VoxelSize(10, 10, 10))

    def read(self, roi: Roi) -> NDArray[Any]:
        self.marked[roi.slices] = True
        return np.zeros((1, *roi.shape), np.float32)


def read_for(planned: PlannedVolume, boxes: Sequence[tuple[Roi, Roi]]) -> NDArray[np.bool_]:
    """Voxels of the file that are read, as image or as labels, for (box, region)."""
    seen, labels = Seen(planned.original.shape), Seen(planned.original.shape)
    source: Any = seen
    ids: Volume = labels
    if planned.resampling and planned.spec.voxel_size:
        source = _ResampledSource(seen, planned.resampling)
        ids = Resampled(labels, planned.resampling, planned.spec.voxel_size, labels=True)
    volume = OpenVolume(planned, source, seen, {"instances": ids}, None)
    for box, region in boxes:
        volume.read_image(box, region)
        volume.read_labels(box, region)
    return seen.marked | labels.marked


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_voxel_read_for_training_is_read_for_validation_or_test(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(10, 24)] * 3))
    ratio = data.draw(st.tuples(*[st.sampled_from([1, 1, 2, 1.5, 0.6])] * 3))
    wanted = VoxelSize(*(10 * edge for edge in ratio))
    crop, context = (5, 4, 4), (data.draw(st.integers(0, 2)), 0, 0)  # 2.5-D: planes that go in and do not come out
    split: dict[str, Any] = {"gap": data.draw(st.sampled_from(["auto", 0, 2, "15 nm"]))}
    if data.draw(st.booleans()):
        axis = data.draw(st.sampled_from("zyx"))
        split |= {"validation": f"{axis}:0.4-0.6", "test": f"{axis}:0.6-0.8"}
    else:
        boxes = [data.draw(a_box(shape)) for _ in range(2)]
        names = ["validation", "test"] if not meet(*boxes) else ["validation"]
        split |= {
            n: [",".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True))]
            for n, box in zip(names, boxes, strict=False)
        }
    spec = VolumeSpec(shape, "uint8", voxel_size=VoxelSize(10, 10, 10))
    at, resampling = resampled(spec, wanted)
    image = NpyReader(path="raw.npy")
    annotated = tuple(data.draw(st.lists(a_box(at.shape), max_size=2)))
    volume = PlannedVolume(
        "raw.npy",
        "raw.npy",
        image,
        {},
        None,
        1.0,
        at,
        spec,
        resampling,
        Roi.whole(shape),
        Roi.whole(at.shape),
        annotated,
    )
    table = VolumeTable(path="raw.npy", labels="truth.npy", split=split)
    try:
        (planned,) = divided([Stated(volume, table, 0)], None, Window(crop, crop=context), crop, Document({}))
    except ConfigError:
        return  # too small for this split
    reach = data.draw(st.tuples(*[st.integers(0, 4)] * 3))  # of augments and targets: mirrored where it leaves the part
    crops = []
    for drawn in planned.drawn:
        starts = [
            data.draw(st.integers(a, b - n))
            for a, b, n in zip(drawn.inside.start, drawn.inside.stop, crop, strict=True)
        ]
        for start in (drawn.inside.start, starts, [b - n for b, n in zip(drawn.inside.stop, crop, strict=True)]):
            a, b, c = start
            crops.append((Roi((a, b, c), (a + 5, b + 4, c + 4)).grow(reach), drawn.region))
    validation, test = (
        read_for(planned, [(box.grow(reach), box) for box in boxes])
        for boxes in (planned.parts.validation, planned.parts.test)
    )
    train = read_for(planned, crops)
    assert not (train & (validation | test)).any()
    assert not (validation & test).any()
    for drawn in planned.drawn:
        assert drawn.region.contains(drawn.inside)


def named(plan: TrainingPlan) -> dict[str, list[str]]:
    """Volumes by part."""
    return {
        part: [volume.path for volume in plan.volumes if getattr(volume.parts, part)]
        for part in ("train", "validation", "test")
    }


@pytest.fixture
def many(tmp_path: Path, tables: dict[str, Any]) -> dict[str, Any]:
    """Ten volumes and their labels, in one table."""
    for number in range(10):
        np.save(tmp_path / f"v{number}.npy", np.load(tmp_path / "raw.npy")[:8] + np.uint8(number))
        np.save(tmp_path / f"v{number}_ids.npy", np.load(tmp_path / "truth.npy")[:8])
    return {"path": "v*.npy", "labels": "{stem}_ids.npy"}


def test_whole_volumes_are_divided_by_lot(planned: Planned, many: dict[str, Any]) -> None:
    split = {"by": "volume", "validation": 0.2, "test": 0.1}
    plan = planned(volume=[many], split=split)
    found = named(plan)
    assert [len(found[part]) for part in ("train", "validation", "test")] == [7, 2, 1]
    assert len({path for paths in found.values() for path in paths}) == 10
    assert named(planned(volume=[many], split=split)) == found
    assert any(named(planned(volume=[many], split={**split, "seed": seed})) != found for seed in (1, 2, 3))
    assert len(named(planned(volume=[many], split={"by": "volume", "validation": 0.01}))["validation"]) == 1


def test_regions_of_one_file_fall_to_one_part(planned: Planned, many: dict[str, Any]) -> None:
    halves = [{**many, "region": "0:4,:,:"}, {**many, "region": "4:8,:,:"}]
    found = named(planned(volume=halves, split={"by": "volume", "validation": 0.5}))
    assert not set(found["train"]) & set(found["validation"])
    assert len(found["validation"]) == 10


@pytest.mark.parametrize(
    ("split", "problem", "hint"),
    [
        ({"by": "volume", "test": 0.5}, "1 volume cannot be divided", "more volumes"),
        ({"by": "volume", "file": "split.json"}, 'by = "volume", or file', ""),
        ({"file": "split.json", "seed": 3}, "leave seed out", ""),
        ({"by": "volume", "validation": 0.6, "test": 0.4}, "leave nothing for training", ""),
        ({"by": "volume", "validation": 1.5}, "less than 1", ""),
    ],
)
def test_lots_that_cannot_be_drawn_are_refused(
    split: dict[str, Any], problem: str, hint: str, planned: Planned, tables: dict[str, Any]
) -> None:
    volume = {key: value for key, value in tables["volume"][0].items() if key != "split"}
    with pytest.raises(ConfigError, match=problem) as error:
        planned(volume=[volume], split=split)
    assert hint in error.value.hint


def test_a_split_is_stated_once(planned: Planned) -> None:
    with pytest.raises(ConfigError, match="has a split of its own"):
        planned(split={"by": "volume"})


def test_two_tables_of_one_file_may_not_leak(planned: Planned, tables: dict[str, Any]) -> None:
    volume = {"path": "raw.npy", "labels": "truth.npy"}
    held = {**volume, "region": "16:24,:,:", "split": {"validation": "all"}}
    with pytest.raises(ConfigError, match="trains on voxels that the other holds out"):
        planned(volume=[volume, held])
    rest = {**volume, "region": "0:16,:,:"}
    plan = planned(volume=[rest, held])
    assert plan.volumes[0].parts.train == (Roi((0, 0, 0), (16, 32, 32)),)
    with pytest.raises(ConfigError, match="validates on voxels that the other holds out"):
        planned(volume=[rest, held, {**held, "region": "23:24,:,:", "split": {"test": "all"}}])


def test_a_file_leaks_by_no_other_path(planned: Planned, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "more").mkdir()
    held = {"path": "raw.npy", "labels": "truth.npy", "split": {"validation": "all"}}
    for path in ("./raw.npy", "more/../raw.npy", "linked/raw.npy"):
        volume = {"path": path, "labels": "truth.npy"}
        with pytest.raises(ConfigError, match="trains on voxels that the other holds out"):
            planned(volume=[volume, held])
        volumes = [volume, {**held, "split": {}}]
        for one in volumes:
            one.pop("split", None)
        with pytest.raises(ConfigError, match="1 volume cannot be divided"):
            planned(volume=volumes, split={"by": "volume"})


def test_a_written_split_is_used_again_to_the_voxel(
    planned: Planned, tables: dict[str, Any], many: dict[str, Any], tmp_path: Path
) -> None:
    boxes = {**tables["volume"][0], "split": {"validation": ["8:16,0:16,0:16", "8:16,16:32,0:16"], "test": "20:24,:,:"}}
    sized = {"voxel_size": 10}
    more = {**sized, "path": "v1.npy", "labels": "v1_ids.npy"}
    plan = planned({"voxel_size": 5}, volume=[{**boxes, **sized}, more])
    write_split(tmp_path, plan.volumes)
    volume = {key: value for key, value in {**boxes, **sized}.items() if key != "split"}
    again = planned({"voxel_size": 5, "crop": [6, 16, 16]}, volume=[more, volume], split={"file": "split.json"})
    assert [one.split for one in again.volumes] == [one.split for one in plan.volumes[::-1]]
    assert len(plan.volumes[0].parts.validation) == 2

    def refused(problem: str, *volumes: Any, **train: Any) -> None:
        with pytest.raises(MitocoreError, match=problem) as error:
            planned({"voxel_size": 5, **train}, volume=list(volumes), split={"file": "split.json"})
        assert "[split]" in error.value.where
        assert error.value.hint

    refused("voxels in training", volume, more, voxel_size=10)
    refused("is not in the split", volume, {**many, **sized})
    refused("in the split, but not in this training", volume)
    np.save(tmp_path / "raw.npy", np.load(tmp_path / "raw.npy") + np.uint8(1))
    refused("was changed or replaced", volume)
    (tmp_path / "split.json").write_text("{}")
    refused("is not a split", volume)
    (tmp_path / "split.json").unlink()
    refused("cannot be read", volume)


def test_a_split_changed_by_hand_may_not_leak(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> None:
    plan = planned()
    write_split(tmp_path, plan.volumes)
    written = json.loads((tmp_path / "split.json").read_bytes())
    written["volumes"][0]["train"] = ["0:17,:,:"]
    (tmp_path / "split.json").write_text(json.dumps(written))
    volume = {key: value for key, value in tables["volume"][0].items() if key != "split"}
    with pytest.raises(DataError, match="both in train and validation"):
        planned(volume=[volume], split={"file": "split.json"})


def test_boxes_of_a_written_split_that_are_made_of_one_voxel_of_the_file_leak(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    sized = {**tables["volume"][0], "voxel_size": 10}
    train = {"voxel_size": 5}
    write_split(tmp_path, planned(train, volume=[sized]).volumes)
    written = json.loads((tmp_path / "split.json").read_bytes())
    start = int(written["volumes"][0]["validation"][0].partition(":")[0])
    written["volumes"][0]["train"] = [f"0:{start},:,:"]  # beside it: new voxels are made of both neighbours
    (tmp_path / "split.json").write_text(json.dumps(written))
    del sized["split"]
    with pytest.raises(DataError, match="both in train and validation"):
        planned(train, volume=[sized], split={"file": "split.json"})


def test_every_training_writes_its_split(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> None:
    volume = {**tables["volume"][0], "voxel_size": 5, "split": {"validation": "z:12-18", "test": "z:18-24"}}
    train = {"steps": 1, "validate_every": 1, "voxel_size": [10, 5, 5], "crop": [4, 16, 16]}
    plan = planned(train, volume=[volume], normalizer="plane_mean")
    fit(plan)
    del volume["split"]
    split = {"file": "run/split.json"}
    again = planned(train, volume=[volume], normalizer="plane_mean", split=split)
    assert again.volumes[0].parts == plan.volumes[0].parts
    assert again.digest == plan.digest


def test_the_parts_stand_in_the_plan_and_decide_its_digest(planned: Planned, tables: dict[str, Any]) -> None:
    volume = {**tables["volume"][0], "split": {"validation": ["16:24,0:16,:", "16:24,16:32,:"]}}
    one, other = planned(volume=[volume]), planned()
    assert "validation z 16:24, y 0:16" in str(one)
    assert "validation z 16:24, y 16:32" in str(one)
    assert one.digest != other.digest
    assert Parts().held == ()
