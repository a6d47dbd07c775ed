"""Where, with what and when was an entry made? Machines, versions and dates, from the records of its runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.recipe.load import run_name
from gossamer.reproduce.reading import evaluations_of, folder_of, is_there
from gossamer.reproduce.scales import Place
from gossamer.runs import atomic, status
from gossamer.sweep.measurement import Measurement
from gossamer.sweep.spec import Case
from gossamer.sweep.store import Store


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A device, and the versions that computed on it."""

    device: str
    gossamer: str
    torch: str
    python: str


@dataclass(frozen=True, kw_only=True)
class Made:
    """All machines that records name, and the first and last time in them, ISO 8601 in UTC; "" where none is noted."""

    machines: Sequence[Machine] = ()
    first: str = ""
    last: str = ""


@dataclass(frozen=True, kw_only=True)
class _Noted:
    """What one record says: on what it was computed, and when."""

    environment: Mapping[str, Any]
    times: Sequence[str]


def made(places: Sequence[Place], store: Path) -> Made:
    """Return what records say of the runs and protocols of places, as far as these are there."""
    cases = {run_name(case.recipe): case for place in places for case in place.runs}
    asked = {each.name: each for place in places for own in place.measurements.values() for each in own}
    noted = [each for case in cases.values() if is_there(case, store) for each in _of_run(case, store)]
    noted += [each for measurement in asked.values() for each in _of_answer(measurement, store)]
    machines = dict.fromkeys(machine for each in noted if (machine := _machine(each.environment)) is not None)
    times = sorted(time for each in noted for time in each.times if time)
    return Made(machines=tuple(machines), first=times[0] if times else "", last=times[-1] if times else "")


def _of_run(case: Case, store: Path) -> Iterator[_Noted]:
    """Yield what is noted of a run's phases, of putting it together, and of its evaluations."""
    run, stored = folder_of(case, store), Store(str(store))
    standing = stored.standing(run_name(case.recipe)) or {}
    for key in standing.get("made_of", []):
        if (record := stored.find(key)) is not None:
            yield _Noted(environment=record.environment, times=[record.stored])
    where = status.read(run)
    times = [standing.get("ended", ""), *([] if where is None else [where.started, where.updated])]
    yield _Noted(environment=atomic.read_json(run.env) if run.env.exists() else {}, times=times)
    for evaluation in evaluations_of(run, case.recipe):
        yield _Noted(environment=evaluation.environment, times=[])


def _of_answer(measurement: Measurement, store: Path) -> Iterator[_Noted]:
    stored, path = Store(str(store)), measurement.record(store)
    if path.exists() and measurement.is_current(stored):
        standing = stored.standing(measurement.name) or {}
        yield _Noted(environment=atomic.read_json(path)["environment"], times=[standing.get("ended", "")])


def _machine(environment: Mapping[str, Any]) -> Machine | None:
    """Return the machine that an environment names, None where it names none."""
    device = environment.get("numeric", {}).get("device")
    if device is None:
        return None
    versions = {name: str(environment.get(name, "unknown")) for name in ("gossamer", "torch", "python")}
    return Machine(device=str(device), **versions)
