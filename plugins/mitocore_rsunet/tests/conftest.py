"""The four passes of a stitched step as plain loops in memory: what the engine must equal."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from mitocore import Block, Roi, Shape, StitchedPostProcessor
from mitocore.interfaces.postprocessor import OBJECT
from mitocore.stitch import LINK, faces


class InBlocks(Protocol):
    def __call__(
        self,
        step: StitchedPostProcessor,
        inputs: Mapping[str, NDArray[Any]],
        block: Shape | None = None,
        order: Sequence[int] | None = None,
    ) -> NDArray[np.uint64]: ...


def _boxes(shape: Shape, block: Shape) -> list[Roi]:
    starts = product(*(range(0, n, b) for n, b in zip(shape, block, strict=True)))
    whole = Roi.whole(shape)
    return [Roi(start, tuple(s + b for s, b in zip(start, block, strict=True))).clip(whole) for start in starts]


def _first(ids: NDArray[Any], box: Roi, whole: Roi, count: int) -> NDArray[np.uint64]:
    raster = np.arange(whole.voxels, dtype="u8").reshape(whole.shape)[box.slices]
    return np.array([raster[ids == number].min() for number in range(1, count + 1)], "u8")


def in_blocks(
    step: StitchedPostProcessor,
    inputs: Mapping[str, NDArray[Any]],
    block: Shape | None = None,
    order: Sequence[int] | None = None,
) -> NDArray[np.uint64]:
    """Instances (z, y, x) of a step, labelled and linked block by block in any order; or as one block."""
    shape = next(iter(inputs.values())).shape[1:]
    whole, boxes = Roi.whole(shape), _boxes(shape, block or shape)
    order = range(len(boxes)) if order is None else order
    local: dict[int, NDArray[Any]] = {}
    tables: dict[int, NDArray[Any]] = {}
    for number in order:
        box = boxes[number]
        given = {name: array[(slice(None), *box.slices)].copy() for name, array in inputs.items()}
        kept = {name: array.copy() for name, array in given.items()}
        ids, columns = step.label(Block(box, box, given, whole))
        assert all(np.array_equal(given[name], kept[name], equal_nan=True) for name in given)
        assert ids.dtype == np.uint32
        assert ids.shape == box.shape
        count = int(ids.max(initial=0))
        assert set(np.unique(ids)) | {0} == set(range(count + 1))
        table = np.zeros(count, OBJECT + step.columns())
        table["first"] = _first(ids, box, whole, count)
        table["size"] = np.bincount(ids.ravel(), minlength=count + 1)[1:]
        for name, _ in step.columns():
            assert columns is not None
            table[name] = columns[name]
        local[number], tables[number] = ids, table
    objects = np.concatenate([tables[number] for number in range(len(boxes))])
    ids, offset = np.zeros(shape, "u8"), 0
    for number, box in enumerate(boxes):
        ids[box.slices] = np.where(local[number], local[number].astype("u8") + np.uint64(offset), 0)
        offset += len(tables[number])
    links = [np.zeros(0, LINK)]
    for number in order:
        links += _links(step, boxes[number], whole, ids, inputs)
    table = np.concatenate(links)
    pairs, place = np.unique(table[["a", "b"]], return_inverse=True)
    summed = np.zeros(len(pairs), LINK)
    summed["a"], summed["b"], summed["weight"] = pairs["a"], pairs["b"], np.bincount(place, table["weight"], len(pairs))
    final = step.resolve(objects, summed)
    assert final.dtype == np.uint64
    assert len(final) == len(objects) + 1
    out = np.zeros(shape, "u8")
    for box in boxes:
        again = {name: inputs[name][(slice(None), *box.slices)] for name in step.rereads()}
        out[box.slices] = step.relabel(Block(box, box, again, whole), ids[box.slices], final)["instances"][0]
    return out


def _links(
    step: StitchedPostProcessor, box: Roi, whole: Roi, ids: NDArray[np.uint64], inputs: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    if step.link_over == "blocks":
        read = box.grow(step.reach()).clip(whole)
        again = {name: inputs[name][(slice(None), *read.slices)] for name in step.rereads()}
        return [step.link(Block(box, read, again, whole), ids[read.slices])]
    links = []
    for near, far in faces(box, step.reach(), whole):
        both = Roi(tuple(map(min, near.start, far.start)), tuple(map(max, near.stop, far.stop)))
        seen = np.zeros(both.shape, "u8")
        for part in (near, far):
            seen[part.within(both)] = ids[part.slices]
        again = {name: inputs[name][(slice(None), *both.slices)] for name in step.rereads()}
        links.append(step.link(Block(near, both, again, whole), seen))
    return links


@pytest.fixture(scope="session", name="in_blocks")
def _in_blocks() -> InBlocks:
    return in_blocks
