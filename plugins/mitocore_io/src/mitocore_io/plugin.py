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

    slices = ("/", ".png", "*.tif", "*.tiff")  # a glob of TIFF files is a stack of slices, not one TIFF volume
    registry.add("reader", "slices", "mitocore_io.slices_reader:SlicesReader", "a folder of slices", suffixes=slices)
    registry.add("writer", "slices", "mitocore_io.slices_writer:SlicesWriter", "a folder of PNGs", suffixes=("/",))
