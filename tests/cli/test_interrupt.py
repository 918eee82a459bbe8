"""Ctrl-C: what runs is finished, nothing is lost, and the same command gives what an uninterrupted run gives."""

import signal
import subprocess
import sys
import time

import numpy as np

from mitocore.cli.render import stoppable

PIPELINE = """\
mitocore = 1

[input]
path = "prob.npy"
kind = "probability"

[[step]]
postprocessor = "connected_components"
threshold = 0.9

[output]
path = "out.npy"

[run]
block = [4, 4, 8]
workers = 0
"""
PATIENCE = 60.0


def test_an_interrupted_run_exits_with_130_and_goes_on_to_the_same_output(tmp_path):
    np.save(tmp_path / "prob.npy", np.random.default_rng(3).random((24, 32, 32), "f4"))
    (tmp_path / "seg.toml").write_text(PIPELINE)
    command = [sys.executable, "-m", "mitocore", "run", "seg.toml"]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    state, begun = tmp_path / "runs/seg/state", time.monotonic()
    while not any(path.stat().st_size for path in state.glob("*.label.*.journal")):
        assert running.poll() is None
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, said
    assert said.splitlines()[-1].startswith("interrupted; what is finished is kept")
    assert "Traceback" not in said
    assert not (tmp_path / "out.npy").exists()

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fresh = [*command, "--set", "run.folder=fresh", "--set", "output.path=fresh.npy"]
    subprocess.run(fresh, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "fresh.npy").read_bytes()


def test_signals_are_given_back_to_whoever_had_them():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable("interrupted") as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
