"""On what was timed? Processor, memory, versions; memory and energy counters where the system shows them."""

import importlib.util
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch

from gossamer.runs import records
from gossamer.runs.environment import device_name

POWERCAP = Path("/sys/class/powercap")
STATUS = Path("/proc/self/status")
FORGET = Path("/proc/self/clear_refs")
FORGET_PEAK = "5"
PACKAGES = ("gossamer", "torch", "numpy", "onnxruntime", "openvino")
MICRO = 1e-6

Reading: TypeAlias = tuple[int | None, ...]
"""What each counter shows, in microjoules; None where it could not be read."""


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
        energy=Energy.of(device).reason,
    )


def installed(package: str) -> bool:
    """Tell whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def memory_peak() -> int | None:
    """Return the most bytes that this process has held in memory, None where the system does not say."""
    return _status("VmHWM")


def forget_memory_peak() -> None:
    """Let the peak begin anew from what this process holds now, where the system can."""
    with suppress(OSError):
        FORGET.write_text(FORGET_PEAK, encoding="ascii")


def memory_now() -> int | None:
    """Return the bytes that this process holds in memory, None where the system does not say."""
    return _status("VmRSS")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """The energy counters of the processor's packages (RAPL); reason: where they are, or why there are none."""

    counters: Sequence[Path]
    reason: str

    @classmethod
    def of(cls, device: torch.device | str) -> "Energy":
        """Return the counters of what computes on a device: none for a GPU, whose energy the processor's leave out."""
        kind = torch.device(device).type
        if kind != "cpu":
            return cls(counters=(), reason=f"not known of {kind}: RAPL counts the processor alone")
        return cls.find()

    @classmethod
    def find(cls, root: Path = POWERCAP) -> "Energy":
        """Return the counters that can be read; zones of the whole platform, which hold packages too, are left out."""
        zones = sorted(zone for zone in root.glob("intel-rapl:[0-9]*") if zone.name.count(":") == 1)
        packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
        if not packages:
            return cls(counters=(), reason=f"no RAPL counters of processor packages in {root}")
        readable = [zone for zone in packages if _number(zone / "energy_uj") is not None]
        if not readable:
            return cls(counters=(), reason=f"the RAPL counters in {root} cannot be read by this user")
        return cls(counters=tuple(readable), reason=f"RAPL, {len(readable)} processor packages, whole machine")

    def read(self) -> Reading:
        """Return what the counters show."""
        return tuple(_number(zone / "energy_uj") for zone in self.counters)

    def joules(self, before: Reading, after: Reading) -> float | None:
        """Return the energy between two readings; each counter turns over once at most.

        None without counters, and where one could not be read: the sum of the others is not the machine's.
        """
        spent = [_gained(*each) for each in zip(self.counters, before, after, strict=True)]
        known = [gained for gained in spent if gained is not None]
        return MICRO * sum(known) if spent and len(known) == len(spent) else None


def _gained(counter: Path, before: int | None, after: int | None) -> int | None:
    if before is None or after is None:
        return None
    if after >= before:
        return after - before
    most = _number(counter / "max_energy_range_uj")
    return None if most is None else after + most + 1 - before


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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
