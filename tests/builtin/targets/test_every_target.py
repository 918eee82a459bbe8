"""What every built-in target promises: a crop, encoded within its halo, is what the encoded volume holds there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from mitocore.geometry import VoxelSize, as_shape
from mitocore.registry import discover
from mitocore.specs import Kind

CLASSES = {"classes": ("background", "mitochondrion", "membrane")}
OPTIONS = {  # beside the defaults; where there are no defaults, instead of them
    "foreground": [{"values": (1, 3), "erode": 1, "dilate": 2}, {"label": "semantic"}],
    "small_objects": [{"area": 7, "anisotropy": 2}],
    "boundary": [
        {"side": "contour", "width": 2},
        {"side": "contacts", "per_slice": False},
        {"side": "outer", "width": "20 nm", "per_slice": False},
        {"side": "inner", "width": "17 nm", "erode": 1},
    ],
    "affinity": [
        {"offsets": ((0, 0, 4), (2, -3, 0)), "edge": "destination", "dilate": 1},
        {"offsets": ((0, -2, 0), (1, 0, 0)), "edge": "middle"},
    ],
    "semantic": [CLASSES, {**CLASSES, "label": "instances", "ranges": ((0, 0), (1, 6), (7, 99))}],
    "border_distance": [{"sigma": "25 nm", "per_slice": False, "border": 4.5}, {"sigma": 2, "erode": 1}],
    "class_weights": [{"factors": (1, 4, 0.5)}],
    "known": [{"margin": "30 nm", "label": "semantic"}, {"per_slice": True}],
}


def cases():
    """Every built-in target, with its defaults if it has them, and with the options above."""
    for entry in discover().entries:
        if (entry.kind, entry.plugin) == ("target", "builtin"):
            component = entry.load()
            required = any(field.is_required() for field in component.model_fields.values())
            examples = ([] if required else [{}]) + OPTIONS.get(entry.name, [])
            assert examples, f"target {entry.name!r} has required options: name some in OPTIONS"
            for number, options in enumerate(examples):
                yield pytest.param(component(**options), id=f"{entry.name}{number}")


CASES = list(cases())


def tissue(shape, seed):
    """Touching blobs with some voxels to ignore, as objects and as classes."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape).reshape(3, -1).T
    seeds = rng.uniform(0, 1, (12, 3)) * shape
    nearest = ((places[:, None] - seeds) ** 2).sum(-1).argmin(1).reshape(shape)
    matter = gaussian_filter(rng.standard_normal(shape), 2) > -0.02
    ids = np.where(matter, rng.permutation(12)[nearest] + 1, 0)
    unknown = np.zeros(shape, bool)
    for _ in range(4):
        corner = [int(rng.integers(0, n)) for n in shape]
        unknown[tuple(slice(c, c + 3) for c in corner)] = True
    return {
        "instances": np.where(unknown, np.uint64(2**64 - 1), ids.astype("u8")),
        "semantic": np.where(unknown, np.uint16(2**16 - 1), (ids % 3).astype("u2")),
    }


def within(ids, read):
    """The objects that do not go on outside of a box."""
    outside = np.ones(ids.shape, bool)
    outside[read] = False
    return np.where(np.isin(ids, np.unique(ids[outside])), ids.dtype.type(0), ids)


@pytest.mark.parametrize("target", CASES)
@given(data=st.data())
@settings(deadline=None, max_examples=8)
def test_a_crop_encoded_is_a_crop_of_what_is_encoded(target, data):
    voxel_size = data.draw(st.sampled_from([VoxelSize(8, 8, 8), VoxelSize(30, 8, 8), VoxelSize(16.5, 6, 7)]))
    halo = target.halo(voxel_size)
    shape = as_shape(8 + 2 * min(h, 16) + data.draw(st.integers(0, 3)) for h in halo)
    labels = tissue(shape, data.draw(st.integers(0, 99)))
    labels = {name: labels[name] for name in target.needs()}
    inner = [data.draw(st.integers(0, n - 5)) for n in shape]
    ends = [start + data.draw(st.integers(2, 5)) for start in inner]
    read = tuple(slice(max(0, a - h), b + h) for a, b, h in zip(inner, ends, halo, strict=True))
    if not target.local():
        labels = {name: within(array, read) for name, array in labels.items()}
    whole = target.encode(labels, voxel_size)
    assert whole.dtype == np.float32
    assert whole.shape == (len(target.gives().channels), *shape)
    assert np.isfinite(whole).all()
    crop = target.encode({name: array[read].copy() for name, array in labels.items()}, voxel_size)
    inside = tuple(slice(a - r.start, b - r.start) for a, b, r in zip(inner, ends, read, strict=True))
    there = tuple(slice(a, b) for a, b in zip(inner, ends, strict=True))
    np.testing.assert_array_equal(crop[(slice(None), *inside)], whole[(slice(None), *there)])


@pytest.mark.parametrize("fill", ["background", "ignore"])
@pytest.mark.parametrize("target", CASES)
def test_labels_of_background_or_ignore_alone_are_encoded(target, fill):
    labels = {name: np.zeros((6, 9, 8), array.dtype) for name, array in tissue((2, 2, 2), 0).items()}
    if fill == "ignore":
        labels = {name: np.full_like(array, np.iinfo(array.dtype).max) for name, array in labels.items()}
    found = target.encode({name: labels[name] for name in target.needs()}, VoxelSize(30, 8, 8))
    assert np.isfinite(found).all()
    assert not found.any() or target.gives().kind is not Kind.AFFINITY
