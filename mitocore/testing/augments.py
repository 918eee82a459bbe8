"""What augments promise."""

from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import Augment, Labels
from mitocore.testing.checking import Check, config_error_allowed, require, require_equal, undisturbed, unmodified
from mitocore.testing.examples import instances, smooth
from mitocore.testing.suite import ComponentTests

SHAPES = ((8, 20, 20), (6, 14, 22))
EDGES = VoxelSize(16.0, 8.0, 8.0)
_DRAWS = 12
_CODES = 64_997
_SEEN = 100  # voxels of which something can be said
_CLEARLY = 0.2  # of a correlation


def _given(augment: Augment, shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """An image and its labels over a crop of `shape`, grown by the halo."""
    return _given_over(as_shape(n + 2 * h for n, h in zip(shape, augment.halo(shape, EDGES), strict=True)))


def _given_over(grown: Shape) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(2)
    ids = np.unique(instances(grown, rng), return_inverse=True)[1].reshape(grown).astype(np.uint64)
    ids[:1, :2, :3] = np.iinfo(np.uint64).max
    labels: dict[str, NDArray[Any]] = {"instances": ids, "semantic": (ids > 0).astype(np.uint16)}
    labels["valid"] = np.ones(grown, np.uint8)
    return np.asarray(2 * smooth((1, *grown), rng) - 1, np.float32), labels


def _applied(augment: Augment, shape: tuple[int, int, int], seed: int) -> tuple[NDArray[np.float32], Labels]:
    image, labels = _given(augment, shape)
    return augment.apply(image, labels, EDGES, np.random.default_rng(seed))


def check_result(augment: Augment) -> None:
    """Shapes, dtypes and names stay; intensities stay finite."""
    for shape in SHAPES:
        image, labels = _given(augment, shape)
        for seed in range(_DRAWS):
            found, changed = augment.apply(image, labels, EDGES, np.random.default_rng(seed))
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
    for shape in SHAPES:
        image, labels = _given(augment, shape)
        for seed in range(_DRAWS):
            with undisturbed(), unmodified({"image": image, **labels}, "apply"):
                augment.apply(image, labels, EDGES, np.random.default_rng(seed))


def check_labels(augment: Augment) -> None:
    """No label gets a value it did not hold: labels are never interpolated."""
    for shape in SHAPES:
        labels = _given(augment, shape)[1]
        for seed in range(_DRAWS):
            for name, array in _applied(augment, shape, seed)[1].items():
                fresh = sorted(set(np.unique(array).tolist()) - {0} - set(np.unique(labels[name]).tolist()))
                seen = f"{name!r} holds {fresh[:3]}, which it did not before"
                require(not fresh, seen, "take labels from the nearest voxel (order = 0)")


def check_same_rng(augment: Augment) -> None:
    """Equal random numbers give equal results."""
    for seed in range(_DRAWS):
        (one, some), (other, more) = (_applied(augment, SHAPES[0], seed) for _ in range(2))
        change = "draw everything from `rng`, and keep no state"
        require_equal(one, other, "a second call with equal random numbers", change)
        for name in some:
            require_equal(some[name], more[name], f"{name!r} of a second call with equal random numbers", change)


def check_together(augment: Augment) -> None:
    """What moves one label array moves the others, and the image, by the same voxels."""
    for shape in SHAPES:
        grown = as_shape(n + 2 * h for n, h in zip(shape, augment.halo(shape, EDGES), strict=True))
        places = np.arange(1, 1 + np.prod(grown), dtype=np.uint64).reshape(grown)  # so that it shows what came whence
        labels: dict[str, NDArray[Any]] = {"instances": places, "semantic": (places % _CODES).astype(np.uint16)}
        image = np.random.default_rng(4).uniform(-1, 1, (1, *grown)).astype(np.float32)
        for seed in range(_DRAWS):
            found, moved = augment.apply(image, {**labels}, EDGES, np.random.default_rng(seed))
            counted = moved["instances"] - np.uint64(1) < places.size  # neither background nor "ignore"
            codes = (moved["instances"][counted] % _CODES).astype(np.uint16)
            change = "move every label array and the image by the same numbers, drawn once"
            same = (moved["semantic"][counted] == codes).all()
            require(same, "'instances' and 'semantic' of one crop are moved apart", change)
            source = np.where(counted, moved["instances"], 1).astype(np.int64) - 1
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
        grown = as_shape(n + 2 * h for n, h in zip(SHAPES[0], augment.halo(SHAPES[0], None), strict=True))
        image, labels = _given_over(grown)
        for seed in range(_DRAWS):
            augment.apply(image, labels, None, np.random.default_rng(seed))


def check_halo(augment: Augment) -> None:
    """Nothing from outside enters the crop: one object that fills crop and halo still fills the crop."""
    shape = SHAPES[0]
    halo = augment.halo(shape, EDGES)
    image, labels = _given(augment, shape)
    full = {name: np.full_like(array, 7 if name != "valid" else 1) for name, array in labels.items()}
    inner = tuple(slice(h, h + n) for h, n in zip(halo, shape, strict=True))
    for seed in range(_DRAWS):
        changed = augment.apply(image, full, EDGES, np.random.default_rng(seed))[1]
        for name, array in changed.items():
            change = "enlarge `halo` by the largest displacement, so that no border is seen in the crop"
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
