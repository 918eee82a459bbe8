"""What augments promise."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import VALID, Augment
from mitocore.testing.checking import Check, config_error_allowed, require, require_equal, undisturbed, unmodified
from mitocore.testing.examples import instances, smooth
from mitocore.testing.suite import ComponentTests

EDGES = VoxelSize(16.0, 8.0, 8.0)
CUBIC = VoxelSize(8.0, 8.0, 8.0)
CASES = (
    ((8, 20, 20), EDGES),
    ((6, 14, 22), EDGES),
    ((12, 12, 12), CUBIC),  # every symmetry of a cube is allowed
    ((1, 16, 16), EDGES),  # what a network for planes is given
)
"""Shapes of crops, and voxel sizes."""
_ROUND = ((0, 0, 0), (2, 5, 3))
"""Voxels that other augments and targets read beyond a halo."""
_DRAWS = 8
_CODES = 64_997
_SEEN = 100  # voxels of which something can be said
_CLEARLY = 0.2  # of a correlation
_IGNORE = np.iinfo(np.uint64).max


def _grown(augment: Augment, shape: Shape, voxel_size: VoxelSize | None, more: Shape = (0, 0, 0)) -> Shape:
    """What is read for a crop of `shape`."""
    halo = augment.halo(shape, voxel_size)
    require(all(h >= 0 for h in halo), f"the halo of a crop of {shape} is {halo}", "let `halo` be 0 or more")
    return as_shape(n + 2 * (h + m) for n, h, m in zip(shape, halo, more, strict=True))


def _given(grown: Shape) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """An image and its labels."""
    rng = np.random.default_rng(2)
    ids = 5 * np.unique(instances(grown, rng), return_inverse=True)[1].reshape(grown).astype(np.uint64)
    ids[:1, :2, :3] = _IGNORE
    labels: dict[str, NDArray[Any]] = {"instances": ids, "semantic": (ids > 0).astype(np.uint16)}
    labels[VALID] = np.ones(grown, np.uint8)
    return np.asarray(2 * smooth((1, *grown), rng) - 1, np.float32), labels


def check_result(augment: Augment) -> None:
    """Shapes, dtypes and names stay; intensities stay finite."""
    for shape, size in CASES:
        image, labels = _given(_grown(augment, shape, size))
        for seed in range(_DRAWS):
            found, changed = augment.apply(image, labels, size, np.random.default_rng(seed))
            seen = f"an image {image.shape} float32 becomes {found.shape} {found.dtype}"
            require(found.shape == image.shape and found.dtype == np.float32, seen, "keep shape and dtype")
            require(np.isfinite(found).all(), "the image holds values that are not finite", "divide by no 0")
            names = f"labels {sorted(labels)} become {sorted(changed)}"
            require(changed.keys() == labels.keys(), names, "return every label array that is given")
            for name, array in changed.items():
                before = labels[name]
                seen = f"{name!r} {before.shape} {before.dtype} becomes {array.shape} {array.dtype}"
                require((array.shape, array.dtype) == (before.shape, before.dtype), seen, "keep shape and dtype")


def check_inputs(augment: Augment) -> None:
    """The arrays that are given stay as they are, and so do the random numbers of the program."""
    for shape, size in CASES:
        image, labels = _given(_grown(augment, shape, size))
        for seed in range(_DRAWS):
            with undisturbed(), unmodified({"image": image, **labels}, "apply"):
                augment.apply(image, labels, size, np.random.default_rng(seed))


def check_labels(augment: Augment) -> None:
    """No label gets a value it did not hold: labels are never interpolated.

    Objects that are added get ids above those that are there.
    """
    for shape, size in CASES:
        image, labels = _given(_grown(augment, shape, size))
        ids = labels["instances"]
        largest = int(ids[ids != _IGNORE].max())
        for seed in range(_DRAWS):
            for name, array in augment.apply(image, labels, size, np.random.default_rng(seed))[1].items():
                fresh = sorted(set(np.unique(array).tolist()) - {0} - set(np.unique(labels[name]).tolist()))
                if name == "instances":
                    fresh = [value for value in fresh if value < largest]
                seen = f"{name!r} holds {fresh[:3]}, which it did not before"
                require(not fresh, seen, "take labels from the nearest voxel (order = 0)")


def check_same_rng(augment: Augment) -> None:
    """Equal random numbers give equal results, in an equal component too."""
    twin = type(augment).model_validate_json(augment.model_dump_json())
    for shape, size in CASES:
        image, labels = _given(_grown(augment, shape, size))
        for seed in range(_DRAWS):
            (one, some), (other, more) = (
                each.apply(image.copy(), deepcopy(labels), size, np.random.default_rng(seed))
                for each in (augment, twin)
            )
            change = "draw everything from `rng`, and keep no state"
            require_equal(one, other, "a second call with equal random numbers", change)
            for name in some:
                require_equal(some[name], more[name], f"{name!r} of a second call with equal random numbers", change)


def check_together(augment: Augment) -> None:
    """What moves one label array moves the others, the mask and the image, by the same voxels."""
    for shape, size in CASES:
        grown = _grown(augment, shape, size)
        rng = np.random.default_rng(4)
        places = np.arange(1, 1 + np.prod(grown), dtype=np.uint64).reshape(grown)  # so that it shows what came whence
        labels: dict[str, NDArray[Any]] = {"instances": places, "semantic": (places % _CODES).astype(np.uint16)}
        labels[VALID] = rng.integers(0, 2, grown, np.uint8)
        image = rng.uniform(-1, 1, (1, *grown)).astype(np.float32)
        for seed in range(_DRAWS):
            found, moved = augment.apply(image, {**labels}, size, np.random.default_rng(seed))
            counted = moved["instances"] - np.uint64(1) < places.size  # neither background nor "ignore"
            codes = (moved["instances"][counted] % _CODES).astype(np.uint16)
            change = "move every label array and the image by the same numbers, drawn once"
            same = (moved["semantic"][counted] == codes).all()
            require(same, "'instances' and 'semantic' of one crop are moved apart", change)
            source = np.where(counted, moved["instances"], 1).astype(np.int64) - 1
            counts = (moved[VALID] <= labels[VALID].reshape(-1)[source])[counted]
            require(counts.all(), f"voxels count that {VALID!r} excluded before they were moved", change)
            if counted.sum() > _SEEN:
                _require_followed(image[0], found[0], source, counted, change)


def _require_followed(
    image: NDArray[np.float32],
    found: NDArray[np.float32],
    source: NDArray[Any],
    counted: NDArray[np.bool_],
    change: str,
) -> None:
    """Noise that went where the labels went looks more like that than like noise that went elsewhere.

    Intensities may change, and blur or interpolation may smear them: only places are compared.
    """
    followed = image.reshape(-1)[source]
    mine = _alike(found, followed, counted)
    for what, other in _elsewhere(image, followed):
        seen = f"the image looks as if it were {what}, the labels do not"
        require(_alike(found, other, counted) < mine + _CLEARLY, seen, change)


def _alike(one: NDArray[np.float32], other: NDArray[np.float32], counted: NDArray[np.bool_]) -> float:
    a, b = one[counted].astype(float), other[counted].astype(float)
    return 0.0 if np.ptp(a) == 0 else abs(float(np.corrcoef(a, b)[0, 1]))


def _elsewhere(image: NDArray[np.float32], followed: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Noise as it was, flipped and turned; and as the labels say, but shifted by a voxel or two."""
    for turns, z, y in product(range(4), (1, -1), (1, -1)):
        turned = np.rot90(image[::z, ::y], turns, (1, 2))
        if turned.shape == image.shape:
            yield ("left as it was" if (turns, z, y) == (0, 1, 1) else "flipped or turned"), turned
    for axis, by in product(range(3), (-2, -1, 1, 2)):
        yield f"shifted by {abs(by)} voxels", np.roll(followed, by, axis)


