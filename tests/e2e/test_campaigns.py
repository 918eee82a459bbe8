"""The long tests: `make nightly`."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mitocore import Roi
from mitocore import open as open_volume
from mitocore.registry import discover
from mitocore.testing.one_step import example_of

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

PIPELINE = """\
mitocore = 1
[input]
path = "{path}"
kind = "{kind}"

[[step]]
name = "cells"
postprocessor = "connected_components"
min_size = 20

{more}
[output]
path = "{output}.zarr"

[run]
folder = "{output}-run"
block = {block}
"""


def run(folder, name):
    command = [sys.executable, "-m", "mitocore", "-q", "run", f"{name}.toml"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)


def killed_until_done(folder, name, length, chance, most):
    """Run, kill within the `length` seconds of a whole run, and run again, until one ends; how often it was killed."""
    kills = 0
    while True:
        process = run(folder, name)
        try:
            process.wait(chance.uniform(0.2, 1.0) * length if kills < most else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        return kills


def saved(folder, name):
    """All arrays of an output, by name."""
    arrays = {}
    for path in sorted((folder / f"{name}.zarr").iterdir()):
        if path.is_dir():
            with open_volume(f"{folder / name}.zarr::{path.name}") as volume:
                arrays[path.name] = volume.read(Roi.whole(volume.spec.shape))
    return arrays


def test_a_run_killed_at_random_moments_and_resumed_equals_an_uninterrupted_one(tmp_path, blobs):
    np.save(tmp_path / "blobs.npy", blobs((64, 160, 160), 5) > 0.6)
    more = '[[step]]\nname = "whole"\npostprocessor = "fill_holes"\n'
    for name in ("calm", "killed"):
        text = PIPELINE.format(path="blobs.npy", kind="mask", more=more, output=name, block=[16, 32, 32])
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    begin = time.monotonic()
    assert run(tmp_path, "calm").wait() == 0
    length = time.monotonic() - begin
    kills = killed_until_done(tmp_path, "killed", length, random.Random(1), most=25)
    assert kills > 0
    calm, killed = (open_volume(tmp_path / f"{name}.zarr") for name in ("calm", "killed"))
    assert calm.read(Roi.whole(calm.spec.shape)).max() > 10
    np.testing.assert_array_equal(killed.read(Roi.whole(killed.spec.shape)), calm.read(Roi.whole(calm.spec.shape)))


STEP = """\
mitocore = 1
[input]
path = "input.npy"
kind = "{kind}"
voxel_size = 8

[[step]]
name = "it"
postprocessor = "{component}"
inputs = {{ {inputs} }}

[output]
path = "{output}.zarr"

[run]
folder = "{output}-run"
block = [16, 40, 40]
workers = 1
"""


@pytest.mark.parametrize(
    "entry",
    [entry for entry in discover().entries if entry.kind == "postprocessor"],
    ids=lambda entry: entry.qualified,
)
def test_any_step_killed_at_random_moments_and_resumed_equals_an_uninterrupted_one(entry, tmp_path):
    example = example_of(entry.load()(), shape=(48, 120, 120))
    (kind,) = {spec.kind for spec in example.given.values()}  # of the one file that is its input
    channels = np.concatenate(list(example.arrays.values()))
    np.save(tmp_path / "input.npy", channels[0] if len(channels) == 1 else channels)
    one = len(example.arrays) == 1
    assert one or len(channels) == len(example.arrays)
    wires = [f'{name} = "input.image{"" if one else f":{n}"}"' for n, name in enumerate(example.arrays)]
    for name in ("calm", "killed"):
        text = STEP.format(kind=kind, component=entry.qualified, inputs=", ".join(wires), output=name)
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    begin = time.monotonic()
    assert run(tmp_path, "calm").wait() == 0
    kills = killed_until_done(tmp_path, "killed", time.monotonic() - begin, random.Random(entry.name), most=12)
    assert kills > 0
    calm, killed = saved(tmp_path, "calm"), saved(tmp_path, "killed")
    assert calm
    assert calm.keys() == killed.keys()
    for name, values in calm.items():
        np.testing.assert_array_equal(killed[name], values)


def test_the_memory_of_a_run_over_4_gib_is_that_of_a_run_over_1_gib():
    command = [sys.executable, str(BENCHMARKS / "memory.py"), "--gib", "1", "4"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(out)
    small, _ = [float(found) for found in re.findall(r"(\d+) MiB above it", out)]
    assert small < 1024
    (ratio,) = re.findall(r"4 GiB needs ([\d.]+) times as much", out)
    assert float(ratio) < 1.1
