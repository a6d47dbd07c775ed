"""Does a sparse network match its dense parent? The record of both on the same samples."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from gossamer.runs import records
from gossamer.runs.protocols.common import Share, hold
from gossamer.runs.results import Dataset, EvaluatedModel, Interval

Verdict: TypeAlias = Literal["matches", "undecided", "falls short"]


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Sparse minus parent on the same n samples.

    gained, lost: samples that only the sparse, only the parent network gets right; interval: 95 %, of the difference;
    p_value: McNemar's exact test that both err equally often. verdict: `matches` where the sparse network meets or
    exceeds its parent, `falls short` where even the interval's upper end lies below 0, `undecided` between.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    sparse: Share
    parent: Share
    difference: float
    interval: Interval
    gained: int
    lost: int
    p_value: float
    verdict: Verdict

    def __post_init__(self) -> None:
        low, high = self.interval
        hold(low <= high, "paired difference", "an interval", self.interval)
        same = abs(self.difference - (self.gained - self.lost) / self.sparse.n) < 1e-9
        hold(same, "paired difference", "(gained - lost) / n", self.difference)


@dataclass(frozen=True, kw_only=True)
class MatchingRow:
    """One sparse network beside its parent."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    model: EvaluatedModel
    clean: PairedDifference
    robust: PairedDifference


@dataclass(frozen=True, kw_only=True)
class MatchingTable:
    """Sparse networks beside one dense parent, clean and under one attack."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/matching/1"
    dataset: Dataset
    seed: int
    threat: str
    attack: dict[str, Any]
    parent: EvaluatedModel
    rows: tuple[MatchingRow, ...]
    environment: dict[str, Any] = field(default_factory=dict[str, Any])
