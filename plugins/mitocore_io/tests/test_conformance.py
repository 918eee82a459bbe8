"""The readers and writers before the conformance kit; files are made and looked at by the libraries of the formats."""

import json
from typing import ClassVar

import h5py
import nibabel
import numpy as np
import tifffile
import zarr
from PIL import Image

from mitocore import VoxelSize
from mitocore.testing import ReaderTests, WriterTests
from mitocore_io.chunks_reader import ChunksReader
from mitocore_io.hdf5_reader import Hdf5Reader
from mitocore_io.hdf5_writer import Hdf5Writer
from mitocore_io.nifti_reader import NiftiReader
from mitocore_io.nifti_writer import NiftiWriter
from mitocore_io.slices_reader import SlicesReader
from mitocore_io.slices_writer import JpegSlicesWriter, SlicesWriter, TiffSlicesWriter
from mitocore_io.tiff_reader import TiffReader
from mitocore_io.tiff_writer import TiffWriter
from mitocore_io.tiles_reader import TilesReader
from mitocore_io.zarr_reader import ZarrReader
from mitocore_io.zarr_writer import ZarrWriter

SMALL = {"chunks": (2, 8, 16)}


def micrometres(edges, axes="zyx"):
    return [edge / 1000 for axis, edge in zip("zyx", edges.edges, strict=True) if axis in axes]


def edge(array):
    """Of a chunk: few voxels, but not many chunks."""
    return 4 if array.size < 10_000 else 32


def nm(edges):
    return None if edges is None else VoxelSize(*(round(float(edge), 6) for edge in edges))


class TestZarrReader(ReaderTests):
    component = ZarrReader(path="a.zarr")

    def make_file(self, path, array, voxel_size):
        chunks = tuple(min(edge(array), n) for n in array.shape)
        made = zarr.create_array(str(path / "raw"), shape=array.shape, dtype=array.dtype, chunks=chunks, zarr_format=2)
        made[:] = array
        if voxel_size:
            made.update_attributes({"resolution": list(voxel_size.edges)})


