"""Small volumes, a pipeline over them, and the command line in this process."""

import numpy as np
import pytest
from typer.testing import CliRunner

PIPELINE = """\
mitocore = 1

[input]
path = "prob.npy"
kind = "probability"
voxel_size = 8

[[step]]
postprocessor = "threshold"

[[step]]
postprocessor = "connected_components"
name = "cells"
min_size = 20

[output]
path = "out.zarr"

[run]
block = [16, 16, 16]
workers = 0
"""

TRAINING = """\
mitocore = 1

[model]
model = "rsunet"
preset = "anisotropic"
widths = [4, 4, 6, 8]

[normalizer]
normalizer = "percentile"

[[volume]]
path = "raw.npy"
labels = "truth.npy"
split = { validation = "z:0.7-1.0", gap = 0 }

[[objective]]
head = "foreground"
target = "foreground"
loss = "dice_ce"

[train]
steps = 2
crop = [8, 16, 16]
batch = 1
devices = "cpu"
pictures = false
"""


def balls(shape, objects):
    """Probability that falls with the distance from each centre, and the labels of the balls where it is above 0.5."""
    probability, labels = np.zeros(shape, "f4"), np.zeros(shape, "u4")
    places = np.indices(shape)
    for number, (*centre, radius) in enumerate(objects, start=1):
        apart = np.sqrt(np.square(places - np.reshape(centre, (3, 1, 1, 1))).sum(axis=0))
        labels[apart < radius] = number
        probability = np.maximum(probability, np.clip(1 - apart / radius / 2, 0, 1).astype("f4"))
    return probability, labels


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current folder, with prob.npy, truth.npy (4 objects), raw.npy and seg.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MITOCORE_HOME", str(tmp_path / "home"))
    probability, labels = balls((24, 40, 40), [(6, 10, 10, 4), (12, 28, 12, 6), (16, 14, 30, 7), (8, 30, 32, 3)])
    np.save("prob.npy", probability)
    np.save("truth.npy", labels)
    np.save("raw.npy", (200 - 120 * probability).astype("u1"))
    (tmp_path / "seg.toml").write_text(PIPELINE)
    (tmp_path / "train.toml").write_text(TRAINING)
    return tmp_path


@pytest.fixture
def mitocore():
    """Runs a command in this process; the result has `exit_code`, `stdout` and `stderr`."""
    from mitocore.cli.main import app

    def call(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def succeeds(mitocore):
    """Runs a command that must succeed; gives what it printed on stdout."""

    def call(*arguments):
        result = mitocore(*arguments)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return call


@pytest.fixture
def refused(mitocore):
    """Runs a command that must be refused with an exit code, in three lines at most; gives the text."""

    def call(code, *arguments):
        result = mitocore(*arguments)
        text = result.stderr
        assert result.exit_code == code, text
        assert result.stdout == ""
        lines = [line for line in text.splitlines() if not line.startswith("note")]
        assert 1 <= len(lines) <= 3, text
        assert lines[0].startswith("error: ")
        assert "Traceback" not in text
        return text

    return call


@pytest.fixture
def weights_of():
    """Writes a weights file whose header names a model and its options, without tensors unless they are given."""
    from safetensors.numpy import save_file

    from mitocore.config.components import build
    from mitocore.header import WeightsHeader
    from mitocore.volumes import installed

    def write(path, model="rsunet", header=None, tensors=None, **options):
        component, entry = build("model", {"model": model, **options}, installed())
        found = WeightsHeader(
            component=entry.qualified,
            options=component.model_dump(mode="json"),
            channels=component.channels(),
            heads=component.heads(),
            window=component.window(),
            normalizer={"normalizer": "builtin/percentile"},
            scores={"validation.foreground.iou": 0.5},
        ).model_copy(update=header or {})
        save_file(tensors or {"nothing": np.zeros(1, "f4")}, path, {"mitocore": found.model_dump_json()})
        return path

    return write


@pytest.fixture(scope="session")
def tensors():
    """Of an untrained network of the model rsunet, widths = [4, 4, 6]."""
    torch = pytest.importorskip("torch")
    from mitocore_rsunet.models import RSUNet

    torch.manual_seed(0)
    return {name: tensor.numpy() for name, tensor in RSUNet(widths=(4, 4, 6)).build().state_dict().items()}


@pytest.fixture
def network(work, weights_of, tensors):
    """The current folder, with net.safetensors that recommends objects, and a volume more: small.npy."""
    from mitocore.specs import Window

    steps = ({"postprocessor": "connected_components", "name": "mito"},)
    header = {"pipeline": steps, "thresholds": {"foreground": 0.45}, "window": Window((8, 16, 16), divisor=(1, 4, 4))}
    weights_of(work / "net.safetensors", header=header, tensors=tensors, widths=[4, 4, 6])
    np.save("small.npy", np.load("raw.npy")[:12])
    return work
