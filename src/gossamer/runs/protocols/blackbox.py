"""How often, and after how many queries, does a black-box attack succeed? The record, and its cells."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import Share
from gossamer.runs.results import Dataset


@dataclass(frozen=True, kw_only=True)
class Queried:
    """One sample under a black-box attack; distance: l2 to the point found, None where none was."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    index: int
    success: bool
    queries: int
    distance: float | None


@dataclass(frozen=True, kw_only=True)
class QueriedPart:
    """Some samples of one model under a black-box attack, as a finished cell."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    samples: tuple[Queried, ...]


@dataclass(frozen=True, kw_only=True)
class QueriedModel:
    """One model; asked: samples looked at until enough were right; queries: of the successes, None without one."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    asked: int
    success: Share
    median_queries: float | None
    mean_queries: float | None
    samples: tuple[Queried, ...]


@dataclass(frozen=True, kw_only=True)
class BlackBoxTable:
    """Success rates of an attack that sees outputs alone, on samples that are right when clean."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/blackbox/1"
    dataset: Dataset
    seed: int
    threat: str
    attack: dict[str, Any]
    rows: tuple[QueriedModel, ...]
    environment: dict[str, Any]
