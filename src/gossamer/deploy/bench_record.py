"""What did a bench measure? The versioned record: who ran, on what, how long, with how much memory and work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from gossamer.deploy.counts import Counts
from gossamer.deploy.device import Device
from gossamer.runs import records

Protocol: TypeAlias = Literal["memory", "loading"]
Positive: TypeAlias = Annotated[int, Field(ge=1)]
MILLI = 1e3
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One contestant. bytes: of its files; density: of its weights; None where unknown.

    start_up: seconds of a fresh process from opening it to its first logits, compiling a C file included, imports
    of the package apart; an engine is given the network in memory, and converting it counts. peak: the most bytes that
    this process held; before: those held before opening.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    kind: str
    bytes: int | None
    density: float | None
    start_up: float | None
    peak: int | None
    before: int | None
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one contestant took in one setting; seconds a call, over all calls of all rounds.

    protocol: memory, `batch` images already in memory and only the forward timed (batch 1: algorithm 4 of Marshall's
    thesis); loading, `batch` images read from a file inside the timed section (algorithm 5). rounds: the median of each
    round; speedups: of each round, the median of `against` over this one's; joules: of the whole machine, an image.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    contestant: str
    protocol: Protocol
    batch: Positive
    threads: Positive
    calls: Positive
    mean: float
    median: float
    p95: float
    throughput: float
    rounds: tuple[float, ...]
    against: str | None
    speedups: tuple[float, ...] | None
    speedup: float | None
    joules: float | None


@dataclass(frozen=True, kw_only=True, repr=False)
class BenchRecord:
    """One bench on one device. counts: of an image.

    missing: contestants that could not take part, settings that could not be prepared, by name, and why.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/bench/1"
    device: Device
    runs_on: str
    shape: tuple[int, ...]
    images: str
    entries: tuple[Entry, ...]
    missing: dict[str, str]
    counts: Counts | None
    timings: tuple[Timing, ...]

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, atomically; raises RunError where the file system refuses."""
        records.write(Path(path), self)

    def __str__(self) -> str:
        lines = [f"{self.device.name}, {self.device.cores} cores, on {self.runs_on}; {self.images}"]
        lines += [_entry_line(entry) for entry in self.entries]
        lines += [f"{name}: left out, {reason}" for name, reason in self.missing.items()]
        lines += _count_lines(self.counts)
        lines += _table(self.timings)
        return "\n".join([*lines, f"energy: {self.device.energy}"])

    __repr__ = __str__


def read_bench(path: Path) -> BenchRecord:
    """Return the record in a file; raises RunError if it is missing, damaged or of another schema."""
    return records.read(BenchRecord, path)


def _entry_line(entry: Entry) -> str:
    told = [entry.kind]
    told += [] if entry.bytes is None else [f"{entry.bytes:,} bytes"]
    told += [] if entry.density is None else [f"density {entry.density:.2%}"]
    told += [] if entry.start_up is None else [f"starts in {MILLI * entry.start_up:.0f} ms"]
    if entry.peak is not None and entry.before is not None:
        told += [f"peak {entry.peak / MIB:.0f} MiB, {max(entry.peak - entry.before, 0) / MIB:.0f} of them its own"]
    told += [] if entry.failure is None else [f"fresh process: {entry.failure}"]
    return f"{entry.name}: {', '.join(told)}"


def _count_lines(counts: Counts | None) -> list[str]:
    if counts is None:
        return []
    ratio = "" if counts.work_ratio is None else f", work ratio {counts.work_ratio:.1f}"
    named = {"dense": counts.dense, "kept": counts.kept, "signs": counts.signs, "computed": counts.computed}
    lines = [
        f"an image, {name}: {work.multiplications:,} multiplications, {work.additions:,} additions, "
        f"{work.bytes:,} bytes"
        for name, work in named.items()
        if work is not None
    ]
    lines[1] += ratio
    if counts.signs_save is not None:
        lines[2] += f": {counts.signs_save:.0%} fewer operations than kept, each counted as one"
    return lines


def _table(timings: Sequence[Timing]) -> list[str]:
    heads = ("contestant", "protocol", "batch", "threads", "median ms", "mean ms", "p95 ms", "images/s", "speedup")
    rows = [heads, *(_cells(timing) for timing in timings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(timing: Timing) -> tuple[str, ...]:
    speedup = "" if timing.speedup is None else f"{timing.speedup:.2f}x {timing.against}"
    times = (f"{MILLI * seconds:.3f}" for seconds in (timing.median, timing.mean, timing.p95))
    setting = (timing.contestant, timing.protocol, str(timing.batch), str(timing.threads))
    return (*setting, *times, f"{timing.throughput:.1f}", speedup)
