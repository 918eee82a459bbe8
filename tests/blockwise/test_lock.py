import json
import os
import socket
import subprocess
import sys
import time

import pytest

from mitocore import DataError, ResourceError, RunError
from mitocore.blockwise.lock import RunLock

HOLD = """
import sys
from pathlib import Path
from mitocore.blockwise.lock import RunLock
from mitocore.errors import RunError
sys.stdin.readline()
try:
    lock = RunLock(Path(sys.argv[1]), take_over="--take-over" in sys.argv)
except RunError as error:
    print("refused", error.problem, flush=True)
    sys.exit(error.exit_code)
print("held", flush=True)
sys.stdin.readline()
try:
    lock.hold()
except RunError as error:
    print("lost", error.problem, flush=True)
    sys.exit(error.exit_code)
lock.release()
"""


@pytest.fixture
def driver(tmp_path):
    """Starts another driver of the run folder; a line on its standard input takes it one step on."""
    started = []

    def start(*options, wait=True):
        command = [sys.executable, "-c", HOLD, str(tmp_path), *options]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        if wait:
            step(process)
            assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def step(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_second_driver_is_refused_and_told_who_is_at_work(tmp_path, driver):
    other = driver()
    with pytest.raises(RunError, match=rf"in use by process {other.pid} on '.*', seen \d+ s ago") as caught:
        RunLock(tmp_path)
    assert caught.value.exit_code == 8
    assert "--take-over" in caught.value.hint
    step(other)
    assert other.wait(10) == 0
    RunLock(tmp_path).release()


def test_a_killed_driver_of_this_host_is_replaced(tmp_path, driver):
    other = driver()
    other.kill()
    other.wait(10)
    assert (tmp_path / "run.lock").exists()
    with RunLock(tmp_path) as lock:
        lock.hold()
    assert list(tmp_path.iterdir()) == []


def silent(folder, seconds=601):
    """Let the holder's last sign of life be long ago."""
    then = time.time() - seconds
    os.utime(folder / "run.lock", (then, then))


def test_a_living_driver_of_this_host_is_not_taken_over(tmp_path, driver):
    other = driver()
    silent(tmp_path, 500)
    with pytest.raises(RunError, match=rf"process {other.pid} is alive; stop it first") as refused:
        RunLock(tmp_path, take_over=True)
    assert len(str(refused.value).splitlines()) <= 3
    with RunLock(tmp_path / "own"), pytest.raises(RunError, match=f"process {os.getpid()} is alive"):
        RunLock(tmp_path / "own", take_over=True)
    step(other)
    assert other.wait(10) == 0


def test_after_a_take_over_the_old_driver_stops_at_its_next_commit(tmp_path, driver):
    other = driver()
    silent(tmp_path)
    lock = RunLock(tmp_path, take_over=True)
    step(other)
    assert other.stdout.readline().startswith("lost")
    assert other.wait(10) == 8
    lock.hold()
    lock.release()


def test_the_driver_that_was_replaced_does_not_release_the_lock_of_the_other(tmp_path):
    first = RunLock(tmp_path)
    silent(tmp_path)
    second = RunLock(tmp_path, take_over=True)
    with pytest.raises(RunError, match="taken over"):
        first.hold()
    first.release()
    second.hold()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_of_drivers_that_start_together_exactly_one_gets_the_folder(tmp_path, driver):
    processes = [driver(wait=False) for _ in range(4)]
    for process in processes:
        step(process)
    answers = [process.stdout.readline().split()[0] for process in processes]
    assert sorted(answers) == ["held", "refused", "refused", "refused"]


def test_two_locks_of_one_process_exclude_each_other(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(RunError, match=f"process {os.getpid()}"):
        RunLock(tmp_path)
    lock.release()
    lock.release()
    RunLock(tmp_path).release()


def test_an_earlier_process_with_the_number_of_this_one_is_dead(tmp_path):
    with RunLock(tmp_path):
        holder = json.loads((tmp_path / "run.lock").read_text())
    (tmp_path / "run.lock").write_text(json.dumps({**holder, "token": "of another life"}))
    RunLock(tmp_path).release()


RACE = """
import os, sys, time
from pathlib import Path
from mitocore.blockwise.lock import RunLock
from mitocore.errors import RunError
replace = Path.replace
def slowly(*args):
    time.sleep(0.05)  # what was decided is carried out a little later
    return replace(*args)
Path.replace = slowly
for line in sys.stdin:
    try:
        lock = RunLock(Path(line.strip()))
        time.sleep(0.1)
        lock.hold()
        print("held", flush=True)
    except RunError as error:
        print("refused" if "in use" in error.problem else "lost", flush=True)
"""


def test_of_drivers_that_find_a_dead_holder_at_once_one_replaces_it_and_the_others_are_refused(tmp_path):
    command = [sys.executable, "-c", RACE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    drivers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    dead = json.dumps({"host": socket.gethostname(), "process": 2**31 - 1, "token": "x"})
    try:
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "run.lock").write_text(dead)
            for driver in drivers:
                driver.stdin.write(f"{folder}\n")
                driver.stdin.flush()
            answers = sorted(driver.stdout.readline().strip() for driver in drivers)
            assert answers == ["held", "refused", "refused"]
    finally:
        for driver in drivers:
            driver.kill()
            driver.communicate()


HERE = socket.gethostname()
STRANGE = [
    '{"process": "abc", "host": "%s", "token": "x"}',
    '{"process": 99999999999999, "host": "%s", "token": "x"}',
    '{"process": -1, "host": "%s", "token": "x"}',
    '{"process": 1, "host": "%s", "token": ["x"]}',
]


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", *(text % HERE for text in STRANGE)])
def test_a_lock_that_names_no_holder_is_not_replaced_without_take_over(tmp_path, text):
    (tmp_path / "run.lock").write_text(text)
    with pytest.raises(RunError, match=r"in use by a process that run\.lock does not name") as refused:
        RunLock(tmp_path)
    assert "--take-over" in refused.value.hint
    RunLock(tmp_path, take_over=True).release()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_on_another_host_is_not_replaced_without_take_over(tmp_path):
    (tmp_path / "run.lock").write_text('{"host": "elsewhere", "process": 1, "token": "x"}')
    with pytest.raises(RunError, match="in use by process 1 on 'elsewhere'"):
        RunLock(tmp_path)
    RunLock(tmp_path, take_over=True).release()


def test_the_heartbeat_is_the_time_of_the_file(tmp_path):
    with RunLock(tmp_path) as lock:
        os.utime(tmp_path / "run.lock", (0, 0))
        lock.hold()
        assert (tmp_path / "run.lock").stat().st_mtime > time.time() - 60


def test_a_run_folder_is_created_and_a_file_in_its_place_reported(tmp_path):
    with RunLock(tmp_path / "runs" / "first"):
        assert (tmp_path / "runs" / "first" / "run.lock").exists()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file' cannot be a run folder: File exists"):
        RunLock(tmp_path / "file")


def test_a_lock_that_the_disk_did_not_take_keeps_nobody_out(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"run.lock' cannot be written: No space left"):
        RunLock(tmp_path)
    monkeypatch.undo()
    RunLock(tmp_path).release()
