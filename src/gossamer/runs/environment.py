"""On what was this computed? Versions and machine, and the part of them that decides the bits."""

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch


def environment(
    device: torch.device | str = "cpu",
    *,
    precision: str = "float32",
    threads: int | None = None,
    compiled: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Return what a result needs beside it to be believed: versions, machine, and the numeric identity."""
    return {
        "gossamer": version("gossamer"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "numeric": numeric_identity(
            device, precision=precision, threads=threads, compiled=compiled, processes=processes
        ),
    }


def numeric_identity(
    device: torch.device | str = "cpu",
    *,
    precision: str = "float32",
    threads: int | None = None,
    compiled: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the values that must be equal for a resumed run to end in the same bits.

    threads: intra-operation threads, those in force where None; processes: that train together.
    """
    return {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": device_name(device),
        "torch": torch.__version__,
        "torch_build": hashlib.sha256(torch.__config__.show().encode()).hexdigest()[:16],
        "precision": precision,
        "threads": torch.get_num_threads() if threads is None else threads,
        "compiled": compiled,
        **({"processes": processes} if processes > 1 else {}),
    }


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return one line for each value in which two numeric identities differ, a's value first."""
    keys = list(dict.fromkeys([*a, *b]))
    return [f"{key}: {a.get(key)} then, {b.get(key)} now" for key in keys if a.get(key) != b.get(key)]


def device_name(device: torch.device | str) -> str:
    """Return the accelerator's name, or the CPU's."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_model() if device.type == "cpu" else str(device)


def _cpu_model() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
