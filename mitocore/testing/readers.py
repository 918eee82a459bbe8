"""What readers promise, checked on files that something else wrote."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import DataError
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.interfaces import Reader
from mitocore.testing.checking import Check, NotChecked, peak, refused, require, require_equal, together
from mitocore.testing.suite import ComponentTests

SHAPE = (5, 23, 31)
EDGES = VoxelSize(40.0, 4.6, 8.25)
_LARGE = (64, 256, 256)
_RACES = 5


@dataclass(frozen=True, slots=True)
class Files:
    """How the checks of a reader get files."""

    make: Callable[[Path, NDArray[Any], VoxelSize | None], None]
    """Writes an array (z, y, x) or (y, x) to a path, by other means than the reader's; see `ReaderTests.make_file`."""
    folder: Path
    """Where files may be made."""
    voxel_size: VoxelSize | None = EDGES
    """What files are to say; None: this format cannot say it."""
    dtypes: tuple[str, ...] = ("uint8", "uint16")
    """What the format is asked to hold."""
    planar: bool = True
    """Whether a file may hold one section (y, x)."""

    def made(self, reader: Reader, array: NDArray[Any], voxel_size: VoxelSize | None = None) -> Reader:
        """The reader of a new file, called as that of `reader`, that holds `array`."""
        path = Path(tempfile.mkdtemp(dir=self.folder)) / Path(reader.path).name
        self.make(path, array, voxel_size)
        return reader.model_copy(update={"path": str(path), "voxel_size": None})

    def image(self, dtype: str = "", shape: tuple[int, ...] = SHAPE) -> NDArray[Any]:
        """Noise; no two axes have one length, so that a wrong order shows."""
        values = np.random.default_rng(7).integers(0, 2**15, shape)
        return (values % 251 if (dtype or self.dtypes[0]) in ("uint8", "int8") else values).astype(
            dtype or self.dtypes[0]
        )


def _accepted(reader: Reader, files: Files) -> list[str]:
    """The dtypes of `files` that the reader does not refuse; it may refuse all but one."""
    found, said = [], ""
    for dtype in files.dtypes:
        try:
            files.made(reader, files.image(dtype)).open().close()
        except DataError as error:
            said = str(error)
        else:
            found.append(dtype)
    require(found, f"files of {', '.join(files.dtypes)} are refused: {said}", "read at least one of these")
    return found


def check_boxes(reader: Reader, files: Files) -> None:
    """Every box equals slicing the array: of one voxel, odd ones, at the faces, the whole."""
    array = files.image(_accepted(reader, files)[-1])
    rng, change = np.random.default_rng(3), "return (c, z, y, x) over `roi` alone, in the dtype of `spec`"
    boxes = [Roi.whole(SHAPE), Roi((0, 0, 0), (1, 1, 1)), Roi((4, 22, 30), SHAPE)]
    for _ in range(40):
        ends = np.sort([rng.choice(n + 1, 2, replace=False) for n in SHAPE], axis=1)
        boxes.append(Roi(as_shape(ends[:, 0]), as_shape(ends[:, 1])))
    with files.made(reader, array).open() as volume:
        require(volume.spec.shape == SHAPE, f"shape {volume.spec.shape} of an array {SHAPE}", "give (z, y, x) voxels")
        require(len(volume.spec.channels) == 1, f"channels {volume.spec.channels} of an array (z, y, x)", "name one")
        for box in boxes:
            require_equal(volume.read(box), array[None][(slice(None), *box.slices)], f"voxels of {box}", change)


def check_dtypes(reader: Reader, files: Files) -> None:
    """The header says the dtype, in the byte order of this machine, and voxels have it."""
    for dtype in _accepted(reader, files):
        array = files.image(dtype)
        with files.made(reader, array).open() as volume:
            require(volume.spec.dtype == dtype, f"dtype {volume.spec.dtype!r} of {dtype}", "name the dtype of the file")
            found = volume.read(Roi.whole(SHAPE))
        require(found.dtype.isnative, f"voxels of byte order {found.dtype.byteorder!r}", "convert to native order")
        require_equal(found[0], array, f"{dtype} voxels", "keep values and dtype of the file")


def check_header_first(reader: Reader, files: Files) -> None:
    """`open` reads the header, not the voxels: planning a run over a large volume takes no time and no memory."""
    with files.made(reader, files.image()).open():
        pass  # else what is imported at the first call would count
    large = files.made(reader, files.image(shape=_LARGE))
    taken = peak(lambda: large.open().close())
    seen = f"opening a file of {np.prod(_LARGE) / 2**20:.0f} MiB took {taken / 2**20:.1f} MiB"
    require(taken < 2**20, seen, "read shape, dtype and voxel size in `open`, voxels in `read`")


