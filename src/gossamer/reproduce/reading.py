"""Which number did a run reach? Read from its records, with the interval that its samples allow."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any

from gossamer.intervals import wilson
from gossamer.recipe.load import run_name
from gossamer.recipe.schema import Recipe
from gossamer.recipe.train import result_names
from gossamer.reproduce.measured import PERCENT, Read, Seen, read_measured
from gossamer.reproduce.scales import Place, Reading
from gossamer.runs import RunFolder, metrics, results, status
from gossamer.runs.results import AttackOutcome, Evaluation
from gossamer.sweep.measurement import Measurement
from gossamer.sweep.spec import Case
from gossamer.sweep.store import Store


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number of ours, the mean over seeds. interval: 95 % of the mean accuracy on these n samples; None: none.

    low, high: over seeds; by_seed: each seed has a number of its own; right: outcomes by sample and seed, where it is a
    share and these are told; paired: on the same samples as those of other numbers.
    """

    value: float
    seeds: int
    low: float
    high: float
    by_seed: bool = True
    n: int | None = None
    interval: tuple[float, float] | None = None
    right: tuple[tuple[int, ...], ...] | None = None
    paired: bool = True


@dataclass(frozen=True)
class NoneFound:
    """All runs are there, and what was looked for along them is nowhere."""


def folder_of(case: Case, store: Path) -> RunFolder:
    """Return where the run of a case lies in a store, whether it is there or not."""
    return RunFolder(store / "runs" / run_name(case.recipe))


def read_number(place: Place, name: str, store: Path) -> Number | NoneFound | None:
    """Return what the runs of a place reached in a measure, or that they did not; None unless all of them are there."""
    reading = place.measures[name]
    if reading.smallest is not None:
        return _smallest(place, reading.smallest, store)
    of = reading.deviation_of
    found = _of_all(place, of or name, store)
    values = [each.value for each in found]
    if of is not None and len(found) > 1:
        deviation = stdev(values)
        return Number(value=deviation, seeds=len(values), low=deviation, high=deviation, by_seed=False)
    if of is not None or not found:
        return None
    mean, outcomes = sum(values) / len(values), [each.right for each in found if each.right is not None]
    n = found[0].samples
    if n is None or any(each.samples is None for each in found):
        return Number(value=mean, seeds=len(values), low=min(values), high=max(values))
    low, high = wilson(round(mean / PERCENT * n), n)
    return Number(
        value=mean,
        seeds=len(values),
        low=min(values),
        high=max(values),
        n=n,
        interval=(PERCENT * low, PERCENT * high),
        right=tuple(outcomes) if len(outcomes) == len(found) else None,
        paired=all(each.paired for each in found),
    )


def _smallest(place: Place, reading: Reading, store: Path) -> Number | NoneFound | None:
    """Return the least number along a place whose runs reach as much as the place; None unless all are there."""
    levels = {
        number: _of_all(replace(place, cases=cases, measures={"": reading}), "", store)
        for number, cases in {**place.along, None: place.cases}.items()
    }
    if not all(levels.values()):
        return None
    means = {number: sum(each.value for each in level) / len(level) for number, level in levels.items()}
    matching = [number for number in place.along if means[number] >= means[None]]
    if not matching:
        return NoneFound()
    least = min(matching)
    return Number(value=least, seeds=len(place.cases), low=least, high=least, by_seed=False)


def _of_all(place: Place, name: str, store: Path) -> list[Read]:
    """Return what each of the runs reached, nothing unless all have it."""
    read = [_read(seed, name, place, store) for seed in range(len(place.cases))]
    found = [each for each in read if each is not None]
    return found if len(found) == len(read) else []


def spent(case: Case, store: Path) -> dict[str, float] | None:
    """Return the seconds of a run by what took them, its phases and its evaluations; None where it is not there.

    Phases are called by their keys, so that what several runs share is found under one name. A run of other versions
    than those of now is as one that is not there.
    """
    run, name, stored = folder_of(case, store), run_name(case.recipe), Store(str(store))
    where, standing = status.read(run), stored.standing(name)
    if where is None or (standing is not None and not standing["done"]) or not stored.is_current(case.recipe):
        return None
    evaluated = sum(each.seconds for each in evaluations_of(run, case.recipe))
    keys = (standing or {}).get("made_of", [])
    phases = {key: record.seconds for key in keys if (record := stored.find(key)) is not None}
    return {**(phases or {f"training of {name}": where.seconds_trained}), f"evaluation of {name}": evaluated}


def spent_asking(measurement: Measurement, store: Path) -> dict[str, float]:
    """Return the seconds of a protocol under its name; none where its answer is not there, or nobody counted them."""
    stored = Store(str(store))
    seconds = (stored.standing(measurement.name) or {}).get("seconds")
    if seconds is None or not measurement.record(store).exists() or not measurement.is_current(stored):
        return {}
    return {f"protocol {measurement.name}": seconds}