class TestOmeZarrReader(ReaderTests):
    component = ZarrReader(path="a.ome.zarr")

    def make_file(self, path, array, voxel_size):
        group = zarr.open_group(str(path), mode="w", zarr_format=3)
        chunks = (edge(array),) * array.ndim
        shape = tuple(-(-n // edge(array)) * edge(array) for n in array.shape)  # of a shard
        made = group.create_array("0", shape=array.shape, dtype=array.dtype, chunks=chunks, shards=shape)
        made[:] = array
        unit = {"unit": "micrometer"} if voxel_size else {}
        axes = [{"name": name, "type": "space", **unit} for name in "zyx"[-array.ndim :]]
        scale = micrometres(voxel_size) if voxel_size else [1.0] * array.ndim
        levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
        group.update_attributes({"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}})


class TestHdf5Reader(ReaderTests):
    component = Hdf5Reader(path="a.h5")

    def make_file(self, path, array, voxel_size):
        with h5py.File(path, "w") as file:
            made = file.create_dataset("volumes/raw", data=array, chunks=True, compression="gzip")
            if voxel_size:
                made.attrs["element_size_um"] = micrometres(voxel_size)


class TestChunksReader(ReaderTests):
    component = ChunksReader(path="chunks")

    def make_file(self, path, array, voxel_size):
        path.mkdir()
        array = array.reshape((-1, *array.shape[-2:]))
        depth, height, width = array.shape
        middle = max(height // 2, 1)
        for y0, y1 in ((0, middle), (middle, height)):
            with h5py.File(path / f"result_0-{depth}-{y0}-{y1}-0-{width}_xy.h5", "w") as file:
                made = file.create_dataset("vol0", data=array[:, y0:y1], chunks=True, compression="gzip")
                if voxel_size:
                    made.attrs["resolution"] = list(voxel_size.edges)


class TestTiffReader(ReaderTests):
    component = TiffReader(path="a.tif")
    options: ClassVar = {"compression": "lzw"}

    def make_file(self, path, array, voxel_size):
        stated = {"axes": "ZYX"[-array.ndim :]}
        if voxel_size:
            for axis, edge in zip("ZYX", voxel_size.edges, strict=True):
                stated |= {f"PhysicalSize{axis}": edge, f"PhysicalSize{axis}Unit": "nm"}
        tifffile.imwrite(path, array, ome=True, metadata=stated, photometric="minisblack", **self.options)


class TestBigTiffReader(TestTiffReader):
    options: ClassVar = {"bigtiff": True, "byteorder": ">", "tile": (64, 64), "compression": "zlib"}


class TestImageJReader(ReaderTests):
    component = TiffReader(path="a.tiff")

    def make_file(self, path, array, voxel_size):
        stated, density = {"axes": "ZYX"[-array.ndim :]}, None
        if voxel_size:
            z, y, x = micrometres(voxel_size)
            stated, density = {**stated, "spacing": z, "unit": "um"}, (1 / x, 1 / y)
        tifffile.imwrite(path, array, imagej=True, resolution=density, metadata=stated)


class TestNiftiReader(ReaderTests):
    component = NiftiReader(path="a.nii")

    def make_file(self, path, array, voxel_size):
        image = nibabel.Nifti2Image(array.T, None)
        if voxel_size:
            image.header.set_zooms([edge / 1e6 for edge in reversed(voxel_size.edges)])
            image.header.set_xyzt_units(xyz="mm")
        nibabel.save(image, path)


class TestCompressedNiftiReader(TestNiftiReader):
    component = NiftiReader(path="a.nii.gz")
    expected_failures: ClassVar = {"check_memory": "gzip has no places: what lies before a box is read with it"}


class TestSlicesReader(ReaderTests):
    component = SlicesReader(path="slices")
    voxel_size = None

    def make_file(self, path, array, voxel_size):
        path.mkdir()
        for number, plane in enumerate(array if array.ndim == 3 else [array]):
            Image.fromarray(plane).save(path / f"img{number + 8}.png")


class TestTilesReader(ReaderTests):
    component = TilesReader(path="a.json")
    voxel_size = None
    dtypes = ("uint8",)

    def make_file(self, path, array, voxel_size):
        array = array.reshape((-1, *array.shape[-2:]))
        for z, plane in enumerate(array):
            for column, part in enumerate(np.split(plane, range(256, plane.shape[1], 256), axis=1)):
                Image.fromarray(part).save(path.with_name(f"{z}_0_{column}.png"))
        stated = {"height": array.shape[1], "width": array.shape[2], "tile_size": 256}
        path.write_text(json.dumps({"image": [f"{z}_{{row}}_{{column}}.png" for z in range(len(array))], **stated}))


class TestOmeZarrWriter(WriterTests):
    component = ZarrWriter(path="out.zarr", **SMALL)

    def components(self):
        return [
            self.component,
            ZarrWriter(path="out.zarr", chunks=(1, 4, 8), shards=(2, 8, 16)),
            ZarrWriter(path="out.zarr", version="0.4", compression="gzip", **SMALL),
        ]

    def read_file(self, path, name):
        group = zarr.open_group(str(path / name), mode="r")
        image = group.attrs.get("ome", group.attrs)["multiscales"][0]
        known = "unit" in image["axes"][-1]
        scale = image["datasets"][0]["coordinateTransformations"][0]["scale"][-3:]
        return group["0"][:], nm(scale if known else None)


class TestCatenaWriter(WriterTests):
    component = ZarrWriter(path="out.zarr", layout="catena", **SMALL)

    def read_file(self, path, name):
        array = zarr.open_array(str(path / name), mode="r", zarr_format=2)
        return array[:], nm(array.attrs.get("resolution"))


class TestHdf5Writer(WriterTests):
    component = Hdf5Writer(path="out.h5", **SMALL)

    def components(self):
        return [self.component, Hdf5Writer(path="out.h5", compression="none", **SMALL)]

    def read_file(self, path, name):
        with h5py.File(path, "r") as file:
            return file[name][:], nm(file[name].attrs.get("resolution"))


class TestTiffWriter(WriterTests):
    component = TiffWriter(path="{name}.tif")

    def components(self):
        return [self.component, TiffWriter(path="{name}.tif", compression="zlib")]

    def read_file(self, path, name):
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes = series.axes if series.kind != "shaped" else {4: "ZCYX", 3: "ZYX"}[series.ndim]
            values = series.asarray()
            size = None
            if file.imagej_metadata and "spacing" in file.imagej_metadata:
                y, x = (file.pages[0].tags[f"{axis}Resolution"].value for axis in "YX")
                size = [file.imagej_metadata["spacing"] * 1000, y[1] / y[0] * 1000, x[1] / x[0] * 1000]
        if "C" in axes:
            values = np.moveaxis(values, axes.index("C"), 0)
        return values, nm(size)


class TestNiftiWriter(WriterTests):
    component = NiftiWriter(path="{name}.nii")

    def components(self):
        return [self.component, NiftiWriter(path="{name}.nii.gz")]

    def read_file(self, path, name):
        image = nibabel.load(path)
        values = np.asarray(image.dataobj).T
        known = image.header.get_xyzt_units()[0] == "micron"
        edges = [edge * 1000 for edge in reversed(image.header.get_zooms()[:3])]
        return values[:, 0] if values.ndim == 5 else values, nm(edges if known else None)


class SlicesTests(WriterTests):
    def read_file(self, path, name):
        files = sorted(path.glob(f"*{self.component.suffix}"))
        noted = json.loads((path / "volume.json").read_text())
        read = tifffile.imread if self.component.suffix == ".tif" else lambda file: np.asarray(Image.open(file))
        return np.stack([read(file) for file in files]), nm(noted.get("resolution"))


class TestPngSlicesWriter(SlicesTests):
    component = SlicesWriter(path="{name}")


class TestTiffSlicesWriter(SlicesTests):
    component = TiffSlicesWriter(path="{name}")


class TestJpegSlicesWriter(SlicesTests):
    component = JpegSlicesWriter(path="{name}", quality=100)
    expected_failures = dict.fromkeys(
        ("check_boxes", "check_dtypes", "check_zeros", "check_resume", "check_reopened", "check_two_arrays"),
        "JPEG changes values, as it declares",
    )
