"""Where networks run, and what makes two trainings equal."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from mitocore.errors import ResourceError

_AMPERE = 8  # compute capability of the first GPUs of NVIDIA with bf16


def chosen(stated: str) -> str:
    """The device that `devices = "auto" | "cpu" | "cuda" | "cuda:1"` means on this machine.

    >>> chosen("cpu")
    'cpu'

    Raises
    ------
    ResourceError
        If this machine does not have it.
    """
    count = torch.cuda.device_count()
    have = ["cpu", *(f"cuda:{n}" for n in range(count))]
    if stated == "auto":
        return have[1] if count else "cpu"
    named = "cuda:0" if stated == "cuda" else stated
    if named not in have:
        raise ResourceError(f"there is no device {stated!r}", hint=f"this machine has {', '.join(have)}")
    return named


def several(stated: str) -> tuple[str, ...]:
    """The devices that train together: `"cuda:0,1"`, `"2"` for the first two GPUs, `"cpu:2"`; else the one of `chosen`.

    >>> several("cpu:2"), several("cpu")
    (('cpu', 'cpu'), ('cpu',))

    Raises
    ------
    ResourceError
        If this machine does not have one of them.
    """
    kind, _, which = stated.rpartition(":")
    if kind == "cpu":
        return ("cpu",) * int(which)
    if kind == "cuda":
        return tuple(chosen(f"cuda:{number}") for number in which.split(","))
    return tuple(chosen(f"cuda:{number}") for number in range(int(which))) if which.isdigit() else (chosen(stated),)


def check_arithmetic(precision: str, device: str, *, compiled: bool) -> None:
    """Refuse what a device cannot compute, before anything is read.

    Raises
    ------
    ResourceError
        If it has no float16, or nothing that compiles for it works.
    """
    if precision == "float16" and device == "cpu":
        raise ResourceError("precision = 'float16' is for GPUs", where="[train]", hint='precision = "bf16"')
    if not compiled:
        return
    try:
        torch.compile(lambda values: values * 2 + 1)(torch.zeros(8, device=device))
    except (RuntimeError, OSError, ImportError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = f"torch cannot compile for {device} here: {reason[:120]}"
        raise ResourceError(
            problem, where="[train] compile", hint="compile = false, or install a C++ compiler"
        ) from error


def native_bf16(device: str) -> bool:
    """Whether a device computes in bf16, instead of emulating it; an older torch may not know it of a CPU.

    On a CPU these are AMX and AVX512-BF16; on a GPU, Ampere and later.
    """
    if device != "cpu":
        return torch.cuda.get_device_properties(device).major >= _AMPERE or torch.version.hip is not None
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("amx_tile", "avx512_bf16"))


@contextmanager
def memory_reused(device: str) -> Iterator[None]:
    """Give large temporaries of a CPU the memory of the ones before; else the kernel maps and zeroes pages for each.

    Of glibc, see mallopt(3); elsewhere nothing changes. On the network of the demo a forward pass takes two thirds of
    the time. What is free is given back to the system at the end.
    """
    if device != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    for setting, value in _REUSED.items():
        libc.mallopt(setting, value)
    try:
        yield
    finally:
        for setting, value in _RELEASED.items():
            libc.mallopt(setting, value)
        libc.malloc_trim(0)


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of malloc.h
_REUSED = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
_RELEASED = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 128 * 2**10, _TOP_PAD: 128 * 2**10}  # what glibc begins with


def seed(*counters: int) -> None:
    """Seed torch from counters, such as (seed, sample number): nobody has to save the state of a generator."""
    torch.manual_seed(int(np.random.SeedSequence(counters).generate_state(1, np.uint64)[0]) >> 1)


@contextmanager
def isolated(device: str) -> Iterator[None]:
    """Leave the generators of the caller as they were, and choose kernels by their result, not by their speed."""
    backend = torch.backends.cudnn
    before = backend.benchmark, backend.deterministic
    with torch.random.fork_rng([device] if device != "cpu" else []):
        try:
            backend.benchmark, backend.deterministic = False, True
            yield
        finally:
            backend.benchmark, backend.deterministic = before
