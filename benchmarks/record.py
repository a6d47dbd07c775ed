"""What was measured, and was it enough? One result as one JSON file: goals, verdicts, machine, versions, command."""

import json
import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from gossamer.runs.environment import environment

SCHEMA = "gossamer/benchmark/1"
RESULTS = Path(__file__).parent / "results"

Cell: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One number that had a goal. sense: on which side of the goal it must lie; goal None: measured, not judged."""

    what: str
    measured: float
    unit: str = ""
    goal: float | None = None
    sense: Literal["at least", "at most"] = "at least"

    @property
    def verdict(self) -> str:
        """Met, not met, or no goal."""
        if self.goal is None:
            return "no goal"
        reached = self.measured >= self.goal if self.sense == "at least" else self.measured <= self.goal
        return "met" if reached else "not met"

    def to_json(self) -> dict[str, Any]:
        """Return the claim with its verdict, as values that JSON has."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers to be shown as they are: one row per contestant or part."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.caption!r}: every row needs {len(self.columns)} cells")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark's outcome. rounds: how often each number was measured; details: anything else, as JSON."""

    name: str
    title: str
    rounds: int
    claims: Sequence[Claim]
    tables: Sequence[Table] = ()
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    packages: Sequence[str] = ()
    threads: int | None = None


def write(result: Result, folder: Path = RESULTS, *, load: Sequence[float] | None = None) -> Path:
    """Write `folder/NAME.json` and return its path.

    load: the machine's load averages before the measurement, so that a busy machine shows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.name}.json"
    path.write_text(json.dumps(to_json(result, load=load), indent=1) + "\n", encoding="utf-8")
    return path


def to_json(result: Result, *, load: Sequence[float] | None = None) -> dict[str, Any]:
    """Return a result with the machine, the versions, the date and the command that made it."""
    return {
        "schema": SCHEMA,
        "name": result.name,
        "title": result.title,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "machine": machine(load),
        "versions": versions(result.packages, result.threads),
        "rounds": result.rounds,
        "claims": [claim.to_json() for claim in result.claims],
        "tables": [asdict(table) for table in result.tables],
        "details": dict(result.details),
    }


def read(path: Path) -> dict[str, Any] | None:
    """Return the result in a file, or None where the file holds something else."""
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) and value.get("schema") == SCHEMA else None


def command() -> str:
    """Return the command line that runs this process again."""
    script = Path(sys.argv[0])
    shown = f"benchmarks/{script.name}" if script.resolve().parent == Path(__file__).parent else script.name
    return shlex.join(["python", shown, *sys.argv[1:]])


def machine(load: Sequence[float] | None = None) -> dict[str, Any]:
    """Return what the numbers depend on: CPU model and instructions, cores this process may use, memory, load."""
    numeric = environment()["numeric"]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": numeric["cpu"],
        "instructions": numeric["instructions"],
        "cores": cores(),
        "memory_gib": round(pages / 2**30, 1),
        "load_before": [round(value, 2) for value in load] if load is not None else None,
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    # Not `getrusage`: a child's ru_maxrss starts at what its parent held when it forked.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def versions(packages: Sequence[str] = (), threads: int | None = None) -> dict[str, Any]:
    """Return the versions of Python, torch, gossamer and further packages, platform and thread count."""
    here = environment(threads=threads)
    known = {name: here[name] for name in ("python", "platform", "torch", "gossamer")}
    return {**known, **{name: version(name) for name in packages}, "threads": here["numeric"]["threads"]}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return n, median, least, greatest and the quartiles of one or more values."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "n": len(values),
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "quartile_1": low,
        "quartile_3": high,
    }
