"""The long tests: `make nightly`."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mitocore import Roi, VolumeSpec
from mitocore import open as open_volume
from mitocore_io.zarr_writer import ZarrWriter

pytestmark = pytest.mark.slow

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


def run(folder, name, **limits):
    command = [sys.executable, "-m", "mitocore", "-q", "run", f"{name}.toml"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, **limits)


def test_a_run_killed_at_random_moments_and_resumed_equals_an_uninterrupted_one(tmp_path, blobs):
    np.save(tmp_path / "blobs.npy", blobs((64, 160, 160), 5) > 0.6)
    more = '[[step]]\nname = "whole"\npostprocessor = "fill_holes"\n'
    for name in ("calm", "killed"):
        text = PIPELINE.format(path="blobs.npy", kind="mask", more=more, output=name, block=[16, 32, 32])
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    begin = time.monotonic()
    assert run(tmp_path, "calm").wait() == 0
    length = time.monotonic() - begin
    chance, kills = random.Random(1), 0
    while True:
        process = run(tmp_path, "killed")
        try:
            process.wait(chance.uniform(0.2, 1.0) * length if kills < 25 else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        break
    assert kills > 0
    calm, killed = (open_volume(tmp_path / f"{name}.zarr") for name in ("calm", "killed"))
    assert calm.read(Roi.whole(calm.spec.shape)).max() > 10
    np.testing.assert_array_equal(killed.read(Roi.whole(killed.spec.shape)), calm.read(Roi.whole(calm.spec.shape)))


def peak(folder, depth):
    """Peak resident MiB of connected components over a mask of `depth` planes of 4 Mvoxel, mostly empty."""
    rng, name = np.random.default_rng(0), f"depth{depth}"
    with ZarrWriter(path=str(folder / f"{name}-mask.zarr"), levels=1).create(
        "m", VolumeSpec((depth, 2048, 2048), "uint8")
    ) as mask:
        box = Roi((0, 0, 0), (64, 256, 2048))  # equally many objects, whatever the depth: tables grow with them
        mask.write(box, (rng.random((1, *box.shape)) < 0.02).astype("u1"))
        mask.finish()
    text = PIPELINE.format(path=f"{name}-mask.zarr", kind="mask", more="", output=name, block=[128, 512, 512])
    (folder / f"{name}.toml").write_text(text, "utf-8")
    process = run(folder, name)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


def test_the_memory_of_a_run_over_4_gib_is_that_of_a_run_over_1_gib(tmp_path):
    small, large = peak(tmp_path, 256), peak(tmp_path, 1024)
    print(f"1 GiB: {small:.0f} MiB, 4 GiB: {large:.0f} MiB")
    assert large < 1.2 * small
