"""How a check says what it saw, and what it compares arrays with."""

import gc
import random
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import ConfigError, DataError, MitocoreError

T = TypeVar("T")
Check = Callable[..., None]
"""Returns if the component keeps its promise."""


class CheckFailed(AssertionError):  # noqa: N818 - says what happened, as AssertionError does not
    """A component breaks a promise of its kind: what was seen, and what its author should change."""

    def __init__(self, seen: str, change: str) -> None:
        super().__init__(f"{seen}\n  change: {change}")
        self.seen, self.change = seen, change


class NotChecked(Exception):  # noqa: N818 - nothing is wrong
    """A check cannot say anything here, and why: it needs a file, an example or an importable class."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found in one component."""

    check: str
    passed: bool | None
    """None: the check needs what only a test of the plugin supplies."""
    message: str = ""
    """What was seen and what to change; what the check needs; empty if it passed."""


def require(holds: object, seen: str, change: str) -> None:
    """Fail the check unless `holds`.

    Raises
    ------
    CheckFailed
        If not.
    """
    __tracebackhide__ = True
    if not holds:
        raise CheckFailed(seen, change)


def require_equal(found: NDArray[Any], expected: NDArray[Any], what: str, change: str) -> None:
    """Fail the check unless two arrays are equal bit for bit, dtype included; NaN equals NaN.

    Raises
    ------
    CheckFailed
        Names the first voxel that differs.
    """
    __tracebackhide__ = True
    require(found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}", change)
    require(found.dtype == expected.dtype, f"{what}: {found.dtype}, not {expected.dtype}", change)
    differs = found != expected
    if found.dtype.kind == "f":
        differs &= ~(np.isnan(found) & np.isnan(expected))
    if differs.any():
        place = tuple(int(axis[0]) for axis in np.nonzero(differs))
        seen = f"{np.count_nonzero(differs)} of {differs.size} values differ, the first at {place}"
        raise CheckFailed(f"{what}: {seen}: {found[place]} instead of {expected[place]}", change)


@contextmanager
def refused(what: str, change: str, error: type[Exception] = DataError) -> Iterator[list[str]]:
    """Fail the check unless the body raises `error`, in three lines at most; its text is what is yielded."""
    __tracebackhide__ = True
    text: list[str] = []
    try:
        yield text
    except error as raised:
        text.append(str(raised))
        require(len(text[0].splitlines()) <= 3, f"{what} gives a message of {len(text[0].splitlines())} lines", change)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError, LookupError) as e:
        raise CheckFailed(f"{what} raises {type(e).__name__}: {e}", change) from e
    else:
        raise CheckFailed(f"{what} is accepted", change)


@contextmanager
def config_error_allowed(what: str) -> Iterator[None]:
    """Fail the check if the body raises anything but a ConfigError of three lines at most."""
    __tracebackhide__ = True
    change = "choose what needs no voxel size, or raise mitocore.ConfigError that says which option needs it"
    try:
        yield
    except ConfigError as error:
        require(len(str(error).splitlines()) <= 3, f"{what} gives a long message: {error}", change)
    except (
        MitocoreError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
        LookupError,
    ) as e:
        raise CheckFailed(f"{what} raises {type(e).__name__}: {e}", change) from e


class _TooLong(BaseException):
    """Passes through whatever a component catches."""


def _may_hold_a_lock(frame: FrameType) -> bool:
    """Whether code that is not to be torn apart is at work: an exception in its middle could leave a lock closed."""
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package in sys.stdlib_module_names or package == "coverage"


@contextmanager
def limited(seconds: float, what: str, change: str) -> Iterator[None]:
    """Fail the check if the body does not end in time; where a signal cannot tell, it is not limited."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(_number: int, frame: FrameType | None) -> None:
        if frame is not None and _may_hold_a_lock(frame):
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        else:
            raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TooLong:
        raise CheckFailed(f"{what} does not end within {seconds:g} s", change) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def peak(call: Callable[[], object]) -> int:
    """Bytes that a call takes at most, as far as Python and NumPy know of them."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def hasty_threads() -> Iterator[None]:
    """Inside, threads take turns a thousand times as often as usual: those that disturb each other do so soon."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What calls give that begin at the same moment, each in a thread of its own."""
    gate = threading.Barrier(len(calls))

    def begun(call: Callable[[], T]) -> T:
        gate.wait()
        return call()

    with hasty_threads(), ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begun, calls))


@contextmanager
def unmodified(arrays: Mapping[str, NDArray[Any]], what: str) -> Iterator[None]:
    """Fail the check if the body changes one of the arrays."""
    before = {name: array.copy() for name, array in arrays.items()}
    yield
    for name, array in arrays.items():
        change = "work on a copy: arrays that are given belong to others too"
        require_equal(array, before[name], f"{name!r} after {what}", change)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Fail the check if the body draws from the random numbers of the whole program."""
    numpy_state, state = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002 - what is looked at
    yield
    after = np.random.get_state(legacy=False)  # noqa: NPY002 - as above
    same = repr(after) == repr(numpy_state) and random.getstate() == state
    change = "draw from the `rng` that is given, or from np.random.default_rng(seed) of your own"
    require(same, "it draws from the global random numbers of numpy or python", change)
