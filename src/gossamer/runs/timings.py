"""How long does a call of what a run ships take? As much of a bench's record as a comparison of runs needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from gossamer.errors import RunError
from gossamer.runs import atomic, records
from gossamer.runs.layout import RunFolder

SCHEMA = "gossamer/bench/1"
_PARTLY = {"strict": True, "extra": "ignore"}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was timed on."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _PARTLY

    name: str


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What was timed; kind: "engine" for what runs a network that it was given in memory, else of its file; density: of
    its weights, where it is known."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _PARTLY

    name: str
    kind: str
    density: float | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """Calls of one of them with `batch` images; median: seconds a call; protocol: memory, or loading files as well."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _PARTLY

    contestant: str
    protocol: str
    batch: int
    threads: int
    median: float


@dataclass(frozen=True, kw_only=True)
class Timings:
    """One bench on one device."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _PARTLY

    schema: str = SCHEMA
    device: Machine
    runs_on: str
    entries: tuple[Timed, ...]
    timings: tuple[Call, ...]


def read_timings(path: Path) -> Timings:
    """Return the timings in a bench's file; raises RunError if it is missing, damaged or of another schema."""
    return records.read(Timings, path)


def holds_timings(path: Path) -> bool:
    """Return whether a file is a bench's record of any version; False where it cannot be read."""
    try:
        value = atomic.read_json(path)
    except RunError:
        return False
    named = cast("dict[str, Any]", value).get("schema") if isinstance(value, dict) else None
    return str(named).startswith("gossamer/bench/")


def timing_files(run: RunFolder) -> list[Path]:
    """Return the benches that lie under a run's results/ and artifacts/, by name."""
    found = [*records.files(run.results), *records.files(run.artifacts)]
    return [path for path in found if holds_timings(path)]
