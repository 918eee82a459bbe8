"""Other processes: one that imports components, to see what that brings along and whether digests are the same there;
and those that write some voxels and die."""

import atexit
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from mitocore.geometry import Roi
from mitocore.interfaces import Writer
from mitocore.specs import VolumeSpec
from mitocore.testing.checking import CheckFailed

HEAVY = ("torch", "lightning", "monai", "tensorboard")
"""What importing a component must leave alone."""

_PROGRAM = """
import importlib, json, sys
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    sys.path[:], module, name, options, planned, heavy = json.loads(line)
    digest, trouble, before = "", "", set(sys.modules)
    try:
        found = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
        if name:
            component = found.model_validate_json(options)
            digest = component.digest()
            for method in planned:
                getattr(component, method)()
        loaded = sorted(set(heavy) & (set(sys.modules) - before))
    except BaseException as error:
        loaded, trouble = [], f"{type(error).__name__}: {error}"
    print(json.dumps([digest, loaded, trouble]), file=answers, flush=True)
    if loaded:
        break
"""


_DYING = """
import os, pickle, sys
given = sys.stdin.buffer
sys.path[:] = pickle.load(given)
writer, name, spec, boxes = pickle.load(given)
volume = writer.open(name) if spec is None else writer.create(name, spec)
for box, values in boxes:
    volume.write(box, values)
os._exit(0)
"""


def written_by_the_dead(
    writer: Writer, name: str, spec: VolumeSpec | None, boxes: Sequence[tuple[Roi, NDArray[Any]]]
) -> None:
    """Write boxes of an array in a process that then ends as a killed one does: nothing is closed or flushed.

    `spec` None: the array exists, and is opened there.

    Raises
    ------
    CheckFailed
        If it cannot be written there.
    """
    given = pickle.dumps(sys.path) + pickle.dumps((writer, name, spec, boxes))
    done = subprocess.run([sys.executable, "-c", _DYING], input=given, capture_output=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        change = "let `create` and `open` work in any process, from the options alone"
        raise CheckFailed(f"in a new process: {said[-1] if said else 'it died'}", change)


def digest_elsewhere(module: str, name: str, options: str) -> str:
    """The digest of a component of this JSON in another process.

    Raises
    ------
    CheckFailed
        If it cannot be made there.
    """
    return str(_asked(module, name, options)[0])


@lru_cache(maxsize=256)
def heavy_imports(module: str) -> tuple[str, ...]:
    """The heavy libraries that importing `module` in another process imports too.

    Raises
    ------
    CheckFailed
        If it cannot be imported there.
    """
    return tuple(_asked(module, "", "")[1])


def heavy_plan(module: str, name: str, options: str) -> tuple[str, ...]:
    """The heavy libraries that asking a model for channels, window and heads imports in another process.

    Raises
    ------
    CheckFailed
        If it cannot be asked there.
    """
    return tuple(_asked(module, name, options, ("channels", "window", "heads"))[1])


def _asked(module: str, name: str, options: str, planned: Sequence[str] = ()) -> list[Any]:
    process = _process()
    if process.stdin is None or process.stdout is None:
        raise CheckFailed("the other process has no pipes", "start python with standard input and output")
    process.stdin.write(json.dumps([sys.path, module, name, options, planned, HEAVY]) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line or json.loads(line)[1]:
        _close()  # it died, or holds what would hide the next import
    digest, heavy, trouble = json.loads(line or '["", [], "the process died"]')
    if trouble:
        change = "make the module importable by its name, without anything that only the tests set up"
        raise CheckFailed(f"in a new process: {trouble}", change)
    return [digest, heavy]


@lru_cache(maxsize=1)
def _process() -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _PROGRAM]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 - ours
    atexit.register(_close)
    return process


def _close() -> None:
    if _process.cache_info().currsize:
        process = _process()
        _process.cache_clear()
        process.communicate()