def _read(seed: int, name: str, place: Place, store: Path) -> Read | None:
    reading = place.measures[name]
    recipe = place.cases[seed].recipe
    run = folder_of(place.cases[seed], store)
    if not is_there(place.cases[seed], store):
        return None
    if reading.protocol is not None:
        return _answered(seed, place.measurements[name][seed], place, reading, store)
    if reading.attack is not None:
        return _under(evaluations_of(run, recipe), reading)
    if reading.metric is not None:
        return _logged(run, reading.metric, place.epoch, PERCENT if reading.percent else 1.0)
    if reading.of == "times":
        return _times(place.cases[seed], place.beside[seed], store)
    return _of(run, recipe, str(reading.of), place.layers)


def _answered(seed: int, measurement: Measurement, place: Place, reading: Reading, store: Path) -> Read | None:
    """Return what is picked of a protocol's answer, where it is of the runs that are there."""
    if not measurement.is_current(Store(str(store))):
        return None
    beside = [run_name(case.recipe) for case in place.beside[seed]]
    seen = Seen(run=run_name(place.cases[seed].recipe), beside=beside, layers=place.layers)
    return read_measured(measurement.record(store), measurement.question.name, seen, reading.pick)


def is_there(case: Case, store: Path) -> bool:
    """Tell whether the run of a case is there, of the versions that would make it now."""
    return folder_of(case, store).result("network").exists() and Store(str(store)).is_current(case.recipe)


def _of(run: RunFolder, recipe: Recipe, what: str, layers: Sequence[str]) -> Read | None:
    if what == "clean":
        most = max(evaluations_of(run, recipe), key=lambda each: each.n, default=None)
        return None if most is None else Read(value=PERCENT * most.clean_accuracy, right=most.samples.clean_correct)
    value = _counted(run, what, layers)
    return None if value is None else Read(value=value)


def _times(case: Case, beside: Sequence[Case], store: Path) -> Read | None:
    """Return the weights that a run keeps over those that the one beside it keeps."""
    if not all(is_there(each, store) for each in beside):
        return None
    kept = sum(_nonzero(each, store) for each in beside)
    return Read(value=_nonzero(case, store) / kept) if kept else None


def _nonzero(case: Case, store: Path) -> int:
    return results.read_network(folder_of(case, store)).totals.nonzero


def _under(evaluations: Sequence[Evaluation], reading: Reading) -> Read | None:
    """Return the accuracy under an attack; of several evaluations, that of most samples counts.

    After a stage before the last, how many samples are left is recorded, and not which.
    """
    alike = [
        outcome
        for evaluation in evaluations
        for outcome in evaluation.attacks
        if _is_asked(outcome, reading.attack, reading.parameters)
    ]
    if reading.eps is not None:
        alike = [outcome for outcome in alike if abs(outcome.eps - reading.eps) < 1e-9]
    best = max(alike, key=lambda outcome: (outcome.n, outcome.eps), default=None)
    if best is None or reading.stage is None:
        return None if best is None else Read(value=PERCENT * best.robust_accuracy, right=best.robust)
    left = [stage.robust_accuracy for stage in best.stages or () if stage.attack == reading.stage]
    return Read(value=PERCENT * left[0], n=best.n) if left else None


def _is_asked(outcome: AttackOutcome, attack: str | None, parameters: Mapping[str, Any]) -> bool:
    return outcome.attack == attack and all(outcome.parameters.get(name) == each for name, each in parameters.items())


def _logged(run: RunFolder, name: str, epoch: int | None, times: float) -> Read | None:
    lines = [line for line in metrics.read(run) if line.get(name) is not None]
    if epoch is not None:
        lines = [line for line in lines if line["epoch"] == epoch]
    if not lines:
        return None
    value = lines[-1][name]
    return Read(value=times * float(value)) if isinstance(value, int | float) else None


def _counted(run: RunFolder, what: str, layers: Sequence[str]) -> float | None:
    network = results.read_network(run)
    if what == "hours":
        where = status.read(run)
        return None if where is None else where.seconds_trained / 3600
    if what == "work":
        return network.work_ratio
    chosen = [each for each in network.layers if any(fnmatch.fnmatchcase(each.name, name) for name in layers)]
    weights, kept = sum(each.weights for each in chosen), sum(each.nonzero for each in chosen)
    totals = {"nonzero": float(network.totals.nonzero), "density": PERCENT * network.totals.density}
    counted = {
        **totals,
        "sparsity": PERCENT - totals["density"],
        "connections": float(kept),
        "share": PERCENT * kept / weights if weights else None,
    }
    return counted[what]


def evaluations_of(run: RunFolder, recipe: Recipe) -> list[Evaluation]:
    """Return the evaluations on test images that a recipe asks for, as far as they are there.

    Whoever evaluates the run once more, at other radii say, changes no number of a table by that.
    """
    paths = results.evaluation_files(run)
    asked = {run.result(name) for name in result_names(recipe)}
    own = [path for path in paths if path in asked]
    return [each for path in own if (each := results.read_evaluation(path)).dataset.part == "test"]
