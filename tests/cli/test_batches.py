"""Many volumes with one command, shares of them, and the folders they leave."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

PATIENCE = 60.0


@pytest.fixture
def many(work):
    """The current folder, with raw/a.npy, raw/b.npy, raw/c.npy of different sizes and batch.toml."""
    (work / "raw").mkdir()
    probability = np.load("prob.npy")
    for number, name in enumerate("abc"):
        np.save(f"raw/{name}.npy", probability[: 24 - 6 * number])
    text = (work / "seg.toml").read_text()
    text = text.replace('"prob.npy"', '"raw/*.npy"').replace('"out.zarr"', '"out/{stem}.npy"')
    (work / "batch.toml").write_text(text)
    return work


def program(*arguments, **options):
    command = [sys.executable, "-m", "mitocore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_a_pattern_in_the_file_is_a_batch_with_a_table_and_a_csv(many, succeeds):
    printed = succeeds("run", "batch.toml").splitlines()
    assert printed[0].split("  ")[0] == "input"
    assert [line.split()[:2] for line in printed[1:4]] == [[f"raw/{name}.npy", "done"] for name in "abc"]
    assert "runs/batch/summary.csv" in printed[4]
    with (many / "runs/batch/summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["objects in cells.instances"]) for row in rows] == [np.load(row["output"]).max() for row in rows]
    assert "cells: 4 objects" in (many / "runs/batch/a/run.log").read_text()


def test_inputs_of_the_command_replace_those_of_the_file(many, succeeds, refused):
    printed = succeeds("run", "batch.toml", "raw/b.npy", "raw/c.npy")
    assert "raw/a.npy" not in printed
    assert "raw/b.npy" in printed
    assert "2 inputs cannot share one output" in refused(3, "run", "seg.toml", "raw/b.npy", "raw/c.npy")
    assert "18 x 40 x 40" in succeeds("run", "seg.toml", "raw/b.npy")


def test_an_input_that_fails_is_told_and_counted_but_does_not_stop_the_others(many, mitocore):
    (many / "raw/b.npy").write_bytes(b"nothing")
    done = program("run", "batch.toml")
    assert done.returncode == 8
    assert [line.split()[1] for line in done.stdout.splitlines()[1:4]] == ["done", "failed", "done"]
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "b.npy" in told
    assert "input 3 of 3: raw/c.npy" in done.stderr
    assert "c · cells: label" in done.stderr
    assert "Traceback" not in done.stderr
    quiet = mitocore("-q", "run", "batch.toml")
    assert (quiet.exit_code, quiet.stdout.count("kept")) == (8, 2)
    assert len(quiet.stderr.splitlines()) <= 3


def test_shares_of_a_batch_may_run_at_the_same_time(many, succeeds):
    command = [sys.executable, "-m", "mitocore", "-q", "run", "batch.toml", "--part"]
    parts = [subprocess.Popen([*command, f"{n}/2"], stdout=subprocess.PIPE, text=True) for n in (1, 2)]
    printed = [part.communicate(timeout=PATIENCE)[0] for part in parts]
    assert [part.returncode for part in parts] == [0, 0]
    assert ["raw/a.npy" in text for text in printed] == [True, False]
    assert {path.name for path in (many / "runs/batch").glob("*.csv")} == {"summary.1-of-2.csv", "summary.2-of-2.csv"}
    assert succeeds("run", "batch.toml").count("kept") == 3


def test_a_batch_is_told_to_machines(many, succeeds):
    told = json.loads(succeeds("run", "batch.toml", "--json"))
    assert [row["exit_code"] for row in told["inputs"]] == [0, 0, 0]
    assert told["inputs"][0]["objects in cells.instances"] == 4


def test_a_batch_is_checked_without_running(many, succeeds, refused):
    plan = succeeds("validate", "batch.toml")
    assert plan == succeeds("run", "batch.toml", "--dry-run")
    assert "cells.instances" in plan
    assert "raw/b.npy  image float32 18 x 40 x 40" in plan
    assert "planned without data" in succeeds("validate", "batch.toml", "--no-data")
    assert not (many / "runs").exists()
    for path in ('["none.npy", "b.npy"]', '"none/*.npy"'):
        assert "planned without data" in succeeds("validate", "batch.toml", "--no-data", "--set", f"input.path={path}")
    np.save("raw/c.npy", np.array([["x"]]))
    text = refused(3, "validate", "batch.toml", "--set", "cells.min_sice=3")
    assert text.count("did you mean 'min_size'?") == 1


def test_every_input_of_a_batch_is_checked_and_those_that_are_refused_are_told(many, mitocore):
    np.save("raw/a.npy", np.array([["x"]]))
    (many / "raw/c.npy").write_bytes(b"nothing")
    for command in (["validate", "batch.toml"], ["run", "batch.toml", "--dry-run"]):
        result = mitocore(*command)
        assert result.exit_code == 5
        assert result.stderr.count("error: ") == 2
        rows = result.stdout.splitlines()[-3:]
        assert [line.split()[:2] for line in rows] == [
            ["raw/a.npy", "refused"], ["raw/b.npy", "image"], ["raw/c.npy", "refused"]
        ]  # fmt: skip
    assert not (many / "runs").exists()


def test_a_folder_of_volumes_is_a_batch(many, succeeds):
    printed = succeeds("run", "batch.toml", "raw")
    assert [line.split()[:2] for line in printed.splitlines()[1:4]] == [[f"raw/{name}.npy", "done"] for name in "abc"]


def test_a_run_that_was_finished_earlier_says_so(work, succeeds):
    assert "nothing to compute" not in succeeds("run", "seg.toml")
    assert "finished earlier; nothing to compute" in succeeds("run", "seg.toml")
    assert json.loads(succeeds("run", "seg.toml", "--json"))["status"] == "kept"
    told = json.loads(succeeds("run", "seg.toml", "--json", "--fresh"))
    assert told["status"] == "done"
    printed = succeeds("run", "seg.toml", "--set", "output.path=x_{name}.npy", "--resume")
    assert printed.splitlines()[0].endswith("x_cells.instances.npy")


def test_ctrl_c_ends_the_whole_batch_and_the_same_command_goes_on(many):
    for name, depth in {"a": 24, "b": 4, "c": 4}.items():
        np.save(f"raw/{name}.npy", np.random.default_rng(3).random((depth, 32, 32), "f4"))
    settings = ("--set", "run.block=[4, 8, 8]", "--set", "threshold.threshold=0.9")
    command = [sys.executable, "-m", "mitocore", "run", "batch.toml", *settings]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begun = time.monotonic()
    while not any(path.stat().st_size for path in (many / "runs/batch/a").glob("state/*.label.*.journal")):
        assert running.poll() is None
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    printed, said = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, said
    assert said.splitlines()[-1].startswith("interrupted; what is finished is kept")
    assert (printed, "Traceback" in said) == ("", False)
    assert not (many / "runs/batch/b").exists()
    done = program("run", "batch.toml", *settings)
    assert (done.returncode, done.stdout.count("done")) == (0, 3), done.stdout + done.stderr


def test_a_part_of_a_volume_is_run(work, succeeds):
    assert "6 x 40 x 20" in succeeds("run", "seg.toml", "--roi", "4:10,:,20:40")


def test_a_run_stops_after_a_step_and_saves_what_is_asked_for(work, succeeds):
    printed = succeeds("run", "seg.toml", "--until", "threshold")
    assert "nothing to save of what is done until 'threshold'" in printed
    assert "out.zarr" not in printed
    assert "cells.instances" in succeeds("run", "seg.toml")
    saved = ("--set", "output.path=mask.zarr", "--set", "run.folder=mask")
    printed = succeeds("run", "seg.toml", *saved, "--until", "threshold", "--save", "threshold.mask")
    assert "threshold.mask  mask" in printed
    assert "cells" not in printed
    saved = ("--set", "output.path=more.zarr", "--set", "run.folder=more")
    printed = succeeds("run", "seg.toml", *saved, "--save", "threshold.mask", "--save", "cells.instances")
    assert "threshold.mask" in printed
    assert "cells.instances" in printed
    saved = ("--set", "output.path=all.zarr", "--set", "run.folder=all")
    assert "threshold.mask" in succeeds("run", "seg.toml", *saved, "--save", "all")


def test_run_folders_are_cleaned_and_stay_finished(many, succeeds, refused):
    succeeds("run", "batch.toml", "--set", "run.keep=all")
    held = sum(path.stat().st_size for path in (many / "runs").rglob("*.npy"))
    assert held > 0
    printed = succeeds("clean", "runs/batch/a", "runs/batch/b", "runs/batch/c")
    assert printed.count("freed") == 3
    assert not list((many / "runs").rglob("scratch/*/*.npy"))
    assert succeeds("run", "batch.toml", "--set", "run.keep=all").count("kept") == 3
    assert "is not a run folder" in refused(5, "clean", "raw")


def test_a_run_folder_in_use_is_not_cleaned(work, succeeds, refused):
    from mitocore.blockwise.lock import RunLock

    succeeds("run", "seg.toml")
    with RunLock(work / "runs/seg"):
        assert "in use" in refused(8, "clean", "runs/seg")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_stored_prediction_is_segmented_without_a_network(channels, work, succeeds):
    pytest.importorskip("mitocore_io")
    probability = np.load("prob.npy")
    first = np.stack([probability, 1 - probability])[:channels]
    np.save("heads.npy", first)
    (work / "store.toml").write_text(
        'mitocore = 1\n[input]\npath = "heads.npy"\nkind = "probability"\nvoxel_size = 8\n'
        '[[step]]\npostprocessor = "median"\nname = "net"\nsize = [1, 1, 1]\n[output]\npath = "heads.zarr"\n'
    )
    succeeds("run", "store.toml")
    wired = 'inputs = { probability = "input.image:0" }\n' if channels == 2 else ""
    (work / "post.toml").write_text(
        'mitocore = 1\n[input]\npath = "heads.zarr::net.values"\nkind = "probability"\n'
        f'[[step]]\npostprocessor = "threshold"\n{wired}'
        '[[step]]\nname = "cells"\npostprocessor = "connected_components"\n[output]\npath = "cells.npy"\n'
    )
    program = (
        "import sys\nfrom mitocore.cli.main import app\nsys.argv = ['mitocore', '-q', 'run', 'post.toml']\n"
        "try:\n    app()\nexcept SystemExit as end:\n    sys.exit(end.code or int('torch' in sys.modules) * 99)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "4 objects" in done.stdout
    np.testing.assert_array_equal(np.load("cells.npy") > 0, np.load("truth.npy") > 0)
