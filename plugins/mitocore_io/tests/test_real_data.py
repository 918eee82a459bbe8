"""Real files with the traps of the field; skipped where the data are not at hand."""

from pathlib import Path

import numpy as np
import pytest

from mitocore import Roi
from mitocore_io.nifti_reader import NiftiReader
from mitocore_io.slices_reader import SlicesReader
from mitocore_io.tiff_reader import TiffReader

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not at ../shared/data")


@needs_data
def test_epfl_stack_opens_with_its_shape_and_unknown_voxel_size():
    with TiffReader(path=str(DATA / "epfl-hippocampus-6class" / "raw.tif")).open() as volume:
        assert (volume.spec.shape, volume.spec.dtype, volume.spec.voxel_size) == ((20, 768, 1024), "uint8", None)
        values = volume.read(Roi((3, 100, 200), (5, 164, 264)))
    assert values.shape == (1, 2, 64, 64)
    assert 32 <= values.min() < values.max() <= 236


@needs_data
def test_tomogram_crop_states_its_voxel_size_in_imagej_metadata():
    with TiffReader(path=str(DATA / "cryoet-samples" / "13pf_MT.tif")).open() as volume:
        assert volume.spec.shape == (36, 206, 94)
        np.testing.assert_allclose(volume.spec.voxel_size.edges, (1.052,) * 3, rtol=1e-3)


@needs_data
@pytest.mark.parametrize(("labels", "dtype"), [("mitochondria", "uint8"), ("synapses", "uint8"), ("membranes", "bool")])
def test_vnc_labels_of_mixed_depth_are_one_stack(labels, dtype):
    with SlicesReader(path=str(DATA / "drosophila-vnc" / "original_png" / labels)).open() as volume:
        assert (volume.spec.shape, volume.spec.dtype, volume.spec.voxel_size) == ((10, 1024, 1024), dtype, None)
        assert volume.read(Roi((1, 0, 0), (2, 1024, 1024))).any()


@needs_data
def test_vnc_mitochondria_equal_the_stack_made_of_them():
    folder = DATA / "drosophila-vnc"
    box = Roi((0, 0, 0), (10, 1024, 1024))
    slices = SlicesReader(path=str(folder / "original_png" / "mitochondria"))
    stack = TiffReader(path=str(folder / "mito.tif"))
    with slices.open() as drawn, stack.open() as stacked:
        np.testing.assert_array_equal(drawn.read(box) > 127, stacked.read(box) > 0)


@needs_data
@pytest.mark.parametrize(("name", "dtype", "ids"), [("mito_instance", "int16", 39), ("mito_binary", "float32", 1)])
def test_nifti_labels_whose_header_states_an_impossible_voxel_size_are_read_without_one(name, dtype, ids):
    path = DATA / "urocell-labels" / f"fib1-0-0-0_{name}.nii.gz"
    with NiftiReader(path=str(path)).open() as volume:
        assert (volume.spec.shape, volume.spec.dtype, volume.spec.voxel_size) == ((256,) * 3, dtype, None)
        values = volume.read(Roi.whole((256,) * 3))
    assert len(np.unique(values)) == ids + 1
    assert round(float((values > 0).mean()), 4) == 0.0302
