"""What writers promise, checked by something else that reads what they wrote."""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import DataError
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.interfaces import WritableVolume, Writer
from mitocore.specs import Kind, VolumeSpec
from mitocore.testing.checking import Check, NotChecked, hasty_threads, refused, require, require_equal
from mitocore.testing.elsewhere import written_by_the_dead
from mitocore.testing.every_component import importable
from mitocore.testing.readers import EDGES
from mitocore.testing.suite import ComponentTests

SHAPE = (6, 21, 34)
NAME = "mito.instances"
_WHOLE = Roi.whole(SHAPE)


@dataclass(frozen=True, slots=True)
class Results:
    """How the checks of a writer look at what it wrote."""

    read: Callable[[Path, str], tuple[NDArray[Any], VoxelSize | None]]
    """Reads an array by other means than the writer's; see `WriterTests.read_file`."""
    folder: Path
    """Where files may be made."""
    voxel_size: VoxelSize | None = EDGES
    """What files are to say; None: this format cannot say it."""
    keeps_kind: bool = True
    """Whether the format can say what its numbers mean."""

    def fresh(self, writer: Writer) -> Writer:
        """The writer in a new folder."""
        path = Path(tempfile.mkdtemp(dir=self.folder)) / Path(writer.path).name
        return writer.model_copy(update={"path": str(path)})

    def spec(self, dtype: str, **changes: Any) -> VolumeSpec:
        """The header of an array that is to be created."""
        wanted = VolumeSpec(SHAPE, dtype, voxel_size=self.voxel_size, kind=Kind.IMAGE)
        return replace(wanted, **changes)

    def array(self, writer: Writer, name: str = NAME) -> NDArray[Any]:
        """What is in the file, (c, z, y, x)."""
        found = self.read(Path(writer.path.replace("{name}", name)), name)[0]
        return found if found.ndim == 4 else found.reshape((1,) * (4 - found.ndim) + found.shape)


def _dtype(writer: Writer) -> str:
    """A dtype of the format; not bool."""
    return next((name for name in ("uint16", "uint32", "uint8") if name in writer.dtypes), writer.dtypes[-1])


def _image(dtype: str, channels: int = 1) -> NDArray[Any]:
    values = np.random.default_rng(3).integers(1, 120, (channels, *SHAPE))
    return values > 60 if dtype == "bool" else values.astype(dtype)


def _boxes(writer: Writer, volume: WritableVolume) -> list[Roi]:
    """The boxes of one pass: whole planes in ascending z, or chunks in disorder."""
    if writer.order == "planes":
        return [Roi((z, 0, 0), (z + 2, *SHAPE[1:])) for z in range(0, SHAPE[0], 2)]
    step = volume.spec.chunks or (2, 8, 16)
    starts = list(product(*(range(0, n, c) for n, c in zip(SHAPE, step, strict=True))))
    order = np.random.default_rng(0).permutation(len(starts))
    boxes = [Roi(as_shape(s), as_shape(np.add(s, step))).clip(_WHOLE) for s in starts]
    return [boxes[place] for place in order]


def _cut(array: NDArray[Any], boxes: Sequence[Roi]) -> list[tuple[Roi, NDArray[Any]]]:
    return [(box, array[(slice(None), *box.slices)]) for box in boxes]


def _fill(volume: WritableVolume, array: NDArray[Any], boxes: Sequence[Roi]) -> None:
    for box, values in _cut(array, boxes):
        volume.write(box, values)


def _written(writer: Writer, array: NDArray[Any], spec: VolumeSpec, name: str = NAME) -> None:
    with writer.create(name, spec) as volume:
        _fill(volume, array, _boxes(writer, volume))
        volume.finish()


