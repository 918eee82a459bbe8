"""What tests of the core and of plugins share."""

from mitocore.builtin.cells import Cells, cells
from mitocore.testing.volumes import MemoryVolume

__all__ = ["Cells", "MemoryVolume", "cells"]
