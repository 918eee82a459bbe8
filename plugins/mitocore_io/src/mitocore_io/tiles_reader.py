"""Reader of the tile JSON of PyTorch Connectomics: a volume as image files, several for each section."""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from mitocore import DataError, Kind, Reader, Roi, Volume, VolumeSpec
from mitocore_io import attributes, images
from mitocore_io.attributes import Record
from mitocore_io.axes import Axes
from mitocore_io.targets import local, missing
from mitocore_io.tiff_reader import quiet

_PLACES = re.compile(r"\{(row|column)(?::0?(\d+)d?)?\}")
_KEPT = 2**28  # bytes of decoded tiles that are kept: the next box often wants them again
_PAIR = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(lambda v: (v, v) if isinstance(v, int) else v)]


class Tiling(BaseModel):
    """The JSON file: which image files hold which part of the volume."""

    image: tuple[str | None, ...]
    """A path per section; `{row}` and `{column}` are numbers of tiles. None or "": the section is missing."""
    height: PositiveInt
    """Of the volume, in voxels."""
    width: PositiveInt
    """Of the volume, in voxels."""
    tile_size: _PAIR
    """Rows and columns of voxels that one tile gives."""
    depth: PositiveInt | None = None
    """Number of sections; by default as many as there are paths."""
    n_rows: PositiveInt | None = None
    """Number of tiles along y; by default as many as cover the height."""
    n_columns: PositiveInt | None = None
    """Number of tiles along x; by default as many as cover the width."""
    tile_st: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    """Number of the first row and column in the file names."""
    tile_ratio: Annotated[float, Field(gt=0)] = 1.0
    """Voxels per pixel of the files: 0.5 halves their resolution."""
    ndim: Literal[1, 3] = 1
    """Samples per pixel: grey, or ids coded as 65536 R + 256 G + B."""
    dtype: Literal["uint8", "uint16", "uint32"] = "uint8"
    """Of grey voxels; coded ids are uint32."""

    @model_validator(mode="after")
    def _covers(self) -> "Tiling":
        if len(self.image) < (self.depth or 1):
            raise ValueError(f"depth {self.depth or 1} with {len(self.image)} paths in image")
        if self.rows * self.columns > 1 and not all(_PLACES.search(path) for path in self.image if path):
            raise ValueError(f"{self.rows} x {self.columns} tiles, but a path without {{row}} and {{column}}")
        return self

    @property
    def rows(self) -> int:
        """Number of tiles along y."""
        return self.n_rows or -(-self.height // self.tile_size[0])

    @property
    def columns(self) -> int:
        """Number of tiles along x."""
        return self.n_columns or -(-self.width // self.tile_size[1])

    def path(self, z: int, row: int, column: int) -> str | None:
        """The path of a tile, as the file states it."""
        numbers = {"row": row + self.tile_st[0], "column": column + self.tile_st[1]}
        return _PLACES.sub(lambda m: str(numbers[m[1]]).zfill(int(m[2] or 0)), self.image[z] or "") or None


class TilesReader(Reader):
    """The tile JSON of PyTorch Connectomics: PNG, TIFF or JPEG tiles; only those that a box meets are decoded.

    Its keys are `image` (a path per section, relative to the JSON file, with `{row}` and `{column}`), `height`,
    `width`, `depth`, `n_rows`, `n_columns`, `tile_size`, `tile_st`, `tile_ratio`, `ndim` (1: grey; 3: ids coded as
    65536 R + 256 G + B) and `dtype`. It knows no voxel size.
    """

    fill: NonNegativeInt = 0
    """Value of voxels whose tile is missing; PyTorch Connectomics takes 128 for images."""
    resampling: Literal["linear", "nearest"] = "linear"
    """How grey tiles become voxels where `tile_ratio` is not 1; "nearest" for labels. Coded ids always keep theirs."""

    def open(self) -> Volume:
        tiling, root = self._tiling(), Path(self.path).parent
        depth = tiling.depth or len(tiling.image)
        if not any(file.exists() for file in _files(tiling, root)):
            first = next(_files(tiling, root), root)
            problem = f"none of the tiles is there; the first is {str(first)!r}"
            raise DataError(problem, where=self.path, hint="paths of tiles start from the folder of the JSON file")
        axes = Axes.of((depth, tiling.height, tiling.width), "zyx", self.path)
        coded = tiling.ndim == 3
        noted = Record(kind=Kind.INSTANCE if coded else Kind.IMAGE)
        dtype = np.dtype("uint32" if coded else tiling.dtype)
        if self.fill > np.iinfo(dtype).max:
            raise DataError(f"fill = {self.fill} does not fit {dtype}", where=self.path)
        chunks = (1, min(tiling.tile_size[0], tiling.height), min(tiling.tile_size[1], tiling.width))
        spec = attributes.volume_spec(axes, dtype, chunks, noted, self.voxel_size, self.path)
        return TilesVolume(tiling, root, spec, self)

    def files(self) -> Sequence[Path]:
        tiling = self._tiling()
        return [Path(self.path), *(file for file in _files(tiling, Path(self.path).parent) if file.exists())]

    def _tiling(self) -> Tiling:
        path = local(self.path)
        if not path.exists():
            raise missing(path)
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            problem = f"{path.name!r} is not a JSON file, or is cut short"
            raise DataError(problem, where=self.path, hint="copy the file again") from error
        try:
            return Tiling.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "it"
            problem = f"{path.name!r} is not a list of tiles: {key}: {first['msg'].removeprefix('Value error, ')}"
            raise DataError(problem, where=self.path, hint="a tile JSON has image, height, width, tile_size") from error


class TilesVolume(Volume):
    """Tiles, decoded one at a time; the last ones are kept."""

    def __init__(self, tiling: Tiling, root: Path, spec: VolumeSpec, reader: TilesReader) -> None:
        self._tiling, self._root, self._spec, self._reader = tiling, root, spec, reader
        self._kept: OrderedDict[tuple[int, int, int], NDArray[Any]] = OrderedDict()
        self._keeping = threading.Lock()

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        values = np.full((1, *roi.shape), self._reader.fill, self._spec.dtype)
        (first, top, left), (last, bottom, right) = roi.start, roi.stop
        height, width = self._tiling.tile_size
        for z in range(first, last):
            for row in range(top // height, min(-(-bottom // height), self._tiling.rows)):
                for column in range(left // width, min(-(-right // width), self._tiling.columns)):
                    tile = self._tile(z, row, column)
                    if tile is None:
                        continue
                    y0, x0 = row * height, column * width  # of the tile in the volume
                    y = slice(max(y0, top), min(y0 + height, bottom))
                    x = slice(max(x0, left), min(x0 + width, right))
                    inside = tile[y.start - y0 : y.stop - y0, x.start - x0 : x.stop - x0]
                    values[0, z - first, y.start - top : y.stop - top, x.start - left : x.stop - left] = inside
        return values

    def close(self) -> None:
        with self._keeping:
            self._kept.clear()

    def _tile(self, z: int, row: int, column: int) -> NDArray[Any] | None:
        """Voxels of a tile, cut at the faces of the volume; None if it is missing."""
        name = self._tiling.path(z, row, column)
        file = self._root / name if name else None
        if file is None or not file.exists():
            return None
        place = (z, row, column)
        with self._keeping:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        tile = self._voxels(file, row, column)
        with self._keeping:
            self._kept[place] = tile
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _KEPT:
                self._kept.popitem(last=False)
        return tile

    def _voxels(self, file: Path, row: int, column: int) -> NDArray[Any]:
        height, width = self._tiling.tile_size
        wanted = min(height, self._tiling.height - row * height), min(width, self._tiling.width - column * width)
        tile = ids(_decoded(file), file) if self._tiling.ndim == 3 else _grey(file)
        if not np.can_cast(tile.dtype, self._spec.dtype):
            problem = f"{file.name!r} is {tile.dtype}, the volume {self._spec.dtype}"
            raise DataError(problem, where=str(file), hint="correct dtype in the JSON file")
        ratio, found = self._tiling.tile_ratio, tile.shape
        if ratio != 1:
            linear = self._reader.resampling == "linear" and self._tiling.ndim == 1
            tile = resampled(tile, ratio, linear=linear)
        if tile.shape[0] < wanted[0] or tile.shape[1] < wanted[1]:
            problem = f"{file.name!r} has {found} pixels (y, x), which give {tile.shape} voxels, not {wanted}"
            raise DataError(problem, where=str(file), hint="correct tile_size or tile_ratio in the JSON file")
        voxels: NDArray[Any] = tile[: wanted[0], : wanted[1]].astype(self._spec.dtype)
        return voxels


def ids(colours: NDArray[Any], file: Path) -> NDArray[Any]:
    """Ids (uint32) that colours stand for, as VAST writes them: 65536 R + 256 G + B; grey levels are ids themselves.

    >>> ids(np.array([[[1, 2, 3]]], "u1"), Path("a.png")).item() == 65536 + 2 * 256 + 3
    True
    """
    if colours.ndim == 2:
        return colours.astype(np.uint32)
    if colours.shape[2] < 3 or colours.dtype != np.uint8:
        problem = f"{file.name!r} has {colours.shape[2]} samples of {colours.dtype}; coded ids are three bytes, RGB"
        raise DataError(problem, where=str(file), hint="ndim = 1 in the JSON file, if it is grey")
    red, green, blue = (colours[..., i].astype(np.uint32) for i in range(3))
    return (red << 16) | (green << 8) | blue


def resampled(tile: NDArray[Any], ratio: float, *, linear: bool) -> NDArray[Any]:
    """A tile with `ratio` voxels per pixel; centres of voxels stand where they stand in the image.

    >>> resampled(np.array([[0, 2, 4, 6]], "u1"), 0.5, linear=True)
    array([[1, 5]], dtype=uint8)
    """
    for axis, length in enumerate(tile.shape):
        centres = (np.arange(max(1, round(length * ratio))) + 0.5) / ratio - 0.5
        if not linear:
            tile = tile.take(np.clip(np.floor(centres + 0.5 + 1e-9), 0, length - 1).astype(np.int64), axis)
            continue
        before = np.clip(np.floor(centres), 0, length - 1).astype(np.int64)
        share = np.clip(centres - before, 0, 1).reshape([-1 if i == axis else 1 for i in range(2)])
        low, high = (tile.take(at, axis).astype(np.float64) for at in (before, np.minimum(before + 1, length - 1)))
        tile = np.rint(low + share * (high - low)).astype(tile.dtype)
    return tile


def _files(tiling: Tiling, root: Path) -> Iterator[Path]:
    for z in range(tiling.depth or len(tiling.image)):
        for row in range(tiling.rows):
            for column in range(tiling.columns):
                name = tiling.path(z, row, column)
                if name:
                    yield root / name


def _decoded(file: Path) -> NDArray[Any]:
    if file.suffix.lower() in images.SUFFIXES:
        return images.decoded(file)
    try:
        with quiet():
            pixels: NDArray[Any] = tifffile.imread(file)
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError) as error:
        problem = f"{file.name!r} cannot be decoded: it is damaged, cut short, or no PNG, TIFF or JPEG"
        raise DataError(problem, where=str(file), hint="copy the file again") from error
    return pixels


def _grey(file: Path) -> NDArray[Any]:
    if file.suffix.lower() in images.SUFFIXES:
        return images.pixels(file)
    return images.grey(_decoded(file), file)
