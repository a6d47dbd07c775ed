"""On what was timed? Processor, memory, versions; memory and energy counters where the system shows them."""

import importlib.util
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import torch

from gossamer.runs import records
from gossamer.runs.environment import device_name

POWERCAP = Path("/sys/class/powercap")
STATUS = Path("/proc/self/status")
PACKAGES = ("gossamer", "torch", "numpy", "onnxruntime", "openvino")
MICRO = 1e-6


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device. memory: bytes, None where unknown; energy: why joules are known or not."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    cores: int
    memory: int | None
    system: str
    instructions: str
    versions: dict[str, str]
    energy: str


def profile(device: torch.device | str = "cpu") -> Device:
    """Return what this machine is."""
    pages = os.sysconf_names.keys() >= {"SC_PAGE_SIZE", "SC_PHYS_PAGES"}
    return Device(
        name=device_name(device),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if pages else None,
        system=platform.platform(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        versions={name: found for name in PACKAGES if (found := _version(name)) is not None},
        energy=Energy.find().reason,
    )


def installed(package: str) -> bool:
    """Tell whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def memory_peak() -> int | None:
    """Return the most bytes that this process has held in memory, None where the system does not say."""
    return _status("VmHWM")


def memory_now() -> int | None:
    """Return the bytes that this process holds in memory, None where the system does not say."""
    return _status("VmRSS")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """The energy counters of the processor's packages (RAPL); reason: where they are, or why there are none."""

    counters: Sequence[Path]
    reason: str

    @classmethod
    def find(cls, root: Path = POWERCAP) -> "Energy":
        """Return the counters that can be read."""
        zones = sorted(root.glob("intel-rapl:[0-9]*"))
        packages = [zone for zone in zones if zone.name.count(":") == 1]
        if not packages:
            return cls(counters=(), reason=f"no RAPL counters in {root}")
        readable = [zone for zone in packages if _number(zone / "energy_uj") is not None]
        if not readable:
            return cls(counters=(), reason=f"the RAPL counters in {root} cannot be read by this user")
        return cls(counters=tuple(readable), reason=f"RAPL, {len(readable)} processor packages, whole machine")

    def read(self) -> tuple[int, ...]:
        """Return what the counters show, in microjoules."""
        return tuple(_number(zone / "energy_uj") or 0 for zone in self.counters)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float | None:
        """Return the energy between two readings, None without counters; each counter turns over once at most."""
        if not self.counters:
            return None
        ranges = [(_number(zone / "max_energy_range_uj") or 0) + 1 for zone in self.counters]
        spent = [
            late - early if late >= early else late + whole - early
            for early, late, whole in zip(before, after, ranges, strict=True)
        ]
        return MICRO * sum(spent)


def _status(field: str) -> int | None:
    if not STATUS.exists():
        return None
    found = [line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{field}:")]
    return 1024 * int(found[0].split()[1]) if found else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
