"""Which number did a run reach? Read from its records, with the interval that its samples allow."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.intervals import wilson
from gossamer.recipe.load import run_name
from gossamer.reproduce.scales import Place, Reading
from gossamer.runs import RunFolder, metrics, results, status
from gossamer.runs.results import AttackOutcome, Evaluation
from gossamer.sweep.spec import Case

PERCENT = 100.0


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number of ours, the mean over seeds. interval: 95 % of the mean accuracy on these n samples; None: none.

    low, high: over seeds; right: outcomes by sample and seed, where it is an accuracy.
    """

    value: float
    seeds: int
    low: float
    high: float
    n: int | None = None
    interval: tuple[float, float] | None = None
    right: tuple[tuple[int, ...], ...] | None = None


def folder_of(case: Case, store: Path) -> RunFolder:
    """Return where the run of a case lies in a store, whether it is there or not."""
    return RunFolder(store / "runs" / run_name(case.recipe))


def read_number(place: Place, reading: Reading, store: Path) -> Number | None:
    """Return what the runs of a place reached, None unless all of them have it."""
    read = [_read(folder_of(case, store), reading, place) for case in place.cases]
    found = [each for each in read if each is not None]
    if len(found) < len(read) or not found:
        return None
    values = [value for value, _ in found]
    mean, outcomes = sum(values) / len(values), [flags for _, flags in found if flags is not None]
    if len(outcomes) < len(found):
        return Number(value=mean, seeds=len(values), low=min(values), high=max(values))
    n = len(outcomes[0])
    low, high = wilson(round(mean / PERCENT * n), n)
    return Number(
        value=mean,
        seeds=len(values),
        low=min(values),
        high=max(values),
        n=n,
        interval=(PERCENT * low, PERCENT * high),
        right=tuple(outcomes),
    )


def seconds_of(case: Case, store: Path) -> float | None:
    """Return how long a run was trained and evaluated, phases that it shares included; None where it is not there."""
    run = folder_of(case, store)
    where = status.read(run)
    if where is None:
        return None
    return where.seconds_trained + sum(each.seconds for each in _evaluations(run))


def _read(run: RunFolder, reading: Reading, place: Place) -> tuple[float, tuple[int, ...] | None] | None:
    if not run.result("network").exists():
        return None
    if reading.attack is not None:
        return _under(run, reading)
    if reading.metric is not None:
        return _logged(run, reading.metric, place.epoch, PERCENT if reading.percent else 1.0)
    if reading.of == "clean":
        most = max(_evaluations(run), key=lambda each: each.n, default=None)
        return None if most is None else (PERCENT * most.clean_accuracy, most.samples.clean_correct)
    value = _counted(run, str(reading.of), place.layers)
    return None if value is None else (value, None)


def _under(run: RunFolder, reading: Reading) -> tuple[float, tuple[int, ...] | None] | None:
    """Return the accuracy under an attack; of several evaluations, that of most samples counts.

    After a stage before the last, which samples are left is not recorded.
    """
    alike = [
        outcome
        for evaluation in _evaluations(run)
        for outcome in evaluation.attacks
        if _is_asked(outcome, reading.attack, reading.parameters)
    ]
    if reading.eps is not None:
        alike = [outcome for outcome in alike if abs(outcome.eps - reading.eps) < 1e-9]
    best = max(alike, key=lambda outcome: (outcome.n, outcome.eps), default=None)
    if best is None or reading.stage is None:
        return None if best is None else (PERCENT * best.robust_accuracy, best.robust)
    left = [stage.robust_accuracy for stage in best.stages or () if stage.attack == reading.stage]
    return (PERCENT * left[0], None) if left else None


def _is_asked(outcome: AttackOutcome, attack: str | None, parameters: Mapping[str, Any]) -> bool:
    return outcome.attack == attack and all(outcome.parameters.get(name) == each for name, each in parameters.items())


def _logged(run: RunFolder, name: str, epoch: int | None, times: float) -> tuple[float, None] | None:
    lines = [line for line in metrics.read(run) if line.get(name) is not None]
    if epoch is not None:
        lines = [line for line in lines if line["epoch"] == epoch]
    if not lines:
        return None
    value = lines[-1][name]
    return (times * float(value), None) if isinstance(value, int | float) else None


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


def _evaluations(run: RunFolder) -> list[Evaluation]:
    found = [results.read_evaluation(path) for path in results.evaluation_files(run)]
    return [each for each in found if each.dataset.part == "test"]