def check_memory(reader: Reader, files: Files) -> None:
    """A small box of a large file takes little memory: runs read volumes that are larger than it."""
    box = Roi((40, 100, 100), (41, 108, 108))
    with files.made(reader, files.image()).open() as volume:
        volume.read(Roi((0, 0, 0), (1, 8, 8)))  # else what is imported at the first call would count
    with files.made(reader, files.image(shape=_LARGE)).open() as volume:
        taken = peak(lambda: volume.read(box))
    whole = int(np.prod(_LARGE)) * np.dtype(files.dtypes[0]).itemsize
    seen = f"a box of 64 voxels took {taken / 2**20:.1f} MiB of a file of {whole / 2**20:.0f} MiB"
    require(taken < whole / 2, seen, "read the chunks or planes of `roi` alone, or map the file")


def check_own_voxels(reader: Reader, files: Files) -> None:
    """Who reads may write into what is returned: the next read gives the voxels of the file."""
    array, box = files.image(), Roi((1, 2, 3), (4, 20, 25))
    with files.made(reader, array).open() as volume:
        found = volume.read(box)
        seen = "a second read after writing into the array of the first"
        change = "return a new array, not a view of what is kept, nor one that is read-only"
        require(found.flags.writeable, "the array that is returned is read-only", change)
        found[...] = 0
        require_equal(volume.read(box)[0], array[box.slices], seen, change)


def check_shapes(reader: Reader, files: Files) -> None:
    """No shape is guessed at: a few sections are no channels, and cubes and square planes keep their axes."""
    change = "take the order of axes from the header, or from the format, never from the lengths of axes"
    for shape in ((3, 20, 20), (4, 4, 4)):
        array = files.image(shape=shape)
        with files.made(reader, array).open() as volume:
            spec = volume.spec
            seen = f"a file of {shape} voxels is read as {spec.shape} with {len(spec.channels)} channels"
            require((spec.shape, len(spec.channels)) == (shape, 1), seen, change)
            require_equal(volume.read(Roi.whole(shape))[0], array, f"voxels of a file of {shape}", change)


def check_planar(reader: Reader, files: Files) -> None:
    """A file of one section (y, x) is a volume with z = 1."""
    if not files.planar:
        return
    array = files.image(shape=SHAPE[1:])
    with files.made(reader, array).open() as volume:
        seen, change = f"shape {volume.spec.shape} of a section {array.shape}", "give (1, y, x)"
        require(volume.spec.shape == (1, *array.shape), seen, change)
        require_equal(volume.read(Roi.whole(volume.spec.shape))[0, 0], array, "voxels of a section", change)


def check_voxel_size(reader: Reader, files: Files) -> None:
    """The voxel size the file states is read, in nm and in the order (z, y, x)."""
    if files.voxel_size is None:
        return
    with files.made(reader, files.image(), files.voxel_size).open() as volume:
        found = volume.spec.voxel_size
    close = found is not None and np.allclose(found.edges, files.voxel_size.edges, rtol=1e-6, atol=0)
    seen = f"a file that says {files.voxel_size} is read as {found}"
    require(close, seen, "convert the unit to nm, and give (z, y, x)")


def check_unknown_voxel_size(reader: Reader, files: Files) -> None:
    """A file that states no voxel size has none: it is None, never 1."""
    with files.made(reader, files.image()).open() as volume:
        found = volume.spec.voxel_size
    require(found is None, f"a file that states no voxel size is read as {found}", "give None where the file is silent")


def check_voxel_size_option(reader: Reader, files: Files) -> None:
    """The option `voxel_size` goes before what the file says."""
    wanted = VoxelSize(5.0, 6.0, 7.0)
    for stated in (files.voxel_size, None):
        made = files.made(reader, files.image(), stated).model_copy(update={"voxel_size": wanted})
        with made.open() as volume:
            seen = f"voxel_size = {wanted} is ignored: {volume.spec.voxel_size}"
            require(volume.spec.voxel_size == wanted, seen, "use `self.voxel_size or` what the file says")


def check_missing_path(reader: Reader, files: Files) -> None:
    """A path that does not exist is a DataError that quotes it."""
    change = "raise mitocore.DataError(f\"'{path}' does not exist\", hint=...)"
    path = str(files.folder / "nowhere" / Path(reader.path).name)
    with refused("a path that does not exist", change) as text:
        reader.model_copy(update={"path": path}).open().close()
    require(Path(path).name in text[0], f"the message does not quote the path: {text[0]!r}", change)


