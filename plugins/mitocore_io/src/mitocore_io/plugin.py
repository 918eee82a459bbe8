"""What this plugin declares. Imports no format library, so that discovery stays fast."""

from typing import Any

from mitocore import hookimpl


@hookimpl
def mitocore_register(registry: Any) -> None:
    """Declare the readers and writers of this distribution."""
    store = (".zarr", ".ome.zarr", ".zarr/")
    registry.add("reader", "zarr", "mitocore_io.zarr_reader:ZarrReader", "zarr and OME-Zarr, v2 and v3", suffixes=store)
    registry.add("writer", "zarr", "mitocore_io.zarr_writer:ZarrWriter", "OME-Zarr or plain zarr", suffixes=store)

    file = (".h5", ".hdf5", ".hdf", ".he5")
    registry.add("reader", "hdf5", "mitocore_io.hdf5_reader:Hdf5Reader", "a dataset of an HDF5 file", suffixes=file)
    registry.add("writer", "hdf5", "mitocore_io.hdf5_writer:Hdf5Writer", "datasets of one HDF5 file", suffixes=file)

    stack = (".tif", ".tiff", ".ome.tif", ".ome.tiff", ".btf")
    registry.add("reader", "tiff", "mitocore_io.tiff_reader:TiffReader", "a TIFF volume or page stack", suffixes=stack)
    registry.add("writer", "tiff", "mitocore_io.tiff_writer:TiffWriter", "one TIFF volume per array", suffixes=stack)

    slices = ("/", ".png", ".jpg", ".jpeg", "*.tif", "*.tiff")  # a glob of TIFF files is a stack of slices
    registry.add("reader", "slices", "mitocore_io.slices_reader:SlicesReader", "a folder of slices", suffixes=slices)
    written = "mitocore_io.slices_writer"
    registry.add("writer", "slices", f"{written}:SlicesWriter", "a folder of PNG slices", suffixes=("/",))
    registry.add("writer", "tiff-slices", f"{written}:TiffSlicesWriter", "a folder of TIFF slices, for many ids")
    registry.add("writer", "jpeg-slices", f"{written}:JpegSlicesWriter", "a folder of JPEG slices, lossy")

    nifti = (".nii", ".nii.gz")
    registry.add("reader", "nifti", "mitocore_io.nifti_reader:NiftiReader", "a NIfTI volume", suffixes=nifti)
    registry.add("writer", "nifti", "mitocore_io.nifti_writer:NiftiWriter", "one NIfTI file per array", suffixes=nifti)

    tiles = "the tile JSON of PyTorch Connectomics"
    registry.add("reader", "tiles", "mitocore_io.tiles_reader:TilesReader", tiles, suffixes=(".json",))

    named = ("*.h5", "*.hdf5", "*.hdf", "*.he5")  # a pattern of HDF5 files is one volume, as of slices
    chunks = "a folder of HDF5 files named after their voxels, as of PyTorch Connectomics"
    registry.add("reader", "chunks", "mitocore_io.chunks_reader:ChunksReader", chunks, suffixes=named)
