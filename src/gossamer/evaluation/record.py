"""How is an evaluation read? The measured record, saved as JSON and printed without bare numbers."""

from dataclasses import dataclass
from pathlib import Path

from gossamer.evaluation.trials import find_parameter
from gossamer.runs import records, results
from gossamer.runs.results import AttackOutcome
from gossamer.threat import format_eps


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation(results.Evaluation):
    """What `evaluate` measured; printed, it never gives a robust accuracy without attack, threat and n."""

    def save(self, path: str | Path) -> None:
        """Write the evaluation as JSON, atomically; raises RunError where the file system refuses."""
        records.write(Path(path), self)

    def __str__(self) -> str:
        lines = [f"clean accuracy {_share(self.clean_accuracy, self.clean_interval)}, n = {self.n}"]
        lines += [_sentence(outcome) for outcome in self.attacks]
        lines += [f"  after {stage.attack}: {stage.robust_accuracy:.2%}" for stage in self.attacks[0].stages or ()]
        if len(self.attacks) > 1:
            accuracy = _share(self.robust_accuracy, self.interval)
            lines.append(f"robust accuracy {accuracy} under {self.attack} ({self.threat}, n = {self.n})")
        if self.weights:
            lines.append(f"density {self.density:.2%}: {self.nonzero:,} of {self.weights:,} weights")
        return "\n".join([*lines, *map(str, self.notices)])

    __repr__ = __str__


def _sentence(outcome: AttackOutcome) -> str:
    counts = ((name, find_parameter(outcome.parameters, f"{name}s")) for name in ("step", "restart"))
    effort = [f"{count} {name}{'s' * (count != 1)}" for name, count in counts if isinstance(count, int)]
    rejected = [f"{outcome.rejected} points rejected"] if outcome.rejected else []
    setting = ", ".join([f"{outcome.norm}, eps {format_eps(outcome.eps)}", *effort, f"n = {outcome.n}", *rejected])
    return f"robust accuracy {_share(outcome.robust_accuracy, outcome.interval)} under {outcome.attack} ({setting})"


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2%} [{interval[0]:.2%}, {interval[1]:.2%}]"