def check_boxes(writer: Writer, results: Results) -> None:
    """Boxes in the order the writer declares make the array, and an open array reads back what it was given."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    array, change = _image(dtype), "store (c, z, y, x) values at `roi`, in this axis order"
    with writer.create(NAME, results.spec(dtype)) as volume:
        spec = volume.spec
        require((spec.shape, spec.dtype) == (SHAPE, dtype), f"a new array is {spec.dtype} of {spec.shape}", change)
        _fill(volume, array, _boxes(writer, volume))
        inner = Roi((1, 2, 3), (5, 20, 30))
        require_equal(volume.read(inner), array[(slice(None), *inner.slices)], "what was just written", change)
        volume.finish()
    require_equal(results.array(writer), array, "what is in the file", change)


def check_concurrency(writer: Writer, results: Results) -> None:
    """Boxes that share no chunk may be written at the same time, as `sharing` declares.

    Of processes, each opens the array, and may end without closing it.
    """
    if writer.order != "any" or writer.sharing == "one":
        return
    importable(type(writer))
    writer, dtype = results.fresh(writer), _dtype(writer)
    array, change = _image(dtype), 'write `roi` alone, before `write` returns, or declare sharing = "one"'
    with writer.create(NAME, results.spec(dtype)) as volume:
        boxes = _boxes(writer, volume)
        others = [writer.open(NAME) for _ in range(2)] if writer.sharing == "processes" else []
        handles = [volume, *others]
        with hasty_threads(), ThreadPoolExecutor(4) as pool:
            elsewhere = boxes[::2] if others else []
            jobs = [pool.submit(written_by_the_dead, writer, NAME, None, _cut(array, elsewhere))] if others else []
            here = [box for box in boxes if box not in elsewhere]
            jobs += [pool.submit(_fill, handles[n % len(handles)], array, [box]) for n, box in enumerate(here)]
        for job in jobs:
            job.result()
        for other in others:
            other.close()
        volume.finish()
    require_equal(results.array(writer), array, "boxes written at the same time", change)


def check_dtypes(writer: Writer, results: Results) -> None:
    """Every dtype in `dtypes` comes back, its largest and smallest values too."""
    for dtype in writer.dtypes:
        one, array = results.fresh(writer), _image(dtype)
        if np.dtype(dtype).kind in "iu":
            array[0, 0, 0, :2] = np.iinfo(dtype).max - 1, np.iinfo(dtype).min
        elif np.dtype(dtype).kind == "f":
            array /= 7
        _written(one, array, results.spec(dtype))
        found = results.array(one)
        change = f"store {dtype} as it is, or leave it out of `dtypes`"
        require_equal(found.astype(dtype), array, f"{dtype} in the file", change)
        require(found.dtype.kind == array.dtype.kind or dtype == "bool", f"{dtype} is stored as {found.dtype}", change)


def check_other_dtypes(writer: Writer, results: Results) -> None:
    """What is not in `dtypes` is refused before anything is written."""
    for dtype in sorted(set(Writer.dtypes) - set(writer.dtypes)):
        with refused(f"{dtype}, which is not in `dtypes`,", "raise mitocore.DataError in `create`"):
            results.fresh(writer).create(NAME, results.spec(dtype)).close()


def check_kind(writer: Writer, results: Results) -> None:
    """What the numbers mean is kept."""
    if not results.keeps_kind:
        return
    wanted = [(Kind.IMAGE, _dtype(writer))]
    wanted += [(Kind.INSTANCE, name) for name in ("uint32",) if name in writer.dtypes and not writer.lossy]
    for kind, dtype in wanted:
        one = results.fresh(writer)
        _written(one, _image(dtype), results.spec(dtype, kind=kind))
        with one.open(NAME) as volume:
            found = volume.spec.kind
        require(found is kind, f"{kind} comes back as {found}", "write `spec.kind` into the header")


def check_voxel_size(writer: Writer, results: Results) -> None:
    """The voxel size is written, in the order and unit of the format."""
    if results.voxel_size is None:
        return
    writer, dtype = results.fresh(writer), _dtype(writer)
    _written(writer, _image(dtype), results.spec(dtype))
    found = results.read(Path(writer.path.replace("{name}", NAME)), NAME)[1]
    close = found is not None and np.allclose(found.edges, results.voxel_size.edges, rtol=1e-6, atol=0)
    require(
        close, f"{results.voxel_size} is written as {found}", "write `spec.voxel_size` (z, y, x), nm, with its unit"
    )


def check_unknown_voxel_size(writer: Writer, results: Results) -> None:
    """A voxel size that is not known stays unknown."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    _written(writer, _image(dtype), results.spec(dtype, voxel_size=None))
    found = results.read(Path(writer.path.replace("{name}", NAME)), NAME)[1]
    require(found is None, f"an unknown voxel size is written as {found}", "write none where `spec.voxel_size` is None")


def check_channels(writer: Writer, results: Results) -> None:
    """Several channels come back, or are refused in `create`."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    array = _image(dtype, 2)
    try:
        volume = writer.create(NAME, results.spec(dtype, channels=("a", "b")))
    except DataError:
        return
    with volume:
        _fill(volume, array, _boxes(writer, volume))
        volume.finish()
    require_equal(results.array(writer), array, "two channels", "store (c, z, y, x), or raise mitocore.DataError")


def check_zeros(writer: Writer, results: Results) -> None:
    """What is not written is 0."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    array, change = _image(dtype), "create the array filled with zeros"
    with writer.create(NAME, results.spec(dtype)) as volume:
        require(not volume.read(_WHOLE).any(), "a new array is not zero", change)
        box = _boxes(writer, volume)[0]
        _fill(volume, array, [box])
        volume.finish()
    expected = np.zeros_like(array)
    expected[(slice(None), *box.slices)] = array[(slice(None), *box.slices)]
    require_equal(results.array(writer), expected, "an array of which one box was written", change)


def check_existing(writer: Writer, results: Results) -> None:
    """An array that exists, finished or not, is refused unless a run resumes."""
    dtype = _dtype(writer)
    for finished in (True, False):
        one = results.fresh(writer)
        with one.create(NAME, results.spec(dtype)) as volume:
            if finished:
                volume.finish()
        state = "finished" if finished else "begun"
        with refused(f"creating an array that was {state} before", "raise mitocore.DataError unless `resume`"):
            one.create(NAME, results.spec(dtype)).close()


