"""Pipelines of tiny components over small volumes, through the library."""

import sys
from importlib.metadata import distributions, entry_points
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mitocore.registry import API_GROUP, discover

FIXTURES = Path(__file__).parents[1] / "fixtures"
sys.path.insert(0, str(FIXTURES / "modules"))  # not FIXTURES: the plugin is not installed for the other tests

SHAPE = (12, 40, 40)


def smooth(shape, seed, sigma=1.6):
    """Blobs: a smoothed noise stretched over 0 … 1."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((values - values.min()) / np.ptp(values)).astype("f4")


@pytest.fixture(scope="session")
def registry():
    """The installed plugins and the one of the tests."""
    declared = next(iter(distributions(path=[str(FIXTURES)]))).entry_points
    fake = [point for point in declared if point.name == "fake"]
    return discover([*entry_points(group=API_GROUP), *fake])


@pytest.fixture(scope="session")
def blobs():
    """Draws a probability (z, y, x), float32."""
    return smooth


@pytest.fixture
def image(tmp_path):
    """A small image file with blobs."""
    path = tmp_path / "raw.npy"
    np.save(path, (255 * smooth(SHAPE, 1)).astype("u1"))
    return path


@pytest.fixture(scope="session")
def trained(registry, tmp_path_factory):
    """Saves weights of a model of the test plugin: `trained("tinynet", gain=24)`."""
    from mitocore.header import WeightsHeader
    from mitocore.learn.checkpoint import save_weights

    def save(name="tinynet", normalizer=None, voxel_size=None, **options):
        model = registry.find("model", f"fake/{name}").load()(**options)
        header = WeightsHeader(
            component=f"fake/{name}",
            options=model.model_dump(),
            channels=model.channels(),
            heads=model.heads(),
            window=model.window(),
            voxel_size=voxel_size,
            normalizer=normalizer or {"normalizer": "builtin/minmax"},
        )
        path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        save_weights(path, model.build().state_dict(), header)
        return path

    return save
