"""What does a figure show that is none of curves? Read from records: sizes of weights, channels, attacked images."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gossamer.recipe.load import run_name
from gossamer.reproduce.measured import Seen, channels
from gossamer.reproduce.published import At, Entry
from gossamer.reproduce.reading import folder_of, is_there
from gossamer.reproduce.scales import Place
from gossamer.runs import panel, records, results
from gossamer.runs.panel import Panel
from gossamer.runs.protocols import WeightsTable
from gossamer.runs.results import Histogram
from gossamer.sweep.store import Store

WEIGHTS = "weights"
"""The protocol that counts what channels keep."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the weights at a place are; layer: in which, "" where it is all of them, or the only one."""

    at: At
    layer: str
    histogram: Histogram


@dataclass(frozen=True, kw_only=True)
class Channels:
    """How many weights each channel at a place keeps, in the order of the network."""

    at: At
    kept: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """Attacked images of a network; at: where it stands, the labels that all its places share."""

    at: At
    panel: Panel


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """What the pictures of an entry are drawn from, as far as its runs are there."""

    sizes: Sequence[Sizes] = ()
    channels: Sequence[Channels] = ()
    attacked: Sequence[Attacked] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.sizes or self.channels or self.attacked)


def pictured(entry: Entry, places: Sequence[Place], store: Path) -> Pictured:
    """Return what an entry shows, of the first seed of each place; raises RunError for a damaged record."""
    there: dict[tuple[object, ...], Place] = {}
    for place in places if entry.shows is not None else ():
        if is_there(place.cases[0], store):
            there.setdefault(tuple(place.at.items()), place)
    if entry.shows == "channels":
        return Pictured(channels=list(chain.from_iterable(_channels(place, store) for place in there.values())))
    if entry.shows == "images":
        return Pictured(attacked=_attacked(list(there.values()), store))
    return Pictured(sizes=list(chain.from_iterable(_sizes(place, store) for place in there.values())))


def _sizes(place: Place, store: Path) -> list[Sizes]:
    network = results.read_network(folder_of(place.cases[0], store))
    if not place.layers:
        return [Sizes(at=place.at, layer="", histogram=network.histogram)]
    found = [
        (each.name, each.histogram)
        for each in network.layers
        if each.histogram is not None and any(fnmatch.fnmatchcase(each.name, name) for name in place.layers)
    ]
    return [Sizes(at=place.at, layer=name if len(found) > 1 else "", histogram=each) for name, each in found]


def _channels(place: Place, store: Path) -> list[Channels]:
    """Return what the channels of a place keep, where a reading of it asks for that and the answer is there."""
    for name, reading in place.measures.items():
        if reading.protocol is None or reading.protocol.name != WEIGHTS:
            continue
        measurement = place.measurements[name][0]
        path = measurement.record(store)
        if path.exists() and measurement.is_current(Store(str(store))):
            seen = Seen(run=run_name(place.cases[0].recipe), beside=(), layers=place.layers)
            kept = channels(records.read(WeightsTable, path), seen, reading.pick.get("side", "output"))
            return [Channels(at=place.at, kept=kept)]
    return []


def _attacked(places: Sequence[Place], store: Path) -> list[Attacked]:
    """Return the panels of every run, once: its places are the rungs of one ladder."""
    runs: dict[str, list[Place]] = {}
    for place in places:
        runs.setdefault(run_name(place.cases[0].recipe), []).append(place)
    found: list[Attacked] = []
    for own in runs.values():
        at = {axis: label for axis, label in own[0].at.items() if all(place.at[axis] == label for place in own)}
        run = folder_of(own[0].cases[0], store)
        found += [Attacked(at=at, panel=panel.read(run, name)) for name in panel.names(run)]
    return found
