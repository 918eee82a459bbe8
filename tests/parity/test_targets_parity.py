"""Targets and weights beside values recorded from PyTorch Connectomics and empanada, voxel for voxel.

Where a pair of voxels leaves the array, the peer takes the outermost plane again; so does a whole volume here, while a
crop in training is encoded with the labels around it.
"""

from pathlib import Path

import numpy as np
import pytest

from mitocore.builtin.targets.affinities import Affinity
from mitocore.builtin.targets.boundaries import Boundary
from mitocore.builtin.targets.foreground import Foreground, SmallObjects
from mitocore.builtin.targets.semantic import Semantic
from mitocore.builtin.targets.weights import BorderDistance

SHARED = Path(__file__).parents[3] / "shared" / "parity"
CONNECTOMICS = SHARED / "connectomics" / "targets_v1_iso.npz"
EMPANADA = SHARED / "empanada" / "units.npz"


def recorded(path):
    if not path.exists():
        pytest.skip(f"no recorded values at {path.relative_to(SHARED.parents[1])}")
    return np.load(path)


def steps(z, y, x):
    return ((-z, 0, 0), (0, -y, 0), (0, 0, -x))


@pytest.mark.parametrize(
    ("option", "target"),
    [
        ("t_0", Foreground()),
        ("t_0-1-3", Foreground(values=(1, 3))),
        ("t_2", Affinity()),
        ("t_2-1-1-1-v1", Affinity(offsets=steps(1, 1, 1))),
        ("t_2-1-5-5-v1", Affinity(offsets=steps(1, 5, 5))),
        ("t_2-1-1-1-v2", Affinity(edge="middle")),
        ("t_2-1-3-3-v2", Affinity(offsets=steps(1, 3, 3), edge="middle")),
        ("t_3-25-2-1", SmallObjects(area=25, anisotropy=2)),
        *((f"t_4-{width}-1", Boundary(side="contour", width=width)) for width in (1, 2, 3)),
        *((f"t_4-{width}-0", Boundary(side="contacts", width=width)) for width in (1, 2)),
        ("w_fg_2-10-5", BorderDistance(border=10, inside=5, sigma=5)),
    ],
)
def test_targets_are_those_of_pytorch_connectomics(option, target):
    values = recorded(CONNECTOMICS)
    found = target.encode({"instances": values["label"].astype("u8")}, None)
    np.testing.assert_array_equal(found, values[option])


def test_classes_are_those_of_pytorch_connectomics():
    values = recorded(CONNECTOMICS)
    classes = tuple(f"class {k}" for k in range(22))
    found = Semantic(classes=classes).encode({"semantic": values["label"]}, None)
    np.testing.assert_array_equal(found.argmax(axis=0), values["t_9"])
    assert (found.sum(axis=0) == 1).all()


@pytest.mark.parametrize("voxels", [1, 2])
def test_labels_are_eroded_and_dilated_as_in_pytorch_connectomics(voxels):
    values = recorded(CONNECTOMICS)
    labels = {"instances": values["label"].astype("u8")}
    eroded = Foreground(erode=voxels).shaped(labels)
    np.testing.assert_array_equal(eroded, values[f"erode_{voxels}"])
    dilated, theirs = Foreground(dilate=voxels).shaped(labels), values[f"dilate_{voxels}"]
    np.testing.assert_array_equal(dilated > 0, theirs > 0)
    # there larger ids grow over smaller ones; here an object keeps its voxels, and the nearest takes the background
    ours = values["label"] > 0
    np.testing.assert_array_equal(dilated[ours], values["label"][ours])
    assert (theirs[ours] != values["label"][ours]).any()
    assert (dilated != theirs)[~ours].mean() < 0.01


def test_contours_are_those_of_empanada():
    values = recorded(EMPANADA)
    found = Boundary(side="contour").encode({"instances": values["tgt_mask"][None].astype("u8")}, None)
    np.testing.assert_array_equal(found[0, 0], values["tgt_contour"] > 0)
