"""How long will the rest take? As long as phases, evaluations and protocols like it took, where the store has any."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from gossamer.recipe.schema import Recipe
from gossamer.sweep.alike import Took, like, like_evaluation, like_question
from gossamer.sweep.plan import PhaseNode, ProtocolNode, RunNode
from gossamer.sweep.store import PhaseRecord

NEEDED = ("data", "model")
"""What must be equal for another phase to say anything."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of one worker for what is not done; unknown: for how much of it there is nothing to go by."""

    seconds: float
    unknown: int


def estimate(nodes: Iterable[PhaseNode], records: Sequence[PhaseRecord]) -> Estimate:
    """Return how long phases will take, going by finished ones that are as much like them as any."""
    return _total([_seconds(node, records) for node in nodes])


def estimate_evaluations(runs: Iterable[RunNode], standings: Iterable[Mapping[str, Any]]) -> Estimate:
    """Return how long the evaluations of runs will take, going by like ones of finished runs."""
    seen = [Took(**each) for standing in standings for each in standing.get("evaluations", ())]
    asked = [(like_evaluation(run.recipe, each), each.n) for run in runs for each in run.recipe.evaluation]
    return _total([_expected(likeness, n, seen) for likeness, n in asked])


def estimate_protocols(
    nodes: Iterable[ProtocolNode], recipes: Mapping[str, Recipe], standings: Iterable[Mapping[str, Any]]
) -> Estimate:
    """Return how long protocols will take, going by like ones that were measured; recipes: by the names of runs."""
    seen = [
        Took(like=each["like"], n=each["n"], of=None, seconds=each["seconds"]) for each in standings if "like" in each
    ]
    asked = [(like_question(node.question, {name: recipes[name] for name in node.runs}), node) for node in nodes]
    return _total([_expected(likeness, node.question.n, seen) for likeness, node in asked])


def _total(times: Sequence[float | None]) -> Estimate:
    return Estimate(seconds=sum(each for each in times if each is not None), unknown=times.count(None))


def _expected(likeness: str, n: int | None, seen: Iterable[Took]) -> float | None:
    """Return the seconds of so many samples, None: of all; by those that were asked for as many, else by the sample."""
    near = [took for took in seen if took.like == likeness]
    same = [took.seconds for took in near if took.n == n]
    if same:
        return fmean(same)
    rates = [took.seconds / of for took in near if (of := took.of or took.n)]
    return n * fmean(rates) if n is not None and rates else None


def _seconds(node: PhaseNode, records: Sequence[PhaseRecord]) -> float | None:
    if not node.epochs:
        return 0.0
    wanted = like(node.recipe, node.name)
    near = [
        record for record in records if record.epochs and all(record.like.get(name) == wanted[name] for name in NEEDED)
    ]
    if not near:
        return None
    same = {record.key: sum(record.like.get(name) == value for name, value in wanted.items()) for record in near}
    best = max(same.values())
    return node.epochs * fmean(record.seconds / record.epochs for record in near if same[record.key] == best)
