"""How long will a phase take? As long an epoch as phases like it took, where the store has any."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from gossamer.sweep.plan import PhaseNode
from gossamer.sweep.store import PhaseRecord
from gossamer.sweep.tasks import like

NEEDED = ("data", "model")
"""What must be equal for another phase to say anything."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of one worker for phases that are not done; unknown: how many there is nothing to go by for."""

    seconds: float
    unknown: int


def estimate(nodes: Iterable[PhaseNode], records: Sequence[PhaseRecord]) -> Estimate:
    """Return how long phases will take, going by finished ones that are as much like them as any."""
    times = [_seconds(node, records) for node in nodes]
    return Estimate(seconds=sum(each for each in times if each is not None), unknown=times.count(None))


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