def check_missing_key(reader: Reader, files: Files) -> None:
    """A reader with an option `key` refuses one that the file lacks, with a hint what there is."""
    if "key" not in type(reader).model_fields:
        return
    change = "raise mitocore.DataError that quotes the key, with a hint that lists those of the file"
    made = files.made(reader, files.image()).model_copy(update={"key": "no/such/key"})
    with refused("a key that is not in the file", change) as text:
        made.open().close()
    require("no/such/key" in text[0] and "hint:" in text[0], f"the message is {text[0]!r}", change)


def check_foreign_file(reader: Reader, files: Files) -> None:
    """A file of another format is a DataError, not an error of the library below."""
    path = files.folder / "foreign" / Path(reader.path).name
    path.parent.mkdir(exist_ok=True)
    path.write_text("this is a text, long enough to be looked at\n" * 20, "utf-8")
    change = "catch what the library raises for a file it does not know, and raise mitocore.DataError"
    with refused("a file of another format", change):
        reader.model_copy(update={"path": str(path)}).open().close()


def check_threads(reader: Reader, files: Files) -> None:
    """Eight threads that begin at the same moment read what one reads."""
    array = files.image(shape=(16, 96, 80))
    boxes = [
        Roi((2 * n, 10 * (n % 3), 5 * (n % 4)), (2 * n + 2, 64 + 10 * (n % 3), 60 + 5 * (n % 4))) for n in range(8)
    ]
    with files.made(reader, array).open() as volume:
        for _ in range(_RACES):
            for box, values in zip(boxes, together([partial(volume.read, box) for box in boxes]), strict=True):
                change = "guard what is shared with a lock"
                require_equal(values[0], array[box.slices], f"{box} read by threads", change)


def check_close_twice(reader: Reader, files: Files) -> None:
    """`close` may be called twice, before anything was read as well."""
    made = files.made(reader, files.image())
    for box in ([], [Roi((0, 0, 0), (1, 2, 2))]):
        volume = made.open()
        for roi in box:
            volume.read(roi)
        volume.close()
        volume.close()


def check_fingerprint(reader: Reader, files: Files) -> None:
    """The fingerprint follows the content: the same for a copy elsewhere, another once a file is rewritten."""
    made = files.made(reader, files.image())
    change = "let `files` return what holds the voxels, and leave `fingerprint` alone"
    before = made.fingerprint()
    require(before == made.fingerprint(), "two calls give two fingerprints", change)
    if not made.files():
        return
    copied = Path(tempfile.mkdtemp(dir=files.folder)) / "copy"
    shutil.copytree(Path(made.path).parent, copied)
    moved = made.model_copy(update={"path": str(copied / Path(made.path).name)})
    require(moved.fingerprint() == before, "a copy in another folder has another fingerprint", change)
    for file in Path(made.path).parent.rglob("*"):
        if file.is_file():
            written = file.stat().st_mtime_ns + 1000
            os.utime(file, ns=(written, written))
    require(made.fingerprint() != before, "rewriting every file does not change the fingerprint", change)


CHECKS: tuple[Check, ...] = (
    check_boxes,
    check_dtypes,
    check_header_first,
    check_memory,
    check_own_voxels,
    check_shapes,
    check_planar,
    check_voxel_size,
    check_unknown_voxel_size,
    check_voxel_size_option,
    check_missing_path,
    check_missing_key,
    check_foreign_file,
    check_threads,
    check_close_twice,
    check_fingerprint,
)


class ReaderTests(ComponentTests):
    """Tests of a reader. Set `component` and write `make_file`.

    ```python
    class TestTiffReader(ReaderTests):
        component = TiffReader(path="volume.tif")

        def make_file(self, path, array, voxel_size):
            tifffile.imwrite(path, array, ...)
    ```

    Only the last part of the path of `component` is used: what files, or folders, are to be called.
    """

    checks: ClassVar[tuple[Check, ...]] = CHECKS

    voxel_size: ClassVar[VoxelSize | None] = EDGES
    """What `make_file` is asked to write; None if the format cannot state a voxel size."""
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "uint16")
    """Dtypes that `make_file` can write; "uint8" among them."""
    planar: ClassVar[bool] = True
    """Whether a file can hold one section; then `make_file` is also given (y, x)."""

    def make_file(self, path: Path, array: NDArray[Any], voxel_size: VoxelSize | None) -> None:
        """Write `array` (z, y, x), or (y, x), to `path` by other means than this plugin's, such as the library of
        the format. `voxel_size` None: state none.
        """
        raise NotChecked(f"write {type(self).__name__}.make_file(path, array, voxel_size)")

    def apply(self, check: Check, component: Any, folder: Path) -> None:
        """Hand the check `make_file` and a folder."""
        check(component, Files(self.make_file, folder, self.voxel_size, self.dtypes, self.planar))
