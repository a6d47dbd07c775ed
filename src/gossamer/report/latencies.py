"""How long does one image take on what a run ships? Measured latencies, of benches in its folder or beside it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gossamer.report.groups import Group
from gossamer.report.views import RunView
from gossamer.runs.timings import Call, Timings


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median seconds of a call with one image in memory; of: the artifact, the fastest where there are several."""

    seconds: float
    of: str
    device: str
    threads: int


def latencies(groups: Sequence[Group], others: Sequence[Timings]) -> dict[int, Latency]:
    """Return the least latency of each row by its place, all of one device and number of threads: those of most rows.

    others: benches from outside the runs' folders; of these an artifact belongs to a run that its file is named after.
    """
    found = {group.place: _of(group.views, others) for group in groups}
    where = Counter(chain.from_iterable({(each.device, each.threads) for each in calls} for calls in found.values()))
    if not where:
        return {}
    # Of one device the fewest threads are what most benches share.
    most = max(where.values())
    device = min(place for place, count in where.items() if count == most)
    alike = {place: [each for each in calls if (each.device, each.threads) == device] for place, calls in found.items()}
    return {place: min(calls, key=lambda each: each.seconds) for place, calls in alike.items() if calls}


def _of(views: Sequence[RunView], others: Sequence[Timings]) -> list[Latency]:
    found: list[Latency] = []
    for view in views:
        for record in view.timings:
            found += [_latency(call, record) for call in _single(record)]
        named = {view.name, view.path.resolve().name}
        for record in others:
            found += [_latency(call, record) for call in _single(record) if Path(call.contestant).stem in named]
    return found


def _single(record: Timings) -> list[Call]:
    """Return the calls of artifacts with one image in memory."""
    artifacts = {entry.name for entry in record.entries if entry.kind != "engine"}
    calls = [call for call in record.timings if call.batch == 1 and call.protocol == "memory"]
    return [call for call in calls if call.contestant in artifacts]


def _latency(call: Call, record: Timings) -> Latency:
    device = record.device.name if record.runs_on == "cpu" else record.runs_on
    return Latency(seconds=call.median, of=call.contestant, device=device, threads=call.threads)
