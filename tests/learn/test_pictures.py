"""Pictures of a training: samples, panels and curves."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitocore import pictures
from mitocore.geometry import Roi
from mitocore.interfaces import Stats
from mitocore.learn import curves, samples
from mitocore.learn.census import census
from mitocore.learn.data import Crops, Prepared, build_index
from mitocore.learn.encode import cut
from mitocore.learn.fit import fit
from mitocore.learn.panels import Panels, _compared, _Seen
from mitocore.learn.validation import Validation
from mitocore.specs import Kind
from mitocore.training import TrainingPlan

pytest.importorskip("matplotlib")
Planned = Callable[..., TrainingPlan]


def prepared(plan: TrainingPlan) -> list[Prepared]:
    stats: list[Stats] = []
    for volume in plan.volumes:
        with volume.image.open() as image:
            whole = image.read(Roi.whole(image.spec.shape))
            stats.append(plan.normalizer.fit([whole], image.spec))
    return [Prepared(v, plan.normalizer, s) for v, s in zip(plan.volumes, stats, strict=True)]


def whole(plan: TrainingPlan) -> tuple[Panels, np.ndarray]:
    """Panels of the validation part, and its labels."""
    volumes = prepared(plan)
    truth = np.load(plan.volumes[0].place.partition("::")[0].replace("raw", "truth"))
    return Panels(plan, Validation(plan, volumes, "validation", "cpu")), truth[16:]


def test_panels_show_the_sections_with_most_foreground_and_not_neighbours(planned: Planned) -> None:
    panels, truth = whole(planned())
    shown = [view.box.start[0] for view in panels.views]
    counts = (truth > 0).sum(axis=(1, 2))
    assert shown == sorted(shown)
    assert counts[shown].max() == counts.max()
    assert min(np.diff(shown)) >= 2
    assert [view.title for view in panels.views] == [f"z {16 + z}" for z in shown]
    again, _ = whole(planned())
    assert [view.box for view in again.views] == [view.box for view in panels.views]


def test_a_panel_is_put_together_from_slabs_however_they_are_cut(planned: Planned) -> None:
    plan = planned()
    rng = np.random.default_rng(0)
    values, target = rng.random((2, 1, 8, 32, 32), np.float32)
    weight = (rng.random((1, 8, 32, 32)) > 0.3).astype(np.float32)
    drawn = []
    for cuts in ([(0, 0, 0, 8, 32, 32)], [(0, 0, 0, 3, 32, 32), (3, 0, 0, 8, 20, 32), (3, 20, 0, 8, 32, 32)]):
        panels, _ = whole(plan)
        for z, y, x, *stop in cuts:
            roi = Roi((z, y, x), tuple(stop))
            part = (slice(None), *roi.within(Roi.whole((8, 32, 32))))
            panels.see(0, roi, plan.objectives[0], values[part], target[part], weight[part])
        drawn.append(panels.draw(1, {"validation.loss": 1.0}, better=False))
    assert drawn[0] is not None
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_errors_are_found_added_missed_and_left_open(planned: Planned) -> None:
    found, true, counted = np.zeros((1, 3, 12)), np.zeros((1, 3, 12)), np.ones((3, 12), bool)
    true[..., :6] = found[..., :3] = found[..., 6:9] = 0.9
    counted[:, 5], counted[:, 8] = False, False
    seen = _Seen(found.astype(np.float32), true.astype(np.float32), counted)
    _, probability, error = _compared(planned().objectives[0], np.zeros((3, 12, 3), np.float32), seen)
    np.testing.assert_allclose(probability[..., 0], found[0], atol=0.005)
    for x, colour, strength in ((1, pictures.AGREES, 0.45), (6, pictures.ADDED, 0.9), (3, pictures.MISSED, 0.9)):
        np.testing.assert_allclose(error[1, x], 0.25 * (1 - strength) + strength * np.array(colour), atol=1e-5)
    np.testing.assert_allclose(error[:, [5, 8, 10]], 0.25)  # two that do not count, and background


def test_a_voxel_of_the_wrong_class_was_missed(planned: Planned) -> None:
    objective = planned().objectives[0]
    head = replace(objective.heads[0], activation="softmax", channels=("background", "a", "b"))
    classes = np.array([[[0, 1, 2, 0]]]), np.array([[[0, 1, 1, 2]]])
    found, true = ((np.arange(3)[:, None, None] == ids).astype(np.float32) for ids in classes)
    raw, seen = np.zeros((1, 4, 3), np.float32), _Seen(found, true, np.ones((1, 4), bool))
    *_, error = _compared(replace(objective, heads=(head,)), raw, seen)
    missed = 0.25 * 0.1 + 0.9 * np.array(pictures.MISSED)
    np.testing.assert_allclose(error[0, 2:], [missed, missed], atol=1e-5)
    assert not np.allclose(error[0, 1], missed)


def test_a_training_leaves_curves_and_the_last_panels_and_those_of_the_best(planned: Planned) -> None:
    plan = planned({"steps": 4, "validate_every": 1, "pictures": True})
    result = fit(plan)
    drawn = sorted(path.name for path in (plan.folder / "panels").iterdir())
    assert drawn == ["best.png", "step-000002.png", "step-000003.png", "step-000004.png"]
    assert (plan.folder / curves.PICTURE).read_bytes().startswith(b"\x89PNG")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(plan.folder / "tensorboard"), {"images": 0, "scalars": 0}).Reload()
    assert found.Tags()["images"] == ["validation.panels"]
    assert [image.step for image in found.Images("validation.panels")] == [1, 2, 3, 4]
    assert {"train.loss", "rate", "validation.loss"} <= set(found.Tags()["scalars"])
    recorded = curves.recorded(plan.folder / "logs")
    assert recorded["train.loss"][0].tolist() == [1, 2, 3, 4]
    assert result.scores["validation.loss"] == pytest.approx(recorded["validation.loss"][1].min())


def test_pictures_change_nothing_but_the_folder(planned: Planned) -> None:
    plain, drawn = planned(), planned({"pictures": True})
    assert plain.digest == drawn.digest
    first = fit(plain)
    assert not (plain.folder / "panels").exists()
    assert not (plain.folder / curves.PICTURE).exists()
    assert fit(drawn, resume=True).scores == first.scores  # not refused as another training


def test_the_word_of_a_resumed_training_counts_where_steps_were_repeated(tmp_path: Path) -> None:
    for version, rows in ((2, [(1, 5.0), (2, 4.0)]), (10, [(2, 3.0), (3, 2.0)])):
        (tmp_path / f"version_{version}").mkdir()
        with (tmp_path / f"version_{version}/metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("step", "train.loss", "validation.loss"), *((step, loss, "") for step, loss in rows)])
    found = curves.recorded(tmp_path)
    assert found.keys() == {"train.loss"}
    assert [values.tolist() for values in found["train.loss"]] == [[1, 2, 3], [5.0, 3.0, 2.0]]


def test_a_smoothed_curve_follows_the_mean_and_not_its_first_value() -> None:
    rng = np.random.default_rng(0)
    smooth = curves.smoothed(1 + rng.normal(0, 0.2, 500), 50)
    assert abs(smooth[50:] - 1).max() < 0.15
    assert curves.smoothed(np.array([9.0] + [1.0] * 200), 10)[-1] == pytest.approx(1, abs=1e-6)


def test_a_sample_is_what_is_trained_on_with_its_labels(planned: Planned) -> None:
    plan = planned(model={"model": "tinynet", "context": 1}, augment=["flip_rotate"])
    volumes = prepared(plan)
    crops = Crops(plan, volumes, build_index(plan, volumes))
    for number in range(4):
        sample, tensors = crops.sample(number), crops[number]
        np.testing.assert_array_equal(sample.image, tensors["image"])
        np.testing.assert_array_equal(sample.pairs[0][0], tensors["targets"][0])
        np.testing.assert_array_equal(sample.labels["instances"] > 0, sample.pairs[0][0][0] > 0)  # of the same voxels
        assert cut(sample.image, plan.window.crop).shape[1:] == sample.labels["instances"].shape
    crops.close()


@pytest.mark.parametrize("channels", [3, 12])
def test_samples_show_every_channel_that_is_learned(
    planned: Planned, tmp_path: Path, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned({"crop": [8, 16, 16]})
    volumes = prepared(plan)
    crops = Crops(plan, volumes, build_index(plan, volumes))
    given, target = [crops.sample(n) for n in range(2)], plan.objectives[0].target
    crops.close()
    spec = target.gives()
    many = replace(spec, kind=Kind.OFFSET, channels=tuple(f"c{n}" for n in range(channels)))
    monkeypatch.setattr(type(target), "gives", lambda _self: many)
    wide = [replace(s, pairs=((np.repeat(s.pairs[0][0], channels, axis=0), s.pairs[0][1]),)) for s in given]
    titles: list[str] = []
    grids: list[tuple[int, int]] = []
    figure = samples.figure

    def watched(*size: Any) -> Any:
        made = figure(*size)
        subplots = made.subplots

        def plots(down: int, across: int, **options: Any) -> Any:
            grids.append((down, across))
            return subplots(down, across, **options)

        made.subplots = plots
        made.savefig = lambda file, **_: titles.extend(
            text for axes in made.axes for text in (axes.get_title(), axes.get_ylabel())
        )
        return made

    monkeypatch.setattr(samples, "figure", watched)
    samples.draw(tmp_path / "samples.png", plan, wide)
    arrays = channels + 3  # raw, labels and weight
    assert grids == [(2, arrays) if channels == 3 else (arrays, 2)]
    assert all(any(f"\nc{n}," in title for title in titles) for n in range(channels))
    assert "raw" in titles


def test_labels_are_counted_without_what_is_masked_or_to_be_ignored(
    planned: Planned, tables: dict[str, Any], tmp_path: Path
) -> None:
    truth = np.load(tmp_path / "truth.npy").astype(np.uint16)
    truth[0, 0, :5] = np.iinfo(np.uint16).max
    mask = np.ones(truth.shape, np.uint8)
    mask[:, :10] = 0
    np.save(tmp_path / "truth.npy", truth)
    np.save(tmp_path / "mask.npy", mask)
    plan = planned(volume=[{**tables["volume"][0], "valid": "mask.npy"}])
    told: list[tuple[int, int]] = []
    train, validation = census(prepared(plan), lambda done, total: told.append((done, total)))
    assert told[-1] == (train.voxels + validation.voxels,) * 2
    for one, part in ((train, slice(0, 15)), (validation, slice(16, 24))):
        count, known = one.labels["instances"], (mask[part] == 1) & (truth[part] < 65535)
        held = truth[part][known]
        assert (count.counted, count.foreground) == (known.sum(), (held > 0).sum())
        assert count.ids == set(np.unique(held).tolist()) - {0}
