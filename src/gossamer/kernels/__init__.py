"""Kernels in C, compiled on demand, for what a frozen network computes in the inner loop of an attack."""

import sys
from collections.abc import Callable

import torch
from torch import fx

from gossamer.kernels.fusion import FusedConvolution, fuse
from gossamer.kernels.winograd import library

__all__ = ["FusedConvolution", "accelerator", "fuse", "library"]


def accelerator(device: torch.device) -> Callable[[fx.GraphModule], None] | None:
    """Return what puts the kernels into a folded network on this device, or None where there are none for it.

    Compiles them where the cache has none; raises ConfigError where that fails.
    """
    if device.type != "cpu" or sys.platform == "win32":
        return None
    library()
    return fuse
