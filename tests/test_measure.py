"""Measuring instances: exact, whatever the block."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mitocore.errors import DataError
from mitocore.geometry import VoxelSize
from mitocore.measure import FACES, instance_table
from mitocore.volumes import ArrayVolume

shapes = st.tuples(*[st.integers(1, 7)] * 3)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_block_shape_gives_the_same_table_as_numpy_over_the_whole_volume(data):
    labels = data.draw(arrays.arrays(np.uint32, data.draw(shapes), elements=st.integers(0, 5)))
    table = instance_table(ArrayVolume(labels), block=data.draw(shapes))
    ids = [i for i in np.unique(labels) if i]
    assert table.rows["id"].tolist() == ids
    for row in table.rows:
        places = np.argwhere(labels == row["id"])
        assert row["voxels"] == len(places)
        assert row["start"].tolist() == places.min(axis=0).tolist()
        assert row["stop"].tolist() == (places.max(axis=0) + 1).tolist()
        np.testing.assert_array_equal(row["centroid"], places.sum(axis=0) / len(places))
        at_faces = [places.min(axis=0) == 0, places.max(axis=0) == np.array(labels.shape) - 1]
        assert row["faces"].tolist() == np.concatenate(at_faces).tolist()


def test_an_unknown_voxel_size_gives_no_physical_column():
    table = instance_table(ArrayVolume(np.ones((2, 2, 2), "u2")))
    assert table.cubic_microns is None
    assert table.nanometres is None
    assert not any("nm" in name or "um" in name for name in table.columns())


def test_volumes_and_places_are_physical_where_the_voxel_size_is_known(tmp_path):
    labels = np.zeros((4, 6, 8), "u8")
    labels[1:3, 2:4, 4:6] = 2**40
    table = instance_table(ArrayVolume(labels, VoxelSize(100, 50, 10)), block=(2, 3, 5))
    assert table.cubic_microns.tolist() == [pytest.approx(8 * 100 * 50 * 10 / 1e9)]
    assert table.nanometres.tolist() == [[150.0, 125.0, 45.0]]
    table.write_csv(tmp_path / "instances.csv")
    with (tmp_path / "instances.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["id"] == str(2**40)
    assert (row["voxels"], row["z_start"], row["x_stop"], row["faces"]) == ("8", "1", "6", "")
    assert float(row["volume_um3"]) == pytest.approx(0.0004)


def test_contact_with_faces_is_named_and_decides_what_is_complete(tmp_path):
    labels = np.zeros((3, 3, 3), "u4")
    labels[0, 1, 1], labels[1, 1, 1], labels[2, 2, 1] = 1, 2, 3
    table = instance_table(ArrayVolume(labels))
    assert table.complete.tolist() == [False, True, False]
    assert [record[table.columns().index("faces")] for record in table.records()] == ["z-", "", "z+ y+"]
    assert len(FACES) == 6


def test_voxels_marked_to_be_ignored_are_no_instance():
    labels = np.zeros((2, 2, 2), "i8")
    labels[0], labels[1, 0, 0] = -1, 7
    assert instance_table(ArrayVolume(labels)).rows["id"].tolist() == [7]


def test_a_volume_without_instances_gives_an_empty_table(tmp_path):
    table = instance_table(ArrayVolume(np.zeros((2, 2, 2), "u1")))
    table.write_csv(tmp_path / "none.csv")
    assert len(table) == 0
    assert table.summary() == "no instances"
    assert (tmp_path / "none.csv").read_text().count("\n") == 1


def test_a_summary_counts_complete_instances_and_gives_their_sizes():
    labels = np.zeros((5, 5, 5), "u1")
    labels[0, 0, 0], labels[1:4, 1:4, 1:4] = 1, 2
    assert instance_table(ArrayVolume(labels)).summary().startswith("2 instances, 1 of them complete; 1 to 27 voxels")
    assert "µm³" in instance_table(ArrayVolume(labels, 10)).summary()


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 2), "f4"), np.zeros((2, 2, 2, 2), "u1")])
def test_what_holds_no_instances_is_refused(labels):
    with pytest.raises(DataError, match="holds no instances"):
        instance_table(ArrayVolume(labels))


def test_a_table_that_cannot_be_written_is_an_error_for_people(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        instance_table(ArrayVolume(np.ones((1, 1, 1), "u1"))).write_csv(tmp_path / "none" / "a.csv")
