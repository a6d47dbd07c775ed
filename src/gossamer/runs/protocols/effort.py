"""What is left of robust accuracy as an attack takes more steps and restarts? Its record."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import Share, hold
from gossamer.runs.results import Dataset, EvaluatedModel


@dataclass(frozen=True, kw_only=True)
class EffortPoint:
    """An attack of so many steps and restarts.

    raw: what this attack alone left standing; cumulative: what no attack of at most as many steps and restarts
    broke; robust: 1 where a sample stood, raw.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    steps: int
    restarts: int
    raw: Share
    cumulative: Share
    robust: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EffortRow:
    """One model under rising effort; points: by restarts, then steps, rising."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    model: EvaluatedModel
    clean: Share
    points: tuple[EffortPoint, ...]


@dataclass(frozen=True, kw_only=True)
class EffortTable:
    """Robust accuracy over the steps and restarts of one attack; attack: its other parameters."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/effort/1"
    dataset: Dataset
    seed: int
    threat: str
    eps: float
    attack: dict[str, Any]
    steps: tuple[int, ...]
    restarts: tuple[int, ...]
    rows: tuple[EffortRow, ...]
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        for row in self.rows:
            count = len(self.steps) * len(self.restarts)
            hold(len(row.points) == count, f"effort of {row.model.name}", f"{count} points", len(row.points))