def check_resume(writer: Writer, results: Results) -> None:
    """An array that a killed run left half written is gone on with; `finish` may be called again."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    array, change = _image(dtype), "let `write` reach the file before it returns; with `resume`, open what is there"
    importable(type(writer))
    with results.fresh(writer).create(NAME, results.spec(dtype)) as volume:
        boxes = _boxes(writer, volume)
    written_by_the_dead(writer, NAME, results.spec(dtype), _cut(array, boxes[:2]))
    with writer.create(NAME, results.spec(dtype), resume=True) as volume:
        for box, values in _cut(array, boxes[:2]):
            require_equal(volume.read(box), values, f"voxels of {box}, which a killed run wrote", change)
        _fill(volume, array, boxes[2:])
        volume.finish()
        volume.finish()
    require_equal(results.array(writer), array, "the resumed array", change)
    with writer.create(NAME, results.spec(dtype), resume=True) as volume:
        volume.finish()
    require_equal(results.array(writer), array, "an array that was finished and resumed", change)


def check_resume_begins(writer: Writer, results: Results) -> None:
    """`resume` creates what the killed run had not begun."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    with writer.create(NAME, results.spec(dtype), resume=True) as volume:
        volume.finish()
    require(not results.array(writer).any(), "it is not zero", "with `resume`, create what is not there")


def check_other_shape(writer: Writer, results: Results) -> None:
    """`resume` refuses an array of another shape."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    writer.create(NAME, results.spec(dtype)).close()
    smaller = (*SHAPE[:2], SHAPE[2] - 1)
    with refused("resuming an array of another shape", "compare shape and dtype, and raise mitocore.DataError"):
        writer.create(NAME, results.spec(dtype, shape=smaller), resume=True).close()


def check_reopened(writer: Writer, results: Results) -> None:
    """`open` gives the array that was created, as a worker in another process uses it; else it is a DataError."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    array, change = _image(dtype), "let `open` find by name what `create` made"
    with refused("opening an array that does not exist", "raise mitocore.DataError in `open`"):
        writer.open(NAME).close()
    writer.create(NAME, results.spec(dtype)).close()
    with writer.open(NAME) as volume:
        found = volume.spec
        require((found.shape, found.dtype) == (SHAPE, dtype), f"it is {found.dtype} of {found.shape}", change)
        _fill(volume, array, _boxes(writer, volume))
        volume.finish()
    require_equal(results.array(writer), array, "what was written after `open`", change)


def check_two_arrays(writer: Writer, results: Results) -> None:
    """Two arrays stand beside each other, in one path or, where that holds one, in two."""
    writer, dtype = results.fresh(writer), _dtype(writer)
    if writer.holds == "one" and "{name}" not in writer.path:
        writer = writer.model_copy(
            update={"path": str(Path(writer.path).with_name("{name}_" + Path(writer.path).name))}
        )
    arrays = {"a": _image(dtype), "b": _image(dtype)[..., ::-1]}
    for name, array in arrays.items():
        _written(writer, array, results.spec(dtype), name)
    for name, array in arrays.items():
        require_equal(
            results.array(writer, name), array, f"array {name!r} of two", 'use `name`, or declare holds = "one"'
        )


CHECKS: tuple[Check, ...] = (
    check_boxes,
    check_concurrency,
    check_dtypes,
    check_other_dtypes,
    check_kind,
    check_voxel_size,
    check_unknown_voxel_size,
    check_channels,
    check_zeros,
    check_existing,
    check_resume,
    check_resume_begins,
    check_other_shape,
    check_reopened,
    check_two_arrays,
)


class WriterTests(ComponentTests):
    """Tests of a writer. Set `component` and write `read_file`.

    ```python
    class TestTiffWriter(WriterTests):
        component = TiffWriter(path="{name}.tif")

        def read_file(self, path, name):
            with tifffile.TiffFile(path) as file:
                return file.asarray(), VoxelSize(...)
    ```

    Only the last part of the path of `component` is used: what files, or folders, are to be called.
    """

    checks: ClassVar[tuple[Check, ...]] = CHECKS

    voxel_size: ClassVar[VoxelSize | None] = EDGES
    """What is to be written; None if the format cannot state a voxel size."""
    keeps_kind: ClassVar[bool] = True
    """Whether the format can say what its numbers mean (`VolumeSpec.kind`)."""

    def read_file(self, path: Path, name: str) -> tuple[NDArray[Any], VoxelSize | None]:
        """The finished array `name`, (z, y, x) or (c, z, y, x), and the voxel size the file states, or None; by
        other means than this plugin's, such as the library of the format. In `path`, `{name}` is filled in.
        """
        raise NotChecked(f"write {type(self).__name__}.read_file(path, name)")

    def apply(self, check: Check, component: Any, folder: Path) -> None:
        """Hand the check `read_file` and a folder."""
        check(component, Results(self.read_file, folder, self.voxel_size, self.keeps_kind))
