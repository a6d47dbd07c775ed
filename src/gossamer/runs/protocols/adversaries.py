"""Which training adversary holds against which test adversary? The record of the matrix."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import MatrixModel, Share, hold
from gossamer.runs.results import Dataset


@dataclass(frozen=True, kw_only=True)
class TestAdversary:
    """A column: an attack by name, with its threat, eps and parameters."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT
    __test__: ClassVar[bool] = False

    name: str
    threat: str
    eps: float
    parameters: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AdversaryMatrix:
    """Models, by the adversary of their training, under test adversaries: accuracy[model][adversary]."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/adversaries/1"
    dataset: Dataset
    seed: int
    models: tuple[MatrixModel, ...]
    adversaries: tuple[TestAdversary, ...]
    accuracy: tuple[tuple[Share, ...], ...]
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        wanted = [len(self.adversaries)] * len(self.models)
        hold([len(row) for row in self.accuracy] == wanted, "adversaries", "one entry a pair", len(self.accuracy))
