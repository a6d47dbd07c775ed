"""How long does one image take on what a run ships? Measured latencies, of benches in its folder or beside it."""

import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gossamer.report.groups import Group
from gossamer.report.views import RunView
from gossamer.runs.timings import Call, Timings

SAME_DENSITY = 1e-3
"""Densities so near are of one network, whose weights not all kinds of artifacts count alike."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median seconds of a call with one image in memory; of: the artifact, the fastest where there are several."""

    seconds: float
    of: str
    device: str
    threads: int


def latencies(groups: Sequence[Group], others: Sequence[Timings]) -> dict[int, Latency]:
    """Return the least latency of each row by its place, all of one device and number of threads: those of most rows.

    Of a bench in a run's folder, artifacts of other densities, its dense parent's say, are not its own. others: benches
    from outside; of these an artifact belongs to a run that its file is named after.
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
            found += _single(record, _own(record, view))
        named = {view.name, *_file_names(view.path.resolve().name)}
        for record in others:
            found += _single(record, {name for name in _artifacts(record) if Path(name).stem in named})
    return found


def _artifacts(record: Timings) -> dict[str, float | None]:
    """Return the densities of the artifacts in a record, by name."""
    return {entry.name: entry.density for entry in record.entries if entry.kind != "engine"}


def _own(record: Timings, view: RunView) -> set[str]:
    """Return the artifacts in a run's folder that are its own: of densities, where they are known, its nearest."""
    artifacts = _artifacts(record)
    if view.network is None or all(density is None for density in artifacts.values()):
        return set(artifacts)
    of_run = view.network.totals.density
    away = {name: abs(density - of_run) for name, density in artifacts.items() if density is not None}
    nearest = min(away.values())
    return {name for name, distance in away.items() if distance <= nearest + SAME_DENSITY}


def _file_names(run: str) -> tuple[str, str]:
    """Return what files of a run are named without their suffix: as it is, or with signs that C takes too."""
    return run, re.sub(r"[^a-z0-9_]+", "_", run.lower())


def _single(record: Timings, artifacts: Container[str]) -> list[Latency]:
    """Return the latencies of artifacts with one image in memory."""
    calls = [call for call in record.timings if call.batch == 1 and call.protocol == "memory"]
    return [_latency(call, record) for call in calls if call.contestant in artifacts]


def _latency(call: Call, record: Timings) -> Latency:
    device = record.device.name if record.runs_on == "cpu" else record.runs_on
    return Latency(seconds=call.median, of=call.contestant, device=device, threads=call.threads)
