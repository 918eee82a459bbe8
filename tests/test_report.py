"""Reports: pictures, tables and a page that show what was found, missed and added."""

import csv
import json
import sys

import numpy as np
import pytest

from mitocore import pictures, report
from mitocore.errors import DataError, PluginError
from mitocore.geometry import VoxelSize
from mitocore.measure import instance_table
from mitocore.pictures import colours, errors, grey, outline
from mitocore.report import chosen_sections, matched, write_report
from mitocore.specs import Kind
from mitocore.volumes import ArrayVolume

pytest.importorskip("matplotlib")
SIZE = VoxelSize(40, 8, 8)


def volumes():
    """An image, instances and truth: one object found, one missed, one added."""
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (9, 40, 60)).astype("u1")
    truth, found = np.zeros(image.shape, "u4"), np.zeros(image.shape, "u4")
    truth[1:5, 5:15, 5:15], truth[2:7, 20:30, 20:30] = 1, 2
    found[1:5, 6:16, 5:15], found[5:8, 5:15, 40:50] = 7, 8
    image[truth > 0] //= 2
    return image, found, truth


def written(folder, **more):
    image, found, truth = volumes()
    prediction = ArrayVolume(found, SIZE, Kind.INSTANCE)
    return write_report(
        folder,
        ArrayVolume(image, SIZE),
        prediction,
        table=instance_table(prediction),
        **{"truth": ArrayVolume(truth, SIZE), **more},
    )


def test_a_report_is_a_page_with_pictures_tables_and_settings(tmp_path):
    record = {
        "input": {"shape": [9, 40, 60], "voxel_size_nm": [40, 8, 8]},
        "options": {"cells": {"component": "rsunet/connected_components", "threshold": 0.5, "note": "a < b"}},
        "steps": {"cells": {"seconds": 1.5, "objects": 2}},
        "versions": {"mitocore": "0.1.0"},
    }
    probability = ArrayVolume((volumes()[1] > 0).astype("f2"), SIZE, Kind.PROBABILITY)
    page = written(
        tmp_path / "report", scores={"voxel": {"iou": 0.5}}, record=record, probability=probability, title="a <b>"
    )
    text = page.read_text()
    assert page == tmp_path / "report" / "index.html"
    assert "<h1>a &lt;b&gt;</h1>" in text
    assert "a &lt; b" in text
    assert "<td>iou</td><td>0.5</td>" in text
    assert "2 instances" in text
    pictures = sorted(path.name for path in page.parent.glob("*.png"))
    assert pictures
    assert all(f'src="{name}"' in text for name in pictures)
    assert "://" not in text
    assert json.loads((page.parent / "scores.json").read_text()) == {"voxel": {"iou": 0.5}}
    assert json.loads((page.parent / "record.json").read_text()) == record
    with (page.parent / "instances.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["7", "8"]


def test_a_report_needs_neither_truth_nor_voxel_size_nor_instances(tmp_path):
    empty = ArrayVolume(np.zeros((4, 20, 20), "u4"))
    page = write_report(tmp_path, ArrayVolume(np.full((4, 20, 20), 3.0, "f4")), empty, table=instance_table(empty))
    assert "no instances" in page.read_text()
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_pictures_are_drawn_without_touching_the_global_state_of_matplotlib(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    written(tmp_path)
    assert "matplotlib.pyplot" not in sys.modules


def test_a_second_report_replaces_the_first(tmp_path):
    (tmp_path / "section_00099.png").write_text("of an earlier report")
    written(tmp_path)
    assert not (tmp_path / "section_00099.png").exists()


def test_of_a_large_section_the_middle_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LARGEST", 16)
    asked = []

    class Watched(ArrayVolume):
        def read(self, roi):
            asked.append(roi.shape)
            return super().read(roi)

    image, found, _ = volumes()
    prediction = ArrayVolume(found)
    write_report(tmp_path, Watched(image), prediction, table=instance_table(prediction))
    assert set(asked) == {(1, 16, 16)}


def test_sections_are_chosen_where_the_instances_are():
    labels = np.zeros((100, 4, 4), "u1")
    labels[80:90], labels[95:] = 1, 2
    sections = chosen_sections(instance_table(ArrayVolume(labels)), 100, 3)
    assert all(80 <= z < 100 for z in sections)
    assert chosen_sections(instance_table(ArrayVolume(np.zeros((9, 2, 2), "u1"))), 9, 3) == [1, 4, 7]


def test_every_voxel_is_found_added_missed_or_neither():
    _, found, truth = (array[4].astype("u8") for array in volumes())
    truth[35:] = np.iinfo("u8").max
    found[35:] = 3
    picture = errors(np.zeros((*truth.shape, 3), "f4"), found, truth)
    colour = {
        name: np.isclose(picture, (1 - strength) * 0.25 + strength * np.array(paint), atol=1e-6).all(axis=-1)
        for name, paint, strength in (
            ("agrees", pictures.AGREES, 0.45),
            ("added", pictures.ADDED, 0.9),
            ("missed", pictures.MISSED, 0.9),
        )
    }
    known = truth != np.iinfo("u8").max
    assert (colour["added"] == ((found > 0) & (truth == 0) & known)).all()
    assert (colour["missed"] == ((found == 0) & (truth > 0) & known)).all()
    both = (found > 0) & (truth > 0) & known
    assert (colour["agrees"] <= both).all()
    assert colour["agrees"].sum() > 0.5 * both.sum()  # the rest is outline


def test_predicted_objects_take_the_colour_of_the_true_object_they_overlap_most():
    truth = np.array([[1, 1, 1, 2, 2, 0]], "u8")
    predicted = np.array([[5, 5, 5, 5, 9, 6]], "u8")
    assert matched(predicted, truth).tolist() == [[1, 1, 1, 1, 2, 6]]


def test_an_outline_separates_touching_objects_and_background():
    objects = np.zeros((5, 8), "u8")
    objects[1:4, 1:4], objects[1:4, 4:7] = 1, 2
    edge = outline(objects)
    assert not edge[objects == 0].any()
    assert edge[2].tolist() == [False, True, False, True, False, False, True, False]


def test_colours_belong_to_ids_and_differ():
    ids = np.arange(1, 41, dtype="u8")[None]
    first = colours(ids)
    np.testing.assert_array_equal(first, colours(ids))
    assert len(np.unique(first[0].round(3), axis=0)) == 40


def test_grey_values_survive_constant_and_broken_images():
    assert np.isfinite(grey(np.full((3, 3), 7))).all()
    assert np.isfinite(grey(np.array([[np.nan, 1.0], [2.0, np.inf]]))).all()


def test_a_report_without_matplotlib_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(report.pictures, "installed", lambda: False)
    with pytest.raises(PluginError) as refused:
        written(tmp_path)
    assert refused.value.hint == 'pip install "mitocore[report]"'


def test_a_folder_that_cannot_be_written_is_an_error_for_people(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        written(tmp_path / "file")
