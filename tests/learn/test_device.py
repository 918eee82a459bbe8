"""What a device is asked for, and what is left behind on it."""

import platform
from pathlib import Path

import numpy as np
import pytest

from mitocore.learn.device import memory_reused


def resident():
    """MiB that this process holds."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096 / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_that_was_kept_for_the_next_temporary_is_given_back_at_the_end():
    before = resident()
    with memory_reused("cpu"):
        for _ in range(3):
            np.ones(2**26, "u1").sum()
        assert resident() > before + 40
    assert resident() < before + 40


def test_nothing_is_kept_for_another_device():
    with memory_reused("cuda:0"):
        assert np.ones(2**20, "u1").sum() == 2**20