def check_unknown_voxel_size(augment: Augment) -> None:
    """Where the voxel size is not known, there is a result, or a ConfigError that says what is missing."""
    with config_error_allowed("a crop of unknown voxel size"):
        image, labels = _given(_grown(augment, CASES[0][0], None))
        for seed in range(_DRAWS):
            augment.apply(image, labels, None, np.random.default_rng(seed))


def check_halo(augment: Augment) -> None:
    """Nothing from outside enters the crop: one object that fills crop and halo still fills the crop.

    That holds as well where more is read, because other augments and targets have a halo too.
    """
    change = "enlarge `halo` by the largest displacement, so that no border is seen in the crop"
    for (shape, size), more in product(CASES, _ROUND):
        image, labels = _given(_grown(augment, shape, size, more))
        full = {name: np.full_like(array, 1 if name == VALID else 7) for name, array in labels.items()}
        margins = tuple((n - m) // 2 for n, m in zip(image.shape[1:], shape, strict=True))
        inner = tuple(slice(h, h + n) for h, n in zip(margins, shape, strict=True))
        for seed in range(_DRAWS):
            changed = augment.apply(image, full, size, np.random.default_rng(seed))[1]
            for name, array in changed.items():
                seen = f"{name!r} is {full[name].flat[0]} everywhere, but not in the crop afterwards"
                require((array[inner] == full[name].flat[0]).all(), seen, change)


CHECKS: tuple[Check, ...] = (
    check_result,
    check_inputs,
    check_labels,
    check_same_rng,
    check_together,
    check_unknown_voxel_size,
    check_halo,
)


class AugmentTests(ComponentTests):
    """Tests of an augment. Set `component`, with options that let it change most crops."""

    checks: ClassVar[tuple[Check, ...]] = CHECKS
