"""What do the records of several protocols share? Shares, trials, and the models of a matrix."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.errors import RunError
from gossamer.runs import records
from gossamer.runs.results import EvaluatedModel, Interval


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of n samples, as a share in [0, 1] with its 95 % interval; right: "1" or "0" a sample, where told."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    value: float
    interval: Interval
    n: int
    right: str | None = None

    def __post_init__(self) -> None:
        low, high = self.interval
        hold(0 <= low <= self.value <= high <= 1, "share", "a value in [0, 1], inside its interval", self.value)
        if self.right is not None:
            hold(len(self.right) == self.n, "share", f"{self.n} outcomes", len(self.right))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Several trials: their values, mean, and standard deviation (n - 1), None where there is one trial.

    right: of each trial, "1" or "0" a sample, where told.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    right: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        holds = bool(self.values) and min(self.values) - 1e-9 <= self.mean <= max(self.values) + 1e-9
        hold(holds, "trials", "a mean among their values", self.mean)


@dataclass(frozen=True, kw_only=True)
class MatrixModel:
    """A row or column of a matrix; kind: the architecture, or the training adversary, by which it is coloured."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    model: EvaluatedModel
    kind: str
    clean: Share


def hold(holds: bool, subject: str, expected: str, got: object) -> None:
    """Raise RunError where the parts of a record contradict each other."""
    if not holds:
        raise RunError(subject, expected=expected, got=got, remedy="measure again: the parts contradict each other")
