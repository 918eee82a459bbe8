"""What the plugin declares."""

import subprocess
import sys

import pytest

from mitocore_io import plugin


class Declared(list):
    def add(self, kind, name, target, summary="", *, suffixes=()):
        self.append((kind, name, target, summary, suffixes))

    def of(self, kind, path):
        fits = [(len(s), name) for k, name, _, _, suffixes in self if k == kind for s in suffixes if path.endswith(s)]
        return max(fits)[1]


@pytest.fixture
def declared():
    found = Declared()
    plugin.mitocore_register(found)
    return found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("em.zarr", "zarr"),
        ("em.ome.zarr", "zarr"),
        ("em.zarr/", "zarr"),
        ("em.h5", "hdf5"),
        ("chunks/*.h5", "chunks"),
        ("em.ome.tif", "tiff"),
        ("em.btf", "tiff"),
        ("slices/", "slices"),
        ("slices/*.png", "slices"),
        ("slices/*.tif", "slices"),
        ("slices/*.jpg", "slices"),
        ("one.jpeg", "slices"),
        ("em.nii", "nifti"),
        ("em.nii.gz", "nifti"),
        ("im_train.json", "tiles"),
        ("https://example.org/em.zarr", "zarr"),
        ("s3://bucket/em.ome.zarr/", "zarr"),
    ],
)
def test_a_path_finds_its_reader(path, name, declared):
    assert declared.of("reader", path) == name


def test_every_component_loads_and_says_what_it_is(declared):
    for kind, name, target, summary, _ in declared:
        module, _, attribute = target.partition(":")
        component = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert component.kind == kind
        assert component.__doc__
        assert summary
        assert all(field.description for field in component.model_fields.values()), name


def test_declaring_imports_no_format_library():
    heavy = "{'zarr', 'h5py', 'tifffile', 'imagecodecs', 'nibabel', 'fsspec', 'numpy', 'torch'}"
    code = f"import sys, mitocore_io.plugin; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
